"""What is in the store of observations: pages of values for a reader, and whole selections as one Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.archive import Archive
from service.catalogue import Catalogue, Page
from service.catalogue.tables import Partition
from service.observations.selection import Selection, read_file
from service.observations.table import SCHEMA

_COUNTED = "preqc"  # the smallest column


class StoredObservations:
    """The stored values of all batches. Reads only the files that may hold what is asked for. Blocking."""

    def __init__(self, catalogue: Catalogue, archive: Archive) -> None:
        self._catalogue = catalogue
        self._archive = archive

    def page(self, selection: Selection, limit: int, offset: int) -> Page[dict[str, Any]]:
        """Rows `offset .. offset + limit` of a selection, by day and type, then as they came; and how many there are."""
        total, rows = 0, list[dict[str, Any]]()
        for partition in self._holding(selection):
            wanted = len(rows) < limit and total + partition.rows > offset
            if wanted:
                table = self._read(partition, selection)
                rows += table.slice(min(max(offset - total, 0), table.num_rows), limit - len(rows)).to_pylist()
                total += table.num_rows
            elif _takes_all(selection, partition):
                total += partition.rows
            else:
                total += self._read(partition, selection, [_COUNTED]).num_rows
        return Page(rows, total)

    def write(self, selection: Selection, target: Path) -> int:
        """Write a selection to a Parquet file, one stored file after the other; how many rows it has."""
        number = 0
        with pq.ParquetWriter(target, SCHEMA, compression="zstd") as writer:
            for table in self._tables(selection):
                writer.write_table(table.unify_dictionaries())
                number += table.num_rows
        return number

    def _tables(self, selection: Selection) -> Iterator[pa.Table]:
        for partition in self._holding(selection):
            table = self._read(partition, selection)
            if table.num_rows:
                yield table

    def _holding(self, selection: Selection) -> list[Partition]:
        return self._catalogue.partitions.holding(selection.start, selection.end, selection.as_of, selection.types)

    def _read(self, partition: Partition, selection: Selection, columns: list[str] | None = None) -> pa.Table:
        return read_file(self._archive.existing(partition.path), selection, columns)


def _takes_all(selection: Selection, partition: Partition) -> bool:
    """Whether every row of the file is selected, by what the catalogue knows of it."""
    known = partition.receipt_max is not None and (selection.as_of is None or partition.receipt_max <= selection.as_of)
    return (
        (selection.start is None or selection.start <= partition.time_min)
        and (selection.end is None or partition.time_max < selection.end)
        and known
        and (not selection.types or partition.type in selection.types)
        and not (selection.variables or selection.stations or selection.sources or selection.box)
    )
