"""JSON, CSV and Parquet: every bad row is rejected alone and with its reason; a file that is none says so."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.observations.decoders import DecodedBatch, DecodeError, UnsupportedFormat, decode
from service.observations.reasons import Reason
from service.observations.table import REJECTED_SCHEMA, SCHEMA

RECEIVED = datetime(2020, 1, 1, 13, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "time": "2020-01-01T12:00:00Z", "latitude": 52.1, "longitude": 5.2, "pressure": 50000.0, "variable": "t",
    "value": 250.0, "type": "temp", "station": "06260",
}  # fmt: skip


def send(folder: Path, body: bytes | str, media_type: str | None) -> DecodedBatch:
    path = folder / "body"
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return decode(path, media_type, "feed", RECEIVED)


def send_json(folder: Path, *rows: object) -> DecodedBatch:
    return send(folder, json.dumps(list(rows)), "application/json")


def test_a_good_row_arrives_in_the_table(tmp_path: Path) -> None:
    batch = send_json(tmp_path, GOOD)
    assert batch.table.schema == SCHEMA and batch.rejected.schema == REJECTED_SCHEMA
    row = batch.table.to_pylist()[0]
    assert row["time"] == datetime(2020, 1, 1, 12, tzinfo=UTC) and row["receipt_time"] == RECEIVED
    assert (row["variable"], row["value"], row["pressure"], row["height"]) == ("t", 250.0, 50000.0, None)
    assert (row["type"], row["station"], row["source"], row["preqc"]) == ("temp", "06260", "feed", None)
    assert len(row["id"]) == 16 and (batch.received, batch.counts) == (1, {})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": None}, Reason.MISSING_VALUE),
        ({"value": "mild"}, Reason.MISSING_VALUE),
        ({"value": float("nan")}, Reason.MISSING_VALUE),
        ({"value": True}, Reason.MISSING_VALUE),
        ({"value": float("inf")}, Reason.RANGE),
        ({"value": 25.0}, Reason.RANGE),
        ({"value": -3.4e38}, Reason.RANGE),
        ({"error": -1.0}, Reason.RANGE),
        ({"latitude": 3.4e38}, Reason.POSITION_INVALID),
        ({"latitude": None}, Reason.POSITION_INVALID),
        ({"latitude": float("nan")}, Reason.POSITION_INVALID),
        ({"longitude": 361.0}, Reason.POSITION_INVALID),
        ({"longitude": "east"}, Reason.POSITION_INVALID),
        ({"pressure": None}, Reason.POSITION_INVALID),
        ({"pressure": -5.0}, Reason.POSITION_INVALID),
        ({"pressure": 1e6}, Reason.POSITION_INVALID),
        ({"time": "noon"}, Reason.TIME_INVALID),
        ({"time": None}, Reason.TIME_INVALID),
        ({"time": "1066-10-14T12:00:00Z"}, Reason.TIME_INVALID),
        ({"variable": "rain"}, Reason.UNKNOWN_VARIABLE),
        ({"variable": None}, Reason.UNKNOWN_VARIABLE),
        ({"type": "pigeon"}, Reason.UNKNOWN_VARIABLE),
        ({"unit": "bushel"}, Reason.UNIT_INVALID),
        ({"preqc": 0}, Reason.SENDER_REJECTED),
        ({"preqc": 0.4}, Reason.SENDER_REJECTED),  # stored as 0 %
        ({"preqc": 300}, Reason.RANGE),
    ],
)
def test_one_bad_row_is_rejected_alone_with_its_reason(tmp_path: Path, change: dict[str, Any], reason: Reason) -> None:
    batch = send_json(tmp_path, GOOD, GOOD | change, GOOD | {"value": 251.0})
    assert batch.table.column("value").to_pylist() == [250.0, 251.0]
    assert batch.rejected.column("reason").to_pylist() == [int(reason)]
    assert batch.counts == {reason.name: 1} and batch.received == 3
    assert len(batch.rejected.column("detail").to_pylist()[0]) > 10


def test_a_row_that_is_no_object_is_rejected_alone(tmp_path: Path) -> None:
    batch = send_json(tmp_path, GOOD, 17, ["t", 250.0])
    assert batch.table.num_rows == 1 and batch.counts == {"MISSING_VALUE": 2}


def test_a_surface_value_needs_no_pressure(tmp_path: Path) -> None:
    row = {k: v for k, v in GOOD.items() if k != "pressure"} | {"variable": "t2m", "value": 280.0, "type": "synop"}
    assert send_json(tmp_path, row).table.num_rows == 1


def test_units_are_converted_to_si_with_their_errors(tmp_path: Path) -> None:
    rows = [
        GOOD | {"value": -23.15, "unit": "degC", "error": 1.5},
        GOOD | {"variable": "z", "value": 5500.0, "unit": "gpm", "error": 10.0},
        GOOD | {"variable": "u", "value": 100.0, "unit": "kt"},
        GOOD | {"variable": "q", "value": 2.5, "unit": "g kg-1"},
        GOOD | {"variable": "sp", "value": 1013.25, "unit": "hPa", "type": "synop"},
    ]
    table = send_json(tmp_path, *rows).table
    np.testing.assert_allclose(
        table.column("value").to_numpy(), [250.0, 5500 * 9.80665, 51.4444, 2.5e-3, 101325.0], rtol=1e-6
    )
    np.testing.assert_allclose(table.column("error").to_numpy()[:2], [1.5, 98.0665], rtol=1e-6)


def test_longitudes_are_normalised_and_times_turned_to_utc(tmp_path: Path) -> None:
    table = send_json(
        tmp_path, GOOD | {"longitude": 350.0, "time": "2020-01-01T14:30:00.1234567+02:30"}, GOOD | {"longitude": 180.0}
    ).table
    assert table.column("longitude").to_pylist() == [-10.0, -180.0]
    assert table.column("time").to_pylist()[0] == datetime(2020, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_an_unknown_column_is_named_in_the_notes(tmp_path: Path) -> None:
    batch = send_json(tmp_path, GOOD | {"colour": "blue"})
    assert batch.table.num_rows == 1 and any("colour" in note for note in batch.notes)


@pytest.mark.parametrize("body", ["{", "[]", '{"observations": {}}', "3", "[" * 100_000])
def test_json_that_is_no_list_of_rows_is_an_error(tmp_path: Path, body: str) -> None:
    with pytest.raises(DecodeError):
        send(tmp_path, body, "application/json")


def test_csv_gives_the_same_table_as_json(tmp_path: Path) -> None:
    lines = [",".join(GOOD), ",".join(str(v) for v in GOOD.values()), ",".join(str(v) for v in GOOD.values()) + "9"]
    from_csv = send(tmp_path, "\r\n".join(lines), "text/csv; charset=utf-8").table
    from_json = send_json(tmp_path, GOOD, GOOD | {"station": "062609"}).table
    assert from_csv.equals(from_json)


def test_a_short_csv_line_is_rejected_alone(tmp_path: Path) -> None:
    lines = [",".join(GOOD), ",".join(str(v) for v in GOOD.values()), "2020-01-01T12:00:00Z,52.1"]
    batch = send(tmp_path, "\n".join(lines), "text/csv")
    assert batch.table.num_rows == 1 and batch.rejected.num_rows == 1


@pytest.mark.parametrize("body", [b"time,latitude\n2020,1\n", b"\xff\xfe\x00\x01\n", b"a,b\n1,2\n", b"time,time\n"])
def test_csv_without_the_required_columns_is_an_error(tmp_path: Path, body: bytes) -> None:
    with pytest.raises(DecodeError):
        send(tmp_path, body, "text/csv")


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def test_a_table_survives_parquet_and_keeps_its_ids(tmp_path: Path) -> None:
    table = send_json(tmp_path, GOOD, GOOD | {"variable": "u", "value": -3.5, "error": 2.0, "preqc": 70}).table
    again = send(tmp_path, parquet(table), "application/vnd.apache.parquet")
    assert again.table.equals(table) and again.notes == []


def test_parquet_columns_of_other_widths_are_read(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "time": pa.array([datetime(2020, 1, 1, 12)], pa.timestamp("ns")),
            "latitude": pa.array([52], pa.int32()), "longitude": pa.array([5.0], pa.float32()),
            "pressure": pa.array([50000], pa.int64()), "variable": ["t"], "value": pa.array([250.0], pa.float64()),
            "type": pa.array(["temp"], pa.large_string()),
        }
    )  # fmt: skip
    batch = send(tmp_path, parquet(rows), None)
    assert batch.table.column("value").to_pylist() == [250.0]
    assert batch.table.column("station").to_pylist() == ["unknown"]


def test_a_bad_parquet_row_is_rejected_alone(tmp_path: Path) -> None:
    table = send_json(tmp_path, GOOD, GOOD | {"value": 251.0}, GOOD | {"value": 252.0}).table
    latitudes = pa.array([52.1, 3.4e38, None], pa.float64())
    broken = table.set_column(table.column_names.index("latitude"), "latitude", latitudes)
    batch = send(tmp_path, parquet(broken), "application/vnd.apache.parquet")
    assert batch.table.num_rows == 1 and batch.counts == {"POSITION_INVALID": 2}


def test_parquet_without_a_required_column_is_an_error(tmp_path: Path) -> None:
    table = send_json(tmp_path, GOOD).table.drop_columns(["value"])
    with pytest.raises(DecodeError, match="value missing"):
        send(tmp_path, parquet(table), "application/vnd.apache.parquet")


def test_text_labelled_as_parquet_is_an_error_that_says_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="not Parquet"):
        send(tmp_path, "time,latitude\n", "application/vnd.apache.parquet")
    with pytest.raises(DecodeError, match="look like JSON"):
        send(tmp_path, json.dumps([GOOD]), "application/vnd.apache.parquet")


def test_truncated_parquet_is_an_error(tmp_path: Path) -> None:
    whole = parquet(send_json(tmp_path, GOOD).table)
    for length in (8, len(whole) // 2, len(whole) - 1):
        with pytest.raises(DecodeError, match="not readable as Parquet"):
            send(tmp_path, whole[:length], "application/vnd.apache.parquet")


def test_an_unknown_media_type_or_unknown_bytes_are_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="image/png"):
        send(tmp_path, "x", "image/png")
    with pytest.raises(UnsupportedFormat, match="neither"):
        send(tmp_path, "hello", "application/octet-stream")


def test_an_empty_body_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match="empty"):
        send(tmp_path, b"", "application/json")
