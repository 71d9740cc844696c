"""Withheld and denied observations, and shadow experiments, on the toy atmosphere with a real catalogue and archive."""

from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from service.catalogue.tables import Cycle, CycleState, Experiment, FieldPurpose
from service.experiments import ExperimentConfig
from service.observations.reasons import Reason
from service.scheduling import Scheduler
from tests.worker.conftest import NOON, House, table
from tests.worker.test_filters import compared, setting
from tests.worker.toy import truth
from worker.stages.control_quality import judge
from worker.stages.observed import Observed


def reasons_of(rows: list[dict[str, Any]], **config: Any) -> list[Reason]:
    observed = Observed(table(rows))
    reasons, *_ = judge(observed, compared(observed, 255.0, 1.0), setting(**config))
    return [Reason(int(code)) for code in reasons]


def stations(count: int, **row: Any) -> list[dict[str, Any]]:
    return [{"station": f"S{i}", "latitude": 40.0 + i * 0.001, "value": 255.5, **row} for i in range(count)]


def test_a_share_of_each_type_is_withheld_and_the_same_stations_in_every_type() -> None:
    rows = stations(400) + stations(400, type="amdar")
    found = reasons_of(
        rows, observations={"withheld": {"share": 0.1, "seed": 3}, "types": {"amdar": {"withheld": 0.3}}}
    )
    kept_back = np.array(found) == Reason.WITHHELD
    temp, amdar = kept_back[:400], kept_back[400:]
    # five standard deviations of a binomial share
    assert abs(temp.mean() - 0.1) < 5 * np.sqrt(0.09 / 400) and abs(amdar.mean() - 0.3) < 5 * np.sqrt(0.21 / 400)
    assert (amdar | ~temp).all()
    other = reasons_of(rows, observations={"withheld": {"share": 0.1, "seed": 4}})
    assert (np.array(other)[:400] == Reason.WITHHELD).sum() != 0
    assert ((np.array(other)[:400] == Reason.WITHHELD) != temp).any()


def test_a_report_without_a_name_is_never_withheld() -> None:
    found = reasons_of([{"station": "SHIP"}, {"station": "named", "latitude": 40.0}], withheld_fraction=0.999)
    assert found == [Reason.ASSIMILATED, Reason.WITHHELD]


@pytest.mark.parametrize(
    ("denied", "kept"),
    [
        ({"types": ["amdar"]}, [0, 1]),
        ({"variables": ["t"]}, [1, 3]),
        ({"types": ["amdar"], "variables": ["t"]}, [0, 1, 3]),
    ],
)
def test_denied_is_what_is_named(denied: dict[str, Any], kept: list[int]) -> None:
    rows = [
        {"type": kind, "variable": variable, "station": kind, "value": 255.0 if variable == "t" else 12.0}
        for kind in ("temp", "amdar")
        for variable in ("t", "u")
    ]
    observed = Observed(table(rows))
    comparison = compared(observed, 0.0, 1.0)
    comparison.background[:] = observed.value
    reasons, *_ = judge(observed, comparison, setting(denied=denied))
    assert np.flatnonzero(reasons == Reason.ASSIMILATED).tolist() == kept
    assert set(reasons.tolist()) == {Reason.ASSIMILATED, Reason.DENIED}


@pytest.mark.parametrize("denied", [{}, {"types": ["amdr"]}, {"variables": ["x"]}])
def test_a_denial_of_nothing_is_refused(denied: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ExperimentConfig(denied=denied)


def shadow_of(house: House, parent: Experiment, start: Any, **config: Any) -> Experiment:
    """As the gateway makes it."""
    shadow = {"of": parent.name, "start": start.isoformat()}
    made = ExperimentConfig.model_validate({**parent.config, **config, "shadow": shadow})
    return house.catalogue.experiments.create("shadow", made.model_dump(mode="json"), "toy")


def follow(house: House, shadow: Experiment) -> list[Cycle]:
    """What the gateway's scheduler makes, run."""
    Scheduler(house.catalogue, lambda _: None).make_due_cycles()
    waiting = house.catalogue.cycles.page(shadow.id, 100, 0, CycleState.WAITING).rows
    return [house.run(cycle) for cycle in waiting]


def members_of(house: House, cycle: Cycle) -> bytes:
    product = house.catalogue.products.find(cycle.id, "members", "grib2")
    assert product is not None
    return house.archive.existing(product.path).read_bytes()


def test_a_shadow_that_is_denied_nothing_that_matters_is_its_parent_to_the_bit(house: House) -> None:
    parent = house.experiment(forecast_hours=6)
    house.post(house.soundings(40))
    house.post(house.soundings(40, NOON + timedelta(hours=6), steps=1))
    first = house.run(house.cycle(parent))
    config = ExperimentConfig.model_validate(parent.config)
    later = NOON + timedelta(hours=6)
    second = house.run(house.catalogue.cycles.accept(parent.id, later, seed=config.cycle_seed(later))[0])
    (mine,) = follow(house, shadow_of(house, parent, later, denied={"types": ["buoy"]}))
    assert mine.background is not None and mine.background["source"] == f"cycle {first.id}"
    assert mine.counts["received"] == second.counts["received"] > 0
    assert members_of(house, mine) == members_of(house, second)
    assert follow(house, house.catalogue.experiments.named("shadow")) == []


def test_a_shadow_without_temperatures_has_a_worse_analysis_of_them_and_says_so(house: House) -> None:
    parent = house.experiment(forecast_hours=6, withheld_fraction=0.2)
    house.post_field(truth(house.model, steps=3), FieldPurpose.BACKGROUND, experiment=parent)
    house.post_field(truth(house.model), FieldPurpose.VERIFICATION)
    house.post(house.soundings(150))
    cycle = house.run(house.cycle(parent))
    (mine,) = follow(house, shadow_of(house, parent, NOON, denied={"variables": ["t"]}))
    assert mine.state == CycleState.DONE, mine.error
    assert mine.background is not None and mine.background["kind"] == "posted"
    assert mine.counts["reasons"]["DENIED"] > 100 and "DENIED" not in cycle.counts["reasons"]

    def score(of: Cycle, name: str, variable: str) -> float:
        rows = house.catalogue.scores.of_cycle(of.id)
        (found,) = [
            row.value
            for row in rows
            if (row.name, row.field, row.variable, row.level) == (name, "analysis", variable, 500.0)
        ]
        return found

    assert score(mine, "rmse", "t") > 1.2 * score(cycle, "rmse", "t")
    product = house.catalogue.products.find(mine.id, "departure_statistics", "parquet")
    assert product is not None
    rows = pq.read_table(house.archive.existing(product.path)).to_pylist()
    denied = [row for row in rows if row["use"] == "denied" and row["variable"] == "t" and not row["layer"]]
    assert denied and all(row["dfs"] is None and row["rms_analysis"] > 0 for row in denied)


def test_a_parent_that_failed_is_not_followed(house: House) -> None:
    parent = house.experiment(forecast_hours=6)
    lost = house.cycle(parent)
    house.catalogue.cycles.cancel(lost.id)
    assert follow(house, shadow_of(house, parent, NOON, denied={"types": ["temp"]})) == []
