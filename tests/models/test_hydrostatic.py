"""The hydrostatic balance against the exact posterior of a column, the hypsometric equation and a known regression."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from models.assimilation import AnalysisSettings, Assimilator
from models.baselines.methods import three_d_var
from models.bundle import SHIPPED, Bundle, BundleError
from models.constants import GAS_CONSTANT
from models.evaluation.method import Given
from models.evaluation.options import Options
from models.evaluation.truth_run import TruthRun
from models.hydrostatic import HYDROSTATIC, Fitted, HydrostaticBalance, adjusted, constrained, predictors
from models.training.cli import train
from models.training.hydrostatic import Regression, row_covariance
from service.observations.table import default_error
from tests.models.conftest import RECIPE, Trained
from tests.models.synthetic import CHANNELS
from tests.models.test_assimilation import TIME, places

ROWS, COLUMNS = 3, 4
Z, P, A = constrained(CHANNELS), predictors(CHANNELS), adjusted(CHANNELS)


def covariance(size: int, generator: torch.Generator, scale: float = 1.0) -> torch.Tensor:
    root = torch.randn(ROWS, size, 2 * size, generator=generator)
    return scale * root @ root.mT / (2 * size)


@pytest.fixture
def balance() -> HydrostaticBalance:
    generator = torch.Generator().manual_seed(3)
    regression = torch.randn(len(Z), len(P), ROWS, COLUMNS, generator=generator)
    residual = covariance(len(Z), generator, 0.01)
    return HydrostaticBalance(CHANNELS, Fitted(regression, residual, covariance(len(A), generator)))


def test_it_is_the_mean_of_the_posterior_of_each_column(balance: HydrostaticBalance) -> None:
    """In information form, built anew: (S^-1 + C^T Sigma^-1 C) d = C^T Sigma^-1 (0 - C x)."""
    x = torch.randn(2, len(CHANNELS), ROWS, COLUMNS, generator=torch.Generator().manual_seed(4))
    found, fitted = balance.balanced(x), balance.fitted
    for row in range(ROWS):
        for column in range(COLUMNS):
            c = torch.zeros(len(Z), len(CHANNELS), dtype=torch.float64)
            c[range(len(Z)), Z] = 1.0
            c[:, P] = -fitted.regression[:, :, row, column].double()
            departure = -c @ x[:, :, row, column].double().T
            weight = c[:, A].T @ torch.linalg.inv(fitted.residual[row].double())
            information = torch.linalg.inv(fitted.error[row].double()) + weight @ c[:, A]
            expected = torch.linalg.solve(information, weight @ departure).T
            change = (found - x)[:, A, row, column].double()
            torch.testing.assert_close(change, expected, rtol=1e-3, atol=1e-4)


def test_a_balanced_state_and_the_other_channels_stay_as_they_are(balance: HydrostaticBalance) -> None:
    x = torch.randn(2, len(CHANNELS), ROWS, COLUMNS, generator=torch.Generator().manual_seed(5))
    others = [i for i in range(len(CHANNELS)) if i not in A]
    assert others and torch.equal(balance.balanced(x)[:, others], x[:, others])
    x[:, Z] = x[:, Z] - balance.imbalance(x)
    torch.testing.assert_close(balance.balanced(x), x, rtol=1e-4, atol=1e-4)


def test_a_known_regression_is_found() -> None:
    generator = torch.Generator().manual_seed(6)
    m = torch.randn(len(Z), len(P), ROWS, COLUMNS, generator=generator)
    regression, left = Regression(Z, P), []
    for _ in range(600):
        x = torch.randn(len(CHANNELS), ROWS, COLUMNS, generator=generator)
        noise = 0.1 * torch.randn(len(Z), ROWS, COLUMNS, generator=generator)
        x[Z] = torch.einsum("zpyx,pyx->zyx", m, x[P]) + noise
        regression.add(x)
        left.append(noise)
    torch.testing.assert_close(regression.solved(), m, rtol=0.05, atol=0.03)
    expected = 0.01 * torch.eye(len(Z)).expand(ROWS, -1, -1)
    torch.testing.assert_close(row_covariance(torch.stack(left), 1), expected, rtol=0.1, atol=1e-3)


def sample() -> tuple[Bundle, torch.Tensor]:
    """The shipped bundle and the anomaly of a state of its sample."""
    bundle = Bundle.load(SHIPPED)
    with xr.open_dataset(SHIPPED / "sample.nc") as file:
        time = datetime.fromtimestamp(int(file["time"].values[0].astype("datetime64[s]").astype(np.int64)), UTC)
    state = TruthRun(SHIPPED / "sample.nc", bundle.spec).state(time)
    return bundle, bundle.climate.normalise(torch.from_numpy(state)[None], time)


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_the_shipped_balance_is_the_hypsometric_equation() -> None:
    """One kelvin more at all levels raises z(p) by R ln(p_s / p) K; the fitted regression must know that where the
    ground is low. A rise of all z alone is shared between z and what it follows from."""
    bundle, x = sample()
    balance, channels = bundle.hydrostatic, bundle.spec.channels
    assert balance is not None
    std = bundle.climate.std[:, None, None]
    z = balance.targets
    low = bundle.climate.static[0] < 0.3  # km
    warmer = torch.zeros_like(x[0])
    for i, c in enumerate(channels):
        if c.variable in ("t", "t2m"):
            warmer[i] = 1.0
        if c.variable == "z":
            assert c.level is not None
            warmer[i] = GAS_CONSTANT * np.log(1000.0 / c.level)
    rise = rms(warmer[z])
    left = balance.imbalance((warmer / std)[None]) * std[z]
    assert rms(left[..., low]) < 0.15 * rise
    lifted = torch.zeros_like(x)
    lifted[:, z] = 100.0 / std[z]
    raised, before = balance.balanced(x + lifted), balance.balanced(x)
    assert rms(((balance.imbalance(raised) - balance.imbalance(before)) * std[z])[..., low]) < 20.0
    sp = next(i for i, c in enumerate(channels) if c.variable == "sp")
    assert float((raised - before)[:, sp, low].mean() * std[sp]) > 20.0  # Pa: a part of the lift is taken for pressure


@pytest.fixture
def stage(trained: Trained, nature: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Recipe, work and a copy of the tiny bundle."""
    bundle = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    (tmp_path / "nature").symlink_to(nature)
    hydrostatic = {"nature": "train.nc", "every": 4, "starts": 1, "days": 1.0, "spin_up_days": 0.5}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({**RECIPE, "hydrostatic": hydrostatic}))
    return recipe, tmp_path, bundle


