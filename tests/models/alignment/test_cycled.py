"""Alignment on backgrounds of the system's own cycles: they are those of a cycle, and their analysis is the product's."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.alignment.cases import Conditioned
from models.alignment.cli import Alignment, align
from models.alignment.cycled import CycledCases
from models.alignment.guided import Observer
from models.alignment.recipe import AlignmentRecipe, ObservedRecipe
from models.alignment.validation import compared, validation_scores
from models.alignment_card import read_card
from models.assimilation import CYCLED_SHARE, AnalysisSettings, Assimilator
from models.evaluation.observing import SimulatedNetwork
from models.evaluation.options import Options
from models.evaluation.ours import Ours, ours
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import World
from models.nature.network import Network
from models.nature.stations import load_stations
from service.observations.table import default_error
from tests.models.alignment.conftest import COMMON, DPO, DRAFT, changed, written

CYCLES: dict[str, Any] = {
    **COMMON,
    "name": "tiny-cycles",
    "cases": {"forecast_hours": 12, "cycles": [{"runs": 2, "days": 1.25, "spin_up_days": 0.5, "members": 8}]},
    "method": {"kind": "draft", "steps": 6, "batch": 1, "learning_rate": 2e-2, "warmup": 1, "average_decay": 0.5,
               "sampler_steps": 4, "gradient_steps": 5, "rewards": {"centre": 1.0, "forecast": 0.3}},
    "validation": {"backgrounds": 3, "members": 4, "steps": 4, "forecast_members": 2},
}  # fmt: skip


def opened(recipe: dict[str, Any], bundle: Path, work: Path, nature: Path) -> Alignment:
    return Alignment(AlignmentRecipe.model_validate(recipe), bundle, work, "cpu", nature, default_error)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cycled")


@pytest.fixture
def run(bundle: Path, shared: Path, nature: Path) -> Alignment:
    made = opened(CYCLES, bundle, shared, nature)
    made.run(("cycles",))
    return made


def test_a_cycled_background_is_that_of_the_evaluation_harness(run: Alignment, bundle: Path, nature: Path) -> None:
    """`Ours` on the same network, cycled from the 48 h forecast by the world of `alignda evaluate`."""
    cases = run.cases
    assert isinstance(cases, CycledCases) and len(cases) == 6 and len(cases.runs) == 2
    kept = cases.runs[0]
    system, truth = Assimilator(bundle, "cpu"), TruthRun(nature / "train.nc", run.bundle.spec)
    world = World.of(system, truth, truth, truth.times[:1])
    observing = SimulatedNetwork(truth, Network(kept.network_seed, load_stations(), default_error))
    method = ours(system, Options("ours", {"members": "8"}))
    time = cases.periods[0].run.times[kept.first - 2]
    # from the state that the run had, which is kept in float16: the tiny autoencoder makes differences larger by cycle
    period, start = cases.periods[0].run, kept.first - 2 - 8
    anomaly = period.batch(np.array([start]))
    state = run.bundle.climate.denormalise(anomaly, period.times[start]).numpy()
    background, lead = world.forecast(state, period.times[start], 48), 48.0
    ends = [run.bundle.climate.normalise(torch.from_numpy(x), time) for x in (background, world.first_background(time))]
    torch.testing.assert_close(*ends, atol=2e-2, rtol=2e-3)
    for number in range(5):
        given = world.given(background, observing.at(time), time, lead, run.recipe.seed, screened=True)
        if number >= 2:
            at = number - 2
            case = cases._case(0, kept, at)
            climate = run.bundle.climate
            mean = climate.normalise(torch.from_numpy(background).mean(dim=0, keepdim=True), time)
            torch.testing.assert_close(case.background, mean, atol=5e-3, rtol=2e-3)  # float16
            truth_now = climate.normalise(torch.from_numpy(truth.state(time))[None], time)
            torch.testing.assert_close(case.truth, truth_now, atol=2e-2, rtol=2e-3)
            assert case.valid_time == time and case.share == CYCLED_SHARE
            assert isinstance(method, Ours)
            departures = given.observations.value - system.equivalents(background, given.observations).mean(axis=0)
            level = system.estimate_error_level(given.observations, departures, system.error_level(lead), background)
            assert case.error_level == pytest.approx(level, rel=1e-3)
            assert case.observations is not None
            np.testing.assert_array_equal(case.observations.value, given.observations.value)
        background = world.forecast(method.analyse(given), time, 6)
        time, lead = time + world.step, 6.0


def test_the_guided_centre_of_a_case_is_the_analysis_of_the_product(run: Alignment, bundle: Path) -> None:
    drawn = run.cases[1]
    assert drawn.observations is not None
    few = drawn.observations.select(np.arange(0, len(drawn.observations), 40))  # the solver converges at once
    # a level that is a node of the table: training rounds to these
    case = replace(drawn, error_level=float(run.atmosphere.nodes[8]), observations=few)
    conditioned = Conditioned(run.atmosphere, case)
    observed = Observer(run.atmosphere, ObservedRecipe(), 0).observe(conditioned)
    assert observed is not None and case.observations is not None and case.modulation is not None
    denoise = conditioned.denoiser(run.base)
    with torch.no_grad():
        made = conditioned.state(conditioned.centre(observed.centre(denoise, denoise), 4))
    climate, system = run.bundle.climate, Assimilator(bundle, "cpu")
    background = climate.denormalise(case.background, case.valid_time).numpy()
    settings = AnalysisSettings(members=1, steps=4, share=CYCLED_SHARE)
    analysis = system.analyse(
        background, case.observations, case.valid_time, case.error_level, settings, modulation=case.modulation
    ).members
    expected = climate.normalise(torch.from_numpy(analysis), case.valid_time)
    moved = float((expected - case.background).square().mean().sqrt())
    assert moved > 0.01
    assert float((made - expected).square().mean().sqrt()) < 0.05 * moved  # tolerances of the solver differ
    # without what the case knows of its cycle it is another analysis
    plain = Conditioned(run.atmosphere, replace(case, modulation=None))
    with torch.no_grad():
        other = plain.state(plain.centre(plain.denoiser(run.base), 4))
        free = conditioned.state(conditioned.centre(denoise, 4))
    assert float((other - free).square().mean().sqrt()) > 1e-4


def test_each_background_comes_once_before_any_comes_again(run: Alignment) -> None:
    count = len(run.cases.runs) * 3  # type: ignore[attr-defined]
    first, again = ([run.cases[k + at].background.numpy().tobytes() for at in range(count)] for k in (0, count))
    assert len(set(first)) == count and set(first) == set(again) and first != again
    assert run.cases[4].background.equal(run.cases[4].background)


def test_it_is_trained_and_carded_on_them(bundle: Path, shared: Path, nature: Path) -> None:
    align(written(shared, CYCLES), bundle, shared, device="cpu", nature=nature, errors=default_error)
    scores = read_card(bundle, "tiny-cycles").scores
    assert {"analysis_mse", "analysis_later_mse", "crps", "background_mse"} <= set(scores)
    assert scores["analysis_mse"].before < scores["background_mse"].before  # observations help
    assert scores["analysis_mse"].change_percent != 0 and scores["background_mse"].change_percent == 0
    # a further round: backgrounds of cycles with the alignment, from the single background on, beside those of the first
    first = CYCLES["cases"]["cycles"][0]
    second = {"runs": 1, "days": 0.5, "spin_up_days": 0, "members": 8, "alignment": "tiny-cycles", "validation_runs": 0}
    further = opened(
        {**CYCLES, "name": "further", "start": "tiny-cycles", "cases": {**CYCLES["cases"], "cycles": [first, second]}},
        bundle, shared, nature,
    )  # fmt: skip
    further.run(("cycles",))
    assert isinstance(further.cases, CycledCases) and len(further.cases) == 8
    single, cycled = (further.cases._case(0, further.cases.runs[2], at) for at in (0, 1))
    assert (single.share, single.modulation) == (1.0, None) and cycled.share == CYCLED_SHARE
    assert cycled.modulation is not None and cycled.modulation.shape == (4, 8)
    again = opened({**CYCLES, "cases": {**CYCLES["cases"], "cycles": [{**second, "alignment": None, "validation_runs": 1}]}}, bundle, shared,
                   nature)  # fmt: skip
    again.run(("cycles",))
    unaligned = again.cases._case(0, again.cases.runs[0], 1)  # type: ignore[attr-defined]
    assert unaligned.valid_time == cycled.valid_time and not unaligned.background.equal(cycled.background)
    # the same on what it was trained on: it is better there
    trained = opened(CYCLES, bundle, shared, nature)
    recipe = trained.recipe.validation.model_copy(update={"backgrounds": 6})
    before, after = (
        validation_scores(trained.atmosphere, trained.cases, network, recipe)
        for network in (trained.base, trained.bundle.aligned("tiny-cycles"))
    )
    assert compared(before, after, 4)["analysis_mse"].change_percent < 0


def test_what_cannot_be_is_refused(bundle: Path, tmp_path: Path, nature: Path) -> None:
    with pytest.raises(ValidationError, match="direct fine-tuning"):
        AlignmentRecipe.model_validate({**DPO, "cases": CYCLES["cases"]})
    with pytest.raises(ValidationError, match="one state"):
        AlignmentRecipe.model_validate({**DRAFT, "cases": CYCLES["cases"]})
    with pytest.raises(FileNotFoundError, match="--stage cycles"):
        _ = opened(CYCLES, bundle, tmp_path, nature).cases[0]
    unchecked = {**CYCLES["cases"]["cycles"][0], "validation_runs": 0}
    with pytest.raises(ValidationError, match="validation run"):
        AlignmentRecipe.model_validate({**CYCLES, "cases": {"cycles": [unchecked]}})
    half = opened(CYCLES, bundle, tmp_path, nature)
    half.run(("cycles",))
    assert isinstance(half.cases, CycledCases)
    (half.cases.folders[0] / "run-001.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"run-001.*--stage cycles"):
        _ = opened(CYCLES, bundle, tmp_path, nature).cases[0]
    with pytest.raises(ValueError, match="error table"):
        _ = Alignment(AlignmentRecipe.model_validate(CYCLES), bundle, tmp_path, "cpu", nature).cases
    for cycles, complaint in (
        ({"runs": 1, "days": 1, "spin_up_days": 1}, "leaves nothing"),
        ({"runs": 1, "days": 400}, "too short"),
    ):
        recipe = copy.deepcopy(CYCLES)
        recipe["cases"]["cycles"] = [cycles]
        with pytest.raises(ValueError, match=complaint):
            opened(recipe, bundle, tmp_path, nature).run(("cycles",))
    changed_rewards = changed(CYCLES, rewards={"centre": 1.0, "crps": 1.0})
    with pytest.raises(ValidationError, match="one state"):
        AlignmentRecipe.model_validate(changed_rewards)
