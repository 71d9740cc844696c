"""Where a platform says it was, against where it was before and after."""

from dataclasses import dataclass

import numpy as np

from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.observed import Bools, Doubles, Integers, Observed

EARTH_RADIUS = 6371.0  # km
MOST_PASSES = 20


@dataclass(frozen=True)
class Reports:
    """The distinct reports of some values, by platform and time. `of_row` [n]: the report of each value."""

    platform: Integers
    seconds: Doubles
    place: Doubles  # unit vectors [report, 3]
    fastest: Doubles  # m s-1
    of_row: Integers


def off_track(observed: Observed, _: Comparison, setting: Setting) -> Verdict:
    """A report that its platform could not have reached (the share of its neighbours that say so, limit 0), or a
    fixed station that is not where it usually is (degrees)."""
    share, degrees = impossible_speed(observed, setting), adrift(observed, setting)
    number = np.where(np.isfinite(share), share, degrees)
    limit = np.where(np.isfinite(share), 0.0, setting.configuration.checks.track.adrift_degrees)
    return Verdict(np.isfinite(number), number, limit)


def impossible_speed(observed: Observed, setting: Setting) -> Doubles:
    """The share of impossible neighbours of what is rejected [n], nan for the rest. Impossible:

    distance between two reports > fastest (dt + slack) + slack.

    Each report is compared with the two before and the two after it; the report with the largest share of impossible
    neighbours of its platform goes, then the rest is looked at again. Of two that accuse each other both go.
    """
    out = np.full(len(observed), np.nan)
    fastest = np.zeros(len(observed))
    for kind, _entry, rows in setting.entries(observed):
        fastest[rows] = kind.fastest or 0.0
    mobile = np.flatnonzero((fastest > 0) & ~observed.nameless())
    if not len(mobile):
        return out
    some = observed.where(_mask(mobile, len(observed)))
    reports = gather(some, fastest[mobile])
    track = setting.configuration.checks.track
    wrong = np.full(len(reports.seconds), np.nan)
    for _pass in range(MOST_PASSES):
        left = np.flatnonzero(np.isnan(wrong))
        share = _share_of_impossible(reports, left, track.slack_km, track.slack_minutes * 60.0)
        if not (share > 0).any():
            break
        worst = np.zeros(reports.platform.max() + 1)
        np.maximum.at(worst, reports.platform[left], share)
        wrong[left] = np.where((share > 0) & (share == worst[reports.platform[left]]), share, np.nan)
    out[mobile] = wrong[reports.of_row]
    return out


def _share_of_impossible(reports: Reports, left: Integers, slack_km: float, slack_seconds: float) -> Doubles:
    """Of the up to four neighbours in time of each report that is left, the share it cannot be reached from."""
    bad, count = np.zeros(len(left)), np.zeros(len(left))
    for step in (1, 2):
        a, b = left[:-step], left[step:]
        together = reports.platform[a] == reports.platform[b]
        chord = np.linalg.norm(reports.place[a] - reports.place[b], axis=1)
        distance = 2 * EARTH_RADIUS * np.arcsin(np.clip(chord / 2, 0, 1))
        seconds = reports.seconds[b] - reports.seconds[a] + slack_seconds
        impossible = together & (distance > slack_km + reports.fastest[a] * seconds / 1000.0)
        for part in (slice(None, len(left) - step), slice(step, None)):
            bad[part] += impossible
            count[part] += together
    return np.asarray(bad / np.maximum(count, 1))


def adrift(observed: Observed, setting: Setting) -> Doubles:
    """How far (degrees) each report of a fixed station lies from the median of the station's reports (three at least),
    where that is too far [n]; nan for the rest."""
    out, farthest = np.full(len(observed), np.nan), setting.configuration.checks.track.adrift_degrees
    fixed = np.zeros(len(observed), bool)
    for kind, _entry, rows in setting.entries(observed):
        fixed[rows] = kind.fixed
    rows = np.flatnonzero(fixed & ~observed.nameless())
    if not len(rows):
        return out
    some = observed.where(_mask(rows, len(observed)))
    reports = gather(some, np.ones(len(rows)))
    lowest, highest = (np.full((reports.platform.max() + 1, 3), edge) for edge in (np.inf, -np.inf))
    np.minimum.at(lowest, reports.platform, reports.place)
    np.maximum.at(highest, reports.platform, reports.place)
    wrong = np.full(len(reports.seconds), np.nan)
    limit = np.deg2rad(farthest)
    for platform in np.flatnonzero(np.linalg.norm(highest - lowest, axis=1) > limit):
        mine = np.flatnonzero(reports.platform == platform)
        if len(mine) >= 3:
            middle = np.median(reports.place[mine], axis=0)
            away = np.linalg.norm(reports.place[mine] - middle, axis=1)
            wrong[mine] = np.where(away > limit, np.rad2deg(away), np.nan)
    out[rows] = wrong[reports.of_row]
    return out


def gather(observed: Observed, fastest: Doubles) -> Reports:
    """The reports (platform, time, position) in the order of platform and time."""
    station, kind = observed.names("station")[1], observed.names("type")[1]
    latitude, longitude, time = observed.number("latitude"), observed.number("longitude"), observed.microseconds()
    order = np.lexsort((longitude, latitude, time, station, kind))
    new_platform, new_report = np.zeros(len(order), bool), np.zeros(len(order), bool)
    new_platform[1:] = (station[order][1:] != station[order][:-1]) | (kind[order][1:] != kind[order][:-1])
    new_report[1:] = new_platform[1:]
    for key in (time, latitude, longitude):
        new_report[1:] |= key[order][1:] != key[order][:-1]
    new_report[:1] = True
    first = order[new_report]
    of_row = np.empty(len(order), np.int64)
    of_row[order] = np.cumsum(new_report) - 1
    platform = np.cumsum(new_platform)[new_report]
    return Reports(platform, time[first] / 1e6, unit_vectors(latitude[first], longitude[first]), fastest[first], of_row)


def unit_vectors(latitude: Doubles, longitude: Doubles) -> Doubles:
    """Degrees -> [n, 3] on the unit sphere."""
    phi, lam = np.deg2rad(latitude), np.deg2rad(longitude)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)


def _mask(rows: Integers, n: int) -> Bools:
    out = np.zeros(n, bool)
    out[rows] = True
    return out
