"""Geometry of the sphere on a latitude-longitude grid (latitudes north to south)."""

import numpy as np
import torch
from numpy.typing import NDArray


def area_weights(latitudes: NDArray[np.float64]) -> torch.Tensor:
    """Area of each latitude row relative to the mean row: [latitude], mean 1 (cells end half-way between rows)."""
    edges = np.concatenate([[90.0], 0.5 * (latitudes[1:] + latitudes[:-1]), [-90.0]])
    area = np.sin(np.deg2rad(edges[:-1])) - np.sin(np.deg2rad(edges[1:]))
    return torch.tensor(area / area.mean(), dtype=torch.float32)
