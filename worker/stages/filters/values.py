"""What a value tells by itself: is it there, at a possible place and time, and of a possible size?"""

from typing import Any

import numpy as np

from service.observations.checks import RANGES
from service.observations.configuration.model import Limits
from service.observations.table import SURFACE_VARIABLES
from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Bools, Doubles, Observed

GRAVITY, GAS = 9.80665, 287.053
GEOPOTENTIAL_MARGIN = 2.0e4  # m2 s-2 around the ICAO standard atmosphere; the real one stays within about 1.4e4
ORIGIN = "buoy"  # there are moored buoys at 0 N 0 E; of anything else that position is a missing one


def missing_value(observed: Observed, *_: Any) -> Bools:
    """No value, or neither its own nor a default error."""
    return ~(np.isfinite(observed.value) & np.isfinite(observed.error) & (observed.error > 0))


def impossible_position(observed: Observed, *_: Any) -> Bools:
    """Not on the globe, at exactly 0 N 0 E (but for buoys), or an upper-air value without a level."""
    latitude, longitude = observed.number("latitude"), observed.number("longitude")
    on_globe = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)
    at_origin = (latitude == 0) & (longitude == 0) & ~observed.has("type", ORIGIN)
    surface = observed.has("variable", *SURFACE_VARIABLES)
    return np.asarray(~(on_globe & ~at_origin & (surface | (observed.pressure > 0))))


def impossible_time(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """Valid later than it was received, by more than clocks differ (minutes)."""
    ahead = observed.microseconds("time") - observed.microseconds("receipt_time")
    known = observed.microseconds("receipt_time") > np.iinfo(np.int64).min
    limit = setting.configuration.checks.ahead_minutes
    return Verdict(known & (ahead > limit * 6e7), np.where(known, ahead / 6e7, np.nan), np.full(len(observed), limit))


def outside_window(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """Outside the window of its type, where that is narrower than the experiment's (hours from the analysis)."""
    hours, out = observed.hours_from(setting.valid_time), np.zeros(len(observed), bool)
    limit = np.full(len(observed), np.nan)
    for kind, _entry, rows in setting.entries(observed):
        if kind.window_hours is not None:
            start, end = kind.window_hours
            out[rows] = (hours[rows] < start) | (hours[rows] >= end)
            limit[rows] = np.where(hours[rows] < start, start, end)
    return Verdict(out, hours, limit)


def out_of_range(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """Outside RANGES of arrival or the type's limits, or a geopotential that no atmosphere has at its pressure."""
    value, pressure = observed.value, observed.pressure
    lowest, highest = np.full(len(observed), -np.inf), np.full(len(observed), np.inf)
    for _kind, variable, rows in observed.pairs():
        lowest[rows], highest[rows] = RANGES.get(variable, (-np.inf, np.inf))
    for _type, entry, rows in setting.entries(observed):
        if entry is not None and entry.limits is not None:
            low, high = bounds_at(entry.limits, pressure[rows])
            lowest[rows], highest[rows] = np.fmax(lowest[rows], low), np.fmin(highest[rows], high)
    standard = np.where(observed.has("variable", "z"), standard_geopotential(pressure), np.nan)
    lowest, highest = np.fmax(lowest, standard - GEOPOTENTIAL_MARGIN), np.fmin(highest, standard + GEOPOTENTIAL_MARGIN)
    return Verdict((value < lowest) | (value > highest), value, np.where(value < lowest, lowest, highest))


def level_inconsistent(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """A height that does not belong to its pressure (m)."""
    furthest = setting.configuration.checks.level.furthest
    off = np.abs(observed.number("height") - standard_geopotential(observed.pressure) / GRAVITY)
    with np.errstate(invalid="ignore"):
        return Verdict(off > furthest, off, np.full(len(observed), furthest))


def bounds_at(limits: Limits, pressure: Doubles) -> tuple[Doubles, Doubles]:
    """(lowest, highest) possible value at `pressure` (Pa; nan at the surface), each [n]."""
    if not isinstance(limits, dict):
        return np.full(pressure.shape, limits[0]), np.full(pressure.shape, limits[1])
    levels = np.array(sorted(limits))
    with np.errstate(invalid="ignore", divide="ignore"):
        ln_p = np.log(pressure / 100.0)
    low, high = (np.interp(ln_p, np.log(levels), [limits[level][end] for level in levels]) for end in (0, 1))
    return low, high


def standard_geopotential(pressure: Doubles) -> Doubles:
    """Geopotential (m2 s-2) at `pressure` (Pa) in the ICAO standard atmosphere (ISO 2533), to 20 km; nan kept."""
    with np.errstate(invalid="ignore", divide="ignore"):
        below = 288.15 / 0.0065 * (1 - (pressure / 101325.0) ** (GAS * 0.0065 / GRAVITY))
        above = 11000.0 + GAS * 216.65 / GRAVITY * np.log(22632.06 / pressure)
    return np.asarray(GRAVITY * np.where(pressure > 22632.06, below, above))
