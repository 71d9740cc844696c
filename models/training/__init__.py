"""Recipes that make a bundle from a nature run: `alignda train --config ...`."""
