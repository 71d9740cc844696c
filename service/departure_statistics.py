"""Statistics of a cycle's departures (product `departure_statistics`): what is in the file, and how it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa

KIND = "departure_statistics"
USES = ("assimilated", "passive", "withheld", "denied", "rejected")
"""What became of the values that a row is about."""
REGIONS = ("nh", "tropics", "sh")
"""North of and at 20 N, between, south of and at 20 S (WMO-No. 485, part II, appendix 2.2.34)."""
LAYERS = {"1100-700": (70000.0, 110001.0), "700-400": (40000.0, 70000.0), "400-200": (20000.0, 40000.0),
          "200-100": (10000.0, 20000.0), "100-0": (0.0, 10000.0)}  # fmt: skip
"""hPa; in Pa: pressures p with first <= p < second."""
SURFACE = "surface"
KEYS = ("use", "type", "variable", "layer", "region")
NUMBERS = (
    "bias_background", "rms_background", "bias_analysis", "rms_analysis",
    "sigma_o", "sigma_o_diagnosed", "sigma_b", "sigma_b_diagnosed",
    "chi_square", "chi_square_analysis", "dfs", "dfs_error", "dfs_departures",
)  # fmt: skip
"""docs/scores.md defines them. SI units; null where they say nothing, as a bias of several variables together."""
SCHEMA: pa.Schema = pa.schema(
    [
        *((name, pa.string()) for name in KEYS),  # "": all together (but `use`, which is always given)
        ("count", pa.int64()),
        ("compared", pa.int64()),  # of them with H(x_b) and H(x_a)
        ("reasons", pa.map_(pa.string(), pa.int64())),
        *((name, pa.float64()) for name in NUMBERS),
    ]
)


def read_statistics(path: Path, **wanted: str | None) -> list[dict[str, Any]]:
    """The rows of one file whose keys are as `wanted` (None: any), `reasons` as a dictionary, nan as None."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    conditions = [pc.field(name) == value for name, value in wanted.items() if value is not None]
    table = pq.read_table(path)
    for condition in conditions:
        table = table.filter(condition)
    rows = []
    for row in table.to_pylist():
        shown = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        rows.append({**shown, "reasons": dict(row["reasons"])})
    return rows
