"""Windows have one definition; scores are what their formulas say."""

from datetime import timedelta

import numpy as np
import pytest

from service.catalogue.tables import FieldPurpose
from tests.worker.conftest import NOON, House, table
from tests.worker.toy import truth
from worker.stages import assemble
from worker.stages.verify import rms, spread_skill


def test_the_window_holds_its_first_instant_and_not_its_last(house: House) -> None:
    moments = {"first": -3.0, "last": 3.0, "before": -3.0 - 1e-3, "inside": 2.999}
    house.post(table([{"station": name, "time": NOON + timedelta(hours=h)} for name, h in moments.items()]))
    work = house.work(house.cycle(house.experiment()))
    gathered, _ = assemble.gather(work)
    assert sorted(gathered.column("station").to_pylist()) == ["first", "inside"]


def test_several_batches_become_one_window_and_are_named(house: House) -> None:
    ids = [house.post(table([{"station": name}])).id for name in ("A", "B")]
    house.post(table([{"station": "C", "time": NOON + timedelta(days=1)}]))
    gathered, batches = assemble.gather(house.work(house.cycle(house.experiment())))
    assert gathered.num_rows == 2 and batches == ids


def test_a_posted_background_of_another_experiment_is_not_taken(house: House) -> None:
    other = house.experiment("other")
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=other)
    work = house.work(house.cycle(house.experiment("mine")))
    assert assemble.choose_background(work).kind == "cold_start"


def test_the_previous_members_win_over_a_posted_background(house: House) -> None:
    experiment = house.experiment()
    house.post(house.soundings(10))
    house.run(house.cycle(experiment))
    next_time = NOON + timedelta(hours=6)
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, next_time, experiment)
    assert assemble.choose_background(house.work(house.cycle(experiment, next_time))).kind == "previous_members"


def test_a_reliable_ensemble_has_a_spread_skill_ratio_of_one() -> None:
    generator = np.random.default_rng(1)
    members, cases = 8, 40000
    centre = generator.normal(size=cases)
    ensemble = centre + generator.normal(size=(members, cases))
    verification = centre + generator.normal(size=cases)
    spread = np.sqrt(ensemble.var(axis=0, ddof=1).mean(keepdims=True))
    error = np.sqrt(np.square(ensemble.mean(axis=0) - verification).mean(keepdims=True))
    assert spread_skill(spread, error, members)[0] == pytest.approx(1.0, abs=0.02)


def test_rms_is_the_root_of_the_mean_square() -> None:
    assert rms(np.array([3.0, -4.0])) == pytest.approx(np.sqrt(12.5))


def test_departure_scores_are_told_per_type_and_in_all(house: House) -> None:
    experiment = house.experiment()
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=experiment)
    house.post(table([{"station": "A", "value": 256.0}, {"station": "B", "type": "amdar", "value": 252.0}]))
    cycle = house.run(house.cycle(experiment))
    rows = {
        (row.name, row.field, row.type): row
        for row in house.catalogue.scores.of_cycle(cycle.id)
        if row.name.startswith("departure") and row.variable == "t"
    }
    assert {kind for name, field, kind in rows} == {"", "temp", "amdar"}
    total = rows["departure_rms", "background", ""].value
    each = [rows["departure_rms", "background", kind].value for kind in ("temp", "amdar")]
    assert total == pytest.approx(np.sqrt(np.mean(np.square(each))))
    bias = rows["departure_bias", "background", ""]
    assert bias.value == pytest.approx(
        np.mean([rows["departure_bias", "background", k].value for k in ("temp", "amdar")])
    )
    assert bias.unit == "K" and bias.valid_time == NOON
