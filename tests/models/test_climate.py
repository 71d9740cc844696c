"""The seasonal climate: fitted exactly where it can be, inverted exactly, dated right in every year."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from netCDF4 import Dataset

from models.climate import Climate, seasonal_basis, year_fraction
from models.training.data import NatureFile, fit_climate
from tests.models.conftest import HELD_OUT_FROM
from tests.models.synthetic import CHANNELS, gaussian_grid, write_nature

START = datetime(2001, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("year", [2000, 2001, 2100])
def test_the_year_fraction_runs_from_zero_to_one_in_every_year(year: int) -> None:
    assert year_fraction(datetime(year, 1, 1, tzinfo=UTC)) == 0.0
    length = 366 if year == 2000 else 365
    last = year_fraction(datetime(year, 12, 31, 18, tzinfo=UTC))
    assert last == pytest.approx(1 - 0.25 / length, abs=1e-12)
    assert year_fraction(datetime(year, 3, 1, tzinfo=UTC)) == pytest.approx((60 if year == 2000 else 59) / length)


def test_the_season_is_continuous_over_new_year() -> None:
    turn = torch.tensor([year_fraction(datetime(2000, 12, 31, 23, 59, tzinfo=UTC)), 0.0])
    before, after = seasonal_basis(turn)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def test_the_basis_is_orthogonal_over_a_year() -> None:
    basis = seasonal_basis(torch.arange(1000, dtype=torch.float64) / 1000)
    gram = basis.T @ basis / len(basis)
    torch.testing.assert_close(gram, torch.diag(torch.tensor([1, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)))


def test_normalise_and_denormalise_are_inverse() -> None:
    climate, generator = Climate(3, 4, 8), torch.Generator().manual_seed(1)
    climate.harmonics.copy_(torch.randn(climate.harmonics.shape, generator=generator) * 10)
    climate.std.copy_(torch.tensor([0.01, 1.0, 500.0]))
    x, time = torch.randn(2, 3, 4, 8, generator=generator), datetime(2004, 8, 17, 6)
    torch.testing.assert_close(
        climate.normalise(climate.denormalise(x, time), time)[:, 1:], x[:, 1:], atol=1e-5, rtol=0
    )
    assert climate.denormalise(torch.zeros(1, 3, 4, 8), time)[0].equal(climate.mean(time))
    one = climate.denormalise(torch.ones(1, 3, 4, 8), time)[0] - climate.mean(time)
    torch.testing.assert_close(one.mean(dim=(1, 2)), climate.std, rtol=1e-3, atol=1e-5)


def with_known_season(path: Path, days: int) -> np.ndarray:
    """A nature run of zonal waves on a known seasonal cycle in every field; returns its harmonics [5, row, column]."""
    write_nature(path, 1, START - timedelta(hours=6), 1, gaussian_grid(4))
    generator = np.random.default_rng(3)
    harmonics = generator.standard_normal((5, 4, 8))
    times = np.arange(days * 4)
    fraction = torch.tensor([year_fraction(START + timedelta(hours=6 * int(i))) for i in times], dtype=torch.float64)
    cycle = np.einsum("tk,kyx->tyx", seasonal_basis(fraction).numpy(), harmonics)
    wave = 2.0 * np.cos(np.arange(8) * np.pi / 4 - 2 * np.pi * times[:, None, None] / 20.0)  # a period of 5 days
    with Dataset(path, "a") as file:
        file["time"][:] = 6 * (times + 1)
        for name in ("z", "q", "u", "v", "t", "u10", "v10", "t2m", "sp"):
            field = np.broadcast_to(cycle + wave, (len(times), 4, 8))
            file[name][:] = field[:, None].repeat(3, axis=1) if file[name].ndim == 4 else field
    return harmonics


def test_the_fit_recovers_a_known_seasonal_cycle_and_the_scales_of_what_is_left(tmp_path: Path) -> None:
    harmonics = with_known_season(tmp_path / "known.nc", 365)
    climate = fit_climate([NatureFile.open(tmp_path / "known.nc")])
    for channel in range(len(CHANNELS)):
        np.testing.assert_allclose(climate.harmonics[:, channel].numpy(), harmonics, atol=2e-3)
    torch.testing.assert_close(climate.std, torch.full_like(climate.std, np.sqrt(2.0)), rtol=2e-3, atol=0)
    # a wave 2 cos(w t) changes by 4 sin(w dt / 2) sin(...) in a step dt; the seasonal cycle adds next to nothing
    change = 4 * np.sin(np.pi / 20) / np.sqrt(2)
    torch.testing.assert_close(climate.tendency_std, torch.full_like(climate.std, change), rtol=2e-3, atol=0)
    assert (climate.total_std > climate.std).all()


def test_a_nature_file_ends_before_what_is_held_out(nature: Path) -> None:
    whole = NatureFile.open(nature / "validation.nc")
    kept = NatureFile.open(nature / "validation.nc", before=HELD_OUT_FROM)
    assert len(whole.times) == 240 and len(kept.times) == 119  # the first state is at 06 UTC
    assert kept.times[-1] < HELD_OUT_FROM <= whole.times[119]
    assert sum(len(states) for _, states in kept.chunks()) == 119
    assert kept.channels == CHANNELS and kept.grid.N == 8


def test_what_is_no_nature_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="alignda nature --out"):
        NatureFile.open(tmp_path / "none.nc")
    with Dataset(tmp_path / "other.nc", "w") as file:
        file.createDimension("time", 1)
        file.createVariable("z", "f4", ("time",))
    with pytest.raises(ValueError, match="has no q, u, v, t"):
        NatureFile.open(tmp_path / "other.nc")
