"""Geometry of the sphere on a latitude-longitude grid (latitudes north to south)."""

import numpy as np
import torch
from numpy.typing import NDArray

EARTH_RADIUS = 6.371229e6  # m, the sphere of GRIB2 code table 3.2 value 6
OMEGA = 7.292115e-5  # s-1
GRAVITY = 9.80665  # m s-2
GAS_CONSTANT = 287.0597  # J kg-1 K-1, dry air


def area_weights(latitudes: NDArray[np.float64]) -> torch.Tensor:
    """Area of each latitude row relative to the mean row: [latitude], mean 1 (cells end half-way between rows)."""
    edges = np.concatenate([[90.0], 0.5 * (latitudes[1:] + latitudes[:-1]), [-90.0]])
    area = np.sin(np.deg2rad(edges[:-1])) - np.sin(np.deg2rad(edges[1:]))
    return torch.tensor(area / area.mean(), dtype=torch.float32)
