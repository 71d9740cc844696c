"""From the grid to a point: bilinear on the sphere, and in the vertical linear in ln p.

Beyond the last row the neighbour lies across the pole, where the wind components change sign. Geopotential is the cubic
Hermite interpolant in ln p whose slopes are dz/dlnp = -R T (hydrostatic), so it uses temperature too.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from models.constants import GAS_CONSTANT
from models.operators.observation_set import ObservationSet
from models.specification import ChannelSpec, GridSpec

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Term = tuple[Integers, Floats]
"""Channel indices [n] and weights [n]; a sum of terms is a predictor, linear in the state."""
Predictor = list[Term]

LEVEL_TOLERANCE = 1.01  # a report at 930 hPa counts as 925 hPa
WIND = ("u", "v", "u10", "v10")


@dataclass(frozen=True)
class Vertical:
    """The channels of a state and how to interpolate between their levels."""

    channels: tuple[ChannelSpec, ...]

    @cached_property
    def index(self) -> dict[tuple[str, float | None], int]:
        return {(c.variable, c.level): i for i, c in enumerate(self.channels)}

    def levels(self, variable: str) -> list[float]:
        """hPa, from the top down; empty for a surface variable or an unknown one."""
        return sorted(c.level for c in self.channels if c.variable == variable and c.level is not None)

    def bounds(self, variable: str) -> tuple[float, float]:
        """Lowest and highest pressure (Pa) that count as between the levels."""
        levels = self.levels(variable)
        return 100.0 * levels[0] / LEVEL_TOLERANCE, 100.0 * levels[-1] * LEVEL_TOLERANCE

    def at_level(self, variable: str, level: float | None, count: int) -> Predictor:
        """The field itself, for `count` values."""
        return [(np.full(count, self.index[variable, level]), np.ones(count))]

    def at_pressure(self, variable: str, pressure: Floats) -> Predictor:
        """`variable` at `pressure` [n] (Pa; ignored for surface variables)."""
        levels = self.levels(variable)
        if not levels:
            return self.at_level(variable, None, len(pressure))
        ln_levels = np.log(100.0 * np.array(levels))
        ln_p = np.clip(np.log(pressure), ln_levels[0], ln_levels[-1])
        upper = np.clip(np.searchsorted(ln_levels, ln_p, side="right") - 1, 0, len(levels) - 2)
        width = ln_levels[upper + 1] - ln_levels[upper]
        s = (ln_p - ln_levels[upper]) / width
        of = np.array([self.index[variable, level] for level in levels])
        if variable != "z":
            return [(of[upper], 1 - s), (of[upper + 1], s)]
        temperature = np.array([self.index["t", level] for level in levels])
        slope = -GAS_CONSTANT * width
        return [
            (of[upper], 2 * s**3 - 3 * s**2 + 1),
            (of[upper + 1], 3 * s**2 - 2 * s**3),
            (temperature[upper], (s**3 - 2 * s**2 + s) * slope),
            (temperature[upper + 1], (s**3 - s**2) * slope),
        ]


@dataclass(frozen=True)
class Horizontal:
    """Four corner cells [n, 4], their weights [n, 4] and whether a corner lies across the pole [n, 4]."""

    cells: Integers
    weights: Floats
    crossed: NDArray[np.bool_]

    @classmethod
    def of(cls, observations: ObservationSet, grid: GridSpec) -> "Horizontal":
        latitudes, columns = np.array(grid.latitudes), len(grid.longitudes)
        spacing = 360.0 / columns
        x = ((observations.longitude - grid.longitudes[0]) % 360.0) / spacing
        west = np.floor(x).astype(np.int64) % columns
        east_weight = x - np.floor(x)
        extended = np.concatenate([[180.0 - latitudes[0]], latitudes, [-180.0 - latitudes[-1]]])
        north = np.clip(np.searchsorted(-extended, -observations.latitude, side="right") - 1, 0, len(extended) - 2)
        south_weight = (extended[north] - observations.latitude) / (extended[north] - extended[north + 1])
        cells, weights, crossed = [], [], []
        for step, row_weight in ((0, 1 - south_weight), (1, south_weight)):
            row = north + step - 1
            beyond = (row < 0) | (row >= len(latitudes))
            row = np.clip(row, 0, len(latitudes) - 1)
            for east, column_weight in ((0, 1 - east_weight), (1, east_weight)):
                column = (west + east + np.where(beyond, columns // 2, 0)) % columns
                cells.append(row * columns + column)
                weights.append(row_weight * column_weight)
                crossed.append(beyond)
        return cls(np.stack(cells, 1), np.stack(weights, 1), np.stack(crossed, 1))

    def select(self, rows: Integers) -> "Horizontal":
        """Of the observations with these indices."""
        return Horizontal(self.cells[rows], self.weights[rows], self.crossed[rows])

    def of_field(self, field: Floats) -> Floats:
        """A scalar field [latitude, longitude] at the observations: [n]."""
        interpolated: Floats = (field.ravel()[self.cells] * self.weights).sum(axis=1)
        return interpolated
