"""Observations seen from the latent: the Jacobian is the derivative of the residual, the adjoint is its transpose."""

from datetime import UTC, datetime

import numpy as np
import pytest
import torch
from torch import Tensor

from models.climate import Climate
from models.diffusion.gaussian import ZonalGaussian
from models.diffusion.prior import ErrorStatistics, LevelPrior, symmetric_inverse
from models.latent_observations import LatentObservations
from models.networks.autoencoder import Autoencoder
from models.observation_operator import ObservationOperator, ObservationSet
from models.specification import AutoencoderSpec
from tests.models.synthetic import CHANNELS, Atmosphere, gaussian_grid

GRID, LATENT, TIME, COUNT = gaussian_grid(), 6, datetime(2001, 5, 1), 50
ROWS, COLUMNS = 4, 8


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def set_of(variable: np.ndarray, pressure: np.ndarray) -> ObservationSet:
    generator, count = np.random.default_rng(1), len(variable)
    latitude = np.rad2deg(np.arcsin(generator.uniform(-1, 1, count)))
    longitude = generator.uniform(0, 360, count)
    return ObservationSet(variable, pressure, latitude, longitude, np.zeros(count), np.ones(count))


def mixed() -> ObservationSet:
    generator = np.random.default_rng(2)
    variable = generator.choice(["z", "t", "u", "sp"], COUNT)
    return set_of(variable, np.where(variable == "sp", np.nan, generator.uniform(21_000, 92_000, COUNT)))


MODULATION = 0.5 + torch.rand(ROWS, COLUMNS, generator=torch.Generator().manual_seed(4))


