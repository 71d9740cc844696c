"""Which stored values are wanted, and how they are read: only from the files, row groups and columns that it takes."""

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.observations.table import SCHEMA

_TIME = SCHEMA.field("time").type


@dataclass(frozen=True)
class Selection:
    """What is asked for; an empty part asks for all.

    Attributes:
        start, end: start <= valid time < end (aware).
        as_of: only what had been received by then: receipt time <= `as_of`.
        box: west, south, east, north in degrees; west > east: across the date line.
    """

    start: datetime | None = None
    end: datetime | None = None
    as_of: datetime | None = None
    types: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    box: tuple[float, float, float, float] | None = None

    @property
    def expression(self) -> pc.Expression | None:
        """The condition on rows of the table; None: every row."""
        conditions = [*self._times(), *self._names(), *self._places()]
        return functools.reduce(operator.and_, conditions) if conditions else None

    def _times(self) -> Iterator[pc.Expression]:
        if self.start is not None:
            yield pc.field("time") >= pa.scalar(self.start, _TIME)
        if self.end is not None:
            yield pc.field("time") < pa.scalar(self.end, _TIME)
        if self.as_of is not None:
            yield pc.field("receipt_time") <= pa.scalar(self.as_of, _TIME)

    def _names(self) -> Iterator[pc.Expression]:
        columns = {
            "type": self.types, "variable": self.variables, "station": self.stations, "source": self.sources,
        }  # fmt: skip
        for name, wanted in columns.items():
            if wanted:
                # is_in does not take columns of dictionaries
                yield functools.reduce(operator.or_, [pc.field(name) == one for one in wanted])

    def _places(self) -> Iterator[pc.Expression]:
        if self.box is None:
            return
        west, south, east, north = self.box
        latitude, longitude = pc.field("latitude"), pc.field("longitude")
        yield (latitude >= south) & (latitude <= north)
        if west <= east:
            yield (longitude >= west) & (longitude <= east)
        else:
            yield (longitude >= west) | (longitude <= east)


def read_file(path: Path, selection: Selection, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of one file that are selected, in the order of the file."""
    table = pq.read_table(path, schema=SCHEMA, columns=columns, filters=selection.expression, use_threads=False)
    return table if columns is not None else table.select(SCHEMA.names)


def in_order(table: pa.Table) -> pa.Table:
    """The rows by time, type, station, variable, from the ground up, then by name, receipt and feed: always the same."""
    table = table.unify_dictionaries().combine_chunks()
    keys = {
        "time": "ascending", "type": "ascending", "station": "ascending", "variable": "ascending",
        "pressure": "descending", "height": "ascending", "id": "ascending", "receipt_time": "ascending",
        "source": "ascending", "error": "ascending", "preqc": "ascending",
    }  # fmt: skip
    plain = pa.table({name: _plain(table.column(name)) for name in keys})
    return table.take(pc.sort_indices(plain, sort_keys=list(keys.items())))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts as their places in the alphabet, which sort fast; all else as it is."""
    if not pa.types.is_dictionary(column.type):
        return column
    if not column.num_chunks:
        return pa.chunked_array([], pa.int64())
    array = pa.concat_arrays(column.chunks)
    rank = np.argsort(np.argsort(np.asarray(array.dictionary.to_pylist(), dtype=str)))
    return pa.chunked_array([pa.array(rank).take(array.indices)])
