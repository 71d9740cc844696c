"""`alignda align` on the tiny bundle: the stages do what they say, resume, and improve what they were trained on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file

from models.alignment import preference_training
from models.alignment.cases import Atmosphere, Cases, Conditioned, open_periods
from models.alignment.cli import Alignment, align
from models.alignment.draft import DraftLoss, Truncated
from models.alignment.preference_training import PairStore, epsilon_error, pair_scores
from models.alignment.recipe import AlignmentRecipe, DraftMethod
from models.alignment_card import read_card
from models.assimilation import AnalysisSettings, Assimilator
from models.bundle import Bundle
from models.diffusion.denoiser import Denoiser
from models.diffusion.samplers import dpm_solver
from models.diffusion.schedule import Level, levels
from models.nature.random_values import random_values
from models.networks.low_rank import ChangedNetwork, LowRankChange
from models.training import loop
from tests.models.alignment.conftest import COMMON, DPO, DRAFT, changed, written

RECIPES = Path(__file__).parents[3] / "models" / "alignment" / "recipes"


def opened(recipe: dict[str, object], bundle: Path, work: Path, nature: Path) -> Alignment:
    return Alignment(AlignmentRecipe.model_validate(recipe), bundle, work, "cpu", nature)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder whose caches and candidates the tests share."""
    return tmp_path_factory.mktemp("align")


def test_a_case_is_a_forecast_of_the_bundle_with_its_truth(bundle: Path, shared: Path, nature: Path) -> None:
    run = opened(DRAFT, bundle, shared, nature)
    case, again = run.cases[5], run.cases[5]
    assert case.background.equal(again.background) and case.truth.equal(again.truth)
    assert not case.background.equal(run.cases[6].background)
    error = ((case.background - case.truth) ** 2 * run.atmosphere.area).mean().sqrt().item()
    assert case.error_level == pytest.approx(error, rel=1e-4)
    assert {run.cases[i].lead_hours for i in range(12)} == {12, 24}
    assert len({run.cases[i].perturbed for i in range(12)}) == 2
    # x(w = 0) is the background itself, however poor the autoencoder
    conditioned = Conditioned(run.atmosphere, case)
    torch.testing.assert_close(conditioned.state(torch.zeros_like(conditioned.z_b)), case.background, atol=3e-2, rtol=0)


def test_members_of_a_case_are_those_that_an_analysis_makes_of_the_same_noise(
    bundle: Path, shared: Path, nature: Path
) -> None:
    run = opened(DRAFT, bundle, shared, nature)
    atmosphere, case = run.atmosphere, run.cases[5]
    case = replace(case, error_level=float(atmosphere.nodes[20]))
    conditioned, assimilator = Conditioned(atmosphere, case), Assimilator(bundle, "cpu")
    denoise = conditioned.denoiser(run.base)
    with torch.no_grad():
        w = conditioned.sample(denoise, 5, 4, torch.Generator().manual_seed(7))
        made = conditioned.members(w, conditioned.centre(denoise, 4))
    climate = atmosphere.bundle.climate
    background = climate.denormalise(case.background, case.valid_time).numpy()
    nothing = random_values(
        background[0], assimilator.spec, climate.total_std.numpy(), 0.0, 0.0, np.random.default_rng(0)
    )
    settings = AnalysisSettings(guidance="obsfree", members=5, steps=4, seed=7)
    analysis = assimilator.analyse(background, nothing, case.valid_time, case.error_level, settings).members
    expected = climate.normalise(torch.from_numpy(analysis), case.valid_time)
    assert expected.std(dim=0).mean() > 0.05
    torch.testing.assert_close(made, expected, atol=5e-3, rtol=0)
    assert not conditioned.state(w).allclose(expected, atol=5e-3)  # neither recentred nor with the amplitude


def test_cases_stay_inside_their_period_and_out_of_the_held_out_time(bundle: Path, shared: Path, nature: Path) -> None:
    recipe = AlignmentRecipe.model_validate(DRAFT)
    loaded = Bundle.load(bundle)
    runs = open_periods([recipe.data.validation], loaded, nature, shared)
    assert runs[0].times[-1].isoformat() < "2001-01-31" and np.isfinite(runs[0].array).all()
    cases = Cases(Atmosphere(loaded, torch.device("cpu")), runs, recipe.cases, 0)
    for i in range(20):
        assert torch.isfinite(cases[i].later).all()
    wrong = {**DRAFT, "data": {**COMMON["data"], "validation": {"file": "validation.nc"}}}
    with pytest.raises(ValidationError, match="held-out time"):
        AlignmentRecipe.model_validate(wrong)


