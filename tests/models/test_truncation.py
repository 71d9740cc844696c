"""The projection of states on a triangular truncation: what stays, what goes, and that winds are vectors."""

import numpy as np
import pytest
import torch
from scipy.special import sph_legendre_p_all

from models.assimilation import Assimilator
from models.evaluation.spectra import PowerSpectrum
from models.helmholtz import Helmholtz
from models.networks.truncation import SphericalTruncation
from models.specification import ChannelSpec

ROWS, COLUMNS, TRUNCATION = 24, 48, 10
NODES = np.polynomial.legendre.leggauss(ROWS)[0][::-1]
LATITUDES = torch.from_numpy(np.rad2deg(np.arcsin(NODES)))
CHANNELS = tuple(ChannelSpec(variable=v, level=None if v == "sp" else 500.0) for v in ("z", "u", "v", "sp"))
STD = torch.tensor([2.0, 3.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def truncated() -> SphericalTruncation:
    return SphericalTruncation(CHANNELS, STD, LATITUDES, COLUMNS, TRUNCATION)


def noise(count: int = 2) -> torch.Tensor:
    return torch.randn(count, len(CHANNELS), ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))


def harmonic(n: int, m: int) -> torch.Tensor:
    """Y_nm on the grid, real part."""
    p = sph_legendre_p_all(n, n, np.arccos(NODES))[0][n, m]
    longitude = 2 * np.pi * np.arange(COLUMNS) / COLUMNS
    return torch.from_numpy(p[:, None] * np.cos(m * longitude + 0.3)).float()


@pytest.mark.parametrize(("n", "m", "stays"), [(0, 0, 1.0), (10, 7, 1.0), (9, 0, 1.0), (11, 3, 0.0), (14, 12, 0.0)])
def test_scalar_harmonics_stay_up_to_the_truncation(
    truncated: SphericalTruncation, n: int, m: int, stays: float
) -> None:
    x = torch.zeros(1, len(CHANNELS), ROWS, COLUMNS)
    x[0, 0] = harmonic(n, m)
    torch.testing.assert_close(truncated(x)[0, 0], stays * x[0, 0], atol=2e-6, rtol=0)


def test_a_wind_of_potentials_within_the_truncation_stays(truncated: SphericalTruncation) -> None:
    helmholtz = Helmholtz(LATITUDES.numpy(), COLUMNS, TRUNCATION)
    u, v = helmholtz.wind(*(harmonic(n, m)[None] for n, m in ((8, 3), (10, 1))))
    x = torch.zeros(1, len(CHANNELS), ROWS, COLUMNS)
    x[0, 1], x[0, 2] = u[0] / STD[1], v[0] / STD[2]
    torch.testing.assert_close(truncated(x), x, atol=1e-5, rtol=0)


def test_it_is_a_projection_and_makes_nothing_larger(truncated: SphericalTruncation) -> None:
    x = noise()
    once = truncated(x)
    torch.testing.assert_close(truncated(once), once, atol=1e-5, rtol=0)
    area = torch.from_numpy(np.polynomial.legendre.leggauss(ROWS)[1]).float()[:, None]
    kinetic = [((f[:, 1] * STD[1]) ** 2 + (f[:, 2] * STD[2]) ** 2) * area for f in (once, x)]
    assert (kinetic[0].sum(dim=(1, 2)) < kinetic[1].sum(dim=(1, 2))).all()
    assert ((once[:, 0] ** 2 * area).sum() < (x[:, 0] ** 2 * area).sum()).all()


def test_nothing_is_left_beyond_the_truncation(truncated: SphericalTruncation) -> None:
    x = noise()
    spectrum = PowerSpectrum(LATITUDES.numpy())
    before, after = (spectrum(f[:, (0, 3)].numpy()) for f in (x, truncated(x)))
    assert (after[..., TRUNCATION + 1 :].sum(axis=-1) < 1e-8 * before.sum(axis=-1)).all()
    np.testing.assert_allclose(after[..., : TRUNCATION + 1], before[..., : TRUNCATION + 1], rtol=1e-4, atol=1e-7)


def test_means_stay_and_gradients_pass(truncated: SphericalTruncation) -> None:
    x = noise().requires_grad_(True)
    out = truncated(x)
    area = torch.from_numpy(np.polynomial.legendre.leggauss(ROWS)[1]).float()[:, None]
    means = [(f[:, 3] * area).mean(dim=(1, 2)) for f in (out, x)]
    torch.testing.assert_close(*means, atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad((out**2).sum(), x)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0


def test_a_forecast_step_ends_within_the_truncation_and_keeps_the_mass(assimilator: Assimilator) -> None:
    model, spec = assimilator.bundle.forecast, assimilator.spec
    shape = (2, len(spec.channels), len(spec.grid.latitudes), len(spec.grid.longitudes))
    x = 0.3 * torch.randn(shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        out = model(x, torch.tensor([0.1, 0.6]))
    means = [(f[:, model.mass] * model.area).mean(dim=(-2, -1)) for f in (out, x)]
    torch.testing.assert_close(*means, atol=1e-6, rtol=0)
    scalars = [i for i, c in enumerate(spec.channels) if c.variable in ("z", "t", "q", "sp")]
    power = PowerSpectrum(np.array(spec.grid.latitudes))(out[:, scalars].numpy())
    assert spec.networks.truncation is not None
    assert (power[..., spec.networks.truncation + 1 :].sum(axis=-1) < 1e-8 * power.sum(axis=-1)).all()
