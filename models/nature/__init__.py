"""The atmosphere of the default bundle: the SPEEDY nature run and its simulated observing network."""
