"""Scores against hand sums, brute force and closed forms."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import integrate, stats

from models.grid import area_weights
from models.scores import crps, mean_square_error, rmse, spread_skill

LATITUDES = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(16)[0]))[::-1]
SHAPE = (2, 16, 32)


def test_area_weights_are_the_areas_of_the_rows() -> None:
    edges = [90.0, *(0.5 * (LATITUDES[1:] + LATITUDES[:-1])), -90.0]
    areas = [integrate.quad(np.cos, np.deg2rad(south), np.deg2rad(north))[0] for north, south in pairwise(edges)]
    assert sum(areas) == pytest.approx(2.0)
    np.testing.assert_allclose(area_weights(LATITUDES).numpy(), np.array(areas) / np.mean(areas), rtol=1e-6)


def test_rmse_is_the_root_of_the_weighted_sum() -> None:
    a, b = np.random.default_rng(1).standard_normal((2, *SHAPE))
    weights = area_weights(LATITUDES).double().numpy()
    for channel in range(2):
        total = sum(weights[j] * (a[channel, j, i] - b[channel, j, i]) ** 2 for j in range(16) for i in range(32)) / (
            weights.sum() * 32
        )
        assert rmse(a, b, LATITUDES)[channel] == pytest.approx(np.sqrt(total), rel=1e-9)
        assert mean_square_error(a, b, LATITUDES)[channel] == pytest.approx(total, rel=1e-9)


def test_an_error_in_one_hemisphere_counts_half_and_one_at_the_pole_little() -> None:
    north, pole = np.zeros(SHAPE), np.zeros(SHAPE)
    north[:, :8], pole[:, 0] = 1.0, 1.0
    np.testing.assert_allclose(mean_square_error(north, np.zeros(SHAPE), LATITUDES), 0.5, rtol=1e-6)
    assert mean_square_error(pole, np.zeros(SHAPE), LATITUDES)[0] < 0.3 / 16


@pytest.mark.parametrize("count", [2, 3, 8])
def test_crps_equals_the_double_sum_over_members(count: int) -> None:
    generator = np.random.default_rng(count)
    members, truth = generator.standard_normal((count, *SHAPE)), generator.standard_normal(SHAPE)
    skill = np.abs(members - truth).mean(axis=0)
    pairs = sum(np.abs(x - y) for x in members for y in members)
    cell = skill - pairs / (2 * count * (count - 1))
    weights = area_weights(LATITUDES).double().numpy()[:, None]
    np.testing.assert_allclose(crps(members, truth, LATITUDES), (cell * weights).mean(axis=(1, 2)), rtol=1e-9)


@pytest.mark.parametrize("count", [3, 20])
def test_crps_of_gaussian_members_has_the_mean_of_the_closed_form_for_any_count(count: int) -> None:
    """Gneiting & Raftery 2007: s (z (2 Phi(z) - 1) + 2 phi(z) - 1/sqrt(pi)), z = (y - m) / s; fair: unbiased in m."""
    generator = np.random.default_rng(5)
    mean, deviation, y = 1.0, 2.0, 2.5
    shape = (400, 16, 32)
    scores = crps(generator.normal(mean, deviation, (count, *shape)), np.full(shape, y), LATITUDES)
    z = (y - mean) / deviation
    closed = deviation * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi))
    assert scores.mean() == pytest.approx(closed, abs=5 * scores.std() / np.sqrt(len(scores)))
    assert scores.std() / np.sqrt(len(scores)) < 0.01 * closed


def test_crps_of_identical_members_is_the_absolute_error() -> None:
    field = np.random.default_rng(2).standard_normal(SHAPE)
    np.testing.assert_allclose(crps(np.stack([field + 3.0] * 4), field, LATITUDES), 3.0, rtol=1e-9)
    with pytest.raises(ValueError, match="at least two"):
        crps(field[None], field, LATITUDES)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_the_spread_skill_ratio_of_a_reliable_ensemble_is_one_for_any_count(count: int) -> None:
    generator = np.random.default_rng(count)
    members, truth = generator.standard_normal((count, 100, 16, 32)), generator.standard_normal((100, 16, 32))
    ratio = spread_skill(members, truth, LATITUDES)
    assert ratio.mean() == pytest.approx(1.0, abs=5 * ratio.std() / np.sqrt(len(ratio)) + 0.003)
    overconfident = spread_skill(0.5 * members, truth, LATITUDES)
    assert overconfident.mean() < 0.75
