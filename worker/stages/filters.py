"""The filters of quality control, in order. Each names its reason; a value keeps the first reason it gets.

A filter is a function of the observed values that tells which of them it rejects.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from service.experiments import ExperimentConfig
from service.observations.checks import RANGES
from service.observations.reasons import Reason
from service.observations.window import duplicates
from worker.stages.observed import Bools, Doubles, Observed

GEOPOTENTIAL_MARGIN = 2.0e4  # m2 s-2 around the ICAO standard atmosphere; the real one stays within about 1.4e4
FEWEST_FOR_STATISTICS = 30  # values; below, the departures of a variable say nothing about the background


@dataclass(frozen=True)
class Comparison:
    """The values beside the background: H(x_b), the spread of its members and the error to be expected of it and of
    the observation, each [n]; nan where the model has no equivalent."""

    background: Doubles
    spread: Doubles
    background_error: Doubles
    observation_error: Doubles

    def where(self, chosen: Bools) -> "Comparison":
        return Comparison(**{name: column[chosen] for name, column in vars(self).items()})


Rejects = Callable[[Observed, Comparison, ExperimentConfig], Bools]


@dataclass(frozen=True)
class Filter:
    """One check: its name in the counts, the reason it gives, and what it rejects."""

    name: str
    reason: Reason
    rejects: Rejects


def missing_value(observed: Observed, *_: Any) -> Bools:
    """No value, or neither its own nor a default error."""
    return ~(np.isfinite(observed.value) & np.isfinite(observed.error) & (observed.error > 0))


def impossible_position(observed: Observed, *_: Any) -> Bools:
    """Not on the globe, or an upper-air value without a level."""
    latitude, longitude = observed.number("latitude"), observed.number("longitude")
    on_globe = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 360)
    surface = np.isin(observed.variable, ("sp", "t2m", "u10", "v10"))
    return np.asarray(~(on_globe & (surface | (observed.pressure > 0))))


def out_of_range(observed: Observed, *_: Any) -> Bools:
    """Outside the RANGES of arrival, or a geopotential that no atmosphere has at its pressure."""
    bounds = np.array([RANGES.get(str(name), (-np.inf, np.inf)) for name in observed.variable]).reshape(-1, 2)
    outside = (observed.value < bounds[:, 0]) | (observed.value > bounds[:, 1])
    standard = standard_geopotential(observed.pressure)
    far = np.abs(observed.value - standard) > GEOPOTENTIAL_MARGIN
    return np.asarray(outside | ((observed.variable == "z") & np.isfinite(standard) & far))


def unwanted_type(observed: Observed, _: Comparison, config: ExperimentConfig) -> Bools:
    """A report type that the experiment does not use."""
    if config.use_types is None:
        return np.zeros(len(observed), bool)
    return ~np.isin(observed.type, config.use_types)


def duplicate(observed: Observed, *_: Any) -> Bools:
    """Received before."""
    return duplicates(observed.table)


def outside_domain(observed: Observed, comparison: Comparison, _: ExperimentConfig) -> Bools:
    """The model has no equivalent: its level is not bracketed, or it knows no such variable."""
    return ~np.isfinite(comparison.background)


def gross_error(observed: Observed, comparison: Comparison, config: ExperimentConfig) -> Bools:
    """|O-B| > k sqrt(observation error^2 + background error^2); of the background, the largest that can be told."""
    departure = observed.value - comparison.background
    told_by_departures = background_error_from(departure, observed)
    background_error = np.fmax(np.fmax(comparison.spread, comparison.background_error), told_by_departures)
    limit = config.gross_check_sigma * np.sqrt(comparison.observation_error**2 + background_error**2)
    return np.asarray(np.abs(departure) > limit)


def withheld(observed: Observed, _: Comparison, config: ExperimentConfig) -> Bools:
    """Whole stations, chosen by their name and the experiment's seed: the same ones in every cycle."""
    if config.withheld_fraction == 0:
        return np.zeros(len(observed), bool)
    names, index = np.unique(observed.station, return_inverse=True)
    share = np.array([crc32(f"{config.seed}/{name}".encode()) / 2**32 for name in names])
    return np.asarray((share < config.withheld_fraction)[index])


FILTERS: tuple[Filter, ...] = (
    Filter("missing value", Reason.MISSING_VALUE, missing_value),
    Filter("position", Reason.POSITION_INVALID, impossible_position),
    Filter("range", Reason.RANGE, out_of_range),
    Filter("type", Reason.NOT_USED_BY_EXPERIMENT, unwanted_type),
    Filter("duplicate", Reason.DUPLICATE, duplicate),
    Filter("domain", Reason.OUTSIDE_DOMAIN, outside_domain),
    Filter("gross check", Reason.FIRST_GUESS, gross_error),
    # last, so that what is kept back for verification has passed every check
    Filter("withheld", Reason.WITHHELD, withheld),
)


def background_error_from(departure: Doubles, observed: Observed) -> Doubles:
    """What the departures themselves say about the background's error, per variable and layer: [n].

    sqrt(max(0, (1.4826 MAD(O-B))^2 - mean error^2)); 0 where fewer than FEWEST_FOR_STATISTICS values can tell. A
    background without spread, or with too little, must not make a filter throw good observations away.
    """
    estimate = np.zeros(len(observed))
    layer = np.nan_to_num(np.round(np.log2(observed.pressure / 1e5) * 2), nan=9.0)
    for name in np.unique(observed.variable):
        for which in np.unique(layer[observed.variable == name]):
            group = (observed.variable == name) & (layer == which) & np.isfinite(departure)
            if group.sum() < FEWEST_FOR_STATISTICS:
                continue
            some = departure[group]
            robust = 1.4826 * np.median(np.abs(some - np.median(some)))
            excess = robust**2 + np.median(some) ** 2 - np.mean(observed.error[group] ** 2)
            estimate[group] = np.sqrt(max(0.0, excess))
    return estimate


def standard_geopotential(pressure: Doubles) -> Doubles:
    """Geopotential (m2 s-2) at `pressure` (Pa) in the ICAO standard atmosphere (ISO 2533), to 20 km; nan kept."""
    gravity, gas = 9.80665, 287.053
    with np.errstate(invalid="ignore", divide="ignore"):
        below = 288.15 / 0.0065 * (1 - (pressure / 101325.0) ** (gas * 0.0065 / gravity))
        above = 11000.0 + gas * 216.65 / gravity * np.log(22632.06 / pressure)
    return gravity * np.where(pressure > 22632.06, below, above)
