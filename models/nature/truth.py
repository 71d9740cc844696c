"""The true state at any point of the sphere, level and time: bilinear in latitude and longitude (periodic), linear in
time and in ln p; geopotential between levels is the cubic whose slopes are dz/dlnp = -R T (plain linear would be
off by 40 m at 400 hPa). This is also what the simulated observations mean by "exact".
"""

from datetime import UTC, datetime

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from models.constants import EARTH_RADIUS, GAS_CONSTANT

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]

HIGHEST_LATITUDE = 87.0  # degrees; observations are not interpolated over the poles
UPPER_AIR, SURFACE = ("z", "q", "u", "v", "t"), ("u10", "v10", "t2m", "sp")


class TruthError(ValueError):
    """The states do not cover what was asked for; the text says what is missing."""


class Truth:
    """Interpolation in a few consecutive states of the nature run.

    Args:
        states: dims (time, level, latitude, longitude); level in hPa, latitude north to south, longitude [0, 360)
            in equal steps; z q u v t on levels, u10 v10 t2m sp, and orography and lsm without time.

    Raises:
        TruthError: a variable is missing or an axis is not as described.
    """

    def __init__(self, states: xr.Dataset) -> None:
        missing = [name for name in (*UPPER_AIR, *SURFACE, "orography", "lsm") if name not in states]
        if missing:
            raise TruthError(f"the states lack {', '.join(missing)}")
        self.times: Times = np.atleast_1d(states["time"].values.astype("datetime64[us]"))
        self.latitudes: Floats = states["latitude"].values.astype(np.float64)
        self.longitude_step = 360.0 / states.sizes["longitude"]
        if np.any(np.diff(self.latitudes) >= 0) or states["longitude"].values[0] != 0.0:
            raise TruthError("latitude must run north to south and longitude from 0 east")
        by_pressure = states.sortby("level")
        self.pressures: Floats = by_pressure["level"].values.astype(np.float64) * 100.0
        self._upper = {
            name: by_pressure[name].transpose("time", "level", "latitude", "longitude").values for name in UPPER_AIR
        }
        self._surface = {name: states[name].transpose("time", "latitude", "longitude").values for name in SURFACE}
        self._static = {name: states[name].transpose("latitude", "longitude").values for name in ("orography", "lsm")}

    def upper_air(
        self, variable: str, time: Times, latitude: ArrayLike, longitude: ArrayLike, pressure: ArrayLike
    ) -> Floats:
        """An upper-air variable (SI) at points [n]; NaN where the pressure (Pa) is not between two levels."""
        wanted = np.asarray(pressure, dtype=np.float64)
        lower = np.clip(np.searchsorted(self.pressures, wanted, side="right") - 1, 0, len(self.pressures) - 2)
        ln_p = np.log(self.pressures)
        weight = (np.log(wanted) - ln_p[lower]) / (ln_p[lower + 1] - ln_p[lower])
        inside = (wanted >= self.pressures[0]) & (wanted <= self.pressures[-1])
        field = self._upper[variable]
        above, below = (self._in_time(field, time, latitude, longitude, index) for index in (lower, lower + 1))
        value = above * (1 - weight) + below * weight
        if variable == "z":
            temperature = self._upper["t"]
            upper_t, lower_t = (
                self._in_time(temperature, time, latitude, longitude, index) for index in (lower, lower + 1)
            )
            slope = -GAS_CONSTANT * (ln_p[lower + 1] - ln_p[lower])
            bend = weight * (1 - weight)
            # the Hermite cubic, written as its chord plus what the slopes at both ends add
            value = value + bend * (
                (1 - weight) * (slope * upper_t - (below - above)) - weight * (slope * lower_t - (below - above))
            )
        return np.where(inside, value, np.nan)

    def surface(self, variable: str, time: Times, latitude: ArrayLike, longitude: ArrayLike) -> Floats:
        """A surface variable (SI) at points [n]."""
        return self._in_time(self._surface[variable], time, latitude, longitude, None)

    def static(self, name: str, latitude: ArrayLike, longitude: ArrayLike) -> Floats:
        """`orography` (m) or `lsm` (0-1) at points [n]."""
        rows, columns, weights = self._corners(latitude, longitude)
        result = np.zeros(rows[0].shape)
        for r, c, w in zip(rows, columns, weights, strict=True):
            result += w * self._static[name][r, c]
        return result

    def _in_time(
        self, field: NDArray[np.floating], time: Times, latitude: ArrayLike, longitude: ArrayLike,
        level: NDArray[np.intp] | None,
    ) -> Floats:  # fmt: skip
        first, weight = self._time_weights(time)
        rows, columns, weights = self._corners(latitude, longitude)
        result = np.zeros(np.broadcast(first, rows[0]).shape)
        last = len(self.times) - 1
        for index, share in ((first, 1 - weight), (np.minimum(first + 1, last), weight)):
            for r, c, w in zip(rows, columns, weights, strict=True):
                values = field[index, r, c] if level is None else field[index, level, r, c]
                result += share * w * values
        return result

    def _time_weights(self, time: Times) -> tuple[NDArray[np.intp], Floats]:
        wanted = np.asarray(time, dtype="datetime64[us]")
        if wanted.size and (wanted.min() < self.times[0] or wanted.max() > self.times[-1]):
            raise TruthError(
                f"states from {self.times[0]} to {self.times[-1]} do not reach from {wanted.min()} to {wanted.max()}"
            )
        first = np.clip(np.searchsorted(self.times, wanted, side="right") - 1, 0, max(len(self.times) - 2, 0))
        if len(self.times) == 1:
            return first, np.zeros(wanted.shape)
        width = (self.times[first + 1] - self.times[first]).astype(np.float64)
        return first, (wanted - self.times[first]).astype(np.float64) / width

    def _corners(
        self, latitude: ArrayLike, longitude: ArrayLike
    ) -> tuple[list[NDArray[np.intp]], list[NDArray[np.intp]], list[Floats]]:
        lat = np.asarray(latitude, dtype=np.float64)
        north = np.clip(np.searchsorted(-self.latitudes, -lat, side="right") - 1, 0, len(self.latitudes) - 2)
        # beyond the first and last row of a Gaussian grid the nearest row holds
        south_share = (self.latitudes[north] - lat) / (self.latitudes[north] - self.latitudes[north + 1])
        south_share = np.clip(south_share, 0.0, 1.0)
        columns = round(360.0 / self.longitude_step)
        position = np.asarray(longitude, dtype=np.float64) % 360.0 / self.longitude_step
        west = (
            np.floor(np.nan_to_num(position)).astype(np.intp) % columns
        )  # where it is not known, the share is NaN too
        east_share = position - np.floor(position)
        east = (west + 1) % columns
        rows = [north, north, north + 1, north + 1]
        return rows, [west, east, west, east], [
            (1 - south_share) * (1 - east_share), (1 - south_share) * east_share,
            south_share * (1 - east_share), south_share * east_share,
        ]  # fmt: skip