def test_candidates_and_pairs_are_stored_so_that_one_can_look_at_them(
    bundle: Path, shared: Path, nature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened(DPO, bundle, shared, nature)
    run.run(("candidates", "preferences"))
    folder = run.candidates_folder(0)
    index = pd.read_parquet(folder / "index.parquet")
    assert len(index) == 10 * 12 and index["sha256"].is_unique
    stored = load_file(folder / "case-00003.safetensors")
    assert stored["w"].shape == (12, 40, 4, 8)
    rows = index[index["case"] == 3]
    np.testing.assert_allclose(rows["assimilation"], stored["assimilation"], rtol=1e-6)
    assert rows["assimilation"].mean() == pytest.approx(0.5, abs=1e-5)
    assert np.corrcoef(rows["assimilation"], -rows["mse"])[0, 1] > 0.5
    pairs = pd.read_parquet(run.folder / "preferences-0" / "pairs.parquet")
    found = json.loads((run.folder / "preferences-0" / "summary.json").read_text())
    assert len(pairs) == found["pairs"] > 8 and found["duplicates"] == 0
    assert "preferences {" in capsys.readouterr().out
    for _, pair in pairs.iterrows():
        each = index[index["case"] == pair["case"]].set_index("member")
        for reward in ("assimilation", "forecast"):
            assert each.loc[pair["winner"], reward] > each[reward].median() > each.loc[pair["loser"], reward]


def test_epsilon_errors_are_those_of_the_denoisers_estimate(bundle: Path, shared: Path, nature: Path) -> None:
    """eps_hat = (w_t - alpha E[w_0 | w_t]) / sigma, from the denoiser that the samplers use."""
    run = opened(DPO, bundle, shared, nature)
    run.run(("candidates", "preferences"))
    pairs = pd.read_parquet(run.folder / "preferences-0" / "pairs.parquet")
    pair = PairStore(run.atmosphere, run.candidates_folder(0), pairs)[0]
    level, noise = Level(0.5), torch.randn(pair.winner.shape, generator=torch.Generator().manual_seed(0))
    x = level.alpha * pair.winner + level.sigma * noise
    with torch.no_grad():
        wiener = pair.prior.gaussian.denoise(x, level)
        scalars = [torch.full((1,), s) for s in (level.log_snr, pair.prior.error_level, pair.season)]
        estimate = wiener + level.sigma * run.base(x, wiener, pair.z_b, torch.ones_like(x[:, :1]), *scalars)
        found = epsilon_error(run.base, pair, pair.winner, level, noise)
    expected = (x - level.alpha * estimate) / level.sigma - noise
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("kind", ["dpo", "ipo", "dspo"])
def test_preferences_are_learnt(bundle: Path, shared: Path, nature: Path, kind: str) -> None:
    run = opened(changed(DPO, kind=kind, name=f"tiny-{kind}"), bundle, shared, nature)
    run.run(("candidates", "preferences", "train"))
    pairs = pd.read_parquet(run.folder / "preferences-0" / "pairs.parquet")
    store = PairStore(run.atmosphere, run.candidates_folder(0), pairs[~pairs["validation"]])
    untouched = pair_scores(run.base, ChangedNetwork(run.base, LowRankChange(run.base, 4)), store)
    assert untouched == {"pair_accuracy": 0.5, "winner_error_percent": 0.0, "loser_error_percent": 0.0}
    after = pair_scores(run.base, ChangedNetwork(run.base, run._trained(0)), store)
    assert after["pair_accuracy"] > 0.65, after
    assert after["winner_error_percent"] < after["loser_error_percent"]


def test_a_later_round_samples_the_model_that_the_last_one_left(bundle: Path, shared: Path, nature: Path) -> None:
    recipe = changed(DPO, rounds=2, steps=3, name="tiny-online")
    recipe["candidates"] = {"backgrounds": 5, "members": 8, "steps": 3}
    run = opened(recipe, bundle, shared, nature)
    run.run(("candidates", "preferences", "train"))
    assert run.candidates_folder(1) != run.candidates_folder(0)
    index = pd.read_parquet(run.candidates_folder(1) / "index.parquet")
    assert len(index) == 40 and not set(index["sha256"]) & set(
        pd.read_parquet(run.candidates_folder(0) / "index.parquet")["sha256"]
    )
    first, second = run._trained(0), run._trained(1)
    assert any(not a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_tiny_alignment_improves_the_reward_it_was_trained_on(bundle: Path, shared: Path, nature: Path) -> None:
    """On backgrounds of the validation run, from the file that an experiment would read."""
    config = written(shared, DRAFT)
    align(config, bundle, shared, device="cpu", nature=nature)
    card = read_card(bundle, "tiny-draft")
    for reward in ("crps", "energy_score"):
        assert card.scores[reward].change_percent < -1.0, card.scores[reward]
    assert card.scores["energy_score"].high_percent < 0
    assert card.scores["mean_mse"].after < card.scores["mean_mse"].before
    assert card.rank == 4 and card.cost["training_steps"] == 60 and card.recipe["seed"] == 3
    merged = Bundle.load(bundle).aligned("tiny-draft")
    assert any(
        not a.equal(b) for a, b in zip(merged.parameters(), Bundle.load(bundle).denoiser.parameters(), strict=True)
    )


def test_only_the_last_evaluations_carry_a_gradient(bundle: Path, shared: Path, nature: Path) -> None:
    """With one evaluation it is the gradient of the last denoising alone, with all that of the whole sampler."""
    run = opened(DRAFT, bundle, shared, nature)
    conditioned = Conditioned(run.atmosphere, run.cases[0])
    change = LowRankChange(run.base, 2)
    start = torch.full_like(conditioned.z_b, 0.1)

    def gradient(denoise: Denoiser, x: torch.Tensor, steps: int) -> torch.Tensor:
        w = dpm_solver(denoise, x, steps, stochastic=False) if steps else denoise(x, levels(4)[-1])
        return torch.autograd.grad(w.square().sum(), change.up["network/leave/2/weight"])[0]

    def truncated(k: int) -> Truncated:
        pair = [conditioned.denoiser(network) for network in (ChangedNetwork(run.base, change), run.base)]
        return Truncated(pair[0], pair[1], 5, k)

    whole = gradient(conditioned.denoiser(ChangedNetwork(run.base, change)), start, 4)
    torch.testing.assert_close(gradient(truncated(5), start, 4), whole)
    last = truncated(1)
    found = gradient(last, start, 4)
    assert last.evaluations == 5 and last.base.evaluations == 1
    assert last.departure.item() == 0.0  # no change yet: no departure from the base
    seen: list[torch.Tensor] = []

    class Watched(Truncated):
        def __call__(self, x: torch.Tensor, level: Level) -> torch.Tensor:
            seen.append(x.detach())
            return super().__call__(x, level)

    pair = [conditioned.denoiser(run.base) for _ in range(2)]
    dpm_solver(Watched(pair[0], pair[1], 5, 0), start, 4, stochastic=False)
    torch.testing.assert_close(found, gradient(truncated(5), seen[-1], 0))
    assert not found.equal(whole)


def test_the_anchor_is_the_squared_distance_from_the_base_in_units_of_the_noise() -> None:
    class Scaled:
        """Stands for a denoiser: E[w_0 | w_t] = factor w_t."""

        background = torch.zeros(1)

        def __init__(self, factor: torch.Tensor) -> None:
            self.factor, self.evaluations = factor, 0

        def __call__(self, x: torch.Tensor, level: Level) -> torch.Tensor:
            self.evaluations += 1
            return self.factor * x

    factor, x = torch.tensor(1.5, requires_grad=True), torch.tensor([1.0, -2.0, 3.0])
    levels = [Level(t) for t in (0.9, 0.5, 0.2)]
    anchored = Truncated(Scaled(factor), Scaled(torch.tensor(1.0)), 3, 2)  # type: ignore[arg-type]
    for level in levels:
        anchored(x, level)
    squares = sum(float((x**2).mean()) / level.sigma**2 for level in levels[1:])  # the first carries no gradient
    assert anchored.departure.item() == pytest.approx(0.5**2 * squares, rel=1e-5)
    anchored.departure.backward()
    assert factor.grad is not None and factor.grad.item() == pytest.approx(2 * 0.5 * squares, rel=1e-5)


def test_the_gradient_of_direct_fine_tuning_is_that_of_finite_differences(
    bundle: Path, shared: Path, nature: Path
) -> None:
    """All rewards at once, untruncated. Without the anchor: it compares the networks on states that are taken as
    given."""
    run = opened(DRAFT, bundle, shared, nature)
    rewards = {"energy": 1.0, "crps": 1.0, "centre": 0.5, "accuracy": 0.3, "forecast": 0.5, "geostrophic": 1.0}
    method = DraftMethod(kind="draft", steps=1, batch=1, members=3, sampler_steps=2, gradient_steps=3, anchor=0.0,
                         rewards=rewards)  # type: ignore[arg-type]  # fmt: skip
    change = LowRankChange(run.base, 2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for up in change.up.values():
            up.copy_(0.02 * torch.randn(up.shape, generator=generator))
    loss = DraftLoss(run.atmosphere, run.base, change, run.cases, method)
    value = loss(0)
    value.backward()
    up = change.up["network/leave/2/weight"]
    assert up.grad is not None
    direction = torch.randn(up.shape, generator=generator)
    slope = (up.grad * direction).sum().item()
    step = 1e-3
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            up.add_(sign * step * direction)
            values.append(loss(0).item())
            up.sub_(sign * step * direction)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02)


class Interrupted(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("recipe", [DPO, DRAFT], ids=["dpo", "draft"])
def test_an_interrupted_alignment_continues_to_the_result_of_an_uninterrupted_one(
    bundle: Path, shared: Path, tmp_path: Path, nature: Path, recipe: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    short = changed(recipe, steps=5)
    stages = ("candidates", "preferences", "train")
    whole = opened(short, bundle, shared, nature)
    whole.run(stages)
    for folder in shared.glob("candidates-*"):  # the last two sets and the index are still missing
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*8.saf*", "*9.saf*", "index*"))
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("case-*")}
    cut = opened(short, bundle, tmp_path, nature)
    monkeypatch.setattr(loop, "SAVES_EVERY_SECONDS", 0.0)
    factor = loop.learning_rate_factor

    def interrupted(step: int, stage: object) -> float:
        if step == 3:
            raise Interrupted
        return factor(step, stage)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_factor", interrupted)
        with pytest.raises(Interrupted):
            cut.run(stages)
    cut.run(stages)
    assert {path: path.stat().st_mtime_ns for path in made} == made  # candidates are not drawn anew
    logged = [json.loads(line)["step"] for line in (cut.folder / "round-0.jsonl").read_text().splitlines()]
    assert logged == [1, 2, 3, 4, 5]  # no step twice
    # not bit for bit: convolutions round by where their arrays lie, and Adam's first steps are the signs of gradients
    one, two = (torch.cat([p.flatten() for p in run._trained(0).up.parameters()]) for run in (whole, cut))
    assert (one - two).norm() < 0.05 * one.norm()


def test_an_alignment_goes_on_from_another(bundle: Path, shared: Path, nature: Path) -> None:
    first = changed(DRAFT, name="tiny-first", steps=3)
    opened(first, bundle, shared, nature).run(("train", "card"))
    further = {**changed(DRAFT, name="tiny-further", steps=1, learning_rate=1e-12), "start": "tiny-first"}
    run = opened(further, bundle, shared, nature)
    run.run(("train",))
    saved = load_file(bundle / "alignments" / "tiny-first.safetensors")
    for key, value in run._trained(0).up.items():
        torch.testing.assert_close(value.data, saved[f"{key}.up"].float(), atol=1e-6, rtol=1e-3)
    with pytest.raises(ValueError, match="rank 2, tiny-first that it starts from 4"):
        opened({**further, "rank": 2}, bundle, shared, nature).run(("train",))


def test_a_stage_before_its_turn_names_the_one_that_is_missing(bundle: Path, tmp_path: Path, nature: Path) -> None:
    run = opened(DPO, bundle, tmp_path, nature)
    for stages, missing in ((("preferences",), "candidates"), (("train",), "preferences"), (("card",), "train")):
        with pytest.raises(FileNotFoundError, match=f"--stage {missing}"):
            run.run(stages)


def test_validation_runs_in_the_first_of_several_reports_only() -> None:
    calls = []
    validate = preference_training.sparse(lambda module: calls.append(1) or {"x": 1.0}, 3)  # type: ignore[func-returns-value]
    assert [validate(torch.nn.Identity()) for _ in range(4)] == [{"x": 1.0}, {}, {}, {"x": 1.0}]


@pytest.mark.parametrize(
    "spoil", [{"colour": 1}, {"name": "a/b"}, {"candidates": {}}, {"method": {**DRAFT["method"], "kind": "ppo"}}]
)
def test_a_wrong_recipe_is_refused(spoil: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AlignmentRecipe.model_validate({**DRAFT, **spoil})


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_recipes_are_valid(path: Path) -> None:
    recipe = AlignmentRecipe.load(path)
    assert recipe.name == path.stem
    assert yaml.safe_load(path.read_text())["data"]["held_out"] == {"file": "nature-3.nc", "since": "2021-01-01"}