def test_the_stage_adds_a_balance_to_the_bundle_and_analyses_use_it(stage: tuple[Path, Path, Path]) -> None:
    recipe, work, folder = stage
    before = json.loads((folder / "bundle.json").read_text())["files"]
    train(recipe, work, folder, ("hydrostatic",), "cpu", default_error)
    bundle = Bundle.load(folder)
    assert bundle.hydrostatic is not None and bundle.hydrostatic.provenance["cycles"] == "2"
    assert {name: bundle.spec.files[name] for name in before} == before

    system = Assimilator(folder, "cpu")
    truth = TruthRun(work / "nature" / "train.nc", bundle.spec)
    time = truth.times[40]
    start = truth.state(time - timedelta(hours=6))[None]
    background = next(iter(system.forecast(np.concatenate([start, start * 1.001]), time - timedelta(hours=6), 1)))
    plain, drawn = (
        system.analyse(background, places(4), time, 0.3, AnalysisSettings(members=2, hydrostatic=on)).members
        for on in (False, True)
    )
    before_it, after_it = (
        rms(
            bundle.hydrostatic.imbalance(
                bundle.climate.normalise(torch.from_numpy(members.mean(axis=0, keepdims=True)), time)
            )
        )
        for members in (plain, drawn)
    )
    assert after_it < 0.8 * before_it
    single = system.analyse(background[:1], places(4), time, 0.3, AnalysisSettings(members=2)).members
    same = system.analyse(background[:1], places(4), time, 0.3, AnalysisSettings(members=2, hydrostatic=False)).members
    np.testing.assert_array_equal(single, same)  # a single forecast is balanced enough

    rewritten = bundle.save(work / "again")
    again = Bundle.load(work / "again").hydrostatic
    assert HYDROSTATIC in rewritten.files and again is not None
    torch.testing.assert_close(again.gain, bundle.hydrostatic.gain)


def test_a_bundle_without_a_balance_says_so(assimilator: Assimilator) -> None:
    with pytest.raises(ValueError, match="no hydrostatic balance"):
        assimilator.balanced(np.zeros((1, len(CHANNELS), 16, 32), np.float32), TIME)


def test_a_balance_of_another_grid_is_refused(balance: HydrostaticBalance, trained: Trained, tmp_path: Path) -> None:
    balance.save(tmp_path / HYDROSTATIC)
    with pytest.raises(ValueError, match="another grid"):
        HydrostaticBalance.load(tmp_path / HYDROSTATIC, Bundle.load(trained.bundle).spec)


def test_an_altered_balance_is_noticed(stage: tuple[Path, Path, Path], balance: HydrostaticBalance) -> None:
    folder = stage[2]
    Bundle.load(folder).add_hydrostatic(balance)
    with pytest.raises(ValueError, match="another grid"):
        Bundle.load(folder)
    (folder / HYDROSTATIC).unlink()
    with pytest.raises(BundleError, match=f"{HYDROSTATIC} is missing"):
        Bundle.load(folder)


def test_3d_var_takes_the_same_balance() -> None:
    system = Assimilator(SHIPPED, "cpu")
    truth = TruthRun(SHIPPED / "sample.nc", system.spec)
    time = truth.times[0]
    given = Given(truth.state(time)[None], places(4), time, 48.0, 0)
    plain, drawn = (
        three_d_var(system, Options("3dvar", options)).analyse(given) for options in ({}, {"hydrostatic": "true"})
    )
    np.testing.assert_allclose(drawn, system.balanced(plain, time), rtol=1e-5)
