"""Departures, the story of one value and data denial at the command line, against a real gateway and real cycles."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from alignda.cli import main
from alignda.client import Client, GatewayError
from alignda.embedded import local_url
from service.archive import Archive
from service.catalogue import Catalogue
from service.settings import Settings
from tests.worker.conftest import table
from tests.worker.toy import ToyModel
from worker.cycle import run_cycle
from worker.runtime import Runtime

FIRST = datetime(2001, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def runtime(served: Settings) -> Iterator[Runtime]:
    catalogue = Catalogue.open(served.catalogue_url)
    yield Runtime(served, catalogue, Archive(served.archive_dir), ToyModel)
    catalogue.close()


def alignda(served: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"ALIGNDA_URL": local_url(served)}, catch_exceptions=False)


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


@pytest.fixture(scope="module")
def cycles(served: Settings, runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Two cycles with a sound value, a gross error and one rejected on arrival."""
    folder = tmp_path_factory.mktemp("values")
    with Client(local_url(served)) as client:
        client.create_experiment("told", {"members": 3, "forecast_hours": 6})
        made = []
        for number in range(2):
            when = FIRST + timedelta(hours=6 * number)
            given = {"time": when, "receipt_time": when}
            rows = [
                {**given, "station": "10393", "value": 256.0 + number, "longitude": 179.0},
                {**given, "station": "10393", "value": 14.0, "variable": "u", "longitude": 179.0},
                {**given, "station": "gross", "value": 294.0, "longitude": -179.0},
                {**given, "station": "hot", "value": 400.0},
            ]
            file = folder / f"{number}.parquet"
            pq.write_table(table(rows), file)
            assert client.post_observations(file, source="gts")["rejected"] == 1
            cycle = client.run_cycle("told", when)
            run_cycle(cycle["id"], runtime)
            made.append(cycle["id"])
    return made


def test_departures_are_shown_and_written(served: Settings, cycles: list[int], tmp_path: Path) -> None:
    boxed = lines(alignda(served, "departures", "told", "--bbox", "170,0,-170,80", "--variable", "t", "--json"))
    assert [row["station"] for row in boxed] == ["10393", "gross"] * 2
    assert {row["reason"] for row in boxed if row["station"] == "gross"} == {"FIRST_GUESS"}
    gross = next(row for row in boxed if row["station"] == "gross")
    assert gross["check_value"] > gross["check_limit"] == 5.0 and gross["influence"] is None
    used = next(row for row in boxed if row["station"] == "10393")
    assert used["influence"] > 0 and used["check_value"] < used["check_limit"] and used["weight"] == 1.0
    one = lines(alignda(served, "departures", "told", "--cycle", str(cycles[1]), "--limit", "2", "--json"))
    assert len(one) == 2 and one[0]["time"].startswith("2001-05-01T06")
    file = tmp_path / "all.parquet"
    (written,) = lines(alignda(served, "departures", "told", "--type", "temp", "--out", str(file), "--json"))
    assert written["size"] == file.stat().st_size and pq.read_table(file).num_rows == 6
    assert alignda(served, "departures", "told", "--out", "x.txt").exit_code == 2


def test_statistics_are_shown(served: Settings, cycles: list[int]) -> None:
    shown = ("departure-statistics", "told", "--type", "temp", "--variable", "t", "--cycles", "2", "--json")
    rows = lines(alignda(served, *shown))
    assert [(row["count"], row["cycle_id"]) for row in rows] == [(1, cycles[0]), (1, cycles[1])]
    assert rows[0]["dfs"] > 0 and rows[0]["sigma_o"] == pytest.approx(1.0)


def test_the_story_of_a_value_is_told_from_arrival_to_the_next_cycle(served: Settings, cycles: list[int]) -> None:
    (value,) = lines(
        alignda(
            served, "departures", "told", "--station", "10393", "--variable", "t", "--cycle", str(cycles[0]), "--json"
        )
    )
    (story,) = lines(alignda(served, "explain", "observation", value["id"], "--json"))
    assert story["observed"]["value"] == 256.0
    (arrival,) = story["arrivals"]
    assert (arrival["source"], arrival["reason"]) == ("gts", None) and "/received/" in arrival["raw"]
    (cycle,) = story["cycles"]
    assert (cycle["experiment"], cycle["cycle_id"], cycle["reason"]) == ("told", cycles[0], "ASSIMILATED")
    assert {check["outcome"] for check in cycle["checks"]} == {"passed"} and len(cycle["checks"]) > 20
    (told,) = [check for check in cycle["checks"] if check["value"] is not None]
    assert told["filter"] == "gross check" and told["limit"] == 5.0
    assert cycle["next"]["cycle_id"] == cycles[1] and cycle["next"]["reasons"] == {"ASSIMILATED": 1}
    assert cycle["next"]["mean_o_b"] is not None
    page = alignda(served, "explain", value["id"])  # the id alone is enough
    assert page.exit_code == 0 and "gross check" in page.output and "influence" in page.output
    assert "next cycle" in page.output and "O-B" in page.output


