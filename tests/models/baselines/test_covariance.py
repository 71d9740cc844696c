"""The background covariance of the baselines: geometry, adjoints, balance, fit, file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.assimilation import Assimilator
from models.constants import EARTH_RADIUS, OMEGA
from models.covariance.store import BalancedStatistics, load_statistics
from models.helmholtz import Helmholtz
from models.training.covariance import fit_structure
from tests.models.synthetic import gaussian_grid

GRID = gaussian_grid(16)
LATITUDES = np.array(GRID.latitudes)


@pytest.fixture
def helmholtz() -> Helmholtz:
    return Helmholtz(LATITUDES, 32, 10)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_solid_rotation_and_its_balanced_geopotential(helmholtz: Helmholtz) -> None:
    sine = torch.from_numpy(np.sin(np.deg2rad(LATITUDES))).float()[:, None].expand(-1, 32)
    speed = -7.0 * 2**0.5  # psi = -7 sin(lat) of total wavenumber 1, stored times sqrt(1 * 2)
    u, v = helmholtz.wind(speed * sine, torch.zeros_like(sine))
    assert torch.allclose(u, 7.0 * torch.sqrt(1 - sine**2), atol=1e-4)
    assert v.abs().max() < 1e-4
    phi = helmholtz.balanced_geopotential(speed * sine)
    expected = -EARTH_RADIUS * OMEGA * 7.0 * (sine**2 - 1 / 3)  # dphi/dy = -f u, no global mean
    assert torch.allclose(phi, expected, atol=1e-4 * float(expected.abs().max()))


def test_divergent_wind_of_a_sectoral_harmonic(helmholtz: Helmholtz) -> None:
    latitude = torch.from_numpy(np.deg2rad(LATITUDES)).float()[:, None]
    longitude = torch.from_numpy(np.deg2rad(GRID.longitudes)).float()[None]
    chi = torch.cos(latitude) ** 2 * torch.cos(2 * longitude)  # total wavenumber 2
    u, v = helmholtz.wind(torch.zeros_like(chi), chi * 6**0.5)
    assert torch.allclose(u, -2 * torch.cos(latitude) * torch.sin(2 * longitude), atol=1e-5)
    assert torch.allclose(v, -2 * torch.cos(latitude) * torch.sin(latitude) * torch.cos(2 * longitude), atol=1e-5)


def test_potentials_invert_wind(helmholtz: Helmholtz) -> None:
    psi, chi = helmholtz.potentials(*helmholtz.wind(noise(1, 16, 32), noise(1, 16, 32, seed=1)))
    again = helmholtz.potentials(*helmholtz.wind(psi, chi))
    assert torch.allclose(again[0], psi, atol=1e-4)
    assert torch.allclose(again[1], chi, atol=1e-4)


def test_a_grid_that_is_not_gaussian_is_refused() -> None:
    with pytest.raises(ValueError, match="not Gaussian"):
        Helmholtz(np.linspace(85, -85, 16), 32, 10)
    with pytest.raises(ValueError, match="truncation"):
        Helmholtz(LATITUDES, 32, 16)


def test_root_adjoint(statistics: BalancedStatistics) -> None:
    covariance = statistics.at(0.3)
    shape = (2, 19, 16, 32)
    v, x = noise(*shape), noise(*shape, seed=1)
    left, right = (covariance.root(v) * x).sum(), (v * covariance.root_adjoint(x)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-3)


def test_the_level_is_the_rms_of_draws(statistics: BalancedStatistics) -> None:
    from models.grid import area_weights

    draws = statistics.at(0.3).draw(60, torch.Generator().manual_seed(2))
    rms = float((draws**2 * area_weights(LATITUDES)[:, None]).mean().sqrt())
    assert rms == pytest.approx(0.3, rel=0.15)
    steep = statistics.steepened(1.3).at(0.3).draw(60, torch.Generator().manual_seed(2))
    assert float((steep**2 * area_weights(LATITUDES)[:, None]).mean().sqrt()) == pytest.approx(rms, rel=0.1)
    rough, smooth = ((x[..., 1:] - x[..., :-1]).square().mean() for x in (draws, steep))
    assert smooth < rough


def test_a_fit_to_draws_finds_their_covariance(statistics: BalancedStatistics, assimilator: Assimilator) -> None:
    known = statistics.at(0.3)
    draws = known.draw(400, torch.Generator().manual_seed(3))
    found = fit_structure(draws, known.transform, assimilator.spec.grid)
    again = found.at(found.level).draw(400, torch.Generator().manual_seed(4))
    deviation = [x.square().mean(dim=(0, 3)).sqrt() for x in (draws, again)]
    ratio = deviation[1] / deviation[0]
    assert float((ratio - 1).abs().mean()) < 0.05


def test_a_high_has_anticyclonic_wind_and_a_warm_column(
    statistics: BalancedStatistics, assimilator: Assimilator
) -> None:
    """One geopotential observation at 46 N: the increment is B's column, geostrophic in sign."""
    index = {(c.variable, c.level): i for i, c in enumerate(assimilator.spec.channels)}
    row, column = int(np.argmin(np.abs(LATITUDES - 45))), 12
    impulse = torch.zeros(1, 19, 16, 32)
    impulse[0, index["z", 500.0], row, column] = 1.0
    increment = statistics.at(0.3).times(impulse)[0]
    u, v = increment[index["u", 500.0]], increment[index["v", 500.0]]
    assert increment[index["z", 500.0], row, column] > 0
    assert u[row - 2, column] > 0 > u[row + 2, column]
    assert v[row, column - 2] > 0 > v[row, column + 2]


def test_file_round_trip_and_wrong_grid(
    fitted_file: Path, statistics: BalancedStatistics, assimilator: Assimilator, tmp_path: Path
) -> None:
    from safetensors import safe_open

    with safe_open(fitted_file, "pt") as file:
        assert "training_runs" in file.metadata()["provenance"]
    with pytest.raises(FileNotFoundError, match="stage covariance"):
        load_statistics(tmp_path / "none", assimilator.spec, assimilator.bundle.climate)
    other = assimilator.spec.model_copy(update={"grid": gaussian_grid(24)})
    with pytest.raises(ValueError, match="another grid"):
        load_statistics(fitted_file, other, assimilator.bundle.climate)
