"""The top floor of the house: the command line (`alignda ...`) and the Python client (`alignda.client.Client`)."""
