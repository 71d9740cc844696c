"""Polar-orbiting microwave sounders: where they look in a window, and what their channels see of the truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.constants import EARTH_RADIUS
from models.nature.truth import HIGHEST_LATITUDE, Floats, Times, Truth
from models.operators.layers import channel_weights

PERIOD_SECONDS, INCLINATION = 101.4 * 60.0, np.deg2rad(98.7)  # of a sun-synchronous orbit 830 km up
EQUATOR_CROSSINGS = {"SAT-AM": 9.5, "SAT-PM": 13.5}  # local solar hour going north
SECONDS_BETWEEN_SCANS = 90.0  # 600 km on the ground
ACROSS_TRACK = np.array([-825.0, -275.0, 275.0, 825.0]) * 1000.0  # m
PEAKS = np.array([850.0, 700.0, 400.0, 250.0, 150.0]) * 100.0  # Pa, about AMSU-A's channels 4 to 8
OVER_SEA_ONLY = (
    80_000.0  # Pa; a channel that peaks below sees too much of the ground, whose emissivity is known at sea only
)
ABOVE_GROUND = 1.2  # a channel is used where the ground's pressure is this many times its peak's
_EPOCH = np.datetime64("2000-01-01", "us")


@dataclass(frozen=True)
class Spots:
    """Where and when the sounders look: all [n]."""

    station: NDArray[np.str_]
    time: Times
    latitude: Floats
    longitude: Floats


def spots(start: np.datetime64, end: np.datetime64) -> Spots:
    """The spots of all satellites in [start, end).

    The orbit precesses with the mean sun, so that each satellite crosses the equator at its own solar hour; scans lie at
    fixed times since an epoch, so that windows join without gap or repetition.
    """
    names, times, latitudes, longitudes = [], [], [], []
    first, last = ((t.astype("datetime64[us]") - _EPOCH) / np.timedelta64(1, "s") for t in (start, end))
    scans = np.arange(np.ceil(first / SECONDS_BETWEEN_SCANS), np.ceil(last / SECONDS_BETWEEN_SCANS))
    seconds = np.repeat(scans * SECONDS_BETWEEN_SCANS, len(ACROSS_TRACK))
    aside = np.tile(ACROSS_TRACK / EARTH_RADIUS, len(scans))
    for name, crossing in EQUATOR_CROSSINGS.items():
        u = 2.0 * np.pi * ((seconds / PERIOD_SECONDS) % 1.0)  # angle since the equator was crossed
        # in a frame that turns with the mean sun: along x the ascending node, along z the pole
        track = np.stack([np.cos(u), np.sin(u) * np.cos(INCLINATION), np.sin(u) * np.sin(INCLINATION)])
        normal = np.array([0.0, -np.sin(INCLINATION), np.cos(INCLINATION)])[:, None]
        x, y, z = track * np.cos(aside) + normal * np.sin(aside)
        utc_hours = seconds / 3600.0 % 24.0
        longitude = np.rad2deg(np.arctan2(y, x)) + 15.0 * (crossing - utc_hours)
        names.append(np.full(len(seconds), name))
        times.append(_EPOCH + np.round(seconds).astype("timedelta64[s]"))
        latitudes.append(np.round(np.rad2deg(np.arcsin(z)), 2))
        longitudes.append(np.round((longitude + 180.0) % 360.0 - 180.0, 2))
    found = Spots(*(np.concatenate(parts) for parts in (names, times, latitudes, longitudes)))
    seen = np.flatnonzero(np.abs(found.latitude) < HIGHEST_LATITUDE)
    return Spots(found.station[seen], found.time[seen], found.latitude[seen], found.longitude[seen])


def brightness(truth: Truth, where: Spots, peak: float) -> Floats:
    """Brightness temperature (K) of a channel that peaks at `peak` (Pa): [n], by its weights of the truth's levels."""
    n = len(where.time)
    weights = channel_weights(np.log(truth.pressures), np.array([peak]))[0]
    total = np.zeros(n)
    for pressure, weight in zip(truth.pressures, weights, strict=True):
        level = np.full(n, pressure)
        total += weight * truth.upper_air("t", where.time, where.latitude, where.longitude, level)
    return total


def usable(truth: Truth, where: Spots, peak: float) -> NDArray[np.bool_]:
    """Where a channel that peaks at `peak` (Pa) does not depend on an unknown ground: [n]."""
    if peak > OVER_SEA_ONLY:
        return np.asarray(truth.static("lsm", where.latitude, where.longitude) < 0.5)
    return np.asarray(truth.surface("sp", where.time, where.latitude, where.longitude) > ABOVE_GROUND * peak)
