"""The value against the background: the first-guess check and the Huber weight of what is kept."""

from collections.abc import Mapping

import numpy as np

from worker.stages.filters.case import Comparison, Group, Setting, Verdict, groups
from worker.stages.observed import Doubles, Observed

MOST_ABOVE_RUNNING = 2.0  # a feed that departs this many times more than it used to is not believed


def first_guess(observed: Observed, comparison: Comparison, setting: Setting) -> Verdict:
    """|O-B| > k r sqrt(sigma_o^2 + sigma_b^2); r: what is seen over what is expected, see `ratio`."""
    limit = np.full(len(observed), setting.config.gross_check_sigma)
    for _kind, entry, rows in setting.entries(observed):
        if entry is not None and entry.first_guess is not None:
            limit[rows] = entry.first_guess
    size = np.abs(normalised(observed, comparison, setting))
    return Verdict(size > limit, size, limit)


def normalised(observed: Observed, comparison: Comparison, setting: Setting) -> Doubles:
    """(O-B) / (r sqrt(sigma_o^2 + sigma_b^2)): [n]."""
    scaled = (observed.value - comparison.background) / comparison.expected
    return np.asarray(scaled / ratio(observed, scaled, setting))


def ratio(observed: Observed, scaled: Doubles, setting: Setting) -> Doubles:
    """Seen over expected size of the departures, by group: [n].

    The larger of this cycle's and that of earlier cycles, this cycle's at most MOST_ABOVE_RUNNING times the earlier
    one. So the limits follow season and regime, and a background poorer than it says throws no good values away.
    """
    checks, out = setting.configuration.checks.first_guess, np.ones(len(observed))
    now = ratios(observed, scaled, checks.fewest)
    for group, rows in groups(observed):
        earlier, seen = setting.ratios.get(group), now.get(group)
        if earlier is None:
            out[rows] = max(1.0, seen or 1.0)
            continue
        earlier = float(np.clip(earlier, *checks.bounds))
        out[rows] = earlier if seen is None else max(earlier, min(seen, MOST_ABOVE_RUNNING * earlier))
    return out


def ratios(observed: Observed, scaled: Doubles, fewest: int) -> Mapping[Group, float]:
    """sqrt((1.4826 MAD)^2 + median^2) of (O-B)/expected of each group with `fewest` values or more."""
    found = {}
    for group, rows in groups(observed):
        some = scaled[rows][np.isfinite(scaled[rows])]
        if len(some) >= fewest:
            middle = np.median(some)
            found[group] = float(np.hypot(1.4826 * np.median(np.abs(some - middle)), middle))
    return found


def huber_weight(observed: Observed, comparison: Comparison, setting: Setting) -> Doubles:
    """Factor on 1/R: 1 for normalised departures up to c, c / |departure| beyond (Huber 1972): [n].

    As in the variational Huber norm of Tavolato and Isaksen (2015, QJRMS 141, 1514-1527, eq. 4), with the departure
    from the background in place of that from the analysis.
    """
    bound = np.full(len(observed), setting.configuration.checks.huber)
    for _kind, entry, rows in setting.entries(observed):
        if entry is not None and entry.huber is not None:
            bound[rows] = entry.huber
    size = np.abs(normalised(observed, comparison, setting))
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = np.minimum(1.0, bound / size)
    return np.where(np.isfinite(weight), weight, 1.0)
