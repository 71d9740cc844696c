"""Observed values as arrays, and where they lie."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SURFACE = ("sp", "msl", "t2m", "td2m", "rh2m", "u10", "v10", "ws10", "wdir10")


@dataclass(frozen=True)
class ObservationSet:
    """Observed values, one entry each: arrays of equal length n.

    `pressure` in Pa, NaN for surface variables and where only a height is known; `error` the 1-sigma error in the unit
    of `value` (SI); `time_offset` in hours from the valid time of the analysis; `height` in m above sea level (of the
    station, or of the value where there is no pressure), NaN: unknown; `pressure_top` in Pa, the upper end of a layer
    whose lower end is `pressure`.
    """

    variable: NDArray[np.str_]
    pressure: Floats
    latitude: Floats
    longitude: Floats
    value: Floats
    error: Floats
    time_offset: Floats | None = field(default=None)
    height: Floats | None = field(default=None)
    pressure_top: Floats | None = field(default=None)

    def __len__(self) -> int:
        return len(self.value)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "ObservationSet":
        """The entries where `keep` is true, or with these indices."""
        chosen: dict[str, Any] = {}
        for f in fields(self):
            column = getattr(self, f.name)
            chosen[f.name] = None if column is None else column[keep]
        return ObservationSet(**chosen)

    def given(self, name: str) -> Floats:
        """An optional column, NaN where it is not given: [n]."""
        column = getattr(self, name)
        return np.full(len(self), np.nan) if column is None else np.asarray(column, np.float64)

    def by_height(self) -> NDArray[np.bool_]:
        """Which upper-air values lie at a height and not at a pressure: [n]."""
        return ~np.isin(self.variable, SURFACE) & ~np.isfinite(self.pressure) & np.isfinite(self.given("height"))

    def nominal_pressure(self) -> Floats:
        """About where each value lies, Pa: [n]; NaN at the surface.

        The pressure; the standard atmosphere's at a height; the middle in ln p of a layer.
        """
        top = self.given("pressure_top")
        middle = np.where(np.isfinite(top), np.sqrt(self.pressure * top), self.pressure)
        return np.where(self.by_height(), standard_pressure(self.given("height")), middle)


def standard_pressure(height: Floats) -> Floats:
    """Pressure (Pa) of the ICAO standard atmosphere (Doc 7488) at a geopotential height (m) up to 20 km."""
    with np.errstate(invalid="ignore"):
        troposphere = 101325.0 * np.maximum(1.0 - 0.0065 * height / 288.15, 1e-6) ** 5.25588
        stratosphere = 22632.06 * np.exp(-9.80665 * (height - 11000.0) / (287.05287 * 216.65))
    return np.where(height <= 11000.0, troposphere, stratosphere)
