"""The one definition of a window, [valid - w/2, valid + w/2), and of what was known at a time.

A value belongs to the window by its valid time, and to a replay "as known at T" by its receipt time (<= T).
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def window_bounds(valid_time: datetime, window_hours: float) -> tuple[datetime, datetime]:
    """(first instant inside, first instant after) of the window around `valid_time` (aware, UTC).

    Raises:
        ValueError: `valid_time` has no time zone, or `window_hours` is not positive.
    """
    if valid_time.tzinfo is None:
        raise ValueError(f"valid_time {valid_time.isoformat()} has no time zone: give it in UTC")
    if window_hours <= 0:
        raise ValueError(f"window_hours must be positive, got {window_hours}")
    half = timedelta(hours=window_hours / 2)
    return valid_time.astimezone(UTC) - half, valid_time.astimezone(UTC) + half


def in_window(
    table: pa.Table, valid_time: datetime, window_hours: float, as_of: datetime | None = None
) -> NDArray[np.bool_]:
    """Which rows belong to the window and, if `as_of` is given, had been received by then (inclusive). [n]"""
    start, end = window_bounds(valid_time, window_hours)
    times = table.column("time")
    inside = pc.and_(pc.greater_equal(times, pa.scalar(start, times.type)), pc.less(times, pa.scalar(end, times.type)))
    if as_of is not None:
        received = table.column("receipt_time")
        inside = pc.and_(inside, pc.less_equal(received, pa.scalar(as_of, received.type)))
    return np.asarray(pc.fill_null(inside, False).to_numpy(), dtype=np.bool_)


def select_window(
    table: pa.Table, valid_time: datetime, window_hours: float, as_of: datetime | None = None
) -> pa.Table:
    """The rows of `table` that belong to the window (and were known at `as_of`)."""
    return table.filter(pa.array(in_window(table, valid_time, window_hours, as_of)))


def duplicates(table: pa.Table) -> NDArray[np.bool_]:
    """Which rows repeat an earlier received one: same station, type, time, place, level and variable. [n]

    Of each set the first received stays (the first in the table where receipt times are equal). A correction
    with another value counts as a duplicate too: two values of one instrument at one instant cannot both be used.
    """

    def text(name: str) -> NDArray[Any]:
        codes: NDArray[Any] = np.unique(
            table.column(name).combine_chunks().cast(pa.string()).to_numpy(zero_copy_only=False).astype(str),
            return_inverse=True,
        )[1]
        return codes

    def number(name: str) -> NDArray[Any]:
        numbers: NDArray[Any] = np.nan_to_num(table.column(name).to_numpy().astype(np.float64), nan=-9e9)
        return numbers

    times = table.column("time").cast(pa.int64()).to_numpy()
    received = table.column("receipt_time").cast(pa.int64()).to_numpy()
    keys = [text("station"), text("type"), text("variable"), times]
    place = ("latitude", "longitude", "pressure", "height", "pressure_top")
    keys += [number(name) for name in place if name in table.column_names]
    if not len(times):
        return np.zeros(0, dtype=np.bool_)
    order = np.lexsort((np.arange(len(times)), received, *keys))
    same = np.ones(len(times) - 1, dtype=np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    repeated = np.zeros(len(times), dtype=np.bool_)
    repeated[order[1:]] = same
    return repeated
