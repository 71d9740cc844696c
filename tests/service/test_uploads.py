"""Observations and fields in, over real HTTP: streamed, decoded in their own process, once per content."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from service.catalogue import NewScore
from service.fields.contract import from_array
from service.fields.grib import write_grib
from service.fields.grid import BundleDescription
from service.fields.intake import standard_geopotential
from service.fields.netcdf import read_netcdf, write_netcdf
from tests.service.conftest import until

NOON = datetime(2009, 1, 23, 12, tzinfo=UTC)
ROW = {
    "time": "2009-01-23T11:30:00Z",
    "latitude": 52.0,
    "longitude": 13.0,
    "pressure": 85000.0,
    "variable": "t",
    "value": 271.5,
    "type": "temp",
    "station": "10393",
}
ABSURD = ROW | {"value": 900.0}
JSON = {"X-Source": "gts", "Content-Type": "application/json"}


def rows(*given):
    return json.dumps(list(given)).encode()


def state(description: BundleDescription, warmth: float = 0.0) -> np.ndarray:
    """A calm, plausible atmosphere [1, channel, latitude, longitude]."""
    out = np.zeros((1, *description.shape), dtype=np.float32)
    for index, channel in enumerate(description.channels):
        calm = {"q": 0.004, "t": 260.0, "t2m": 285.0, "sp": 98000.0}.get(channel.variable, 1.0)
        if channel.variable == "z" and channel.level is not None:
            calm = standard_geopotential(channel.level)
        out[:, index] = calm + (warmth if channel.variable.startswith("t") else 0.0)
    return out


@pytest.fixture
def description(bundle):
    return BundleDescription.load(bundle)


@pytest.fixture
def grib(tmp_path, description):
    file = tmp_path / "background.grib2"
    write_grib(
        file,
        state(description),
        description,
        base_time=NOON - timedelta(hours=6),
        step_hours=6,
        product="forecast",
        members_total=1,
    )
    return file.read_bytes()


def test_a_batch_is_counted_archived_and_listed(client, served, settings):
    body = rows(ROW, ABSURD)
    answer = client.post("/v1/observations", content=body, headers=JSON)
    assert answer.status_code == 201, answer.text
    batch = answer.json()
    assert (batch["received"], batch["rejected"], batch["reasons"]) == (2, 1, {"RANGE": 1})
    assert batch["sha256"] == hashlib.sha256(body).hexdigest()
    assert batch["time_min"] == batch["time_max"] == "2009-01-23T11:30:00Z"
    assert client.get(answer.headers["Location"]).json() == batch
    assert client.get("/v1/observations/batches", params={"source": "gts"}).json()["items"] == [batch]
    assert client.get("/v1/observations/batches", params={"source": "other"}).json()["total"] == 0

    stored = served.batches.get(batch["id"])
    (partition,) = served.partitions.of_batch(stored.id)
    assert partition.path.startswith("observations/day=2009-01-23/type=temp/") and partition.rows == 1
    table = pq.ParquetFile(settings.archive_dir / partition.path).read()
    assert table.column("value").to_pylist() == [271.5]
    assert table.column("source").to_pylist() == ["gts"]
    assert (settings.archive_dir / stored.raw_path).read_bytes() == body
    assert list(settings.incoming_dir.iterdir()) == []


def test_rejected_values_can_be_asked_for_with_their_reason(client, tmp_path):
    batch = client.post("/v1/observations", content=rows(ROW, ABSURD), headers=JSON).json()
    answer = client.get(f"/v1/observations/batches/{batch['id']}/rejected")
    file = tmp_path / "rejected.parquet"
    file.write_bytes(answer.content)
    (rejected,) = pq.read_table(file).to_pylist()
    assert rejected["reason"] == 13 and rejected["detail"]
    clean = client.post("/v1/observations", content=rows(ROW), headers=JSON).json()
    assert client.get(f"/v1/observations/batches/{clean['id']}/rejected").status_code == 404


def test_the_same_bytes_are_the_same_batch(client):
    first = client.post("/v1/observations", content=rows(ROW), headers=JSON)
    again = client.post("/v1/observations", content=rows(ROW), headers=JSON)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()


def test_a_receipt_time_can_be_given_for_replays(client, served, settings):
    headers = JSON | {"X-Receipt-Time": "2009-01-23T14:00:00+01:00"}
    batch = client.post("/v1/observations", content=rows(ROW), headers=headers).json()
    assert batch["received_at"] == "2009-01-23T13:00:00Z"
    (partition,) = served.partitions.of_batch(batch["id"])
    assert partition.receipt_min == partition.receipt_max == NOON + timedelta(hours=1)
    table = pq.ParquetFile(settings.archive_dir / partition.path).read()
    assert table.column("receipt_time").to_pylist() == [NOON + timedelta(hours=1)]


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"", JSON, 422, "the body is empty"),
        (b"{]", JSON, 422, "not valid JSON"),
        (b"BUFR" + b"\x00" * 50, {"X-Source": "gts", "Content-Type": "application/bufr"}, 422, "cannot be decoded"),
        (b"nonsense", {"X-Source": "gts", "Content-Type": "application/octet-stream"}, 415, "neither of"),
        (rows(ROW), JSON | {"Content-Type": "image/png"}, 415, "image/png is not accepted"),
        (rows(ROW), {"Content-Type": "application/json"}, 422, "x-source: Field required"),
        (rows(ROW), JSON | {"X-Source": "a b"}, 422, "x-source"),
        (rows(ROW), JSON | {"X-Receipt-Time": "2009-01-23T14:00:00"}, 422, "x-receipt-time"),
    ],
    ids=["empty", "broken-json", "broken-bufr", "unknown-bytes", "media-type", "no-source", "bad-source", "naive-time"],
)
def test_an_unusable_upload_is_a_problem_that_says_why(client, settings, body, headers, status, words):
    answer = client.post("/v1/observations", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert problem["status"] == status and problem["instance"] == "/v1/observations"
    assert words in problem["detail"]
    assert list(settings.incoming_dir.iterdir()) == []


def test_a_declared_length_above_the_limit_is_refused_before_the_body(client, settings):
    connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=20)
    connection.putrequest("POST", "/v1/observations")
    for name, value in (JSON | {"Content-Length": str((2 << 20) + 1)}).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()  # not one byte of the body was sent
    assert answer.status == 413
    assert "2 MiB" in json.loads(answer.read())["detail"]
    connection.close()


def test_a_stream_is_cut_off_when_it_passes_the_limit(client, settings):
    sent = 0

    def endless():
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b" " * (1 << 16)

    try:
        status = client.post("/v1/observations", content=endless(), headers=JSON).status_code
    except (http.client.HTTPException, OSError, __import__("httpx").TransportError):
        status = None  # the server may close before the client reads
    assert status in {413, None}
    assert sent < 64 << 20
    assert list(settings.incoming_dir.iterdir()) == []
    assert client.get("/healthz").status_code == 200


def test_what_a_killed_gateway_left_is_forgotten_after_a_day(settings, run_gateway):
    settings.incoming_dir.mkdir(parents=True)
    old, fresh = settings.incoming_dir / "upload-old", settings.incoming_dir / "upload-fresh"
    old_folder = settings.incoming_dir / "field-old"
    old_folder.mkdir()
    for file in (old, fresh, old_folder / "field.nc"):
        file.write_bytes(b"half")
    for path in (old, old_folder):
        os.utime(path, (0, 0))
    with run_gateway(settings, lambda cycle_id: None):
        assert list(settings.incoming_dir.iterdir()) == [fresh]


def test_a_background_is_checked_and_kept_on_the_bundles_grid(client, served, settings, grib, description):
    client.post("/v1/experiments", json={"name": "demo"})
    answer = client.post("/v1/backgrounds?experiment=demo&lead_hours=6", content=grib)
    assert answer.status_code == 201, answer.text
    assert answer.json()["valid_time"] == "2009-01-23T12:00:00Z"
    assert answer.json()["lead_hours"] == 6
    experiment = served.experiments.named("demo")
    kept = served.fields.background(experiment.id, NOON)
    dataset = read_netcdf(settings.archive_dir / kept.path, maximum_values=10**6)
    assert dataset["t"].shape[-2:] == description.grid.shape
    assert float(dataset["t2m"].mean()) == pytest.approx(285.0, abs=0.01)
    again = client.post("/v1/backgrounds?experiment=demo&lead_hours=6", content=grib)
    assert (again.status_code, again.json()) == (200, answer.json())
    assert client.get("/v1/backgrounds?experiment=demo").json()["items"] == [answer.json()]


def test_a_verification_may_be_netcdf_and_serves_all_experiments(client, served, tmp_path, description):
    file = tmp_path / "truth.nc"
    write_netcdf(file, from_array(state(description), description, NOON), product="analysis")
    answer = client.post("/v1/verifications", content=file.read_bytes(), headers={"Content-Type": "application/netcdf"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["experiment_id"] is None
    assert served.fields.verification(NOON).id == answer.json()["id"]
    assert client.get("/v1/verifications").json()["total"] == 1


def test_a_verification_posted_after_a_cycle_announces_it_and_its_scores_appear(
    client, served, published, tmp_path, description
):
    client.post("/v1/experiments", json={"name": "demo"})
    cycle = client.post("/v1/experiments/demo/cycles", json={"valid_time": NOON.isoformat()}).json()["id"]
    until(lambda: published == [cycle])
    served.leases.finish(served.leases.claim(cycle, "worker"))
    assert client.get(f"/v1/cycles/{cycle}").json()["verified_with"] is None
    file = tmp_path / "truth.nc"
    write_netcdf(file, from_array(state(description), description, NOON), product="analysis")
    field = client.post("/v1/verifications", content=file.read_bytes()).json()["id"]
    until(lambda: published == [cycle, cycle])
    lease = served.verifications.claim(cycle, "worker")
    score = NewScore("rmse", "analysis", 61.5, "m2 s-2", NOON, variable="z", level=500.0)
    served.verifications.complete(lease, field, [score], "late")
    assert client.get(f"/v1/cycles/{cycle}").json()["verified_with"] == field
    (row,) = client.get("/v1/experiments/demo/scores", params={"name": "rmse"}).json()["items"]
    assert (row["value"], row["valid_time"]) == (61.5, "2009-01-23T12:00:00Z")
    rmse = 'alignda_rmse{experiment="demo",field="analysis",lead_hours="0",level="500",unit="m2 s-2",variable="z"} 61.5'
    assert rmse in client.get("/metrics").text


def test_a_field_that_makes_no_state_is_refused_with_what_it_lacks(client, tmp_path, description):
    file = tmp_path / "partial.nc"
    whole = from_array(state(description), description, NOON)
    write_netcdf(file, whole.drop_vars("sp"), product="analysis")
    answer = client.post("/v1/verifications", content=file.read_bytes())
    assert answer.status_code == 422
    assert "sp" in answer.json()["detail"]
    assert client.post("/v1/verifications", content=b"GRIB but not really").status_code == 422
    assert client.post("/v1/backgrounds?experiment=nobody", content=file.read_bytes()).status_code == 404
    assert client.post("/v1/backgrounds", content=file.read_bytes()).status_code == 422
