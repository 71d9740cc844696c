"""The story of a cycle, told on a toy atmosphere with a real catalogue and archive."""

import hashlib
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import xarray as xr

from service.catalogue import StaleLease
from service.catalogue.tables import CycleState, FieldPurpose
from service.observations.selection import in_order
from tests.worker.conftest import NOON, House, table
from tests.worker.toy import truth
from worker.cycle import STAGES, run_cycle
from worker.lease import Interrupted
from worker.stages import analyse, forecast


def scores_of(house: House, cycle_id: int, name: str) -> dict[tuple[str, str], float]:
    rows = house.catalogue.scores.of_cycle(cycle_id)
    return {(row.field, f"{row.variable}{row.level or 0:g}"): row.value for row in rows if row.name == name}


def test_a_cycle_with_observations_and_a_background_is_done_and_better_than_its_background(house: House) -> None:
    experiment = house.experiment()
    house.post(house.soundings())
    wrong = truth(house.model, steps=3)
    house.post_field(wrong, FieldPurpose.BACKGROUND, experiment=experiment)
    house.post_field(truth(house.model), FieldPurpose.VERIFICATION)
    cycle = house.run(house.cycle(experiment))
    assert cycle.state == CycleState.DONE, cycle.error
    assert cycle.background is not None and cycle.background["kind"] == "posted"
    rmse = scores_of(house, cycle.id, "rmse")
    assert rmse["analysis", "z500"] < 0.7 * rmse["background", "z500"]
    assert set(cycle.seconds) == {stage.name for stage in STAGES} | {"total"}
    assert cycle.counts["used"] + cycle.counts["rejected"] == cycle.counts["received"] == 900


def test_every_product_is_in_the_archive_with_the_sha256_that_the_catalogue_says(house: House) -> None:
    house.post(house.soundings(20))
    cycle = house.run(house.cycle(house.experiment()))
    products = house.catalogue.products.page(cycle.id, 100, 0).rows
    kinds = {(product.kind, product.format, product.lead_hours) for product in products}
    for kind, formats in {"analysis": ("grib2", "netcdf"), "increment": ("grib2", "netcdf"), "spread": ("grib2", "netcdf"),
                          "members": ("grib2", "netcdf"), "departures": ("parquet", "odb2", "ioda")}.items():  # fmt: skip
        assert {(kind, format_, 0) for format_ in formats} <= kinds
    for lead in (6, 12):
        assert {("forecast", "grib2", lead), ("spread", "grib2", lead), ("members", "netcdf", lead)} <= kinds
    for product in products:
        content = house.archive.existing(product.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == product.sha256
        assert len(content) == product.size


def test_a_cycle_without_observations_completes_and_says_why_it_is_degraded(house: House) -> None:
    experiment = house.experiment()
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=experiment)
    cycle = house.run(house.cycle(experiment))
    assert cycle.state == CycleState.DEGRADED
    assert [step["reason"] for step in cycle.degraded] == ["no_observations"]
    assert house.catalogue.products.find(cycle.id, "analysis", "grib2") is not None


def test_a_cycle_without_a_background_starts_cold_and_says_so(house: House) -> None:
    house.post(house.soundings())
    house.post_field(truth(house.model), FieldPurpose.VERIFICATION)
    cycle = house.run(house.cycle(house.experiment()))
    assert cycle.state == CycleState.DEGRADED
    assert [step["reason"] for step in cycle.degraded] == ["cold_start"]
    assert cycle.background == {
        "kind": "cold_start", "source": "climatology of toy", "lead_hours": None, "members": 1,
    }  # fmt: skip
    rmse = scores_of(house, cycle.id, "rmse")
    assert rmse["analysis", "z500"] < 0.7 * rmse["background", "z500"]


def test_the_next_cycle_starts_from_the_members_of_the_previous_one(house: House) -> None:
    experiment = house.experiment()
    house.post(house.soundings())
    first = house.run(house.cycle(experiment))
    second = house.run(house.cycle(experiment, NOON + timedelta(hours=6)))
    assert second.background == {
        "kind": "previous_members", "source": f"cycle {first.id}", "lead_hours": 6, "members": 4,
    }  # fmt: skip


def test_after_a_failed_cycle_the_next_starts_from_the_older_members(house: House) -> None:
    experiment = house.experiment()
    house.post(house.soundings())
    first = house.run(house.cycle(experiment))
    lost = house.cycle(experiment, NOON + timedelta(hours=6))
    house.catalogue.cycles.cancel(lost.id)
    third = house.run(house.cycle(experiment, NOON + timedelta(hours=12)))
    assert third.background is not None
    assert (third.background["kind"], third.background["source"]) == ("older_members", f"cycle {first.id}")
    assert third.background["lead_hours"] == 12


