"""Which of several values that tell the same is taken: within a feed, between feeds, and of two reports of one ascent.

The order of preference is in docs/observations.md.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from worker.stages.filters.case import Comparison, Setting
from worker.stages.observed import Bools, Integers, Observed

PROFILES = ("temp", "pilot")
PLACE = ("latitude", "longitude", "pressure", "height", "pressure_top")
BEYOND = 0.02  # of the pressure: how far a level may lie outside an ascent and still belong to it


def duplicate(observed: Observed, _: Comparison, setting: Setting) -> Bools:
    """Not the preferred one of several that tell the same.

    In this order: the same again in one feed; what its own feed has corrected; the poorer report of an ascent that came
    through several feeds; between feeds, but for rounding, all but the preferred.
    """
    out = np.zeros(len(observed), bool)
    if not len(observed):
        return out
    same = [observed.names(name)[1] for name in ("station", "type", "variable")]
    exact = [*same, observed.microseconds()]
    exact += [np.nan_to_num(observed.number(name), nan=-9e9) for name in PLACE]
    source, received = observed.names("source")[1], observed.microseconds("receipt_time")
    repeated = _not_first(_numbered([*exact, source, observed.number("value")]), _ranked(received))
    kept = np.flatnonzero(~repeated)
    confidence = np.nan_to_num(observed.number("preqc"), nan=100.0)
    last = _ranked(-received, -confidence)  # a feed that says something else later has corrected itself
    corrected = _not_first(_numbered([key[kept] for key in [*exact, source]]), last[kept])
    out |= repeated
    out[kept[corrected]] = True
    rank = _preference(observed, setting)
    for rows in _other_reports(observed, same, ~out, rank, setting):
        out[rows] = True
    kept = np.flatnonzero(~out)
    out[kept] = _not_first(_numbered([key[kept] for key in exact]), rank[kept])
    _between_feeds(observed, same, rank, out, setting)
    return out


def _between_feeds(observed: Observed, same: list[Integers], rank: Integers, out: Bools, setting: Setting) -> None:
    width, source, time = setting.configuration.checks.duplicates, observed.names("source")[1], observed.microseconds()
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


def _other_reports(
    observed: Observed, same: list[Integers], candidates: Bools, rank: Integers, setting: Setting
) -> Iterator[Integers]:
    """The rows of ascents that another feed reports in more levels, variable by variable, as far as that one reaches.

    One ascent is what one station reports without a pause of `ascent_minutes`, through whatever feeds: its levels may
    have the nominal time in one and drift in the other.
    """
    source, time, pressure = observed.names("source")[1], observed.microseconds(), observed.pressure
    candidates = candidates & observed.has("type", *PROFILES) & ~observed.nameless()
    rows = np.flatnonzero(candidates)
    if not len(rows) or (source[rows] == source[rows[0]]).all():
        return
    rows = rows[np.lexsort((time[rows], *(key[rows] for key in same)))]
    pause = setting.configuration.checks.duplicates.ascent_minutes * 6e7
    parted = np.diff(time[rows]) > pause
    for key in same:
        parted |= np.diff(key[rows]) != 0
    order = _feeds_in_order(observed, setting)
    for ascent in np.split(rows, np.flatnonzero(parted) + 1):
        feeds = np.unique(source[ascent])
        if len(feeds) < 2:
            continue
        of = {int(feed): ascent[source[ascent] == feed] for feed in feeds}
        best = min(of, key=lambda feed: (order[feed], -len(np.unique(pressure[of[feed]])), rank[of[feed]].min()))
        low, high = pressure[of[best]].min() * (1 - BEYOND), pressure[of[best]].max() * (1 + BEYOND)
        others = ascent[source[ascent] != best]
        yield others[~((pressure[others] < low) | (pressure[others] > high))]


def _preference(observed: Observed, setting: Setting) -> Integers:
    """The place of each value in the order of preference between feeds, 0 the best: [n]."""
    order = _feeds_in_order(observed, setting)[observed.names("source")[1]]
    confidence = np.nan_to_num(observed.number("preqc"), nan=100.0)
    without_error = ~np.asarray(observed.table.column("error").is_valid().to_numpy(), bool)
    return _ranked(order, -confidence, without_error, observed.microseconds("receipt_time"))


def _feeds_in_order(observed: Observed, setting: Setting) -> Integers:
    """Of each distinct feed of the table its place among `sources`."""
    preferred = setting.configuration.checks.duplicates.sources
    names, _ = observed.names("source")
    return np.array([preferred.index(name) if name in preferred else len(preferred) for name in names], np.int64)


def _ranked(*keys: Any) -> Integers:
    """The place of each row when sorted by the first of `keys`, then the second, ...; of equals the first row: [n]."""
    order = np.lexsort(keys[::-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
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
