"""Departures of one cycle and of an experiment over real HTTP: every condition, pages, files, statistics."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from service.archive import Archive
from service.catalogue import NewProduct
from service.departure_statistics import SCHEMA as STATISTICS
from service.departures import IDS, Box, Query, id_numbers, read_files, rows_of
from tests.service.conftest import until

VALID = datetime(2009, 1, 23, 12, tzinfo=UTC)
PLACES = [(0.0, 179.0), (0.0, -179.0), (50.0, 10.0), (-60.0, -90.0)]


def departures(valid_time=VALID, first=0):
    """Eight values: four places, t at 500 hPa by temp and sp by synop."""
    n = 8
    return pa.table(
        {
            "id": [f"{first + i:016x}" for i in range(n)],
            "time": pa.array([valid_time + timedelta(minutes=10 * i) for i in range(n)], pa.timestamp("us", "UTC")),
            "latitude": [PLACES[i % 4][0] for i in range(n)],
            "longitude": [PLACES[i % 4][1] for i in range(n)],
            "pressure": pa.array([50000.0] * 4 + [None] * 4, pa.float32()),
            "station": pa.array([f"S{i % 4}" for i in range(n)]).dictionary_encode(),
            "source": pa.array(["gts"] * n).dictionary_encode(),
            "type": pa.array(["temp"] * 4 + ["synop"] * 4).dictionary_encode(),
            "variable": pa.array(["t"] * 4 + ["sp"] * 4).dictionary_encode(),
            "value": pa.array([250.0 + i for i in range(n)], pa.float32()),
            "bias": pa.array([1.0] + [None] * (n - 1), pa.float32()),
            "background": pa.array([249.0] * 7 + [np.nan], pa.float32()),
            "analysis": pa.array([249.5] * 7 + [None], pa.float32()),
            "qc": pa.array([0, 0, 0, 30, 0, 2, 0, 22], pa.int16()),
        }
    )


def publish(served, settings, cycle, tables):
    lease = served.leases.claim(cycle["id"], "worker")
    products = []
    for (kind, format_), content in tables.items():
        key = f"experiments/demo/{cycle['id']}/{kind}.{format_}"
        buffer = io.BytesIO()
        if format_ == "npy":
            np.save(buffer, content)
        else:
            pq.write_table(content, buffer, row_group_size=3)
        stored = Archive(settings.archive_dir).put(buffer.getvalue(), key)
        products.append(NewProduct(kind, format_, key, stored.sha256, stored.size))
    served.leases.put_products(lease, products)
    served.leases.finish(lease)


@pytest.fixture
def cycles(client, served, settings):
    """Two cycles six hours apart."""
    client.post("/v1/experiments", json={"name": "demo"})
    made = []
    for number in range(2):
        valid = VALID + timedelta(hours=6 * number)
        cycle = client.post("/v1/experiments/demo/cycles", json={"valid_time": valid.isoformat()}).json()
        row = {name: "" for name in ("type", "variable", "layer", "region")}
        statistics = [
            {**row, "use": "assimilated", "count": 5, "compared": 5, "reasons": [("ASSIMILATED", 5)], "dfs": 2.5},
            {**row, "use": "assimilated", "type": "temp", "variable": "t", "count": 3, "compared": 3, "reasons": [],
             "bias_background": 0.1 + number, "sigma_o": float("nan")},
        ]  # fmt: skip
        publish(
            served, settings, cycle,
            {("departures", "parquet"): departures(valid, 8 * number),
             ("departure_statistics", "parquet"): pa.Table.from_pylist(statistics, schema=STATISTICS)},
        )  # fmt: skip
        made.append(cycle)
    return made


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [int(row["id"], 16) for row in answer.json()["items"]]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"type": "temp"}, [0, 1, 2, 3]),
        ({"variable": "sp", "station": "S1"}, [5]),
        ({"reason": "FIRST_GUESS"}, [3]),
        ({"level_min": 500, "level_max": 500}, [0, 1, 2, 3]),
        ({"level_max": 499}, []),
        ({"bbox": "170,-10,-170,10"}, [0, 1, 4, 5]),
        ({"bbox": "-170,-10,170,60"}, [2, 6]),
        ({"bbox": "170,-10,190,10"}, [0, 1, 4, 5]),
        ({"bbox": "-180,-90,180,90"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"bbox": "0,-90,360,0"}, [0, 1, 3, 4, 5, 7]),
        ({"source": "gts", "start": "2009-01-23T12:10:00Z", "end": "2009-01-23T12:30:00Z"}, [1, 2]),
    ],
)
def test_values_are_found_by_every_condition(client, cycles, conditions, expected):
    assert ids(client.get(f"/v1/cycles/{cycles[0]['id']}/departures", params=conditions)) == expected


@pytest.mark.parametrize(
    "conditions", [{"bbox": "1,2,3"}, {"bbox": "0,10,10,0"}, {"bbox": "a,b,c,d"}, {"reason": "NO"}, {"level_min": -1}]
)
def test_a_condition_that_says_nothing_is_refused(client, cycles, conditions):
    assert client.get(f"/v1/cycles/{cycles[0]['id']}/departures", params=conditions).status_code == 422


def test_an_experiment_is_searched_over_its_cycles_page_by_page(client, cycles):
    path = "/v1/experiments/demo/departures"
    whole = client.get(path, params={"station": "S0"}).json()
    assert [int(row["id"], 16) for row in whole["items"]] == [0, 4, 8, 12] and whole["total"] == 4
    assert [row["cycle_id"] for row in whole["items"]] == [cycles[0]["id"]] * 2 + [cycles[1]["id"]] * 2
    pages = [ids(client.get(path, params={"limit": 3, "offset": start})) for start in range(0, 18, 3)]
    assert [name for page in pages for name in page] == list(range(16))
    assert ids(client.get(path, params={"start": "2009-01-23T18:00:00Z"})) == list(range(8, 16))
    assert client.get("/v1/experiments/nobody/departures").status_code == 404


def test_departures_are_given_with_the_bias_taken_off(client, cycles):
    first, second = client.get(f"/v1/cycles/{cycles[0]['id']}/departures", params={"limit": 2}).json()["items"]
    assert (first["o_b"], first["o_a"]) == (0.0, -0.5)
    assert (second["o_b"], second["o_a"]) == (2.0, 1.5)


def test_a_file_holds_the_same_values(client, cycles):
    path = "/v1/experiments/demo/departures/file"
    answer = client.get(path, params={"type": "temp"})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    table = pq.read_table(io.BytesIO(answer.content))
    assert [int(name, 16) for name in table.column("id").to_pylist()] == [0, 1, 2, 3, 8, 9, 10, 11]
    assert table.column("reason").to_pylist()[3] == "FIRST_GUESS"
    assert table.column("valid_time").to_pylist()[-1] == VALID + timedelta(hours=6)
    text = client.get(path, params={"format": "csv", "cycle": cycles[1]["id"]})
    read = csv.read_csv(io.BytesIO(text.content))
    assert read.num_rows == 8 and set(read.column("cycle_id").to_pylist()) == {cycles[1]["id"]}
    np.testing.assert_allclose(read.column("o_b").to_pylist()[:3], [0.0, 2.0, 3.0])
    empty = client.get(path, params={"station": "nowhere"})
    assert pq.read_table(io.BytesIO(empty.content)).num_rows == 0


def test_no_file_is_left_behind(client, cycles, settings):
    assert client.get("/v1/experiments/demo/departures/file").status_code == 200
    until(lambda: not list(settings.incoming_dir.glob("departures-*")))  # removed once the answer is sent


def test_statistics_of_a_cycle_and_over_time(client, cycles):
    one = client.get(f"/v1/cycles/{cycles[0]['id']}/departure-statistics", params={"type": "", "variable": ""}).json()
    (row,) = one["items"]
    assert (row["dfs"], row["reasons"], row["sigma_o"]) == (2.5, {"ASSIMILATED": 5}, None)
    path = "/v1/experiments/demo/departure-statistics"
    series = client.get(path, params={"type": "temp", "variable": "t", "use": "assimilated"}).json()
    assert [row["bias_background"] for row in series["items"]] == [0.1, 1.1]
    newest = client.get(path, params={"type": "temp", "cycles": 1}).json()
    assert [row["cycle_id"] for row in newest["items"]] == [cycles[1]["id"]]
    later = client.get(path, params={"type": "temp", "start": "2009-01-23T18:00:00Z"}).json()
    assert later["total"] == 1


def test_a_cycle_without_departures_says_so(client):
    client.post("/v1/experiments", json={"name": "demo"})
    cycle = client.post("/v1/experiments/demo/cycles", json={"valid_time": VALID.isoformat()}).json()
    for what in ("departures", "departure-statistics"):
        answer = client.get(f"/v1/cycles/{cycle['id']}/{what}")
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_value_is_found_by_its_id_with_and_without_the_file_of_ids(tmp_path):
    table = departures()
    shuffled = table.take([5, 2, 7, 0, 0, 1, 3, 4])
    pq.write_table(shuffled, tmp_path / "d.parquet", row_group_size=3)
    numbers = id_numbers(shuffled.column("id").to_pylist())
    order = np.argsort(numbers, kind="stable")
    np.save(tmp_path / f"{IDS}.npy", np.stack([numbers[order], order.astype(np.uint64)]))
    for index in (tmp_path / f"{IDS}.npy", None):
        for wanted, times in ((0, 2), (7, 1), (6, 0), (99, 0)):
            found = rows_of(f"{wanted:016x}", tmp_path / "d.parquet", index)
            assert [row["value"] for row in found] == [250.0 + wanted] * times, (wanted, index)


def test_only_the_wanted_rows_of_a_file_are_counted(tmp_path):
    pq.write_table(departures(), tmp_path / "d.parquet", row_group_size=2)
    rows, total = read_files([tmp_path / "d.parquet"] * 3, 4, 5, Query(box=Box.parse("170,-10,-170,10")))
    assert total == 12 and [row["file"] for row in rows] == [1, 1, 1, 2]
