"""Observations: one table, one reason per value that is not used, one decoder per format."""
