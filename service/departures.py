"""Reading departures files (Parquet): the observation table with H(x), errors, influence and the reason of each value.

Conditions are pushed down to the file: what cannot match is not read, what is not asked for is not held.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

IDS = "departure_ids"
"""The product that tells where each value stands in the departures file."""


@dataclass(frozen=True)
class Box:
    """Degrees; from `west` eastwards to `east`, across the date line where west > east. The edges are in."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def parse(cls, text: str) -> Box:
        """ "west,south,east,north" as in GeoJSON (RFC 7946, section 5). Raises ValueError."""
        try:
            west, south, east, north = (float(part) for part in text.split(","))
        except ValueError:
            raise ValueError(f"{text!r} is not west,south,east,north in degrees") from None
        if not (-180 <= west <= 360 and -180 <= east <= 360 and -90 <= south <= north <= 90):
            raise ValueError(f"{text!r}: longitudes lie in -180 to 360, latitudes in -90 to 90, south before north")
        return cls(west, south, east, north)


@dataclass(frozen=True)
class Query:
    """Which values are wanted; None: any. Levels in hPa (values at the ground have none), times [start, end)."""

    type: str | None = None
    variable: str | None = None
    station: str | None = None
    source: str | None = None
    reason: str | None = None
    level_min: float | None = None
    level_max: float | None = None
    box: Box | None = None
    start: datetime | None = None
    end: datetime | None = None

    def condition(self) -> Any:
        """As an Arrow expression; None if all are wanted. Raises KeyError when `reason` is no name of a Reason."""
        import pyarrow.compute as pc

        from service.observations.reasons import Reason

        parts = [
            pc.field(name) == wanted
            for name in ("type", "variable", "station", "source")
            if (wanted := getattr(self, name)) is not None
        ]
        if self.reason is not None:
            parts.append(pc.field("qc") == int(Reason[self.reason]))
        pressure, time = pc.field("pressure"), pc.field("time")
        if self.level_min is not None:
            parts.append(pressure >= np.float32(self.level_min * 100.0))
        if self.level_max is not None:
            parts.append(pressure <= np.float32(self.level_max * 100.0))
        if self.start is not None:
            parts.append(time >= self.start)
        if self.end is not None:
            parts.append(time < self.end)
        if self.box is not None:
            parts += _inside(self.box)
        condition = None
        for part in parts:
            condition = part if condition is None else condition & part
        return condition


def _inside(box: Box) -> list[Any]:
    import pyarrow.compute as pc

    latitude, longitude = pc.field("latitude"), pc.field("longitude")
    parts = [latitude >= box.south, latitude <= box.north]
    if box.east - box.west >= 360:
        return parts
    # the table keeps longitudes in [-180, 180)
    west, east = ((edge + 180.0) % 360.0 - 180.0 for edge in (box.west, box.east))
    if box.east == 180.0:
        east = 180.0
    if west <= east:
        return [*parts, longitude >= west, longitude <= east]
    return [*parts, (longitude >= west) | (longitude <= east)]


def read_departures(
    path: Path, limit: int, offset: int, query: Query | None = None
) -> tuple[list[dict[str, Any]], int]:
    """Rows `offset .. offset + limit` of those that match, and how many match.

    The column `qc` holds service.observations.reasons.Reason; each row also gets its name as `reason`, and O-B and
    O-A. Raises KeyError when the reason is no name of a Reason.
    """
    return read_files([path], limit, offset, query)


def read_files(
    paths: Sequence[Path], limit: int, offset: int, query: Query | None = None
) -> tuple[list[dict[str, Any]], int]:
    """The same of several files, in their order; each row says under `file` which of them it is from."""
    condition = (query or Query()).condition()
    rows: list[dict[str, Any]] = []
    total = 0
    for number, path in enumerate(paths):
        file = _dataset(path)
        count = file.count_rows(filter=condition)
        start = max(offset - total, 0)
        if count > start and len(rows) < limit:
            wanted = file.scanner(filter=condition, batch_size=BATCH).head(min(start + limit - len(rows), count))
            rows += [{**readable(row), "file": number} for row in wanted.slice(start).to_pylist()]
        total += count
    return rows, total


BATCH = 16_384


def scan(path: Path, query: Query) -> Iterator[pa.RecordBatch]:
    """The matching rows of one file, a batch at a time."""
    yield from _dataset(path).scanner(filter=query.condition(), batch_size=BATCH).to_batches()


def _dataset(path: Path) -> Any:
    import pyarrow.dataset as ds

    return ds.dataset(path, format="parquet")


def id_numbers(ids: Iterable[str]) -> NDArray[np.uint64]:
    """The 16 hex digits of each id as a number [n]; what is no such id becomes 0."""
    return np.array([_number(name) for name in ids], np.uint64)


def _number(name: str) -> int:
    try:
        return int(name, 16) if len(name) == 16 else 0
    except ValueError:
        return 0


def rows_of(observation_id: str, departures: Path, ids: Path | None) -> list[dict[str, Any]]:
    """All rows of a value in a departures file: by the file of ids in a few reads, without it by the column `id`."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if ids is None:
        found = _dataset(departures).to_table(filter=pc.field("id") == observation_id).to_pylist()
        return [readable(row) for row in found]
    names, places = np.load(ids, mmap_mode="r", allow_pickle=False)
    wanted = id_numbers([observation_id])[0]
    first, last = int(np.searchsorted(names, wanted, "left")), int(np.searchsorted(names, wanted, "right"))
    rows: list[dict[str, Any]] = []
    if first == last:
        return rows
    file = pq.ParquetFile(departures)
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    for place in sorted(int(place) for place in places[first:last]):
        group = int(np.searchsorted(starts, place, "right")) - 1
        row = file.read_row_group(group).slice(place - int(starts[group]), 1).to_pylist()[0]
        if row["id"] == observation_id:
            rows.append(readable(row))
    return rows


def readable(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON can say it (no nan), with the name of its reason, O-B and O-A."""
    from service.observations.reasons import Reason

    shown = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    code = shown.get("qc")
    shown["reason"] = Reason(code).name if code in set(Reason) else None
    for name, field in (("o_b", "background"), ("o_a", "analysis")):
        value, equivalent = shown.get("value"), shown.get(field)
        if value is None or equivalent is None:
            shown[name] = None
        else:
            shown[name] = value - (shown.get("bias") or 0.0) - equivalent
    return shown
