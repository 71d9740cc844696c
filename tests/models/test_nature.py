"""The nature run's file: continued after an interruption as if there had been none; and SPEEDY itself where it is."""

import importlib.util
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from netCDF4 import Dataset

from models.bundle import SHIPPED
from models.constants import GAS_CONSTANT
from models.nature import speedy
from models.nature.speedy import generate
from models.training.data import NatureFile
from tests.models.synthetic import gaussian_grid

START = datetime(2000, 1, 1)


class Killed(Exception):
    """Stands for a killed process."""


class TinyRun:
    """In place of the SPEEDY integration: one growing number, so that a lost or doubled step shows."""

    chunks_left = 1_000

    def __init__(self, seed: int, start: datetime) -> None:
        grid = gaussian_grid(4)
        self.latitude, self.longitude = np.array(grid.latitudes), np.array(grid.longitudes)
        self.orography = self.land = np.ones((4, 8), dtype=np.float32)
        self.state = 100.0 * seed

    def advance(self, days: int) -> dict[str, np.ndarray]:
        if TinyRun.chunks_left == 0:
            raise Killed
        TinyRun.chunks_left -= 1
        steps = self.state + 1 + np.arange(4 * days, dtype=np.float32)
        self.state = float(steps[-1])
        surface = np.broadcast_to(steps[:, None, None], (len(steps), 4, 8))
        upper = np.broadcast_to(surface[:, None], (len(steps), len(speedy.LEVELS_HPA), 4, 8))
        return {name: upper if name in speedy.UPPER_AIR else surface for name in speedy.UPPER_AIR | speedy.SURFACE}

    def save(self, path: Path) -> None:
        path.write_text(str(self.state))

    def load(self, path: Path) -> None:
        self.state = float(path.read_text())


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speedy, "NatureRun", TinyRun)
    monkeypatch.setattr(speedy, "CHUNK_DAYS", 2)
    monkeypatch.setattr(TinyRun, "chunks_left", 1_000)


def contents(path: Path) -> dict[str, np.ndarray]:
    with Dataset(path) as file:
        return {name: np.asarray(variable[:]) for name, variable in file.variables.items()}


@pytest.mark.usefixtures("tiny")
def test_an_interrupted_run_continues_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(7, 1, tmp_path / "whole.nc", START, progress=False)
    monkeypatch.setattr(TinyRun, "chunks_left", 3)  # the spin-up and two chunks
    with pytest.raises(Killed):
        generate(7, 1, tmp_path / "cut.nc", START, progress=False)
    assert json.loads((tmp_path / "cut.nc.progress.json").read_text())["days"] == 4
    monkeypatch.setattr(TinyRun, "chunks_left", 1_000)
    generate(7, 1, tmp_path / "cut.nc", START, progress=False)
    whole, cut = contents(tmp_path / "whole.nc"), contents(tmp_path / "cut.nc")
    assert len(whole["time"]) == 28 and whole["sp"][0, 0, 0] == 100 + 4 * speedy.SPINUP_DAYS + 1
    for name, values in whole.items():
        np.testing.assert_array_equal(cut[name], values, err_msg=name)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.nc", "cut.nc"}


@pytest.mark.usefixtures("tiny")
def test_a_run_is_never_overwritten_or_mixed_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate(1, 1, tmp_path / "done.nc", START, progress=False)
    with pytest.raises(FileExistsError, match="complete"):
        generate(1, 1, tmp_path / "done.nc", START, progress=False)
    monkeypatch.setattr(TinyRun, "chunks_left", 2)
    with pytest.raises(Killed):
        generate(7, 1, tmp_path / "cut.nc", START, progress=False)
    with pytest.raises(ValueError, match="interrupted run with seed 1"):
        generate(7, 2, tmp_path / "cut.nc", START, progress=False)
    with pytest.raises(ValueError, match="at least 1"):
        generate(0, 1, tmp_path / "none.nc", START, progress=False)


@pytest.mark.usefixtures("tiny")
def test_training_reads_what_the_nature_run_writes(tmp_path: Path) -> None:
    generate(1, 1, tmp_path / "run.nc", START, progress=False)
    file = NatureFile.open(tmp_path / "run.nc")
    assert file.times == tuple(datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=6 * i) for i in (1, 2, 3, 4))
    assert len(file.channels) == 5 * len(speedy.LEVELS_HPA) + 4
    ((_, states),) = file.chunks()
    assert states.shape == (4, 39, 4, 8)


def test_the_shipped_sample_is_a_nature_run_on_the_n24_grid() -> None:
    file = NatureFile.open(SHIPPED / "sample.nc")
    assert (file.grid.N, len(file.grid.latitudes), len(file.grid.longitudes)) == (24, 48, 96)
    np.testing.assert_allclose(file.grid.latitudes, gaussian_grid(48).latitudes, atol=1e-4)
    assert len(file.channels) == 39 and file.times[1] - file.times[0] == timedelta(hours=6)


def test_the_shipped_sample_has_an_atmosphere_like_the_earths() -> None:
    """Five days of January: jets, hydrostatic balance, global means that do not drift."""
    file = contents(SHIPPED / "sample.nc")
    latitude, level = file["latitude"], list(file["level"])
    jet = file["u"][:, level.index(200.0)].mean(axis=(0, 2))
    for side in (1, -1):
        hemisphere = np.where(side * latitude > 0, jet, -np.inf)
        assert 25 < hemisphere.max() < 50 and 25 < side * latitude[hemisphere.argmax()] < 60
    assert jet[np.abs(latitude) < 10].mean() < 0  # easterlies
    pressure, z, t = 100.0 * np.array(level), file["z"].astype(float), file["t"].astype(float)
    for k in range(len(level) - 1):  # against the mean of the two levels, whose curvature it leaves out
        thickness = (z[:, k + 1] - z[:, k]) / np.log(pressure[k] / pressure[k + 1]) / GAS_CONSTANT
        residual = thickness - 0.5 * (t[:, k] + t[:, k + 1])
        assert np.sqrt((residual**2).mean()) < 1.5
    area = np.cos(np.deg2rad(latitude))[:, None] * np.ones(96)
    mean_pressure = (file["sp"] * area).sum(axis=(1, 2)) / area.sum()
    mean_t500 = (t[:, level.index(500.0)] * area).sum(axis=(1, 2)) / area.sum()
    assert np.ptp(mean_pressure) < 5.0 and np.ptp(mean_t500) < 0.5
    assert file["t2m"][:, latitude > 60].mean() < file["t2m"][:, latitude < -50].mean()  # it is northern winter


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jcm") is None, reason="jcm (pip install 'alignda[nature]') is not here")
def test_speedy_makes_states_that_look_like_the_earth(tmp_path: Path) -> None:
    generate(1, 1, tmp_path / "run.nc", START, progress=False)
    file = contents(tmp_path / "run.nc")
    np.testing.assert_allclose(file["latitude"], gaussian_grid(48).latitudes, atol=1e-4)
    assert 98_000 < file["sp"].mean() < 101_500 and file["q"].min() > -1e-4
    assert 240 < file["t"][:, list(speedy.LEVELS_HPA).index(500.0)].mean() < 270
    assert (np.diff(file["z"].mean(axis=(0, 2, 3))) > 0).all()  # levels go up
