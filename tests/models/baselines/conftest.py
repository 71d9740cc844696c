"""B fitted to the tiny bundle of the tests, and one analysis problem of the synthetic atmosphere."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from models.assimilation import Assimilator
from models.covariance.store import BalancedStatistics, load_statistics
from models.evaluation.method import Given, States
from models.observation_operator import ObservationSet
from models.training.covariance import fit_covariance
from models.training.data import TrainingData
from models.training.recipe import CovarianceStage, Recipe
from tests.models.conftest import Trained
from tests.models.synthetic import Atmosphere

TRUNCATION = 10


@pytest.fixture(scope="session")
def fitted_file(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Recipe.load(trained.config)
    work = Path(shutil.copytree(trained.work, tmp_path_factory.mktemp("fitted") / "work", symlinks=True))
    data = TrainingData(recipe.data, work / "nature", work)
    return fit_covariance(recipe, CovarianceStage(lead_hours=24, starts=96, truncation=TRUNCATION), data, work)


@pytest.fixture(scope="session")
def statistics(fitted_file: Path, assimilator: Assimilator) -> BalancedStatistics:
    return load_statistics(fitted_file, assimilator.spec, assimilator.bundle.climate)


@dataclass(frozen=True)
class Case:
    given: Given
    truth: States  # [channel, latitude, longitude]


def observe(assimilator: Assimilator, truth: States, count: int) -> ObservationSet:
    """`count` reports of each of z, t, u, v at 500 hPa and of sp, with small random errors."""
    generator = np.random.default_rng(4)
    names = np.repeat(["z", "t", "u", "v", "sp"], count)
    error = np.repeat([50.0, 0.5, 1.0, 1.0, 100.0], count)
    n = len(names)
    exact = ObservationSet(
        names,
        np.where(names == "sp", np.nan, 5e4),
        np.rad2deg(np.arcsin(generator.uniform(-1, 1, n))),
        generator.uniform(0, 360, n),
        np.zeros(n),
        error,
    )
    value = assimilator.equivalents(truth[None], exact)[0] + error * generator.standard_normal(n)
    return ObservationSet(exact.variable, exact.pressure, exact.latitude, exact.longitude, value, error)


@pytest.fixture(scope="session")
def case(assimilator: Assimilator) -> Case:
    """A 24 h forecast from the truth of a year that no stage has read, and observations of the truth."""
    valid_time = datetime(2001, 2, 20, tzinfo=UTC)
    atmosphere, base = Atmosphere(5), valid_time - timedelta(hours=24)
    truth = atmosphere.state(valid_time, assimilator.spec.grid)
    *_, background = assimilator.forecast(atmosphere.state(base, assimilator.spec.grid)[None], base, 4)
    return Case(Given(background, observe(assimilator, truth, 150), valid_time, 24.0, seed=1), truth)
