"""Random values of the grid as observations: the paper's protocol (Align-DA, arXiv 2505.22008)."""

import numpy as np
from numpy.typing import NDArray

from models.observation_operator import ObservationSet
from models.specification import BundleSpec

SMALLEST_ERROR = 0.01  # in units of `total_std`, as every method is told it


def random_values(
    state: NDArray[np.floating],
    spec: BundleSpec,
    total_std: NDArray[np.floating],
    fraction: float,
    error: float,
    generator: np.random.Generator,
) -> ObservationSet:
    """A share `fraction` of all values of `state` [channel, latitude, longitude] (SI), observed at their grid points.

    `error` in units of `total_std` [channel] (SI) is the standard deviation of the noise. The methods are told that
    error, but never less than `SMALLEST_ERROR`: without an error R has no inverse (some methods add what the
    autoencoder cannot carry, `Assimilator.observation_error`).
    """
    chosen = np.sort(generator.choice(state.size, round(fraction * state.size), replace=False))
    channel, row, column = np.unravel_index(chosen, state.shape)
    scale = np.asarray(total_std, np.float64)[channel]
    levels = np.array([np.nan if c.level is None else 100.0 * c.level for c in spec.channels])
    return ObservationSet(
        variable=np.array([c.variable for c in spec.channels])[channel],
        pressure=levels[channel],
        latitude=np.array(spec.grid.latitudes)[row],
        longitude=np.array(spec.grid.longitudes)[column],
        value=state.reshape(-1)[chosen] + error * scale * generator.standard_normal(len(chosen)),
        error=max(error, SMALLEST_ERROR) * scale,
    )