def test_after_a_long_gap_the_forecast_takes_over(house: House) -> None:
    experiment = house.experiment(forecast_hours=24)
    house.post(house.soundings())
    house.run(house.cycle(experiment))
    later = house.run(house.cycle(experiment, NOON + timedelta(hours=24)))
    assert later.background is not None
    assert (later.background["kind"], later.background["lead_hours"]) == ("older_forecast", 24)


def test_a_free_run_keeps_its_background_and_still_compares_with_the_observations(house: House) -> None:
    experiment = house.experiment(assimilate=False)
    house.post(house.soundings())
    house.post_field(truth(house.model, steps=2), FieldPurpose.BACKGROUND, experiment=experiment)
    house.post_field(truth(house.model), FieldPurpose.VERIFICATION)
    cycle = house.run(house.cycle(experiment))
    assert cycle.state == CycleState.DONE
    assert house.model.analyses == 0
    rmse = scores_of(house, cycle.id, "rmse")
    assert rmse["analysis", "z500"] == rmse["background", "z500"] > 0
    assert set(cycle.counts["reasons"]) <= {"PASSIVE", "FIRST_GUESS", "OUTSIDE_DOMAIN"}
    assert scores_of(house, cycle.id, "departure_rms")["background", "z0"] > 0


def test_forecasts_are_verified_when_their_time_comes(house: House) -> None:
    experiment = house.experiment(forecast_hours=12)
    house.post(house.soundings())
    house.run(house.cycle(experiment))
    house.post_field(truth(house.model, 1), FieldPurpose.VERIFICATION, NOON + timedelta(hours=6))
    second = house.run(house.cycle(experiment, NOON + timedelta(hours=6)))
    leads = {row.lead_hours for row in house.catalogue.scores.of_cycle(second.id) if row.field == "forecast"}
    assert leads == {6}


def test_the_same_seed_and_inputs_give_the_same_analysis_to_the_bit(house: House) -> None:
    house.post(house.soundings())
    arrays = []
    for name in ("one", "two"):
        cycle = house.run(house.cycle(house.experiment(name)))
        product = house.catalogue.products.find(cycle.id, "members", "grib2")
        assert product is not None
        arrays.append(house.archive.existing(product.path).read_bytes())
    assert arrays[0] == arrays[1]


def test_running_a_finished_cycle_again_does_nothing(house: House) -> None:
    house.post(house.soundings(10))
    cycle = house.run(house.cycle(house.experiment()))
    before = [(p.id, p.created_at) for p in house.catalogue.products.page(cycle.id, 100, 0).rows]
    assert run_cycle(cycle.id, house.runtime) is None
    assert [(p.id, p.created_at) for p in house.catalogue.products.page(cycle.id, 100, 0).rows] == before


def test_a_cycle_that_waits_for_an_earlier_one_is_left_alone(house: House) -> None:
    experiment = house.experiment()
    house.cycle(experiment)
    second = house.cycle(experiment, NOON + timedelta(hours=6))
    assert run_cycle(second.id, house.runtime) is None
    assert house.catalogue.cycles.get(second.id).state == CycleState.WAITING


