"""Observations and a background go in over HTTP; analysis, forecast, departures, scores come out; the next cycle
starts from the result.
"""

from datetime import datetime, timedelta
from pathlib import Path

import cfgrib
import httpx
import numpy as np
import pytest

from alignda.embedded import local_url
from tests.e2e.conftest import START, Served, until


@pytest.mark.slow
def test_the_loop_closes_over_two_cycles(served: Served, next_cycle: datetime, tmp_path: Path) -> None:
    name = served.experiment("loop")
    served.observe(START, seed=1)
    served.observe(next_cycle, seed=2)
    with served.client as client:
        truth = served.weather.write_field(tmp_path / "truth.grib2", served.weather.truth(START), START)
        client.post_verification(truth)
        first = client.wait(client.run_cycle(name, START)["id"], 240)
        assert first["state"] in ("done", "degraded"), first
        assert first["background"]["kind"] == "posted"
        assert first["counts"]["received"] == 3600
        assert first["counts"]["used"] > 2500, first["counts"]
        second = client.wait(client.run_cycle(name, next_cycle)["id"], 240)
        assert second["background"] == {
            "kind": "previous_members", "source": f"cycle {first['id']}", "lead_hours": 6, "members": 4,
        }  # fmt: skip
        assert set(first["seconds"]) == {
            "assemble", "control_quality", "analyse", "gate", "publish", "forecast", "verify", "total",
        }  # fmt: skip
        rmse = {
            row["field"]: row["value"]
            for row in client.scores(name, "rmse", "z", 500)
            if row["cycle_id"] == first["id"] and row["field"] != "forecast"
        }
        assert rmse["analysis"] < rmse["background"], rmse
        departures = {row["field"]: row for row in client.scores(name, "departure_rms", "t") if row["type"] == "temp"}
        assert departures["analysis"]["unit"] == "K"


def test_the_grib_of_a_cycle_is_read_by_cfgrib_with_every_member_level_and_step(served: Served, tmp_path: Path) -> None:
    with served.client as client:
        cycle = client.cycles("loop")[0]
        products = {(row["kind"], row["format"], row["lead_hours"]): row for row in client.products(cycle["id"])}
        members = client.download(products["members", "grib2", 0], tmp_path / "members.grib2")
        forecast = client.download(products["forecast", "grib2", 12], tmp_path / "forecast.grib2")
    found = {}
    for dataset in cfgrib.open_datasets(str(members)):
        for variable, data in dataset.data_vars.items():
            found[str(variable)] = data
    assert {"z", "q", "u", "v", "t", "sp"} <= set(found)
    assert found["z"].sizes["number"] == 4
    assert found["z"]["isobaricInhPa"].values.tolist() == [925, 850, 700, 500, 300, 200, 100]
    steps = {dataset["step"].values / np.timedelta64(1, "h") for dataset in cfgrib.open_datasets(str(forecast))}
    assert steps == {12.0}


def test_every_observation_can_be_explained(served: Served) -> None:
    with served.client as client:
        cycle = client.cycles("loop")[0]
        rows = client.departures(cycle["id"])
        assert len(rows) == cycle["counts"]["received"]
        assert all(row["reason"] for row in rows)
        one = client.departures(cycle["id"], station="S0001", variable="t")
        assert {row["pressure"] for row in one} == {85000.0, 50000.0, 20000.0}


def test_metrics_tell_how_good_it_was(served: Served) -> None:
    text = httpx.get(f"{local_url(served.settings)}/metrics").text
    for series in (
        "alignda_departure_rms{",
        "alignda_balance_score{",
        "alignda_stage_seconds{",
        "alignda_observations{",
    ):
        assert f'{series}experiment="loop"' in text


def test_a_truth_posted_after_the_cycles_ended_scores_them(
    served: Served, next_cycle: datetime, tmp_path: Path
) -> None:
    with served.client as client:
        first, second = client.cycles("loop")
        assert second["verified_with"] is None
        assert not [row for row in client.scores("loop", "rmse") if row["cycle_id"] == second["id"]]
        truth = served.weather.write_field(tmp_path / "late.grib2", served.weather.truth(next_cycle), next_cycle)
        field = client.post_verification(truth)
        until(lambda: client.cycle(second["id"])["verified_with"] == field["id"], 60)
        rmse = {
            (row["field"], row["lead_hours"]): row["value"]
            for row in client.scores("loop", "rmse", "z", 500)
            if row["cycle_id"] == second["id"]
        }
        assert set(rmse) == {("background", None), ("analysis", None), ("forecast", 6)}
        # the background is the first cycle's forecast; the weather of another day would be ten times as far away
        assert rmse["background", None] == pytest.approx(rmse["forecast", 6], rel=1e-3)
        assert rmse["analysis", None] < 1.2 * rmse["background", None] < 2000.0
        ended = client.cycle(second["id"])
        assert (ended["state"], ended["attempt"], ended["seconds"]) == (
            second["state"],
            second["attempt"],
            second["seconds"],
        )
        assert client.cycle(first["id"])["verified_with"] == first["verified_with"] is not None
    text = httpx.get(f"{local_url(served.settings)}/metrics").text
    assert 'alignda_rmse{experiment="loop",field="analysis",lead_hours="0",level="500"' in text


def test_a_window_without_observations_completes_and_says_so(served: Served, tmp_path: Path) -> None:
    name = served.experiment("silent")
    quiet = START - timedelta(hours=24)
    with served.client as client:
        file = served.weather.write_field(tmp_path / "quiet.grib2", served.weather.truth(quiet), quiet)
        client.post_background(file, experiment=name, lead_hours=6)
        cycle = client.wait(client.run_cycle(name, quiet)["id"], 240)
        assert cycle["state"] == "degraded"
        assert [step["reason"] for step in cycle["degraded"]] == ["no_observations"]
        assert any(row["kind"] == "analysis" for row in client.products(cycle["id"]))


def test_a_cold_start_says_so(served: Served) -> None:
    name = served.experiment("cold", background=False)
    with served.client as client:
        cycle = client.wait(client.run_cycle(name, START)["id"], 240)
        assert cycle["state"] == "degraded"
        assert "cold_start" in [step["reason"] for step in cycle["degraded"]]


@pytest.mark.slow
def test_a_cancelled_cycle_stops_and_the_next_one_starts(served: Served) -> None:
    name = served.experiment("cancelled", sampler_steps=128)
    with served.client as client:
        cycle = client.run_cycle(name, START)
        for event in client.events(cycle["id"]):
            if event.get("stage") == "analysing":
                client.cancel(cycle["id"])
                break
        assert client.wait(cycle["id"], 10)["state"] == "cancelled"
        other = served.experiment("after")
        assert client.wait(client.run_cycle(other, START)["id"], 300)["state"] in ("done", "degraded")
        assert client.cycle(cycle["id"])["state"] == "cancelled"
        assert client.products(cycle["id"]) == []
