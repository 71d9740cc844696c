"""The gate lets nothing unphysical pass, steps down its ladder in order, and records each step."""

from typing import Any

import numpy as np
import pytest

from service.catalogue import StageOutcome
from service.catalogue.tables import CycleState, FieldPurpose
from tests.worker.conftest import House
from tests.worker.toy import truth
from worker.stages import assemble, control_quality, gate
from worker.work import CycleError, Work


def gated(house: House, spoilt: int) -> tuple[list[str], str]:
    """Reasons and state of a cycle of which `spoilt` analyses in a row come out with a NaN."""
    experiment = house.experiment()
    house.post(house.soundings())
    house.post_field(truth(house.model, 2), FieldPurpose.BACKGROUND, experiment=experiment)
    house.model.spoil = spoilt
    cycle = house.run(house.cycle(experiment))
    return [f"{step['reason']}: {step['detail']}" for step in cycle.degraded], cycle.state


@pytest.mark.parametrize(
    ("spoilt", "taken"),
    [(1, "drawn again with another seed"), (2, "drawn again with weaker guidance"), (3, "background as analysis")],
)
def test_a_spoilt_analysis_is_replaced_by_the_next_of_the_ladder(house: House, spoilt: int, taken: str) -> None:
    degraded, state = gated(house, spoilt)
    assert state == CycleState.DEGRADED
    assert [step.split(":")[0] for step in degraded] == ["analysis_rejected"] * spoilt + ["fallback_analysis"]
    assert "z850 is not finite" in degraded[0]
    assert degraded[-1] == f"fallback_analysis: {taken}"
    assert house.model.analyses == min(spoilt + 1, 3)


def test_a_sampler_that_does_not_stay_finite_is_drawn_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    original = house.model.analyse

    def overflowing(*given: Any) -> Any:
        if house.model.analyses == 0:
            house.model.analyses = 1
            raise FloatingPointError("the analysis holds values that are not finite")
        return original(*given)

    monkeypatch.setattr(house.model, "analyse", overflowing)
    degraded, state = gated(house, 0)
    assert state == CycleState.DEGRADED
    assert degraded[-1] == "fallback_analysis: drawn again with another seed"


def test_a_good_analysis_passes_without_being_drawn_again(house: House) -> None:
    assert gated(house, 0) == ([], CycleState.DONE)
    assert house.model.analyses == 1


def prepared(house: House) -> Work:
    experiment = house.experiment()
    house.post(house.soundings())
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=experiment)
    work = house.work(house.cycle(experiment))
    for stage in (assemble, control_quality):
        result = stage.run(work)
        outcome = StageOutcome(stage.__name__, 0.0, counts=result.counts, background=result.background)
        house.catalogue.leases.complete_stage(work.lease, outcome)
    return work


def test_an_analysis_that_has_lost_its_balance_is_refused(house: House) -> None:
    work = prepared(house)
    rough = truth(house.model)[None].copy()
    rough[0, 0] += np.random.default_rng(0).normal(size=rough.shape[2:]).astype(np.float32) * 1500
    work.desk.put_array("analysis", rough)
    result = gate.run(work)
    assert result.degraded[0]["reason"] == "analysis_rejected"
    assert "geostrophic adherence" in result.degraded[0]["detail"]
    assert not np.array_equal(work.desk.array("analysis"), rough)


@pytest.mark.parametrize(
    ("analysis", "background", "refused"),
    [
        (0.59, 0.95, True),
        (0.61, 0.95, False),  # a drop, but balanced enough
        (0.55, 0.80, False),  # low, but little lower than what it came from
        (0.05, 0.30, False),
        (float("nan"), 0.95, True),
    ],
)
def test_balance_is_lost_when_it_is_low_and_lower_than_before(
    analysis: float, background: float, refused: bool
) -> None:
    fault = gate.balance_fault((0.9, analysis), (0.9, background))
    assert (fault is not None) == refused
    assert fault is None or fault.startswith("hydrostatic adherence")


def test_impossible_values_are_named_with_their_channel(house: House) -> None:
    state = truth(house.model)[None].copy()
    assert gate.range_fault(state, house.model.description) is None
    state[0, house.model.description.index("t", 500), 2, 2] = 500.0
    assert "t500 runs from" in str(gate.range_fault(state, house.model.description))


def test_a_background_that_is_itself_impossible_fails_the_cycle_with_advice(house: House) -> None:
    work = prepared(house)
    work.desk.put_array("background", truth(house.model)[None] * np.float32(10))
    with pytest.raises(CycleError, match="Post another"):
        gate.run(work)
