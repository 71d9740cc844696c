"""Which reports are wanted at all."""

from fnmatch import fnmatchcase
from zlib import crc32

import numpy as np

from service.observations.configuration import Denied, Usage
from worker.stages.filters.case import Comparison, Setting, Verdict
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


def kept_away(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """Of a type and variable that this experiment does without, to see what they are worth."""
    out, denial = np.zeros(len(observed), bool), setting.config.denied
    if denial is not None:
        for kind, variable, rows in observed.pairs():
            out[rows] = denial.covers(kind, variable)
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


def withheld(observed: Observed, _: Comparison, setting: Setting) -> Bools | Verdict:
    """Whole stations, chosen by their name and a seed: the same ones in every cycle (the station's number in [0, 1)).

    Reports that name no station are never withheld: others of the same platform would be assimilated.
    """
    config, wanted = setting.config, setting.configuration.withheld
    general = config.withheld_fraction if wanted.share is None else wanted.share
    limit = np.full(len(observed), general)
    for kind, _entry, rows in setting.entries(observed):
        if kind.withheld is not None:
            limit[rows] = kind.withheld
    if not limit.any():
        return np.zeros(len(observed), bool)
    seed = config.seed if wanted.seed is None else wanted.seed
    names, index = observed.names("station")
    share = np.array([crc32(f"{seed}/{name}".encode()) / 2**32 for name in names])[index]
    return Verdict((share < limit) & ~observed.nameless(), share, limit)
