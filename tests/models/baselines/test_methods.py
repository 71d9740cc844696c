"""3D-Var's minimisation, the LETKF on the sphere, and every method through the common protocol."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.assimilation import Assimilator
from models.baselines.latent_three_d_var import LatentThreeDVar
from models.baselines.letkf import Letkf, LetkfSettings, project, transform
from models.baselines.localisation import WeightGrid, gaspari_cohn, great_circle_km, unit_vectors
from models.baselines.prior_mean import PriorMeanThreeDVar
from models.baselines.three_d_var import CostFunction, Observed, ThreeDVar, VarianceSettings, cost_function
from models.constants import EARTH_RADIUS
from models.covariance.store import BalancedStatistics
from models.evaluation.method import Given, Method, States
from models.evaluation.ours import Unchanged
from models.scores import mean_square_error
from tests.models.baselines.conftest import Case

VARIANCE = VarianceSettings(0.2)
GLOBAL = LetkfSettings(
    members=12, horizontal_km=1e9, vertical_ln_p=1e9, relaxation=0.0, to_prior=0.0, additive=0.0, stride=1
)


@pytest.fixture(scope="module")
def cost(statistics: BalancedStatistics, assimilator: Assimilator, case: Case) -> CostFunction:
    observed = Observed.of(assimilator, case.given)
    departure = observed.departures(torch.from_numpy(case.given.background))
    return cost_function(statistics.at(0.2), observed, departure)


def test_gradient_by_finite_differences(cost: CostFunction) -> None:
    generator = torch.Generator().manual_seed(0)
    v, direction = (torch.randn(1, 19, 16, 32, generator=generator) for _ in range(2))
    slope = float((cost.gradient(v).double() * direction).sum())
    for step in (1e-1, 1e-2):  # J is quadratic: central differences are exact but for rounding
        difference = (cost.value(v + step * direction) - cost.value(v - step * direction)) / (2 * step)
        assert float(difference) == pytest.approx(slope, rel=1e-3)


def test_minimum_is_the_dense_analytic_solution(
    statistics: BalancedStatistics, assimilator: Assimilator, case: Case
) -> None:
    """x_a - x_b = B H^T (H B H^T + R)^-1 d with H B H^T column by column."""
    some = replace(case.given, observations=case.given.observations.select(np.arange(750) % 10 == 0))
    observed, covariance = Observed.of(assimilator, some), statistics.at(0.2)
    departure = observed.departures(torch.from_numpy(case.given.background))
    n = departure.shape[1]
    dense = observed.tangent(covariance.times(observed.adjoint(torch.eye(n)))).double()
    weights = torch.linalg.solve(dense + torch.eye(n), departure.double()[0]).float()
    expected = covariance.times(observed.adjoint(weights[None]))
    found = covariance.root(cost_function(covariance, observed, departure).minimum(200, 1e-5))
    assert float((found - expected).norm() / expected.norm()) < 1e-3


def nearly_exact(case: Case) -> Given:
    """A fifth of the reports, as if their errors were a fifth of what they are."""
    some = case.given.observations.select(np.arange(750) % 5 == 0)
    return replace(case.given, observations=replace(some, error=some.error / 5))


def test_minimum_has_no_gradient_and_lower_cost(cost: CostFunction) -> None:
    v = cost.minimum(200, 1e-4)
    start = torch.zeros_like(v)
    assert float(cost.gradient(v).norm()) < 1e-3 * float(cost.gradient(start).norm())
    assert cost.value(v) < cost.value(start)


def test_nearly_exact_observations_are_converged_to_the_dense_solution(
    statistics: BalancedStatistics, assimilator: Assimilator, case: Case
) -> None:
    given = nearly_exact(case)
    found = ThreeDVar(assimilator, statistics, VARIANCE).analyse(given)
    observed, covariance = Observed.of(assimilator, given), statistics.at(VARIANCE.level(assimilator, 24.0))
    background = torch.from_numpy(given.background)
    dense = observed.tangent(covariance.times(observed.adjoint(torch.eye(len(given.observations))))).double()
    departure = observed.departures(background).double()[0]
    weights = torch.linalg.solve(dense + torch.eye(len(dense)), departure).float()
    expected = covariance.times(observed.adjoint(weights[None])) * observed.scale
    dry = [i for i in range(len(assimilator.spec.channels)) if i not in assimilator.moisture]
    difference = ((torch.from_numpy(found) - background - expected) / observed.scale)[:, dry]
    assert float(difference.norm() / (expected / observed.scale)[:, dry].norm()) < 1e-2


def test_a_minimum_that_was_not_reached_is_told(
    statistics: BalancedStatistics, assimilator: Assimilator, case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    ThreeDVar(assimilator, statistics, VARIANCE).analyse(nearly_exact(case))
    assert not caplog.records
    ThreeDVar(assimilator, statistics, VARIANCE, iterations=5).analyse(nearly_exact(case))
    assert "not converged after 5 iterations" in caplog.text


def test_observations_without_an_error_are_refused(
    statistics: BalancedStatistics, assimilator: Assimilator, case: Case
) -> None:
    observations = replace(case.given.observations, error=np.zeros(len(case.given.observations)))
    with pytest.raises(ValueError, match="750 observations have no error"):
        ThreeDVar(assimilator, statistics, VARIANCE).analyse(replace(case.given, observations=observations))


def test_gaspari_cohn() -> None:
    r = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.6848958, 0.2083333, 0.0164931, 0.0, 0.0], dtype=torch.float64)
    assert torch.allclose(gaspari_cohn(r), expected, atol=1e-6)


def test_distances() -> None:
    points = unit_vectors(np.array([0.0, 0.0, 90.0]), np.array([0.0, 90.0, 7.0]))
    quarter = np.pi / 2 * EARTH_RADIUS / 1000
    assert great_circle_km(points, points) == pytest.approx(quarter * (1 - np.eye(3)), abs=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_weights_are_interpolated_between_coarse_columns(assimilator: Assimilator, stride: int) -> None:
    spec = assimilator.spec
    grid = WeightGrid.of(spec.grid, spec.channels, stride)
    rows, columns = len(spec.grid.latitudes), len(spec.grid.longitudes)
    latitude, longitude = np.meshgrid(spec.grid.latitudes, spec.grid.longitudes, indexing="ij")
    fine = unit_vectors(latitude.ravel(), longitude.ravel())
    between = (grid.interpolation @ torch.from_numpy(grid.points).float()).numpy()
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    error = great_circle_km(fine, between).diagonal().max()
    assert len(grid.points) == rows * columns if stride == 1 else len(grid.points) < rows * columns
    assert error < (60.0 if stride == 1 else 0.5 * 180 / rows * 111.2)
    assert torch.allclose(grid.interpolation @ torch.ones(len(grid.points), 1), torch.ones(rows * columns, 1))


def ensemble(case: Case, statistics: BalancedStatistics, assimilator: Assimilator) -> States:
    """Twelve members around the background, as a method's own forecasts would be."""
    draws = statistics.at(0.2).draw(12, torch.Generator().manual_seed(8))
    scale = assimilator.bundle.climate.std[:, None, None]
    return (torch.from_numpy(case.given.background) + draws * scale).numpy()