def test_an_interrupted_cycle_goes_on_after_the_last_committed_stage(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.post(house.soundings())
    cycle = house.cycle(house.experiment())

    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as interrupted:
        interrupted.setattr(house.model, "forecast", stop)
        assert run_cycle(cycle.id, house.runtime) == CycleState.WAITING
    left = house.catalogue.cycles.get(cycle.id)
    assert (left.stage, left.attempt) == ("publish", 0)
    assert house.run(cycle).state == CycleState.DEGRADED  # a cold start
    assert house.model.analyses == 1
    reasons = [step["reason"] for step in house.catalogue.cycles.get(cycle.id).degraded]
    assert reasons == ["cold_start"]


def test_a_cycle_whose_desk_was_lost_starts_again_and_tells_its_fallbacks_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.post(house.soundings())
    cycle = house.cycle(house.experiment())

    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as interrupted:
        interrupted.setattr(house.model, "forecast", stop)
        run_cycle(cycle.id, house.runtime)
    for file in house.runtime.desks.rglob("*.npy"):
        file.unlink()
    for file in house.runtime.desks.rglob("*.done"):
        file.unlink()
    assert house.run(cycle).state == CycleState.DEGRADED
    assert house.model.analyses == 2
    assert [step["reason"] for step in house.catalogue.cycles.get(cycle.id).degraded] == ["cold_start"]


def test_a_retry_that_publishes_less_leaves_nothing_of_the_earlier_attempt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.post(house.soundings())
    cycle = house.run(house.cycle(house.experiment(forecast_hours=12)))
    assert cycle.state == CycleState.DEGRADED  # a cold start
    house.catalogue.cycles.retry(cycle.id)
    monkeypatch.setattr(forecast, "range_fault", lambda *_: "too warm")
    house.run(cycle)
    products = house.catalogue.products.page(cycle.id, 100, 0).rows
    assert {product.lead_hours for product in products} == {0}
    assert len({product.path.split("/")[-2] for product in products}) == 1


def test_a_worker_that_was_replaced_writes_nothing_more(house: House) -> None:
    house.post(house.soundings())
    work = house.work(house.cycle(house.experiment()))
    house.catalogue.cycles.cancel(work.cycle.id)
    with pytest.raises(StaleLease):
        house.catalogue.leases.put_products(work.lease, [])
    house.catalogue.cycles.retry(work.cycle.id)
    assert house.run(work.cycle).state == CycleState.DEGRADED
    for product in house.catalogue.products.page(work.cycle.id, 100, 0).rows:
        assert f"/{work.lease.token}/" not in product.path


def test_a_cancelled_cycle_stops_at_its_next_stage(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.post(house.soundings(10))
    cycle = house.cycle(house.experiment())
    original = house.model.climatology

    def cancelled(valid_time: object) -> object:
        if house.catalogue.cycles.get(cycle.id).state != CycleState.CANCELLED:
            house.catalogue.cycles.cancel(cycle.id)
        return original(valid_time)  # type: ignore[arg-type]

    monkeypatch.setattr(house.model, "climatology", cancelled)
    assert run_cycle(cycle.id, house.runtime) is None
    assert house.catalogue.cycles.get(cycle.id).state == CycleState.CANCELLED
    assert house.catalogue.products.page(cycle.id, 10, 0).total == 0


def test_a_missing_bundle_fails_the_cycle_with_advice(house: House) -> None:
    experiment = house.catalogue.experiments.create("lost", {}, "no-such-bundle")
    cycle = house.run(house.cycle(experiment))
    assert cycle.state == CycleState.FAILED
    assert cycle.error is not None and "no-such-bundle" in cycle.error and "alignda train" in cycle.error


def test_an_error_that_may_pass_is_tried_again_and_then_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    cycle = house.cycle(house.experiment())

    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(house.model, "climatology", broken)
    states = [run_cycle(cycle.id, house.runtime) for _ in range(3)]
    assert states == [CycleState.WAITING, CycleState.WAITING, CycleState.FAILED]
    assert "the disk is full" in str(house.catalogue.cycles.get(cycle.id).error)
    assert list(house.runtime.desks.iterdir()) == []


def test_an_unphysical_forecast_is_cut_off_and_recorded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = house.experiment(forecast_hours=18)
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=experiment)
    work = house.work(house.cycle(experiment))
    work.desk.put_array("analysis", truth(house.model)[None])
    original = house.model.forecast

    def blowing_up(*given: object) -> object:
        for number, state in enumerate(original(*given)):  # type: ignore[arg-type]
            yield state * (np.nan if number == 1 else 1)

    monkeypatch.setattr(house.model, "forecast", blowing_up)
    result = forecast.run(work)
    assert [step["reason"] for step in result.degraded] == ["forecast_unphysical"]
    assert {product.lead_hours for product in result.products} == {6}


def test_withheld_stations_are_scored_and_not_used(house: House) -> None:
    experiment = house.experiment(withheld_fraction=0.3)
    house.post(house.soundings())
    cycle = house.run(house.cycle(experiment))
    reasons = cycle.counts["reasons"]
    assert 0.15 < reasons["WITHHELD"] / cycle.counts["received"] < 0.45
    withheld = scores_of(house, cycle.id, "withheld_rmse")
    assert withheld["analysis", "z500"] < withheld["background", "z500"]


def test_a_replay_uses_only_what_was_known_then(house: House) -> None:
    early, late = NOON + timedelta(hours=1), NOON + timedelta(hours=5)
    house.post(table([{"station": "A", "receipt_time": early}, {"station": "B", "receipt_time": late}]))
    cycle = house.cycle(house.experiment(), as_of=NOON + timedelta(hours=3))
    assert house.run(cycle).counts["received"] == 1


def test_a_rerun_as_known_at_a_time_is_the_same_to_the_bit_whatever_came_since(house: House) -> None:
    step, first = timedelta(hours=6), house.soundings(60)
    second = house.soundings(60, NOON + step, steps=1)
    house.post(first.slice(200))
    house.post(first.slice(0, 200))
    house.post(second)
    known = {NOON: NOON + timedelta(hours=1), NOON + step: NOON + step + timedelta(hours=1)}

    def run(name: str, as_of: bool = True) -> list[dict[str, bytes]]:
        """Two cycles, so that the second starts from members, biases and ratios of the first."""
        experiment, out = house.experiment(name), []
        for valid_time, when in known.items():
            cycle = house.run(house.cycle(experiment, valid_time, as_of=when if as_of else None))
            assert cycle.state in (CycleState.DONE, CycleState.DEGRADED), cycle.error
            wanted = {"members": "grib2", "departures": "parquet", "observation_state": "parquet"}
            out.append({kind: product_bytes(house, cycle.id, kind, form) for kind, form in wanted.items()})
            # GRIB rounds, netCDF has the time of writing in its history: so the numbers themselves
            with xr.open_dataset(product_path(house, cycle.id, "members", "netcdf")) as members:
                out[-1] |= {str(name): values.values.tobytes() for name, values in members.data_vars.items()}
        return out

    before = run("before")
    late = NOON + timedelta(hours=9)
    for more in (house.soundings(40, error=3.0), house.soundings(40, NOON + step, steps=1, error=3.0)):
        received = pa.array([late] * more.num_rows, more.schema.field("receipt_time").type)
        # received later, but in a batch that the catalogue has as older: only the values' own receipt counts
        house.post(more.set_column(more.column_names.index("receipt_time"), "receipt_time", received), NOON - step)
    assert run("again") == before
    assert run("now", as_of=False)[0]["members"] != before[0]["members"]


def test_the_analysis_does_not_depend_on_the_batches_that_brought_its_values(house: House) -> None:
    values = house.soundings(40)
    shuffled = values.take(pa.array(np.random.default_rng(1).permutation(values.num_rows)))
    assert in_order(shuffled).equals(in_order(values)) and not shuffled.equals(values)


@pytest.mark.parametrize(
    ("rows", "state", "used"),
    [
        ([{"value": 256.0}], CycleState.DONE, 1),
        ([{"value": 256.0}, {"type": "amdar", "station": "A1", "value": 254.0, "latitude": 20.0}], CycleState.DONE, 2),
        ([{"value": 340.0}], CycleState.DEGRADED, 0),
    ],
    ids=["one-value", "two-types-of-nine", "one-that-is-rubbish"],
)
def test_a_meagre_window_completes_and_says_what_it_lacked(
    house: House, rows: list[dict[str, object]], state: CycleState, used: int
) -> None:
    experiment = house.experiment()
    house.post_field(truth(house.model), FieldPurpose.BACKGROUND, experiment=experiment)
    house.post(table(rows))
    cycle = house.run(house.cycle(experiment))
    assert (cycle.state, cycle.counts["used"]) == (state, used), cycle.counts
    assert [step["reason"] for step in cycle.degraded] == (["no_observations"] if used == 0 else [])
    assert house.catalogue.products.find(cycle.id, "analysis", "grib2") is not None


def product_path(house: House, cycle_id: int, kind: str, form: str) -> Path:
    product = house.catalogue.products.find(cycle_id, kind, form)
    assert product is not None
    return house.archive.existing(product.path)


def product_bytes(house: House, cycle_id: int, kind: str, form: str) -> bytes:
    return product_path(house, cycle_id, kind, form).read_bytes()


def test_no_observation_of_the_evidence_is_without_a_departure(house: House) -> None:
    house.post(house.soundings(30))
    cycle = house.cycle(house.experiment())
    work = house.work(cycle)
    for stage in STAGES[:2]:
        house.catalogue.leases.complete_stage(work.lease, _committed(stage.name, stage.run(work)))
    evidence = analyse.gather_evidence(work)
    assert len(evidence.observations) > 100
    assert np.isfinite(evidence.departures).all()


def _committed(name: str, result: object) -> object:
    from service.catalogue import StageOutcome

    return StageOutcome(name, 0.0, counts=result.counts, background=result.background)  # type: ignore[attr-defined]
