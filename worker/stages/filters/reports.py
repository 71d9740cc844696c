"""Which reports are wanted at all, and which of several that say the same is taken."""

from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

import numpy as np

from service.observations.configuration import Denied, Usage
from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Bools, Integers, Observed


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


def duplicate(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """Not the preferred one of several that tell the same, within one feed exactly, between feeds but for rounding.

    Preferred is, in this order: the feed that the configuration names first, the greater confidence of the sender
    (none given counts as 100 %), the first received, the first in the table.
    """
    if not len(observed):
        return np.zeros(0, bool)
    rank = _preference(observed, setting)
    same = [observed.names(name)[1] for name in ("station", "type", "variable")]
    time = observed.microseconds()
    place = ("latitude", "longitude", "pressure", "height", "pressure_top")
    exact = [np.nan_to_num(observed.number(name), nan=-9e9) for name in place]
    out = _not_first(_numbered([*same, time, *exact]), rank)
    width = setting.configuration.checks.duplicates
    source = observed.names("source")[1]
    for shift in (0.0, 0.5):  # what one grid parts the other holds together
        grid = [
            np.floor(time / (width.minutes * 6e7) + shift),
            np.floor(observed.number("latitude") / width.degrees + shift),
            np.floor(observed.number("longitude") % 360.0 / width.degrees + shift),
            np.floor(np.nan_to_num(observed.pressure, nan=0.0) / width.pascal + shift),
        ]
        cell, kept = _numbered([*same, *grid]), np.flatnonzero(~out)
        best = np.full(cell.max() + 1, np.iinfo(np.int64).max)
        np.minimum.at(best, cell[kept], rank[kept])
        # the feed of the preferred value gives all values of its cell: a feed does not round against itself
        chosen = source[np.argsort(rank)][best[cell[kept]]]
        out[kept] = source[kept] != chosen
    return out


def _preference(observed: Observed, setting: Setting) -> Integers:
    """The place of each value in the order of preference, 0 the best: [n]."""
    preferred = setting.configuration.checks.duplicates.sources
    names, source = observed.names("source")
    order = np.array([preferred.index(name) if name in preferred else len(preferred) for name in names], np.int64)
    confidence = np.nan_to_num(observed.number("preqc"), nan=100.0)
    sorted_rows = np.lexsort(
        (np.arange(len(observed)), observed.microseconds("receipt_time"), -confidence, order[source])
    )
    rank = np.empty(len(observed), np.int64)
    rank[sorted_rows] = np.arange(len(observed))
    return rank


def _numbered(keys: list[Any]) -> Integers:
    """Equal keys get equal numbers, from 0: [n]."""
    order = np.lexsort(keys)
    change = np.zeros(len(order), bool)
    for key in keys:
        change[1:] |= key[order][1:] != key[order][:-1]
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(change)
    return number


def _not_first(number: Integers, rank: Integers) -> Bools:
    order = np.lexsort((rank, number))
    out = np.zeros(len(number), bool)
    out[order[1:]] = number[order][1:] == number[order][:-1]
    return out


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
