"""Parquet observations: columns named and typed as in the observation table (any numeric or text width)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.observations.checks import PART_ROWS, Note, RawRows
from service.observations.decoders import earth2studio
from service.observations.decoders.errors import DecodeError
from service.observations.decoders.rows import OPTIONAL, REQUIRED

_BUFFER = 1 << 20  # bytes
_KNOWN = tuple(name for name in REQUIRED + OPTIONAL if name != "unit")


def parts(path: Path) -> Iterator[tuple[RawRows, list[Note]]]:
    """Read a Parquet file. Values are in SI units; times are timestamps (UTC where they name no zone).

    Raises:
        DecodeError: not readable, a required column is missing or has a type that does not fit.
    """
    try:
        # a buffered reader holds pages, not whole columns of a row group
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            if file.metadata.num_rows == 0:
                raise DecodeError("the table is empty: send at least one observation")
            present = file.schema_arrow.names
            theirs = earth2studio.recognises(present)
            names = earth2studio.COLUMNS if theirs else _ours(present)
            notes = [] if theirs else _ignored(present)
            for batch in file.iter_batches(PART_ROWS, columns=[name for name in names if name in present]):
                if theirs:
                    yield earth2studio.convert(_columns(batch, earth2studio.TEXTS, ("time",)))
                    continue
                rows = RawRows.empty(batch.num_rows)
                rows.columns |= _columns(batch, _TEXTS, _TIMES)
                yield rows, notes
                notes = []
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, MemoryError):
            raise
        raise DecodeError(f"not readable as Parquet: {str(error)[:200]}") from error


def _ours(present: list[str]) -> tuple[str, ...]:
    missing = [name for name in REQUIRED if name not in present]
    if missing:
        raise DecodeError(f"column(s) {', '.join(missing)} missing: required are {', '.join(REQUIRED)}")
    if "unit" in present:
        raise DecodeError("Parquet values are in SI units: convert them and leave the column 'unit' out")
    return _KNOWN


def _ignored(present: list[str]) -> list[Note]:
    ignored = sorted(set(present) - set(_KNOWN) - {"id"})
    return [f"column {name[:60]!r} is not in the observation table and was ignored" for name in ignored[:20]]


_TEXTS, _TIMES = ("variable", "type", "station", "source"), ("time", "receipt_time")


def _columns(batch: pa.RecordBatch, texts: tuple[str, ...], times: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    names = (name for name in batch.schema.names if name != "type" or "type" in texts)
    return {name: _column(batch.column(name), name, texts, times) for name in names}


def _column(values: pa.Array, name: str, texts: tuple[str, ...], times: tuple[str, ...]) -> NDArray[Any]:
    kind = values.type
    try:
        if name in times:
            if not pa.types.is_timestamp(kind):
                raise DecodeError(f"column {name!r} is {kind}: expected a timestamp")
            return np.asarray(values.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False))
        if name in texts:
            return np.asarray(values.cast(pa.string()).to_numpy(zero_copy_only=False), dtype=object)
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
            raise DecodeError(f"column {name!r} is {kind}: expected numbers")
        numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    except pa.ArrowException as error:
        raise DecodeError(f"column {name!r} of type {kind} cannot be read: {str(error)[:120]}") from error
    return np.asarray(numbers, dtype=np.float64)