def test_letkf_without_localisation_is_the_etkf(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    background = ensemble(case, statistics, assimilator)
    given = replace(case.given, background=background, lead_hours=6.0)
    found = Letkf(assimilator, statistics, VARIANCE, GLOBAL).analyse(given)
    observed = Observed.of(assimilator, given)
    members = torch.from_numpy(background)
    mean = members.mean(dim=0, keepdim=True)
    y = (observed.departures(mean) - observed.departures(members)).T
    taper = torch.ones(1, len(y))
    weights, root = transform(*project(y, observed.departures(mean)[0], taper))
    expected = mean + torch.einsum("kchw,kj->jchw", members - mean, root[0] + weights[0][:, None])
    expected[:, assimilator.moisture] = expected[:, assimilator.moisture].clamp_min(0)
    scale = assimilator.bundle.climate.std[:, None, None].numpy()
    assert np.abs((found - expected.numpy()) / scale).max() < 2e-2
    assert np.abs(found - background).max() > 1


def test_far_observations_leave_a_local_analysis_alone(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    background = ensemble(case, statistics, assimilator)
    north = case.given.observations.select(case.given.observations.latitude > 45)
    given = replace(case.given, background=background, lead_hours=6.0, observations=north)
    settings = replace(GLOBAL, horizontal_km=800.0)
    change = np.abs(Letkf(assimilator, statistics, VARIANCE, settings).analyse(given) - background)
    scale = assimilator.bundle.climate.std[:, None, None].numpy()
    latitudes = np.array(assimilator.spec.grid.latitudes)
    assert (change / scale)[:, :, latitudes < 0].max() < 1e-4
    assert (change / scale)[:, :, latitudes > 45].max() > 0.05


def test_relaxation_keeps_the_spread_of_the_background(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    background = ensemble(case, statistics, assimilator)
    given = replace(case.given, background=background, lead_hours=6.0)
    relaxed = Letkf(assimilator, statistics, VARIANCE, replace(GLOBAL, relaxation=1.0)).analyse(given)
    free = Letkf(assimilator, statistics, VARIANCE, GLOBAL).analyse(given)
    dry = [i for i in range(len(assimilator.spec.channels)) if i not in assimilator.moisture]
    before, kept, lost = (x[:, dry].std(axis=0) for x in (background, relaxed, free))
    assert kept == pytest.approx(before, rel=1e-2)
    assert (lost / before).mean() < 0.9


def test_relaxation_to_the_prior_keeps_the_perturbations_of_the_background(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    background = ensemble(case, statistics, assimilator)
    given = replace(case.given, background=background, lead_hours=6.0)
    analysis = Letkf(assimilator, statistics, VARIANCE, replace(GLOBAL, to_prior=1.0)).analyse(given)
    dry = [i for i in range(len(assimilator.spec.channels)) if i not in assimilator.moisture]
    before, after = ((x - x.mean(axis=0))[:, dry] for x in (background, analysis))
    scale = assimilator.bundle.climate.std[dry, None, None].numpy()
    assert np.abs((after - before) / scale).max() < 1e-3
    assert np.abs(analysis - background).max() > 1


def test_the_hybrid_gain_adds_the_increment_of_three_d_var_to_the_mean_only(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    background = ensemble(case, statistics, assimilator)
    given = replace(case.given, background=background, lead_hours=6.0)
    plain = Letkf(assimilator, statistics, VARIANCE, GLOBAL).analyse(given)
    hybrid = Letkf(assimilator, statistics, VARIANCE, replace(GLOBAL, static=0.5)).analyse(given)
    mean = plain.mean(axis=0, keepdims=True)
    variational = ThreeDVar(assimilator, statistics, VARIANCE).analyse(replace(given, background=mean))
    dry = [i for i in range(len(assimilator.spec.channels)) if i not in assimilator.moisture]
    scale = assimilator.bundle.climate.std[dry, None, None].numpy()
    expected = (plain + 0.5 * (variational - mean))[:, dry]
    assert np.abs((hybrid[:, dry] - expected) / scale).max() < 1e-2
    assert np.abs((hybrid - plain)[:, dry] / scale).max() > 0.05


def test_letkf_refuses_an_ensemble_of_another_size(
    case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    given = replace(case.given, background=np.repeat(case.given.background, 5, axis=0))
    with pytest.raises(ValueError, match="5 members"):
        Letkf(assimilator, statistics, VARIANCE, GLOBAL).analyse(given)


@pytest.mark.parametrize("wider", [0.7, 1.0, 1.6])
def test_innovations_tell_the_level_of_three_d_var(assimilator: Assimilator, case: Case, wider: float) -> None:
    """Departures drawn with `wider` times the background error that the level stands for: the level is found."""
    following = VarianceSettings(0.2, innovations=True)
    error = assimilator.observation_error(case.given.observations)
    expected = np.hypot(error, wider * assimilator.background_error(case.given.observations, 0.2))
    first = assimilator.equivalents(case.given.background, case.given.observations)[0]
    value = first + expected * np.random.default_rng(0).standard_normal(len(error))
    given = replace(case.given, observations=replace(case.given.observations, value=value), lead_hours=6.0)
    confidence = assimilator.confidence(given.observations)
    assert following.level_given(assimilator, given) == pytest.approx(0.2 * wider**confidence, rel=0.08)
    assert VARIANCE.level_given(assimilator, given) == pytest.approx(0.2)
    nothing = replace(given, observations=given.observations.select(np.zeros(len(error), bool)))
    assert following.level_given(assimilator, nothing) == pytest.approx(0.2)


def test_baselines_leave_the_autoencoder_out_of_r(assimilator: Assimilator, case: Case) -> None:
    own = assimilator.observation_error(case.given.observations, autoencoder=False)
    assert own == pytest.approx(case.given.observations.error)
    assert (assimilator.observation_error(case.given.observations) > own).all()


MakeMethod = Callable[[Assimilator, BalancedStatistics], Method]
METHODS: dict[str, MakeMethod] = {
    "free": lambda a, s: Unchanged("free"),
    "3dvar": lambda a, s: ThreeDVar(a, s, VARIANCE),
    "latent-3dvar": lambda a, s: LatentThreeDVar(a, VARIANCE),
    "letkf-20": lambda a, s: Letkf(a, s, VARIANCE, LetkfSettings(members=20, horizontal_km=2500.0)),
    "3dvar-prior-mean": lambda a, s: PriorMeanThreeDVar(a, s, VARIANCE),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_through_the_protocol(
    name: str, case: Case, statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    method = METHODS[name](assimilator, statistics)
    assert method.name == name
    analysis = method.analyse(case.given)
    assert analysis.dtype == np.float32
    assert analysis.shape[1:] == case.truth.shape
    assert np.array_equal(analysis, method.analyse(case.given))
    latitudes = np.array(assimilator.spec.grid.latitudes)
    std = assimilator.bundle.climate.std.numpy()
    before, after = (
        (mean_square_error(x.mean(axis=0), case.truth, latitudes) / std**2).mean()
        for x in (case.given.background, analysis)
    )
    if name == "free":
        assert np.array_equal(analysis, case.given.background)
    else:
        assert after < before