def great_circle(start: tuple[float, float], end: tuple[float, float], fraction: ArrayLike) -> tuple[Floats, Floats]:
    """(latitude, longitude in [-180, 180)) at a fraction (0-1, [n]) of the great circle between two points (degrees)."""
    a, b = (_unit_vector(point) for point in (start, end))
    angle = np.arccos(np.clip(a @ b, -1.0, 1.0))
    f = np.asarray(fraction, dtype=np.float64)[:, None]
    point = (np.sin((1 - f) * angle) * a + np.sin(f * angle) * b) / np.sin(angle)
    latitude = np.rad2deg(np.arcsin(np.clip(point[:, 2], -1.0, 1.0)))
    return latitude, (np.rad2deg(np.arctan2(point[:, 1], point[:, 0])) + 180.0) % 360.0 - 180.0


def great_circle_distance(start: tuple[float, float], end: tuple[float, float]) -> float:
    """Metres between two points (degrees)."""
    return float(EARTH_RADIUS * np.arccos(np.clip(_unit_vector(start) @ _unit_vector(end), -1.0, 1.0)))


def _unit_vector(point: tuple[float, float]) -> Floats:
    latitude, longitude = np.deg2rad(point)
    return np.array(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], dtype=np.float64
    )


def to_datetime64(time: datetime) -> np.datetime64:
    """A datetime (aware: turned to UTC; naive: is UTC) as datetime64[us]."""
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time, "us")