def observed(
    observations: ObservationSet,
    modulation: Tensor | None = None,
    *,
    correction: bool = False,
    offset: float = 0.0,
    perturbation: Tensor | float = 0.0,
    kept: Tensor | float = 1.0,
) -> LatentObservations:
    """Random components, whitening and statistics; y = H(x_b) + `offset` error units; `perturbation` of the background."""
    climate, place = Climate(len(CHANNELS), 16, 32), (torch.tensor(GRID.latitudes), torch.tensor(GRID.longitudes))
    std = {"z": 800.0, "q": 1e-3, "u": 5.0, "v": 5.0, "t": 3.0, "u10": 3.0, "v10": 3.0, "t2m": 3.0, "sp": 600.0}
    climate.std.copy_(torch.tensor([std[c.variable] for c in CHANNELS]))
    spec = AutoencoderSpec(patch=4, latent=LATENT, width=8, blocks=1)
    coder = Autoencoder(spec, len(CHANNELS), climate.static, *place)
    basis = torch.linalg.qr(noise(3, coder.components.shape[1], LATENT))[0]
    coder.synthesis.copy_(basis * 8)
    coder.components.copy_(basis.T / 8)
    if correction:
        coder.decode_out.weight.data.copy_(0.05 * noise(5, *coder.decode_out.weight.shape))
    roots = noise(6, ROWS, LATENT, LATENT)
    root = torch.eye(LATENT) * 0.5 + 0.1 * (roots @ roots.transpose(-1, -2))
    blocks = noise(7, LATENT, COLUMNS // 2 + 1, ROWS, ROWS)
    gaussian = ZonalGaussian(blocks @ blocks.transpose(-1, -2) / ROWS + 0.1 * torch.eye(ROWS))
    prior = LevelPrior(0.2, root, symmetric_inverse(root), gaussian, modulation)
    state = torch.from_numpy(Atmosphere(1).state(TIME.replace(tzinfo=UTC), GRID))[None]
    climate.harmonics[0].copy_(state[0])
    background = 0.3 * noise(8, 1, len(CHANNELS), 16, 32) + perturbation
    operator = ObservationOperator(observations, GRID, CHANNELS)
    scales = {"z": 50.0, "t": 0.5, "u": 1.0, "sp": 50.0}
    error = torch.tensor([scales[str(v)] for v in observations.variable])
    value = operator(climate.denormalise(background, TIME))[0] + offset * error
    with torch.no_grad():
        z_b = coder.encode(background)
        return LatentObservations(coder, climate, prior, background, z_b, TIME, operator, value, error, kept)


@pytest.mark.parametrize("modulation", [None, MODULATION], ids=["plain", "modulated"])
def test_the_adjoint_is_the_transpose_of_the_jacobian(modulation: Tensor | None) -> None:
    latent = observed(mixed(), modulation)
    dw, v = noise(9, 3, LATENT, ROWS, COLUMNS), noise(10, 3, COUNT)
    left, right = (latent.jacobian(dw) * v).sum(), (dw * latent.adjoint(v)).sum()
    scale = latent.jacobian(dw).norm() * v.norm()
    assert abs(left - right) < 1e-5 * scale


@pytest.mark.parametrize("modulation", [None, MODULATION], ids=["plain", "modulated"])
def test_the_jacobian_is_the_derivative_of_the_residual_where_the_decoder_is_linear(modulation: Tensor | None) -> None:
    latent = observed(mixed(), modulation)
    w, dw = noise(11, 2, LATENT, ROWS, COLUMNS), noise(12, 2, LATENT, ROWS, COLUMNS)
    with torch.no_grad():
        change = latent.residual(w + 0.5 * dw) - latent.residual(w - 0.5 * dw)
    exact = latent.jacobian(dw)
    torch.testing.assert_close(change, -exact, rtol=1e-3, atol=1e-4 * exact.abs().max().item())


def test_the_residual_is_differentiable_and_its_gradient_is_the_adjoint() -> None:
    latent = observed(mixed(), MODULATION, offset=1.0)
    latent.autoencoder.requires_grad_(False)
    w, v = noise(13, 1, LATENT, ROWS, COLUMNS).requires_grad_(True), noise(14, 1, COUNT)
    (gradient,) = torch.autograd.grad((latent.residual(w) * v).sum(), w)
    expected = -latent.adjoint(v)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_a_perturbation_loses_what_the_background_itself_would() -> None:
    """Exact where the autoencoder is linear: x(0) of a perturbed background is x(0) and what stays of the perturbation."""
    kept = torch.linspace(0.0, 1.0, len(CHANNELS))[:, None, None]
    perturbation, w = noise(16, 1, len(CHANNELS), 16, 32), torch.zeros(1, LATENT, ROWS, COLUMNS)
    plain, moved = (observed(mixed(), perturbation=p, kept=kept) for p in (0.0, perturbation))
    with torch.no_grad():
        change = moved.state(w) - plain.state(w)
    torch.testing.assert_close(plain.without_remainder(perturbation), change, atol=1e-5, rtol=1e-4)
    assert float((change - perturbation)[:, 0].norm() / perturbation[:, 0].norm()) > 0.5


def test_modulation_scales_the_increment_where_the_spread_is() -> None:
    half = torch.ones(ROWS, COLUMNS)
    half[:, COLUMNS // 2 :] = 0.5
    w = noise(15, 1, LATENT, ROWS, COLUMNS)
    plain = observed(mixed()).prior.colour(w)
    torch.testing.assert_close(observed(mixed(), half).prior.colour(w), plain * half)
    prior = observed(mixed(), half).prior
    torch.testing.assert_close(prior.whiten(prior.colour(w)), w, atol=1e-4, rtol=1e-4)


def test_without_an_increment_the_state_is_the_background_whatever_the_autoencoder_loses() -> None:
    latent = observed(mixed(), correction=True, offset=2.0)
    zero = torch.zeros(1, LATENT, ROWS, COLUMNS)
    with torch.no_grad():
        assert (latent._decode(latent.z_b) - latent.background).abs().max() > 0.1
        torch.testing.assert_close(latent.state(zero), latent.background, atol=1e-6, rtol=0)
        # y = H(x_b) + 2 sigma, but for the float32 digits of H(x_b)
        torch.testing.assert_close(latent.residual(zero), torch.full((1, COUNT), 2.0), atol=2e-3, rtol=0)


def test_the_residual_uses_the_whole_decoder() -> None:
    w = noise(16, 1, LATENT, ROWS, COLUMNS)
    with torch.no_grad():
        linear, whole = observed(mixed()).residual(w), observed(mixed(), correction=True).residual(w)
    assert (linear - whole).abs().max() > 0.1


def test_the_spread_is_the_prior_variance_of_each_observation_by_probes() -> None:
    latent = observed(mixed(), MODULATION)
    units = torch.eye(COUNT)
    columns = latent.adjoint(units)
    exact = (columns * latent.prior.gaussian.times(columns)).sum(dim=(1, 2, 3))
    ratio = latent.spread() / exact
    assert 0.8 < ratio.mean() < 1.2 and ratio.min() > 0.3 and ratio.max() < 2.2
    assert latent.spread().equal(latent.spread())


def test_painting_moves_the_state_towards_the_observations() -> None:
    for variable in ("z", "t", "u"):
        latent = observed(set_of(np.full(20, variable), np.full(20, 50_000.0)), offset=5.0)
        w = torch.zeros(1, LATENT, ROWS, COLUMNS)
        with torch.no_grad():
            before, after = latent.residual(w), latent.residual(latent.paint(w))
        assert after.square().mean() < before.square().mean() - 0.1, variable


def test_painting_geopotential_between_levels_leaves_temperature_in_kelvin() -> None:
    """H for such a z uses T with weights of thousands of m2 s-2 per K: they are no place to write innovations of z."""
    latent = observed(set_of(np.full(20, "z"), np.full(20, 35_000.0)), offset=5.0)
    reached = latent.operator.spread(torch.ones(1, 20))[0].abs().sum(dim=(1, 2)) > 0
    assert {CHANNELS[i].variable for i in torch.nonzero(reached).flatten().tolist()} == {"z"}
    assert {CHANNELS[i].variable for i in torch.nonzero(
        latent.operator.adjoint(torch.ones(1, 20))[0].abs().sum(dim=(1, 2)) > 0
    ).flatten().tolist()} == {"z", "t"}  # fmt: skip
    w = torch.zeros(1, LATENT, ROWS, COLUMNS)
    with torch.no_grad():
        for _ in range(10):
            w = latent.paint(w)
        assert latent.residual(w).abs().max() < 10.0


def test_level_statistics_are_interpolated_in_ln_s_and_scaled_down_below_the_lowest() -> None:
    statistics = ErrorStatistics(3, 2, 4, 8, 1)
    statistics.root.copy_(
        torch.eye(2).expand(3, 4, 2, 2) * statistics.root.new_tensor([1.0, 2.0, 8.0])[:, None, None, None]
    )
    statistics.covariance.copy_(torch.eye(4).expand(3, 2, 5, 4, 4))
    statistics.level.copy_(torch.tensor([0.1, 0.2, 0.8]))
    statistics.channel_error.copy_(torch.tensor([[1.0], [2.0], [8.0]]))
    np.testing.assert_allclose(statistics.weights(0.4), [0.0, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(statistics.weights(0.1), [1.0, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(statistics.weights(0.001), [1.0, 0.0, 0.0], atol=1e-6)
    assert statistics.weights(5.0).tolist() == [0.0, 0.0, 1.0]
    assert statistics.channel_errors(0.4).item() == pytest.approx(np.sqrt(0.5 * 4 + 0.5 * 64))
    assert statistics.channel_errors(0.05).item() == pytest.approx(0.5)
    small, w = statistics.at(0.05), torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small.colour(w), 0.5 * statistics.at(0.1).colour(w))
    torch.testing.assert_close(small.whiten(small.colour(w)), w)
