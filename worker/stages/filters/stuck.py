"""Sensors that say the same again and again."""

import numpy as np

from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Doubles, Observed

SMALLEST_HUMIDITY = 1e-4  # kg kg-1; drier air is reported in few digits
DIRECTIONLESS = ("u", "v", "u10", "v10")  # zero is calm, not stuck


def stuck(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """The same value on several levels in a row (how many), or from cycle to cycle (for how many hours)."""
    limits = setting.configuration.checks.stuck
    levels, hours = along_levels(observed, setting), over_cycles(observed, setting)
    number = np.where(np.isfinite(levels), levels, hours)
    limit = np.where(np.isfinite(levels), float(limits.levels), limits.hours)
    return Verdict(np.isfinite(number), number, limit)


def along_levels(observed: Observed, setting: Setting) -> Doubles:
    """How many in a row each stuck value belongs to [n], nan for the rest: `levels` or more equal values in a row of one station that span `depth` of ln p."""
    limits, pressure, value = setting.configuration.checks.stuck, observed.pressure, observed.value
    out = np.full(len(observed), np.nan)
    humid = ~observed.has("variable", "q") | (value > SMALLEST_HUMIDITY)
    moving = ~observed.has("variable", *DIRECTIONLESS) | (value != 0)
    rows = np.flatnonzero((pressure > 0) & humid & moving & observed.has("type", "temp", "pilot", "amdar"))
    if not len(rows):
        return out
    keys = [observed.names(name)[1][rows] for name in ("type", "station", "variable")]
    order = np.lexsort((-pressure[rows], observed.microseconds()[rows], *keys))
    change = np.ones(len(order), bool)
    change[1:] = value[rows][order][1:] != value[rows][order][:-1]
    for key in keys:
        change[1:] |= key[order][1:] != key[order][:-1]
    run = np.cumsum(change) - 1
    length = np.bincount(run)
    ln_p = np.log(pressure[rows][order])
    low, high = np.full(len(length), np.inf), np.full(len(length), -np.inf)
    np.minimum.at(low, run, ln_p)
    np.maximum.at(high, run, ln_p)
    long = (length >= limits.levels) & (high - low >= limits.depth)
    out[rows[order]] = np.where(long, length, np.nan)[run]
    return out


def over_cycles(observed: Observed, setting: Setting) -> Doubles:
    """For how many hours each stuck value has not changed [n], nan for the rest.

    Stuck is the value that the station has reported, unchanged, for `hours` in `reports` before this one.
    """
    out = np.full(len(observed), np.nan)
    if not setting.unchanged:
        return out
    limits = setting.configuration.checks.stuck
    (stations, station), value = observed.names("station"), observed.value
    codes = {str(name): code for code, name in enumerate(stations)}
    for kind, variable, rows in observed.pairs():
        same, since = np.full(len(stations), np.nan), np.full(len(stations), np.nan)
        for (a_kind, name, a_variable), known in setting.unchanged.items():
            hours = (setting.valid_time.timestamp() * 1e6 - known.since) / 3.6e9
            long = known.reports >= limits.reports and hours >= limits.hours
            if (a_kind, a_variable) == (kind, variable) and long and name in codes:
                same[codes[name]], since[codes[name]] = known.value, hours
        calm = np.isin(variable, DIRECTIONLESS) & (value[rows] == 0)
        unchanged = (value[rows].astype(np.float32) == same[station[rows]].astype(np.float32)) & ~calm
        out[rows] = np.where(unchanged, since[station[rows]], np.nan)
    return out
