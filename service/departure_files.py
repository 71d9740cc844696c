"""Departures of several cycles as one file, Parquet or CSV, written a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from service.departures import Query, scan

FIRST = (("cycle_id", pa.int64()), ("valid_time", pa.timestamp("us", tz="UTC")))
DERIVED = ("o_b", "o_a")


def write_file(target: Path, format: str, files: Sequence[tuple[int, datetime, Path]], query: Query) -> None:
    """The matching rows of `files` (cycle id, valid time, departures) with `cycle_id`, `valid_time`, `reason`, O-B, O-A.

    Columns that a file of an older version lacks are null. `format`: parquet or csv.
    """
    import pyarrow.parquet as pq
    from pyarrow import csv

    schema = file_schema([path for _, _, path in files])
    make: Any = csv.CSVWriter if format == "csv" else pq.ParquetWriter
    with make(target, schema) as writer:
        for cycle_id, valid_time, path in files:
            for batch in scan(path, query):
                if batch.num_rows:
                    writer.write_table(_table(batch, schema, cycle_id, valid_time))


def file_schema(paths: Sequence[Path]) -> pa.Schema:
    """The columns of all files, names as text."""
    import pyarrow.parquet as pq

    fields: dict[str, pa.DataType] = dict(FIRST)
    for path in paths:
        for field in pq.read_schema(path):
            fields.setdefault(field.name, pa.string() if pa.types.is_dictionary(field.type) else field.type)
    fields["reason"] = pa.string()
    fields.update(dict.fromkeys(DERIVED, pa.float64()))
    return pa.schema(list(fields.items()))


def _table(batch: pa.RecordBatch, schema: pa.Schema, cycle_id: int, valid_time: datetime) -> pa.Table:
    from service.observations.reasons import Reason

    n, there = batch.num_rows, set(batch.schema.names)
    given: dict[str, Any] = {"cycle_id": pa.array([cycle_id] * n), "valid_time": pa.array([valid_time] * n)}
    names = {int(reason): reason.name for reason in Reason}
    given["reason"] = pa.array([names.get(code) for code in batch.column("qc").to_pylist()], pa.string())

    def number(name: str) -> Any:
        if name not in there:
            return np.full(n, np.nan)
        return batch.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)

    value = number("value") - np.nan_to_num(number("bias"))
    given["o_b"] = pa.array(value - number("background"), from_pandas=True)
    given["o_a"] = pa.array(value - number("analysis"), from_pandas=True)
    columns = []
    for field in schema:
        if field.name in given:
            columns.append(given[field.name].cast(field.type))
        elif field.name in there:
            columns.append(batch.column(field.name).cast(field.type))
        else:
            columns.append(pa.nulls(n, field.type))
    return pa.Table.from_arrays(columns, schema=schema)
