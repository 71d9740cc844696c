"""Wind as a vector: u and v of one report and level together."""

import numpy as np

from service.observations.configuration import at_pressure
from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Integers, Observed

PAIRS = (("u", "v"), ("u10", "v10"))
KNOWN_DIRECTION = 3.0  # a background wind of so many of its own errors has a direction, within about 20 degrees
SURFACE_PRESSURE = 1.0e5  # Pa, where the limits of 10 m winds are read


def inconsistent_wind(observed: Observed, comparison: Comparison, setting: Setting) -> Verdict:
    """A speed that no wind has at its level (m s-1), or a direction turned (degrees) from the background's where both
    are strong."""
    limits, out = setting.configuration.checks.wind, np.zeros(len(observed), bool)
    number, limit = np.full(len(observed), np.nan), np.full(len(observed), np.nan)
    for pair in PAIRS:
        u, v = vectors(observed, *pair)
        value, background = observed.value, comparison.background
        speed, expected = np.hypot(value[u], value[v]), np.hypot(background[u], background[v])
        pressure = np.nan_to_num(observed.pressure[u], nan=SURFACE_PRESSURE)
        dot = value[u] * background[u] + value[v] * background[v]
        with np.errstate(invalid="ignore", divide="ignore"):
            degrees = np.degrees(np.arccos(np.clip(dot / (speed * expected), -1, 1)))
            turned = degrees > limits.turned
        # a background of climatology knows no direction
        known = expected > KNOWN_DIRECTION * np.nan_to_num(comparison.sigma_b[u])
        strong = known & (np.minimum(speed, expected) > limits.speed)
        fastest = at_pressure(limits.fastest, pressure)
        wrong = (speed > fastest) | (turned & strong)
        for rows in (u, v):
            out[rows[wrong]] = True
            number[rows], limit[rows] = np.where(speed > fastest, speed, degrees), limits.turned
            limit[rows[speed > fastest]] = fastest[speed > fastest]
    return Verdict(out, number, limit)


def vectors(observed: Observed, east: str, north: str) -> tuple[Integers, Integers]:
    """The rows of u and of v of the same report and level, as far as both are there: [pair], [pair]."""
    rows = np.flatnonzero(observed.has("variable", east, north))
    is_north = observed.has("variable", north)[rows]
    keys = [observed.names(name)[1][rows] for name in ("type", "station", "source")]
    keys += [observed.microseconds()[rows]]
    keys += [np.nan_to_num(observed.number(name)[rows]) for name in ("latitude", "longitude", "pressure", "height")]
    order = np.lexsort((is_north, *keys))
    same = np.ones(max(len(order) - 1, 0), bool)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    first = np.flatnonzero(same & ~is_north[order][:-1] & is_north[order][1:])
    return rows[order[first]], rows[order[first + 1]]
