"""The buddy check: each value against what its neighbours' departures say there (Lorenc 1981, MWR 109, 701-721).

d_i is predicted by optimal interpolation, b^T (B + R)^-1 d with b_j = sigma_i sigma_j rho_ij, rho Gaussian in distance
and ln p; rejected where |d_i - prediction| > k sqrt(sigma_o^2 + sigma_b^2 - b^T (B + R)^-1 b).
"""

import numpy as np
from scipy.spatial import cKDTree

from service.observations.configuration.model import Buddy
from worker.stages.filters.background import ratio
from worker.stages.filters.case import Comparison, Setting, Verdict
from worker.stages.filters.tracks import EARTH_RADIUS, unit_vectors
from worker.stages.observed import Bools, Doubles, Integers, Observed

FARTHEST = 3.0  # in units of the correlation's length and depth
CLIPPED = 3.0  # sigmas of a neighbour's departure that count in the first pass
ASKED = 4  # times as many neighbours are looked up as are used: many are of the same station
PASSES = 3
SAME_PLACE_KM = 1.0
INSTRUMENTS = ("satwind", "scatterometer", "gnssro", "sounder")  # their station is a satellite: it names no place


def against_neighbours(observed: Observed, comparison: Comparison, setting: Setting) -> Verdict:
    """What contradicts its neighbours (sigmas), of the values more than `innocent` sigmas from the background."""
    out, limits = np.zeros(len(observed), bool), setting.configuration.checks.buddy
    departure = observed.value - comparison.background
    scale = ratio(observed, departure / comparison.expected, setting)
    sigma_b, sigma_o = np.nan_to_num(comparison.sigma_b) * scale, comparison.observation_error * scale
    bound = np.full(len(observed), limits.sigmas)
    for _kind, entry, rows in setting.entries(observed):
        if entry is not None and entry.buddy is not None:
            bound[rows] = entry.buddy
    number = np.full(len(observed), np.nan)
    _variables, variable = observed.names("variable")
    for which in np.unique(variable):
        rows = np.flatnonzero((variable == which) & np.isfinite(departure))
        suspects = rows[np.abs(departure[rows]) > limits.innocent * np.hypot(sigma_o[rows], sigma_b[rows])]
        if len(suspects) and len(rows) > limits.fewest:
            place = _Places.of(observed, rows, limits)
            some = _Some(departure[rows], sigma_o[rows], sigma_b[rows], bound[rows])
            accused = np.searchsorted(rows, suspects)
            out[suspects], number[suspects] = _judge(place, some, accused, limits)
    return Verdict(out, number, bound)


class _Some:
    """Departures and errors of the values of one variable [m]."""

    def __init__(self, departure: Doubles, sigma_o: Doubles, sigma_b: Doubles, bound: Doubles) -> None:
        self.departure, self.sigma_o, self.sigma_b, self.bound = departure, sigma_o, sigma_b, bound
        self.clipped = np.clip(departure, -CLIPPED * np.hypot(sigma_o, sigma_b), CLIPPED * np.hypot(sigma_o, sigma_b))


class _Places:
    """Where the values are, in units of the correlation, and who belongs together."""

    def __init__(self, points: Doubles, platform: Integers, tree: cKDTree) -> None:
        self.points, self.platform, self.tree = points, platform, tree

    @classmethod
    def of(cls, observed: Observed, rows: Integers, limits: Buddy) -> "_Places":
        place = unit_vectors(observed.number("latitude")[rows], observed.number("longitude")[rows])
        ln_p = np.nan_to_num(np.log(observed.pressure[rows]))
        points = np.column_stack([place * (EARTH_RADIUS / limits.length_km), ln_p / limits.depth])
        (kinds, kind), station = observed.names("type"), observed.names("station")[1]
        platform = station[rows] * len(kinds) + kind[rows]
        nameless = np.isin(kinds, INSTRUMENTS)[kind[rows]] | observed.nameless()[rows]
        platform = np.where(nameless, -1 - np.arange(len(rows)), platform)
        return cls(points, platform, cKDTree(points))

    def buddies(self, accused: Integers, trusted: Bools, limits: Buddy) -> Integers:
        """The nearest trusted values of other platforms, -1 where there are no more: [accused, neighbours]."""
        asked = min(ASKED * limits.neighbours, len(self.points))
        distance, index = self.tree.query(self.points[accused], k=asked, distance_upper_bound=FARTHEST)
        there = np.isfinite(distance)
        index = np.where(there, index, 0)
        other = self.platform[index] != self.platform[accused][:, None]
        apart = np.linalg.norm((self.points[index] - self.points[accused][:, None])[..., :3], axis=-1)
        other &= apart > SAME_PLACE_KM / limits.length_km
        usable = there & other & trusted[index]
        order = np.argsort(~usable, axis=1, kind="stable")[:, : limits.neighbours]
        chosen = np.take_along_axis(np.where(usable, index, -1), order, axis=1)
        return np.asarray(chosen, np.int64)


def _judge(place: _Places, some: _Some, accused: Integers, limits: Buddy) -> tuple[Bools, Doubles]:
    """Which of the accused are rejected, and how many sigmas they are off. First all are heard, with clipped departures; then only the trusted ones."""
    trusted = np.ones(len(some.departure), bool)
    verdict = np.zeros(len(accused), bool)
    for number in range(PASSES):
        buddies = place.buddies(accused, trusted, limits)
        heard = some.clipped if number == 0 else some.departure
        off, enough = _off_prediction(place.points, some, heard, accused, buddies, limits)
        verdict = enough & (off > some.bound[accused])
        after = np.ones(len(some.departure), bool)
        after[accused[verdict]] = False
        if (after == trusted).all():
            break
        trusted = after
    return verdict, off


def _off_prediction(
    points: Doubles, some: _Some, heard: Doubles, accused: Integers, buddies: Integers, limits: Buddy
) -> tuple[Doubles, Bools]:
    """|d - prediction| over its standard deviation, and whether there were enough buddies: [accused], [accused]."""
    there = buddies >= 0
    index = np.where(there, buddies, 0)

    def correlation(a: Doubles, b: Doubles) -> Doubles:
        return np.asarray(np.exp(-0.5 * np.sum((a - b) ** 2, axis=-1)))

    among = correlation(points[index][:, :, None], points[index][:, None, :])
    sigma = np.where(there, some.sigma_b[index], 0.0)
    covariance = among * sigma[:, :, None] * sigma[:, None, :]
    diagonal = np.where(there, some.sigma_o[index] ** 2, 1.0)
    covariance += diagonal[:, :, None] * np.eye(index.shape[1])
    own = some.sigma_b[accused]
    towards = correlation(points[index], points[accused][:, None]) * sigma * own[:, None]
    weights = np.linalg.solve(covariance, towards[..., None])[..., 0]
    predicted = np.sum(weights * np.where(there, heard[index], 0.0), axis=1)
    variance = some.sigma_o[accused] ** 2 + own**2 - np.sum(weights * towards, axis=1)
    off = np.abs(some.departure[accused] - predicted) / np.sqrt(np.maximum(variance, 1e-300))
    return off, there.sum(axis=1) >= limits.fewest
