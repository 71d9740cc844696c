"""The client and the commands against a real gateway; cycles are run by the worker's own code on the toy atmosphere."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from alignda.cli import main
from alignda.client import Client, GatewayError
from alignda.embedded import local_url
from service.archive import Archive
from service.catalogue import Catalogue
from service.fields.grib import write_grib
from service.settings import Settings
from tests.worker.conftest import table
from tests.worker.toy import ToyModel, truth
from worker.cycle import run_cycle
from worker.runtime import Runtime

NOON = datetime(2001, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def runtime(served: Settings) -> Iterator[Runtime]:
    catalogue = Catalogue.open(served.catalogue_url)
    yield Runtime(served, catalogue, Archive(served.archive_dir), ToyModel)
    catalogue.close()


@pytest.fixture
def client(served: Settings) -> Iterator[Client]:
    with Client(local_url(served)) as client:
        yield client


def alignda(served: Settings, *arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"ALIGNDA_URL": local_url(served)}, catch_exceptions=False)


def observations(path: Path, *rows: dict[str, object]) -> Path:
    pq.write_table(table(list(rows)), path)
    return path


def background(path: Path, bundle: Path) -> Path:
    model = ToyModel(bundle)
    write_grib(path, truth(model)[None], model.description, base_time=NOON, step_hours=0, product="analysis")
    return path


def test_a_day_at_the_command_line(served: Settings, runtime: Runtime, tmp_path: Path) -> None:
    made = alignda(served, "experiments", "create", "day", "--set", "members=3", "--set", "forecast_hours=12")
    assert made.exit_code == 0, made.output
    posted = alignda(
        served, "post", "observations", str(observations(tmp_path / "a.parquet", {"station": "day-1", "value": 256.0})),
        "--source", "test", "--json",
    )  # fmt: skip
    assert posted.exit_code == 0, posted.output
    assert json.loads(posted.output)["received"] == 1
    grib = background(tmp_path / "b.grib2", served.bundle)
    sent = alignda(served, "post", "backgrounds", str(grib), "--experiment", "day", "--lead-hours", "24", "--json")
    assert sent.exit_code == 0, sent.output
    assert json.loads(sent.output)["valid_time"].startswith("2001-01-01T12:00:00")
    verified = alignda(served, "post", "verifications", str(grib))
    assert verified.exit_code == 0, verified.output

    configured = alignda(served, "experiments", "show", "day")
    assert "forecast_hours" in configured.output and "active" in configured.output

    asked = alignda(served, "cycles", "run", "day", "2001-01-01T12", "--json")
    cycle_id = json.loads(asked.output)["id"]
    run_cycle(cycle_id, runtime)
    shown = alignda(served, "cycles", "show", str(cycle_id), "--json")
    assert json.loads(shown.output)["state"] == "done", shown.output
    listed = alignda(served, "cycles", "list", "day", "--state", "done")
    assert "2001-01-01" in listed.output

    scores = alignda(served, "scores", "day", "--name", "rmse", "--variable", "z", "--level", "500")
    assert "m2 s-2" in scores.output and "analysis" in scores.output
    story = alignda(served, "explain", "departures", str(cycle_id), "--station", "day-1")
    assert "ASSIMILATED" in story.output and "256" in story.output
    downloaded = alignda(
        served, "products", "download", str(cycle_id), "--kind", "analysis", "--into", str(tmp_path / "out"), "--json"
    )
    assert downloaded.exit_code == 0, downloaded.output
    files = {Path(json.loads(line)["path"]) for line in downloaded.output.splitlines()}
    assert {file.suffix for file in files} == {".grib2", ".nc"} and all(file.stat().st_size for file in files)


def test_suspend_resume_cancel_and_retry(served: Settings, client: Client) -> None:
    client.create_experiment("states")
    assert client.suspend("states")["state"] == "suspended"
    assert client.resume("states")["state"] == "active"
    cycle = client.run_cycle("states", NOON)
    assert client.run_cycle("states", NOON)["id"] == cycle["id"]
    assert client.cancel(cycle["id"])["state"] == "cancelled"
    assert client.wait(cycle["id"], seconds=5)["state"] == "cancelled"
    assert client.retry(cycle["id"])["state"] == "waiting"
    assert alignda(served, "cycles", "cancel", str(cycle["id"])).exit_code == 0
    refused = alignda(served, "cycles", "cancel", str(cycle["id"]))
    assert refused.exit_code == 1 and "already" in refused.output


def test_the_same_bytes_give_the_same_id(client: Client, tmp_path: Path) -> None:
    file = observations(tmp_path / "same.parquet", {"station": "twice", "value": 251.0})
    assert client.post_observations(file, source="a")["id"] == client.post_observations(file.read_bytes(), source="b",
        media_type="application/vnd.apache.parquet")["id"]  # fmt: skip


def test_events_tell_the_story_and_end_with_the_cycle(client: Client, runtime: Runtime) -> None:
    client.create_experiment("story", {"members": 2, "forecast_hours": 12})
    cycle = client.run_cycle("story", datetime(2001, 2, 1, tzinfo=UTC))
    run_cycle(cycle["id"], runtime)
    events = list(client.events(cycle["id"]))
    stages = [event["stage"] for event in events if "stage" in event]
    assert stages.index("assembling") < stages.index("gating") < stages.index("verifying")
    assert events[-1]["state"] == "degraded"


def test_following_a_cycle_ends_with_the_state_that_it_ended_in(served: Settings, runtime: Runtime) -> None:
    alignda(served, "experiments", "create", "followed", "--set", "members=2", "--set", "forecast_hours=12")
    asked = alignda(served, "cycles", "run", "followed", "2001-02-01T00", "--json")
    run_cycle(json.loads(asked.output)["id"], runtime)
    told = alignda(served, "cycles", "run", "followed", "2001-02-01T00", "--wait").stderr.splitlines()
    assert "verifying" in told[-3] or "verifying" in told[-2]
    assert told[-1].endswith("ended: degraded")


def test_a_background_is_unknown_to_a_replay_before_its_receipt_time(
    served: Settings, runtime: Runtime, tmp_path: Path
) -> None:
    alignda(served, "experiments", "create", "known", "--set", "members=2", "--set", "forecast_hours=12")
    grib = background(tmp_path / "b.grib2", served.bundle)
    where = ("--experiment", "known", "--lead-hours", "6")
    sent = alignda(served, "post", "backgrounds", str(grib), *where, "--receipt-time", "2001-01-01T15")
    assert sent.exit_code == 0, sent.output
    found = [
        runtime.catalogue.fields.background(runtime.catalogue.experiments.named("known").id, NOON, as_of)
        for as_of in (NOON.replace(hour=14), NOON.replace(hour=16))
    ]
    assert [field is not None for field in found] == [False, True]
    assert alignda(served, "post", "backgrounds", str(grib), *where[:3], "6.5").exit_code == 2


def test_more_than_one_page_is_read_to_its_end(client: Client, tmp_path: Path) -> None:
    for number in range(103):
        client.create_experiment(f"page-{number}")
    assert len({row["name"] for row in client.experiments() if row["name"].startswith("page-")}) == 103


def test_refusals_name_what_is_wrong(served: Settings, client: Client) -> None:
    with pytest.raises(GatewayError) as refusal:
        client.create_experiment("typo", {"membres": 4})
    assert refusal.value.status == 422 and "membres" in str(refusal.value)
    with pytest.raises(GatewayError) as missing:
        client.cycle(99999)
    assert missing.value.status == 404
    assert "no experiment" in alignda(served, "cycles", "list", "nowhere").output


def test_a_damaged_download_is_refused_and_leaves_nothing(client: Client, runtime: Runtime, tmp_path: Path) -> None:
    client.create_experiment("damage", {"members": 2, "forecast_hours": 12})
    cycle = client.run_cycle("damage", NOON)
    run_cycle(cycle["id"], runtime)
    product = next(row for row in client.products(cycle["id"]) if row["kind"] == "analysis")
    runtime.archive.existing(product["path"]).write_bytes(b"rotten")
    with pytest.raises(GatewayError, match="sha256"):
        client.download(product, tmp_path / "file.grib2")
    assert list(tmp_path.iterdir()) == []


def test_no_gateway_is_said_in_one_line(served: Settings) -> None:
    answer = CliRunner().invoke(main, ["experiments", "list", "--url", "http://127.0.0.1:9"])
    assert answer.exit_code == 1
    assert "is `alignda serve` running there?" in answer.output


def test_late_observations_carry_their_receipt_time(client: Client, runtime: Runtime, tmp_path: Path) -> None:
    rows = [{"station": f"late-{i}", "value": 250.0 + i, "time": datetime(2001, 3, 1, tzinfo=UTC)} for i in range(3)]
    late = datetime(2001, 3, 1, 9, tzinfo=UTC)
    content = json.dumps([
        {"time": "2001-03-01T00:00:00Z", "latitude": 50.0, "longitude": 10.0, "pressure": 50000.0, "variable": "t",
         "value": row["value"], "type": "temp", "station": row["station"]} for row in rows
    ]).encode()  # fmt: skip
    answer = client.post_observations(content, source="x", media_type="application/json", receipt_time=late)
    assert answer["received"] == 3, answer
    client.create_experiment("replay", {"members": 2, "forecast_hours": 12})
    cycle = client.run_cycle("replay", datetime(2001, 3, 1, tzinfo=UTC), as_of=datetime(2001, 3, 1, 4, tzinfo=UTC))
    run_cycle(cycle["id"], runtime)
    assert client.cycle(cycle["id"])["counts"]["received"] == 0


def test_departures_come_with_a_reason_for_each(client: Client, runtime: Runtime, tmp_path: Path) -> None:
    when = datetime(2001, 4, 1, tzinfo=UTC)
    given = {"time": when, "receipt_time": when}
    rows = [{**given, "station": "ok", "value": 256.0}, {**given, "station": "gross", "value": 294.0}]
    client.post_observations(observations(tmp_path / "d.parquet", *rows), source="test")
    client.create_experiment("reasons", {"members": 2, "forecast_hours": 12})
    cycle = client.run_cycle("reasons", when)
    run_cycle(cycle["id"], runtime)
    assert {row["station"]: row["reason"] for row in client.departures(cycle["id"])} == {
        "ok": "ASSIMILATED", "gross": "FIRST_GUESS",
    }  # fmt: skip
    assert [row["station"] for row in client.departures(cycle["id"], reason="FIRST_GUESS")] == ["gross"]
    assert np.isfinite(client.departures(cycle["id"], station="ok")[0]["analysis"])


def test_the_configuration_of_observations_is_shown_and_changed(served: Settings, tmp_path: Path) -> None:
    import yaml

    assert alignda(served, "experiments", "create", "configured").exit_code == 0
    shown = alignda(served, "observations-config", "show", "configured")
    assert shown.exit_code == 0 and shown.output.startswith("# sha256 ")
    assert yaml.safe_load(shown.output)["types"]["temp"]["usage"] == "use"
    changes = tmp_path / "changes.yaml"
    changes.write_text("types:\n  temp:\n    variables: {t: {error: {500: 1.5}}}\ndenylist: [{station: '10410'}]\n")
    changed = alignda(served, "observations-config", "change", "configured", str(changes), "--json")
    assert changed.exit_code == 0, changed.output
    differs = alignda(served, "observations-config", "show", "configured", "--changes", "--json")
    answer = json.loads(differs.output)
    assert answer["sha256"] == json.loads(changed.output)["sha256"]
    assert answer["configuration"]["types"]["temp"]["variables"]["t"]["error"] == {"500": 1.5}
    changes.write_text("types: {temp: {usage: perhaps}}\n")
    refused = alignda(served, "observations-config", "change", "configured", str(changes), "--anew")
    assert refused.exit_code == 1 and "types.temp.usage" in refused.output
    listed = alignda(served, "biases", "configured", "--cycles", "3")
    assert listed.exit_code == 0 and "predictor" in listed.output


def test_stored_values_are_found_and_downloaded(served: Settings, tmp_path: Path) -> None:
    when = datetime(2001, 5, 1, tzinfo=UTC)
    rows = [
        {"time": when, "receipt_time": when.replace(hour=hour), "station": "kept", "value": 250.0 + hour}
        for hour in (1, 5)
    ]
    file = observations(tmp_path / "k.parquet", *rows)
    assert alignda(served, "post", "observations", str(file), "--source", "test").exit_code == 0
    asked = ("observations", "--start", "2001-05-01T00", "--end", "2001-05-01T06", "--station", "kept")
    found = alignda(served, *asked, "--json")
    assert [json.loads(line)["value"] for line in found.output.splitlines()] == [251.0, 255.0], found.output
    then = alignda(served, *asked, "--as-of", "2001-05-01T01", "--json")
    assert [json.loads(line)["value"] for line in then.output.splitlines()] == [251.0]
    shown = alignda(served, *asked, "--limit", "1")
    assert "255" not in shown.output and "1 of 2 values" in shown.output
    away = alignda(served, *asked, "--box=20,40,30,60", "--type", "temp", "--json")
    assert (away.exit_code, away.output.strip()) == (0, "")
    out = tmp_path / "out.parquet"
    written = alignda(served, *asked, "--out", str(out))
    assert written.exit_code == 0, written.output
    assert pq.read_table(out).column("value").to_pylist() == [251.0, 255.0]
