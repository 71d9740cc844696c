"""A file read in parts gives what it gives read at once, wherever the parts end."""

import json
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.observations import checks
from service.observations.decoders import DecodeError, csv_format, decode, json_format, parquet_format
from service.observations.partitions import decode_into

RECEIVED = datetime(2020, 1, 1, 13, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "time": "2020-01-01T12:00:00Z", "latitude": 52.1, "longitude": 5.2, "pressure": 50000.0, "variable": "t",
    "value": 250.0, "type": "temp", "station": "06260",
}  # fmt: skip
CHANGES: list[dict[str, Any]] = [
    {}, {"value": 900.0}, {"station": "Zürich, \"1\""}, {"type": "amdar", "pressure": "", "height": 5000.0},
    {"latitude": "north"}, {"colour": "blue"}, {"value": "251.5"}, {"time": "2020-01-01T13:30:00.5+01:00"},
    {"time": "noon"}, {"variable": "z", "value": 5500, "unit": "gpm"}, {"value": True}, {"type": "pigeon"},
]  # fmt: skip
ROWS = [GOOD | {"pressure": 50000.0 + i, **CHANGES[i % len(CHANGES)]} for i in range(60)]


def written(folder: Path, form: str) -> Path:
    path = folder / f"x.{form}"
    columns = [*GOOD, "height", "unit", "colour"]
    if form == "json":
        path.write_text(json.dumps({"from": {"a": [1, "]"]}, "observations": [*ROWS[:30], 17, *ROWS[30:]], "b": None}))
    elif form == "csv":
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        table = pa.Table.from_pylist([{k: row[k] for k in GOOD} for row in ROWS if not isinstance(row["value"], str | bool)
                                      and not isinstance(row["latitude"], str) and row["pressure"] != ""])  # fmt: skip
        times = pa.array([datetime(2020, 1, 1, 12)] * table.num_rows, pa.timestamp("us"))
        pq.write_table(table.set_column(0, "time", times), path, row_group_size=25)
    return path


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
def test_the_parts_make_the_whole(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, form)
    whole = decode(path, None, "feed", RECEIVED)
    assert (whole.table.num_rows and whole.rejected.num_rows and whole.notes) or form == "parquet"
    for module in (checks, csv_format, json_format, parquet_format):
        monkeypatch.setattr(module, "PART_ROWS", 7)
    monkeypatch.setattr(json_format, "_CHUNK", 11)
    parts = decode(path, None, "feed", RECEIVED)
    assert parts.table.equals(whole.table) and parts.rejected.equals(whole.rejected)
    assert (parts.counts, parts.notes) == (whole.counts, whole.notes)
    stored = decode_into(str(path), None, "feed", RECEIVED, str(tmp_path))
    assert (stored.accepted, stored.rejected) == (whole.table.num_rows, whole.rejected.num_rows)
    assert (stored.counts, stored.notes) == (whole.counts, whole.notes)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def read(text: str) -> list[object]:
    return list(json_format._Document(StringIO(text)).rows())


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(anything, max_size=6),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 40),
    cut=st.integers(1, 30),
)
def test_rows_of_json_are_those_of_the_standard_library(
    rows: list[object], indent: int | None, chunk: int, cut: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_format, "_CHUNK", chunk)
        for document in (rows, {"first": rows, "observations": rows}):
            text = json.dumps(document, indent=indent)
            assert repr(read(text)) == repr(json.loads(json.dumps(rows)))
            with pytest.raises((ValueError, DecodeError)):
                read(text[:-cut] if cut < len(text) else "[")


@pytest.mark.parametrize("text", ["[1,]", "[1 2]", "[1]]", '{"observations": [1],}', "[,1]", "[1}", '{"observations" [1]}',
                                  "{1: [2]}", '{"observations": [1]'])  # fmt: skip
def test_what_the_standard_library_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        json.loads(text)
    with pytest.raises(ValueError):
        read(text)


def test_an_endless_row_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_format, "_CHUNK", 100)
    monkeypatch.setattr(json_format, "_LONGEST", 1000)
    with pytest.raises(ValueError, match="more than 1000 characters"):
        read('[{"time": "' + "x" * 5000 + '"}]')


def test_half_a_surrogate_pair_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(json.dumps([GOOD | {"station": "a\ud800"}, GOOD]))
    assert decode(tmp_path / "x.json", None, "feed", RECEIVED).table.num_rows == 2
