"""One-shot and cycled evaluations on the tiny bundle: what is drawn, what is scored, and going on after a stop."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.alignment_card import weights_path
from models.assimilation import AnalysisResult, Assimilator
from models.evaluation.cycling import CyclePlan, cycle_times, run_cycles
from models.evaluation.ledger import Ledger, LedgerError, open_ledgers
from models.evaluation.method import Given, Method, States
from models.evaluation.observing import RandomGrid
from models.evaluation.one_shot import case_times, run_one_shot
from models.evaluation.options import MethodError, create, named_alignment, unaligned
from models.evaluation.quality import without_gross_errors
from models.evaluation.report import Report, Run, make_report, table, write_json
from models.evaluation.scoring import CaseScores
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import World
from models.nature.random_values import SMALLEST_ERROR
from tests.models.conftest import HELD_OUT_FROM, Trained
from tests.models.synthetic import CHANNELS, gaussian_grid, write_nature

START = datetime(2001, 1, 4, tzinfo=UTC)
OURS = "ours:members=3,steps=2"


@pytest.fixture(scope="module")
def world(assimilator: Assimilator, nature: Path) -> World:
    truth = TruthRun(nature / "validation.nc", assimilator.spec)
    return World.of(assimilator, truth, truth, truth.within(None, datetime(2001, 1, 20, tzinfo=UTC)))


@pytest.fixture(scope="module")
def observing(world: World) -> RandomGrid:
    return RandomGrid(world.truth, world.assimilator.spec, world.scorer.scale[:, 0, 0], 0.05, 0.02, seed=3)


def silent(_: str) -> None:
    """Progress that nobody reads."""


@dataclass(frozen=True)
class Stopping:
    """A method that the user interrupts at some time."""

    method: Method
    stop: datetime

    @property
    def name(self) -> str:
        return self.method.name

    def analyse(self, given: Given) -> States:
        if given.valid_time == self.stop:
            raise KeyboardInterrupt
        return self.method.analyse(given)


@dataclass(frozen=True)
class Made:
    """A method of a single function."""

    name: str
    of: Callable[[Given], States]

    def analyse(self, given: Given) -> States:
        return self.of(given)


def figures(case: CaseScores) -> CaseScores:
    """Without the seconds, which no run repeats."""
    return case.model_copy(update={"cost": case.cost.model_copy(update={"seconds": 0.0})})


def test_cases_are_spread_over_the_period_and_the_hours_of_the_day(world: World) -> None:
    times = case_times(world.truth, None, HELD_OUT_FROM - timedelta(hours=6), 8)
    assert len(set(times)) == 8 and times == sorted(times)
    assert {t.hour for t in times} == {0, 6, 12, 18}
    assert times[0] - timedelta(hours=48) >= world.truth.times[0] and times[-1] <= HELD_OUT_FROM
    gaps = np.diff([t.timestamp() for t in times]) / 86400
    assert gaps.min() > 0.6 * gaps.max()
    with pytest.raises(ValueError, match="asked were 99"):
        case_times(world.truth, START, START + timedelta(days=2), 99)


def test_random_grid_values_have_the_asked_share_and_error_and_change_with_the_case(
    world: World, observing: RandomGrid
) -> None:
    given, again, other = observing.at(START), observing.at(START), observing.at(START + world.step)
    truth = world.truth.state(START)
    assert len(given) == round(0.05 * truth.size)
    np.testing.assert_array_equal(given.value, again.value)
    assert not np.array_equal(given.latitude, other.latitude)
    exact = world.assimilator.equivalents(truth[None], given)[0]
    z = (given.value - exact) / given.error
    assert abs(z.mean()) < 5 / np.sqrt(len(z)) and z.std() == pytest.approx(1.0, abs=0.1)
    assert world.assimilator.supported(given).all() and len(set(given.variable)) == 9
    perfect = replace(observing, error=0.0).at(START)
    np.testing.assert_allclose(
        perfect.value, world.assimilator.equivalents(truth[None], perfect)[0], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(perfect.error, given.error / 0.02 * SMALLEST_ERROR)


def test_the_truth_as_analysis_has_no_error_and_the_reports_agree_with_hand_sums(
    world: World, observing: RandomGrid, tmp_path: Path, trained: Trained
) -> None:
    """Also: what the JSON says follows from the fields themselves."""
    perfect = Made("perfect", lambda given: world.truth.state(given.valid_time)[None])
    free = create("free", world.assimilator)
    times = case_times(world.truth, START, HELD_OUT_FROM - timedelta(days=3), 5)
    ledgers = open_ledgers(None, ["perfect", "free"], {})
    run_one_shot(world, [perfect, free], ledgers, times, observing, 0, silent)
    run = Run("one-shot", trained.bundle, {"seed": 0}, "free", timedelta(days=1))
    report = make_report(world, ledgers, run, times)
    best = report.methods["perfect"].summary.scores
    assert best["mse_analysis_mean"].estimate == 0 and best["wrmse_z500_analysis_mean"].estimate == 0
    assert best["geo_score"].estimate == pytest.approx(100) and best["hydro_score"].estimate == pytest.approx(100)
    assert best["brier_wind"].estimate == 0 and best["mse_48h_mean"].estimate != 0

    weights = -np.diff(np.sin(np.deg2rad(_edges(np.array(world.assimilator.spec.grid.latitudes))))) / 2
    errors = [world.first_background(t)[0].astype(float) - world.truth.state(t) for t in times]
    square = np.mean([(e**2).mean(axis=2) @ weights for e in errors], axis=0)
    found = report.methods["free"].summary
    z500 = [(c.variable, c.level) for c in CHANNELS].index(("z", 500.0))
    assert found.wrmse["analysis_mean"]["z500"] == pytest.approx(np.sqrt(square[z500]), rel=1e-4)
    scale = world.scorer.scale[:, 0, 0].astype(float)
    assert found.scores["mse_analysis_mean"].estimate == pytest.approx(np.mean(square / scale**2), rel=1e-4)
    assert found.wrmse["analysis_mean"] == found.wrmse["background"]
    against = report.methods["perfect"].against_reference
    assert against and against["mse_analysis_mean"].ratio.estimate == 0
    assert report.methods["perfect"].against_unaligned is None

    write_json(report, tmp_path / "report.json")
    again = Report.model_validate(json.loads((tmp_path / "report.json").read_text()))
    assert again.methods["free"].cases == report.methods["free"].cases
    assert (
        again.provenance.bundle_sha256 == report.provenance.bundle_sha256 and len(again.provenance.bundle_sha256) == 64
    )
    assert "perfect" in table(report) and "ratio to free" in table(report)


def test_an_aligned_method_is_compared_with_itself_without_the_alignment(
    world: World, observing: RandomGrid, tmp_path: Path, trained: Trained
) -> None:
    """With the same noise: the difference is what the alignment does, here halving the error of the background."""
    bundle = Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))
    weights_path(bundle, "half").parent.mkdir(exist_ok=True)
    weights_path(bundle, "half").write_bytes(b"weights")
    plain, aligned = "ours:members=1", "ours:members=1,alignment=half"

    def halved(given: Given) -> States:
        return ((given.background + world.truth.state(given.valid_time)) / 2).astype(np.float32)

    methods = [Made(plain, lambda given: given.background), Made(aligned, halved)]
    times = case_times(world.truth, START, HELD_OUT_FROM - timedelta(days=3), 3)
    ledgers = open_ledgers(None, [plain, aligned], {})
    run_one_shot(world, methods, ledgers, times, observing, 0, silent)
    report = make_report(world, ledgers, Run("one-shot", bundle, {}, plain, timedelta(days=1)), times)
    found = report.methods[aligned].against_unaligned
    assert found and found["mse_analysis_mean"].ratio.estimate == pytest.approx(0.25, rel=1e-3)
    assert report.methods[plain].against_unaligned is None
    assert report.provenance.alignments == {"half": sha256(b"weights").hexdigest()}


@pytest.mark.parametrize(
    ("text", "without", "name"),
    [
        ("ours:guidance=dps,alignment=a,steps=16", "ours:guidance=dps,steps=16", "a"),
        ("ours:alignment=a", "ours", "a"),
        ("ours:steps=4", "ours:steps=4", None),
        ("ours", "ours", None),
    ],
)
def test_the_alignment_that_a_text_names_and_the_text_without_it(text: str, without: str, name: str | None) -> None:
    assert unaligned(text) == without and named_alignment(text) == name


def _edges(latitudes: np.ndarray) -> np.ndarray:
    return np.concatenate([[90.0], 0.5 * (latitudes[1:] + latitudes[:-1]), [-90.0]])


def test_network_evaluations_are_counted(world: World, observing: RandomGrid) -> None:
    method = create(OURS, world.assimilator)
    given = world.given(world.first_background(START), observing.at(START), START, 48, 0, True)
    direct = world.assimilator.analyse(given.background, given.observations, START, 0.3, method.method.settings)  # type: ignore[attr-defined]
    analysis, cost = world.analyse(method, given)
    assert cost.evaluations == direct.evaluations > 0 and cost.seconds > 0
    # half of the runs are of the centre alone, the others of the three members
    assert cost.evaluated_states == cost.evaluations // 2 * 4
    assert analysis.shape == (3, *world.truth.state(START).shape)
    bundle = world.assimilator.bundle
    bundle._aligned["other"] = copy.deepcopy(bundle.denoiser)  # as an alignment is: another network of the kind
    try:
        _, aligned = world.analyse(create(f"{OURS},alignment=other", world.assimilator), given)
    finally:
        del bundle._aligned["other"]
    assert aligned.evaluations == cost.evaluations


def test_a_cycled_run_that_was_stopped_ends_as_one_that_was_not(
    world: World, observing: RandomGrid, tmp_path: Path
) -> None:
    times = cycle_times(world, START, None, 1)
    plan = CyclePlan(times, observing, forecast_every=2, seed=1)
    ours, free = create(OURS, world.assimilator), create("free", world.assimilator)
    whole = open_ledgers(tmp_path / "whole", [OURS, "free"], {"seed": 1}, cycling=True)
    run_cycles(world, [ours, free], whole, plan, silent)

    broken = open_ledgers(tmp_path / "broken", [OURS], {"seed": 1}, cycling=True)
    with pytest.raises(KeyboardInterrupt):
        run_cycles(world, [Stopping(ours, times[2])], broken, plan, silent)
    resumed = open_ledgers(tmp_path / "broken", [OURS, "free"], {"seed": 1}, cycling=True)
    assert list(resumed[OURS].cases) == list(times[:2])
    told: list[str] = []
    run_cycles(world, [ours, free], resumed, plan, told.append)
    for name in (OURS, "free"):
        assert [figures(resumed[name].cases[t]) for t in times] == [figures(whole[name].cases[t]) for t in times], name
    assert len(told) == 4 and "cycle 4 of 4" in told[-1]
    assert [whole[OURS].cases[t].forecast_mean is not None for t in times] == [True, False, True, False]
    first, second = (whole["free"].cases[t] for t in times[:2])
    assert first.background == first.analysis_mean and second.background == second.analysis_mean


def test_a_cycle_starts_from_the_members_of_the_one_before(world: World, observing: RandomGrid) -> None:
    seen: list[Given] = []

    def shifted(given: Given) -> States:
        seen.append(given)
        return np.concatenate([given.background[:1], given.background[:1] * 1.001])

    plan = CyclePlan(cycle_times(world, START, None, 0.5), observing, 0, 0)
    run_cycles(world, [Made("shifted", shifted)], open_ledgers(None, ["shifted"], {}, cycling=True), plan, silent)
    assert [len(g.background) for g in seen] == [1, 2] and [g.lead_hours for g in seen] == [48, 6]
    following = world.forecast(np.concatenate([seen[0].background, seen[0].background * 1.001]), START, 6)
    np.testing.assert_array_equal(seen[1].background, following)


def test_a_line_that_was_cut_off_and_a_cycle_without_its_state_are_computed_again(
    world: World, observing: RandomGrid, tmp_path: Path
) -> None:
    plan = CyclePlan(cycle_times(world, START, None, 0.5), observing, 0, 0)
    free = create("free", world.assimilator)
    run_cycles(world, [free], open_ledgers(tmp_path, ["free"], {}, cycling=True), plan, silent)
    (lines,) = tmp_path.glob("free-*/cases.jsonl")
    (state,) = tmp_path.glob("free-*/state.npz")
    whole = lines.read_text()
    lines.write_text(whole[:-50])
    assert list(Ledger(tmp_path, "free").cases) == [plan.times[0]]
    lines.write_text(whole)
    state.unlink()
    assert Ledger(tmp_path, "free", cycling=True).cases == {}


def test_a_work_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    open_ledgers(tmp_path, ["free"], {"seed": 1, "fraction": 0.01})
    open_ledgers(tmp_path, ["free", "ours"], {"seed": 1, "fraction": 0.01})
    with pytest.raises(LedgerError, match="seed was 1, now 2"):
        open_ledgers(tmp_path, ["free"], {"seed": 2, "fraction": 0.01})
    aligned = {"ours:alignment=a": "first"}
    open_ledgers(tmp_path, list(aligned), {"seed": 1, "fraction": 0.01}, versions=aligned)
    open_ledgers(tmp_path, list(aligned), {"seed": 1, "fraction": 0.01}, versions=aligned)
    with pytest.raises(LedgerError, match="another alignment"):
        open_ledgers(
            tmp_path, list(aligned), {"seed": 1, "fraction": 0.01}, versions={"ours:alignment=a": "trained again"}
        )


def test_a_method_that_diverges_is_given_up_and_the_others_go_on(
    world: World, observing: RandomGrid, trained: Trained
) -> None:
    wild = Made("wild", lambda given: given.background * np.float32("nan"))
    free = create("free", world.assimilator)
    times = case_times(world.truth, START, HELD_OUT_FROM - timedelta(days=3), 2)
    ledgers = open_ledgers(None, ["free", "wild"], {})
    run_one_shot(world, [free, wild], ledgers, times, observing, 0, silent)
    assert len(ledgers["free"].cases) == 2 and not ledgers["wild"].cases
    assert ledgers["wild"].failure and "not finite" in ledgers["wild"].failure
    report = make_report(world, ledgers, Run("one-shot", trained.bundle, {}, "free", timedelta(days=1)), times)
    assert report.failures.keys() == {"wild"} and "wild was given up" in table(report)


def test_the_gross_check_takes_what_no_background_explains(world: World, observing: RandomGrid) -> None:
    given, background = observing.at(START), world.first_background(START)
    value = given.value.copy()
    value[::50] += 60 * world.assimilator.background_error(given, 0.5)[::50] + 60 * given.error[::50]
    kept = without_gross_errors(world.assimilator, replace(given, value=value), background, 48)
    assert not np.isin(value[::50], kept.value).any()
    # the tiny bundle knows its own errors only roughly
    assert len(kept) > 0.9 * (len(given) - len(value[::50]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("theirs", "unknown method 'theirs'"),
        ("ours:colour=red", "no option colour"),
        ("ours:members=many", "not a int"),
        ("ours:members", "KEY=VALUE"),
        ("ours:guidance=luck", "unknown guidance 'luck'"),
        ("free:members=3", "no option members"),
    ],
)
def test_a_method_that_cannot_be_made_says_why(assimilator: Assimilator, text: str, message: str) -> None:
    with pytest.raises(MethodError, match=message):
        create(text, assimilator)


def test_share_and_level_of_ours_are_the_products_own_unless_they_are_named(
    assimilator: Assimilator, world: World, observing: RandomGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[float | None, float]] = []

    def analyse(_: object, background: States, *given: Any) -> AnalysisResult:
        told.append((given[3].share, given[2]))
        return AnalysisResult(background, 0)

    monkeypatch.setattr(Assimilator, "analyse", analyse)
    monkeypatch.setattr(Assimilator, "estimate_error_level", lambda *_: 0.123)
    background = world.first_background(START)
    given = Given(background, observing.at(START), START, 48, 0)
    for text in ("ours", "ours:share=0,estimated=false"):
        create(text, assimilator).analyse(given)
    assert told == [(None, 0.123), (0.0, assimilator.error_level(48))]


def test_a_grid_is_the_same_whatever_the_processor_rounded(assimilator: Assimilator) -> None:
    grid = assimilator.spec.grid
    assert grid.is_at([np.nextafter(v, 90.0) for v in grid.latitudes], [float(np.float32(v)) for v in grid.longitudes])
    assert not grid.is_at(grid.latitudes[1:], grid.longitudes)
    assert not grid.is_at([v + 0.01 for v in grid.latitudes], grid.longitudes)


def test_a_truth_on_another_grid_is_refused(assimilator: Assimilator, tmp_path: Path) -> None:
    path = write_nature(tmp_path / "other.nc", 1, START, 1, gaussian_grid(24))
    with pytest.raises(ValueError, match="not on the grid"):
        TruthRun(path, assimilator.spec)
