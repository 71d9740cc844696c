"""Backgrounds from the system's own cycles: what is kept, where it lies, and how training draws from it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.assimilation import Assimilator
from models.grid import area_weights
from models.training import cycles
from models.training.cycles import CycledCases, CycledRun, TrainingTruth, collect_cycles, error_map, finished
from models.training.data import TrainingData
from models.training.export import build_bundle
from models.training.recipe import CyclesStage, Recipe
from service.observations.table import default_error
from tests.models.conftest import RECIPE, Trained

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(trained: Trained) -> TrainingData:
    return TrainingData(Recipe.load(trained.config).data, trained.work / "nature", trained.work)


def opened(trained: Trained, data: TrainingData) -> CycledCases:
    return CycledCases.open(trained.work, 1, data, 4, CPU)


def test_every_run_of_the_recipe_is_there_and_says_where_it_lies(trained: Trained, data: TrainingData) -> None:
    stage = RECIPE["rounds"][0]["cycles"]
    runs = [CycledRun.open(path) for path in finished(trained.work / "cycled-1")]
    assert [run.nature for run in runs] == [-1, 0, 0, 0, 0, 0]  # the validation year first
    assert all(len(run.backgrounds) == stage["length"] - stage["spin_up"] for run in runs)
    assert len({run.first for run in runs}) == len(runs)
    assert all(np.isfinite(run.backgrounds).all() for run in runs)


def test_cycled_backgrounds_are_nearer_to_the_truth_than_without_observations(
    trained: Trained, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run again, all reports withheld: only the observations make the difference."""
    system = Assimilator(trained.bundle, "cpu")
    path = finished(trained.work / "cycled-1")[1]
    run = CycledRun.open(path)
    stage = CyclesStage(**RECIPE["rounds"][0]["cycles"])
    network = cycles.Network(0, cycles.load_stations(), default_error)
    truth = TrainingTruth(data, data.train[0], network)
    monkeypatch.setattr(
        TrainingTruth, "observations", lambda self, index, system: observations(self, index, system).select(slice(0, 0))
    )
    start = run.first - cycles.FIRST_LEAD_HOURS // 6 - stage.spin_up
    free, first = cycles.cycle(truth, start, stage, system, None)
    assert first == run.first
    without = cycles.squared_errors(CycledRun(free, 0, first), data).mean()
    assert cycles.squared_errors(run, data).mean() < 0.9 * without


observations = TrainingTruth.observations


def test_complete_runs_are_not_done_again_and_a_lost_one_comes_out_the_same(
    trained: Trained, data: TrainingData, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(trained.work / "cycled-1", work / "cycled-1")
    paths = finished(work / "cycled-1")
    before, untouched = CycledRun.open(paths[3]), paths[2].stat().st_mtime_ns
    lost = np.array(before.backgrounds)
    for later in paths[3:]:
        later.unlink()
    recipe = Recipe.load(trained.config)
    system = Assimilator(build_bundle(recipe, data, trained.work, 0), "cpu")
    collect_cycles(recipe, data, work, 1, system, default_error)
    assert paths[2].stat().st_mtime_ns == untouched
    np.testing.assert_array_equal(CycledRun.open(paths[3]).backgrounds, lost)


def test_the_error_map_is_flat_at_first_and_one_in_the_mean_square(trained: Trained, data: TrainingData) -> None:
    paths = finished(trained.work / "cycled-1")
    assert error_map(paths[: cycles.RUNS_BEFORE_MAP - 1], data, 4) is None
    modulation = error_map(paths, data, 4)
    assert modulation is not None and modulation.shape == (4, 8)
    area = area_weights(np.array(data.grid.latitudes)).reshape(4, 4).mean(dim=1)[:, None]
    assert float((modulation**2 * area).mean()) == pytest.approx(1.0, abs=0.1)
    assert modulation.max() > 1.1 * modulation.min()


def test_training_draws_no_case_of_the_validation_year(trained: Trained, data: TrainingData) -> None:
    cases = opened(trained, data)
    drawn = cases.sample(np.random.default_rng(0), 40)
    held_back = cases.validation()
    assert len(drawn) == 40 and len(held_back) == 2
    known = {case.numpy().tobytes() for case in held_back.background}
    assert not known & {case.numpy().tobytes() for case in drawn.background}
    assert known  # the validation year has cases of its own


def test_a_case_pairs_a_background_with_the_truth_of_its_time(trained: Trained, data: TrainingData) -> None:
    cases = opened(trained, data)
    drawn = cases.sample(np.random.default_rng(1), 20)
    own = ((drawn.background - drawn.truth) ** 2).mean()
    other = ((drawn.background - drawn.truth.roll(1, 0)) ** 2).mean()
    assert own < 0.7 * other


def test_maps_are_jittered_from_case_to_case(trained: Trained, data: TrainingData) -> None:
    drawn = opened(trained, data).sample(np.random.default_rng(1), 20)
    spread = drawn.modulation.log().std(dim=0).mean()
    assert 0.3 * cycles.MAP_JITTER < spread < 1.5 * cycles.MAP_JITTER


def test_a_round_without_runs_says_what_to_do(trained: Trained, data: TrainingData, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="rounds"):
        CycledCases.open(tmp_path, 1, data, 4, CPU)
