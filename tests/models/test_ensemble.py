"""The ensemble of a cycled analysis against the exact posterior covariance of the Gaussian reference."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from models.assimilation import AnalysisSettings, Assimilator
from models.diffusion.prior import LevelPrior
from models.ensemble import by_variable, centred, recentred, updated, widened, with_model_error, without_negative
from models.error_model import FEWEST_MEMBERS_FOR_SPREAD, States
from models.latent_observations import LatentObservations
from models.observation_operator import ObservationOperator
from models.specification import ChannelSpec
from tests.models.synthetic import Atmosphere
from tests.models.test_assimilation import noise, places

TIME = datetime(2001, 1, 20, tzinfo=UTC)
MEMBERS, COUNT = 2400, 24


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture(scope="module")
def prior(assimilator: Assimilator) -> LevelPrior:
    return assimilator.bundle.statistics.at(assimilator.error_level(12.0))


@pytest.fixture(scope="module")
def latent(assimilator: Assimilator, prior: LevelPrior) -> LatentObservations:
    bundle, given = assimilator.bundle, places(COUNT, 5)
    anomaly = torch.zeros(1, *bundle.climate.harmonics.shape[1:])
    z_b = bundle.autoencoder.encode(anomaly)
    operator = ObservationOperator(given, bundle.spec.grid, bundle.spec.channels)
    value, error = torch.from_numpy(given.value).float(), torch.from_numpy(given.error).float()
    return LatentObservations(bundle.autoencoder, bundle.climate, prior, anomaly, z_b, TIME, operator, value, error)


@pytest.fixture(scope="module")
def perturbations(assimilator: Assimilator, prior: LevelPrior) -> Tensor:
    """Drawn from the Gaussian reference: [member, channel, latitude, longitude]."""
    none = torch.zeros(MEMBERS, *assimilator.bundle.climate.harmonics.shape[1:])
    return with_model_error(none, prior, assimilator.bundle.autoencoder, generator())


@pytest.fixture(scope="module")
def analysed(latent: LatentObservations, perturbations: Tensor) -> Tensor:
    return updated(perturbations, latent, generator())


def at_observations(latent: LatentObservations, perturbations: Tensor) -> Tensor:
    """Covariance of R^-1/2 H dx: [n, n]."""
    return torch.cov((latent.operator(perturbations * latent.scale) / latent.error).T)


def exact(latent: LatentObservations) -> Tensor:
    """R^-1/2 H B H^T R^-1/2, column by column."""
    return latent.jacobian(latent.prior.gaussian.times(latent.adjoint(torch.eye(COUNT))))


def test_a_sample_of_the_model_error_has_its_covariance(latent: LatentObservations, perturbations: Tensor) -> None:
    prior_covariance = exact(latent)
    difference = at_observations(latent, perturbations) - prior_covariance
    assert difference.norm() < 0.15 * prior_covariance.norm()
    assert perturbations.mean(dim=0).abs().max() < 1e-5


def test_the_amplitude_scales_the_model_error_by_channel(prior: LevelPrior, assimilator: Assimilator) -> None:
    spec, coder = assimilator.spec, assimilator.bundle.autoencoder
    none = torch.zeros(4, len(spec.channels), len(spec.grid.latitudes), len(spec.grid.longitudes))
    amplitude = torch.linspace(0.0, 2.0, len(spec.channels))[:, None, None]
    plain, scaled = (with_model_error(none, prior, coder, generator(), a) for a in (1.0, amplitude))
    assert plain.abs().max() > 0.01
    torch.testing.assert_close(scaled, amplitude * plain)


@pytest.mark.slow
def test_the_updated_perturbations_have_the_exact_posterior_covariance(
    latent: LatentObservations, analysed: Tensor
) -> None:
    """A = G - G (I + G)^-1 G, with G = R^-1/2 H B H^T R^-1/2; sampled by 2400 members."""
    g = exact(latent).double()
    posterior = g - g @ torch.linalg.solve(torch.eye(COUNT).double() + g, g)
    assert torch.diagonal(posterior / g).min() < 0.7  # the observations do say something
    found = at_observations(latent, analysed).double()
    assert (found - posterior).norm() < 0.15 * posterior.norm()
    assert analysed.mean(dim=0).abs().max() < 1e-5


@pytest.mark.slow
def test_without_perturbed_observations_the_spread_would_be_too_small(
    latent: LatentObservations, perturbations: Tensor, analysed: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    proper = torch.diagonal(at_observations(latent, analysed))
    monkeypatch.setattr("models.ensemble.torch.randn", lambda *shape, **_: torch.zeros(*shape))
    unperturbed = torch.diagonal(at_observations(latent, updated(perturbations, latent, generator())))
    assert (unperturbed < proper).float().mean() > 0.9


def test_centring_keeps_the_expected_variance() -> None:
    values = centred(torch.randn(5, 20_000, generator=generator()))
    assert values.mean(dim=0).abs().max() < 1e-6
    assert float((values**2).mean()) == pytest.approx(1.0, abs=0.02)


def test_taking_out_negative_values_leaves_the_mean_where_it_was() -> None:
    members = torch.randn(16, 4000, generator=generator()) + torch.linspace(-2, 4, 4000)
    kept, mean = without_negative(members), members.mean(dim=0)
    assert kept.min() >= 0
    torch.testing.assert_close(kept.mean(dim=0), mean.clamp_min(0.0), atol=1e-5, rtol=1e-5)
    positive = (members >= 0).all(dim=0)
    assert positive.any() and kept[:, positive].equal(members[:, positive])
    single = without_negative(torch.tensor([[-1.0, 2.0]]))
    assert single.tolist() == [[0.0, 2.0]]


def test_the_gradient_of_taking_out_negative_values_is_finite_where_all_of_them_are() -> None:
    members = torch.tensor([[-1.0, -1.0, 2.0], [-2.0, 3.0, 1.0]], requires_grad=True)
    without_negative(members).sum().backward()
    assert members.grad is not None
    # all negative: nothing is left; mixed: the sum is the mean's, clamped or not; none negative: the identity
    assert members.grad.tolist() == [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]


def test_recentring_moves_the_mean_and_keeps_the_variance_of_a_member_about_it() -> None:
    samples = 3.0 + 2.0 * torch.randn(4, 40_000, generator=generator())
    centre = torch.randn(1, 40_000, generator=generator())
    moved = recentred(samples, centre)
    torch.testing.assert_close(moved.mean(dim=0, keepdim=True), centre, atol=1e-5, rtol=1e-5)
    assert float(((moved - centre) ** 2).mean()) == pytest.approx(4.0, rel=0.02)  # not 3/4 of it, as 4 draws have left


def test_widening_keeps_the_mean_and_scales_each_channel_by_its_own_amplitude() -> None:
    samples = torch.randn(6, 3, 4, 5, generator=generator())
    channels = [ChannelSpec(variable=v, level=500.0) for v in "tqz"]
    wide = widened(samples, by_variable(channels, {"q": 0.5}, 2.0))
    torch.testing.assert_close(wide.mean(dim=0), samples.mean(dim=0))
    ratio = wide.std(dim=0) / samples.std(dim=0)
    torch.testing.assert_close(ratio, torch.tensor([2.0, 0.5, 2.0])[:, None, None].expand_as(ratio))


def test_members_of_a_cycled_ensemble_live_on_around_the_centre(assimilator: Assimilator) -> None:
    """Far from every observation a member keeps its own perturbation; the mean is the analysis of the mean."""
    truth = Atmosphere(2).state(TIME, assimilator.description.grid)[None]
    std = assimilator.climatology(TIME)[1]
    ensemble: States = truth + 0.1 * std * noise(assimilator, FEWEST_MEMBERS_FOR_SPREAD, truth.shape[1:])
    given = places(3, 1)
    given = replace(given, value=assimilator.equivalents(truth, given)[0])
    level = assimilator.error_level(12.0)
    settings = AnalysisSettings(members=len(ensemble), steps=4)
    analysed = assimilator.analyse(ensemble, given, TIME, level, settings).members
    own = np.delete(np.arange(truth.shape[1]), assimilator.moisture)  # negative moisture is cut off
    before, after = ((x - x.mean(axis=0))[:, own] for x in (ensemble, analysed))
    correlation = [np.corrcoef(b.ravel(), a.ravel())[0, 1] for b, a in zip(before, after, strict=True)]
    assert min(correlation) > 0.5
    assert max(np.corrcoef(before[0].ravel(), after[1].ravel())[0, 1], 0.0) < 0.2
    assert assimilator.spread_level(analysed) == pytest.approx(level, rel=0.2)