def test_a_refused_value_says_which_check_refused_it_with_number_and_limit(served: Settings, cycles: list[int]) -> None:
    gross = lines(alignda(served, "departures", "told", "--station", "gross", "--json"))[1]
    (story,) = lines(alignda(served, "explain", gross["id"], "--experiment", "told", "--json"))
    checks = {check["filter"]: check for check in story["cycles"][0]["checks"]}
    assert checks["range"]["outcome"] == "passed" and checks["buddy check"]["outcome"] == "not reached"
    assert checks["gross check"]["outcome"] == "rejected" and checks["gross check"]["value"] > 5.0
    assert story["cycles"][0]["next"] is None  # it was in the last cycle


def test_a_value_rejected_on_arrival_is_found_in_its_batch(
    served: Settings, runtime: Runtime, cycles: list[int]
) -> None:
    batch = runtime.catalogue.batches.page(1, 0).rows[0]
    assert batch.rejected_path is not None
    (hot,) = pq.read_table(runtime.archive.existing(batch.rejected_path)).to_pylist()
    (story,) = lines(alignda(served, "explain", hot["id"], "--json"))
    assert story["arrivals"][0]["reason"] == "RANGE" and story["cycles"] == []
    assert "rejected on arrival" in alignda(served, "explain", hot["id"]).output


def test_an_unknown_value_is_a_problem_and_a_word_is_refused(served: Settings, cycles: list[int]) -> None:
    with Client(local_url(served)) as client:
        for name, status in (("0" * 16, 404), ("nonsense", 422)):
            with pytest.raises(GatewayError) as refusal:
                client.observation(name)
            assert refusal.value.status == status


def test_a_shadow_is_made_follows_and_is_compared(served: Settings, runtime: Runtime, cycles: list[int]) -> None:
    made = alignda(served, "deny", "told", "told-no-u", "--variable", "u", "--start", "2001-05-01T06")
    assert made.exit_code == 0 and "told-no-u" in made.output
    deadline = time.monotonic() + 120
    while not (waiting := lines(alignda(served, "cycles", "list", "told-no-u", "--json"))):
        assert time.monotonic() < deadline, "the gateway made no cycle of the shadow"
        time.sleep(0.5)
    run_cycle(waiting[0]["id"], runtime)
    shown = lines(alignda(served, "cycles", "show", str(waiting[0]["id"]), "--json"))[0]
    assert shown["background"]["source"] == f"cycle {cycles[0]}" and shown["counts"]["reasons"]["DENIED"] == 1
    compared = alignda(served, "compare", "told-no-u", "--name", "departure_rms")
    assert compared.exit_code == 0 and "told-no-u less told: 1 cycles, 0 with unequal input" in compared.output
    assert lines(alignda(served, "compare", "told-no-u", "--json"))[0]["cycles"] == 1


def test_a_file_of_rubbish_is_refused_and_the_cycle_goes_on_without_it(
    served: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    when = FIRST + timedelta(days=20)
    rubbish = tmp_path / "rubbish.bufr"
    rubbish.write_bytes(b"BUFR" + bytes(range(256)) * 40)
    with Client(local_url(served)) as client:
        client.create_experiment("undeterred", {"members": 3, "forecast_hours": 6})
        with pytest.raises(GatewayError, match="no BUFR message can be read"):
            client.post_observations(rubbish, source="gts")
        file = tmp_path / "sound.parquet"
        pq.write_table(table([{"time": when, "receipt_time": when, "station": "10393", "value": 256.0}]), file)
        client.post_observations(file, source="gts")
        cycle = client.run_cycle("undeterred", when)
        run_cycle(cycle["id"], runtime)
        cycle = client.cycle(cycle["id"])
    assert cycle["counts"]["received"] == 1
    assert cycle["state"] == "degraded" and [entry["reason"] for entry in cycle["degraded"]] == ["cold_start"]
