"""`alignda demo`: the whole loop on six days of the held-out year, or on real radiosondes with `--real`."""
