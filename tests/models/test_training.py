"""Training: makes a bundle that loads, continues where it stopped, and never reads what is held out."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from netCDF4 import Dataset
from pydantic import ValidationError
from torch import Tensor, nn

from models.bundle import Bundle, file_digest
from models.training import loop
from models.training.cli import train
from models.training.data import TrainingData
from models.training.loop import learning_rate_factor, optimise
from models.training.recipe import DataRecipe, Recipe, StageRecipe
from service.observations.table import default_error
from tests.models.conftest import RECIPE, Trained, held_out_rows
from tests.models.synthetic import CHANNELS, gaussian_grid

RECIPES = Path(__file__).parents[2] / "models" / "training" / "recipes"


def rows(trained: Trained, stage: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (trained.work / f"{stage}.jsonl").read_text().splitlines()]


def test_training_makes_a_bundle_that_loads(trained: Trained) -> None:
    bundle = Bundle.load(trained.bundle)
    spec = bundle.spec
    assert spec.grid == gaussian_grid() and spec.channels == CHANNELS and spec.name == "tiny"
    assert spec.error_levels.lead_hours == (6.0, 12.0, 24.0, None)
    assert list(spec.error_levels.level) == sorted(spec.error_levels.level)
    assert spec.error_levels.level[-1] == pytest.approx(1.0, rel=0.1)  # of the climatology, by the unit's definition
    assert spec.provenance["forecast_steps"] == str(RECIPE["forecast"]["steps"])
    for module in bundle.modules().values():
        assert all(torch.isfinite(value).all() for value in module.state_dict().values())


def test_the_held_out_states_are_never_read(trained: Trained, nature: Path) -> None:
    """They are NaN in the file, and nothing that training made is."""
    with Dataset(nature / "validation.nc") as file:
        held_out = held_out_rows(nature / "validation.nc")
        assert np.isnan(file["t"][held_out]).all() and not np.isnan(file["t"][: held_out.start]).any()
    anomalies = np.load(trained.work / "anomalies-validation" / "anomalies.npy")
    assert len(anomalies) == held_out.start and np.isfinite(anomalies).all()
    for stage in ("autoencoder", "forecast", "stabilise-0", "prior"):
        assert all(np.isfinite(value) for row in rows(trained, stage) for value in row.values())


def test_without_the_guard_the_held_out_states_would_be_read(trained: Trained, nature: Path, tmp_path: Path) -> None:
    shutil.copy(trained.work / "climate.pt", tmp_path)
    (tmp_path / "anomalies-0").symlink_to(trained.work / "anomalies-0")
    unguarded = DataRecipe(**{**RECIPE["data"], "held_out_from": "2002-01-01"})
    assert np.isnan(TrainingData(unguarded, nature, tmp_path).validation.array).any()


def test_the_loss_falls(trained: Trained) -> None:
    single = [row["loss"] for row in rows(trained, "forecast") if row["step"] <= 50]  # before the roll-out
    assert np.mean(single[-5:]) < 0.7 * np.mean(single[:5])
    first, last = rows(trained, "forecast")[0], rows(trained, "forecast")[-1]
    assert last["anomaly_nmse_24h"] < 0.8 * first["anomaly_nmse_24h"]
    prior = rows(trained, "prior")
    assert prior[-1]["against_wiener_0.9"] < prior[0]["against_wiener_0.9"]
    assert prior[-1]["against_wiener_0.9"] < 0.999


def test_the_autoencoder_carries_the_anomalies(trained: Trained) -> None:
    assert rows(trained, "autoencoder")[-1]["anomaly_nmse"] < 0.01
    floor = Bundle.load(trained.bundle).statistics.floor
    assert floor.min() > 0 and floor.max() < 0.3


def test_whitened_errors_have_about_unit_variance_at_every_level(trained: Trained) -> None:
    bundle = Bundle.load(trained.bundle)
    noise = torch.randn(400, 40, 4, 8, generator=torch.Generator().manual_seed(1))
    for level in bundle.spec.error_levels.level:
        samples = bundle.statistics.at(level).gaussian.sample(noise)
        assert 0.5 < samples.var().item() < 1.05  # ten waves span few components: the ridge takes a part


def test_a_prior_made_in_a_training_step_is_that_of_any_other_time(trained: Trained) -> None:
    statistics = Bundle.load(trained.bundle).statistics
    expected = statistics.at(0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = statistics.at(0.3)
    assert made.root.equal(expected.root) and made.root.dtype == torch.float32
    assert made.gaussian.values.equal(expected.gaussian.values)


def test_a_finished_training_is_left_alone(trained: Trained, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(trained.work, work, symlinks=True)
    before = {path.name: path.read_bytes() for path in work.glob("*.jsonl")}
    train(trained.config, work, tmp_path / "bundle", device="cpu", errors=default_error)
    assert {path.name: path.read_bytes() for path in work.glob("*.jsonl")} == before
    for path in trained.bundle.glob("*.safetensors"):
        assert file_digest(path) == file_digest(tmp_path / "bundle" / path.name), path.name


class Interrupted(Exception):
    """Stands for a killed process."""


def fit(work: Path, stop_at: int | None = None, steps: int = 30) -> tuple[nn.Module, dict[str, float]]:
    """A regression whose batch follows from the step alone; raises Interrupted at `stop_at`."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    stage = StageRecipe(steps=steps, batch=16, learning_rate=0.02, warmup=4, average_decay=0.9)

    def loss(step: int) -> Tensor:
        if step == stop_at:
            raise Interrupted
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        difference: Tensor = module(x).float()[:, 0] - x.sum(dim=1)
        return (difference**2).mean()

    work.mkdir(exist_ok=True)
    scores = optimise("toy", module, stage, work, loss, lambda m: {"size": next(m.parameters()).norm().item()},
                      torch.device("cpu"))  # fmt: skip
    return module, scores


