"""Reading a cycle's departures file (Parquet): the observation table with H(x) and the reason code of each value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any


def read_departures(
    path: Path,
    limit: int,
    offset: int,
    *,
    station: str | None = None,
    variable: str | None = None,
    reason: str | None = None,
) -> tuple[list[dict[str, Any]], int]:
    """Rows `offset .. offset + limit` of those that match, and how many match.

    The column `qc` holds service.observations.reasons.Reason; each row also gets its name as `reason`.
    Raises KeyError when `reason` is no name of a Reason.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from service.observations.reasons import Reason

    table = pq.read_table(path)
    for column, wanted in (("station", station), ("variable", variable)):
        if wanted is not None:
            table = table.filter(pc.equal(table.column(column).cast("string"), wanted))
    if reason is not None:
        table = table.filter(pc.equal(table.column("qc").cast("int32"), int(Reason[reason])))
    rows = [_readable(row, Reason) for row in table.slice(offset, limit).to_pylist()]
    return rows, table.num_rows


def _readable(row: dict[str, Any], reasons: Any) -> dict[str, Any]:
    # JSON has no NaN.
    shown = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    code = shown.get("qc")
    shown["reason"] = reasons(code).name if code in set(reasons) else None
    return shown
