"""Observations as files: one batch becomes Parquet files by valid day and report type, written as the batch is decoded.

The files are in `table.SCHEMA`, rows in the order of arrival. `decode_into` runs in the bounded process that reads
untrusted bytes; what it holds at a time does not grow with the batch.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.isolation import run_isolated
from service.observations.checks import Note, told
from service.observations.decoders import decode_parts
from service.observations.table import REJECTED_SCHEMA, SCHEMA

MOST_PARTITIONS = 400  # of one batch; what goes beyond is kept together, by type alone
_WAITING = 1 << 18  # rows held before they are written
_ROW_GROUP = 1 << 16  # rows
_MICROSECONDS = 86_400_000_000  # of a day
_MOST_NOTES = 100
# texts and places repeat themselves, names of values do not
_DICTIONARIES = [name for name in SCHEMA.names if name not in ("id", "value")]


@dataclass(frozen=True)
class PartitionFile:
    """One file: values of one report type and valid day (UTC; None: of many days), and what they span."""

    file: str
    day: date | None
    type: str
    rows: int
    time_min: datetime
    time_max: datetime
    receipt_min: datetime
    receipt_max: datetime


@dataclass(frozen=True)
class StoredBatch:
    """What became of one submission. `counts`: rejected values by the name of their reason."""

    partitions: list[PartitionFile]
    rejected_file: str | None
    accepted: int
    rejected: int
    counts: dict[str, int]
    notes: list[str]


def decode_into(path: str, media_type: str | None, source: str, receipt_time: datetime, folder: str) -> StoredBatch:
    """Decode a submission (see `decode_parts`) and leave its partitions and its rejected values in `folder`."""
    writer, rejected = PartitionWriter(Path(folder)), _Rejected(Path(folder) / "rejected.parquet")
    counts: Counter[str] = Counter()
    notes: list[Note] = []
    for part in decode_parts(path, media_type, source, receipt_time):
        writer.add(part.table)
        rejected.add(part.rejected)
        counts.update(part.counts)
        notes += part.notes if len(notes) < _MOST_NOTES else []
    partitions = writer.close()
    accepted = sum(partition.rows for partition in partitions)
    return StoredBatch(partitions, rejected.close(), accepted, rejected.rows, dict(counts), told(notes))


def decode_into_isolated(
    path: Path,
    media_type: str | None,
    source: str,
    receipt_time: datetime,
    folder: Path,
    *,
    seconds: float,
    megabytes: int,
) -> StoredBatch:
    """`decode_into` in its own process with bounded time and memory; safe to call from any thread.

    Raises:
        UnsupportedFormat, DecodeError: as `decode_parts`.
        service.isolation.IsolationError: the limits were exceeded, the decoder crashed, or left something else.
    """
    stored = run_isolated(
        "service.observations.partitions:decode_into",
        str(path), media_type, source, receipt_time, str(folder),
        seconds=seconds, megabytes=megabytes,
    )  # fmt: skip
    assert isinstance(stored, StoredBatch)
    return stored


class PartitionWriter:
    """Sorts tables of `SCHEMA` into files of `folder`, named by numbers, by valid day and type."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[tuple[int | None, str], _File] = {}
        self._waiting = 0

    def add(self, table: pa.Table) -> None:
        """Take in some rows."""
        for day, kind, rows in _by_day_and_type(table):
            self._file(day, kind).add(rows)
        self._waiting += table.num_rows
        if self._waiting >= _WAITING:
            for file in self._files.values():
                file.flush()
            self._waiting = 0

    def close(self) -> list[PartitionFile]:
        """Complete the files; what they hold, in the order of days and types."""
        done = [file.close() for file in self._files.values()]
        return sorted(done, key=lambda partition: (partition.day or date.min, partition.type))

    def _file(self, day: int | None, kind: str) -> "_File":
        if (day, kind) not in self._files and len(self._files) >= MOST_PARTITIONS:
            day = None
        if (day, kind) not in self._files:
            self._files[day, kind] = _File(self._folder / f"{len(self._files)}.parquet", day, kind)
        return self._files[day, kind]


class _File:
    """A partition that is being written, and its rows that are not yet."""

    def __init__(self, path: Path, day: int | None, kind: str) -> None:
        self._path, self._kind, self._tables = path, kind, list[pa.Table]()
        self._day = None if day is None else date(1970, 1, 1) + timedelta(days=day)
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self._spans: dict[str, tuple[int, int]] = {}

    def add(self, rows: pa.Table) -> None:
        self._tables.append(rows)

    def flush(self) -> None:
        if not self._tables:
            return
        table = pa.concat_tables(self._tables).unify_dictionaries().combine_chunks()
        self._tables.clear()
        for name in ("time", "receipt_time"):
            limits = pc.min_max(table.column(name).cast(pa.int64())).as_py()
            low, high = self._spans.get(name, (limits["min"], limits["max"]))
            self._spans[name] = min(low, limits["min"]), max(high, limits["max"])
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, SCHEMA, compression="zstd", use_dictionary=_DICTIONARIES)
        self._writer.write_table(table, row_group_size=_ROW_GROUP)
        self._rows += table.num_rows

    def close(self) -> PartitionFile:
        self.flush()
        assert self._writer is not None  # a file is made for the first rows that it gets
        self._writer.close()
        valid, receipt = (tuple(map(_moment, self._spans[name])) for name in ("time", "receipt_time"))
        return PartitionFile(self._path.name, self._day, self._kind, self._rows, *valid, *receipt)


class _Rejected:
    """The file of the rejected values; none is made for none."""

    def __init__(self, path: Path) -> None:
        self._path, self.rows = path, 0
        self._writer: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        if not table.num_rows:
            return
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, REJECTED_SCHEMA, compression="zstd")
        self._writer.write_table(table)
        self.rows += table.num_rows

    def close(self) -> str | None:
        if self._writer is None:
            return None
        self._writer.close()
        return self._path.name


def _by_day_and_type(table: pa.Table) -> Iterator[tuple[int, str, pa.Table]]:
    if not table.num_rows:
        return
    day = table.column("time").cast(pa.int64()).to_numpy() // _MICROSECONDS
    kinds = pa.concat_arrays(table.column("type").unify_dictionaries().chunks)
    code = (day - day.min()) * len(kinds.dictionary) + kinds.indices.to_numpy()
    codes, starts = np.unique(code, return_index=True)
    if len(codes) == 1:
        yield int(day[0]), kinds[0].as_py(), table
        return
    order = np.argsort(code, kind="stable")
    ends = np.searchsorted(code[order], codes, side="right")
    ordered = table.take(pa.array(order))
    begin = 0
    for first, end in zip(starts, ends, strict=True):
        yield int(day[first]), kinds[int(first)].as_py(), ordered.slice(begin, end - begin)
        begin = end


def _moment(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def is_table(path: Path, rows: int, schema: pa.Schema = SCHEMA) -> bool:
    """Whether a file that the bounded process left is the Parquet file that it says: `schema`, so many rows."""
    try:
        with pq.ParquetFile(path) as file:
            return bool(file.schema_arrow.equals(schema) and file.metadata.num_rows == rows)
    except (pa.ArrowException, OSError):
        return False