def test_the_loop_continues_to_the_very_result_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVES_EVERY_SECONDS", 0.0)
    whole, scores = fit(tmp_path / "whole")
    for stop in (7, 19):
        with pytest.raises(Interrupted):
            fit(tmp_path / "cut", stop)
        saved = torch.load(tmp_path / "cut" / "toy.pt", weights_only=True)
        assert saved["step"] == stop
    continued, continued_scores = fit(tmp_path / "cut")
    for a, b in zip(whole.state_dict().values(), continued.state_dict().values(), strict=True):
        assert a.equal(b)
    assert scores == continued_scores
    steps = [json.loads(line)["step"] for line in (tmp_path / "cut" / "toy.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 31))


def test_a_stage_that_was_interrupted_continues_from_its_checkpoint(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    ignore = shutil.ignore_patterns("forecast.*", "prior.*", "backgrounds.pt")
    shutil.copytree(trained.work, work, symlinks=True, ignore=ignore)
    monkeypatch.setattr(loop, "SAVES_EVERY_SECONDS", 0.0)
    factor = learning_rate_factor

    def interrupted(step: int, stage: StageRecipe) -> float:
        if step == 6:
            raise Interrupted
        return factor(step, stage)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_factor", interrupted)
        with pytest.raises(Interrupted):
            train(trained.config, work, tmp_path / "bundle", ("forecast",), "cpu")
    assert torch.load(work / "forecast.pt", weights_only=True)["step"] == 6
    with pytest.raises(FileNotFoundError):
        train(trained.config, work, tmp_path / "bundle", ("bundle",), "cpu")
    train(trained.config, work, tmp_path / "bundle", ("forecast",), "cpu")
    logged = [json.loads(line)["step"] for line in (work / "forecast.jsonl").read_text().splitlines()]
    assert logged == list(range(2, 81, 2))  # no step twice


def test_the_averaged_weights_are_what_is_left_in_the_module(tmp_path: Path) -> None:
    module, _ = fit(tmp_path / "averaged")
    saved = torch.load(tmp_path / "averaged" / "toy.pt", weights_only=True)
    for name, value in module.state_dict().items():
        assert value.equal(saved["averaged"][f"module.{name}"])
        assert not value.equal(saved["module"][name])


def test_the_logged_loss_is_the_mean_since_the_last_report(tmp_path: Path) -> None:
    """95 steps are no multiple of the interval between reports: the last one covers fewer steps."""
    module = nn.Linear(1, 1)
    stage = StageRecipe(steps=95, batch=1, learning_rate=1e-4, warmup=1)
    optimise("flat", module, stage, tmp_path, lambda step: 2.0 + 0.0 * module.weight.sum(), lambda m: {},
             torch.device("cpu"))  # fmt: skip
    logged = [json.loads(line) for line in (tmp_path / "flat.jsonl").read_text().splitlines()]
    assert logged[-1]["step"] == 95 and logged[-2]["step"] == 94
    assert [row["loss"] for row in logged] == pytest.approx([2.0] * len(logged))


def test_a_loss_that_is_not_finite_ends_the_training_with_a_hint(tmp_path: Path) -> None:
    module = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="wild: loss is nan at step 0; lower its learning rate"):
        optimise("wild", module, StageRecipe(steps=3, batch=1), tmp_path, lambda step: module.weight.sum() * np.nan,
                 lambda m: {}, torch.device("cpu"))  # fmt: skip


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    stage = StageRecipe(steps=100, batch=1, warmup=10)
    factors = [learning_rate_factor(step, stage) for step in range(101)]
    assert factors[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert factors[10] == pytest.approx(1.0) and factors[55] == pytest.approx(0.505)
    assert all(np.diff(factors[10:]) < 0) and factors[100] == pytest.approx(0.01)


def spoil(where: tuple[str, ...], value: Any) -> dict[str, Any]:
    recipe = copy.deepcopy(RECIPE)
    inner = recipe
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return recipe


@pytest.mark.parametrize(
    "where", [("colour",), ("prior", "stepz"), ("networks", "denoiser", "depth")], ids=lambda w: ".".join(w)
)
def test_a_wrong_key_in_the_recipe_is_refused_with_its_place(
    tmp_path: Path, nature: Path, where: tuple[str, ...]
) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(spoil(where, 1)))
    with pytest.raises(ValidationError) as refused:
        train(config, tmp_path / "work", tmp_path / "bundle")
    assert refused.value.errors()[0]["loc"] == where
    assert not (tmp_path / "work").exists()


def test_a_missing_nature_run_is_named(tmp_path: Path) -> None:
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(RECIPE))
    with pytest.raises(FileNotFoundError, match=r"train\.nc: no such nature run"):
        train(config, tmp_path / "work", tmp_path / "bundle")


def test_a_stage_before_its_turn_names_the_one_that_is_missing(trained: Trained, nature: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    ignore = shutil.ignore_patterns("*.jsonl", "autoencoder.pt")
    shutil.copytree(trained.work, work, symlinks=True, ignore=ignore)
    with pytest.raises(FileNotFoundError, match="--stage autoencoder"):
        train(trained.config, work, tmp_path / "bundle", ("backgrounds",), "cpu")


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    assert Recipe.load(path).name == path.stem
