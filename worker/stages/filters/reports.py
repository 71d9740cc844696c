"""Which reports are wanted at all."""

from fnmatch import fnmatchcase
from zlib import crc32

import numpy as np

from service.observations.configuration import Denied, Usage
from worker.stages.filters.case import Comparison, Setting
from worker.stages.observed import Bools, Observed


def unwanted(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """A report type or variable that the experiment does not use."""
    out = np.zeros(len(observed), bool)
    for kind, variable, rows in observed.pairs():
        use_types = setting.config.use_types
        out[rows] = (use_types is not None and kind not in use_types) or (
            setting.configuration.usage(kind, variable) is Usage.REJECT
        )
    return out


def monitored(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """Of a type or variable that is compared only."""
    out = np.zeros(len(observed), bool)
    for kind, variable, rows in observed.pairs():
        out[rows] = setting.configuration.usage(kind, variable) is Usage.MONITOR
    return out


def denied(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """On the denylist."""
    out = np.zeros(len(observed), bool)
    for entry in setting.configuration.denylist:
        out |= _matches(observed, entry)
    return out


def _matches(observed: Observed, entry: Denied) -> Bools:
    matching = np.ones(len(observed), bool)
    if entry.station is not None:
        names, index = observed.names("station")
        matching &= np.array([fnmatchcase(name, entry.station) for name in names], bool)[index]
    if entry.type is not None:
        matching &= observed.has("type", entry.type)
    if entry.variables:
        matching &= observed.has("variable", *entry.variables)
    time = observed.microseconds()
    if entry.start is not None:
        matching &= time >= entry.start.timestamp() * 1e6
    if entry.end is not None:
        matching &= time < entry.end.timestamp() * 1e6
    return matching


def outside_domain(observed: Observed, comparison: Comparison, _: Setting) -> Bools:
    """The model has no equivalent: its level is not bracketed, or it knows no such variable."""
    return ~np.isfinite(comparison.background)


def withheld(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """Whole stations, chosen by their name and the experiment's seed: the same ones in every cycle."""
    if setting.config.withheld_fraction == 0:
        return np.zeros(len(observed), bool)
    names, index = observed.names("station")
    share = np.array([crc32(f"{setting.config.seed}/{name}".encode()) / 2**32 for name in names])
    return np.asarray((share < setting.config.withheld_fraction)[index])
