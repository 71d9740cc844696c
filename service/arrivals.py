"""Where an observed value came from: the batches that brought it, accepted or rejected on arrival."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.tables import Batch

NEWEST = 500  # batches that are searched for a value whose time is not known
INSTANT = timedelta(microseconds=1)


def arrivals(
    catalogue: Catalogue, archive: Archive, observation_id: str, start: datetime | None, end: datetime | None
) -> list[dict[str, Any]]:
    """Every row of the value in the batches that may hold valid times of [start, end), oldest batch first; without
    these times in the newest batches. Each row says its `batch`, and `reason` and `detail` if it was rejected."""
    if start is not None and end is not None:
        parts = catalogue.partitions.holding(start, end)
        batches = [catalogue.batches.get(batch_id) for batch_id in sorted({part.batch_id for part in parts})]
    else:
        batches = catalogue.batches.page(NEWEST, 0).rows[::-1]
        parts = [part for batch in batches for part in catalogue.partitions.of_batch(batch.id)]
    files: dict[int, list[str]] = {batch.id: [] for batch in batches}
    for part in parts:
        files[part.batch_id].append(part.path)
    return [row for batch in batches for row in _of_batch(archive, batch, files[batch.id], observation_id)]


def arrivals_at(catalogue: Catalogue, archive: Archive, observation_id: str, time: datetime) -> list[dict[str, Any]]:
    """The same of a value whose valid time is known."""
    return arrivals(catalogue, archive, observation_id, time, time + INSTANT)


def _of_batch(archive: Archive, batch: Batch, files: list[str], observation_id: str) -> list[dict[str, Any]]:
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    found: list[dict[str, Any]] = []
    for key in (*files, batch.rejected_path):
        if key is None or not archive.path(key).is_file():
            continue
        table = ds.dataset(archive.path(key), format="parquet").to_table(filter=pc.field("id") == observation_id)
        found += [{**row, "batch": batch} for row in table.to_pylist()]
    return found
