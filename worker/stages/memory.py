"""What quality control remembers from cycle to cycle: one table, a product of every cycle (`observation_state`).

The next cycle reads that of the newest completed one, so the history of every entry is that of the products. An
entry whose sensor is silent is carried on as it was.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.observation_state import KIND, SCHEMA
from service.observations.reasons import Reason
from service.observations.table import SURFACE_VARIABLES
from worker.stages.filters import Comparison, Setting, Unchanged
from worker.stages.filters.background import ratios
from worker.stages.filters.case import Group
from worker.stages.observed import Bools, Integers, Observed
from worker.work import Work

log = logging.getLogger(__name__)

OLDEST = timedelta(days=60)
FORGET_UNCHANGED = timedelta(days=10)
# what failed only in comparison, or stands back for another value, still tells how its kind departs
COMPARED = (
    Reason.ASSIMILATED, Reason.PASSIVE, Reason.WITHHELD, Reason.FIRST_GUESS, Reason.BUDDY, Reason.THINNED,
    Reason.SUPEROBBED,
)  # fmt: skip
Place = tuple[str, str, str]
"""(type, station or "" for the whole type, variable)"""


@dataclass(frozen=True)
class Coefficients:
    """Of one bias: `names` [k], their values [k] and covariance [k, k], and in how many cycles they were seen."""

    names: tuple[str, ...]
    values: np.ndarray[Any, np.dtype[np.float64]]
    covariance: np.ndarray[Any, np.dtype[np.float64]]
    cycles: int
    seen: int  # microseconds since 1970: the last valid time with values


@dataclass(frozen=True)
class Ratio:
    """Seen over expected size of the departures of a group, in how many cycles, last when."""

    value: float
    cycles: int
    seen: int


@dataclass(frozen=True)
class Memory:
    """All of it."""

    ratios: Mapping[Group, Ratio] = field(default_factory=dict)
    biases: Mapping[Place, Coefficients] = field(default_factory=dict)
    unchanged: Mapping[Place, Unchanged] = field(default_factory=dict)


def recall(work: Work) -> Memory:
    """The memory of the newest completed cycle before this one; an empty one if there is none."""
    for cycle in work.past(OLDEST):
        product = work.catalogue.products.find(cycle.id, KIND, "parquet")
        if product is None:
            continue
        path = work.archive.path(product.path)
        if path.is_file():
            return from_table(pq.read_table(path))
        log.warning("cycle %s: %s is gone; an older state takes its place", work.cycle.id, product.path)
    return Memory()


def to_table(memory: Memory) -> pa.Table:
    """One row per number, see `service.observation_state.SCHEMA`."""
    rows: list[dict[str, Any]] = []
    for (kind, variable, layer), ratio in memory.ratios.items():
        rows.append(
            {"quantity": "ratio", "type": kind, "station": "", "variable": variable, "layer": layer,
             "value": ratio.value, "cycles": ratio.cycles, "seen": ratio.seen}
        )  # fmt: skip
    for (kind, station, variable), bias in memory.biases.items():
        for k, name in enumerate(bias.names):
            rows.append(
                {"quantity": "bias", "type": kind, "station": station, "variable": variable, "predictor": name,
                 "value": float(bias.values[k]), "std": float(np.sqrt(bias.covariance[k, k])),
                 "covariance": bias.covariance[k].tolist(), "cycles": bias.cycles, "seen": bias.seen}
            )  # fmt: skip
    for (kind, station, variable), same in memory.unchanged.items():
        rows.append(
            {"quantity": "unchanged", "type": kind, "station": station, "variable": variable, "value": same.value,
             "cycles": same.reports, "seen": same.since}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> Memory:
    """The inverse of `to_table`."""
    ratios_: dict[Group, Ratio] = {}
    unchanged: dict[Place, Unchanged] = {}
    parts: dict[Place, list[dict[str, Any]]] = {}
    for row in table.set_column(
        table.column_names.index("seen"), "seen", table.column("seen").cast(pa.int64())
    ).to_pylist():
        place = (row["type"], row["station"], row["variable"])
        if row["quantity"] == "ratio":
            ratios_[row["type"], row["variable"], row["layer"]] = Ratio(row["value"], row["cycles"], row["seen"])
        elif row["quantity"] == "unchanged":
            unchanged[place] = Unchanged(row["value"], row["seen"], row["cycles"])
        else:
            parts.setdefault(place, []).append(row)
    biases = {
        place: Coefficients(
            tuple(row["predictor"] for row in rows),
            np.array([row["value"] for row in rows]),
            np.array([row["covariance"] for row in rows]),
            rows[0]["cycles"],
            rows[0]["seen"],
        )
        for place, rows in parts.items()
    }
    return Memory(ratios_, biases, unchanged)


def compared(reasons: np.ndarray[Any, np.dtype[np.int16]]) -> Bools:
    """Which values tell something about departures: [n]."""
    return np.isin(reasons, [int(reason) for reason in COMPARED])


def update_ratios(
    earlier: Mapping[Group, Ratio], observed: Observed, comparison: Comparison, setting: Setting
) -> dict[Group, Ratio]:
    """r^2 <- (1 - g) r^2 + g r_now^2, g = max(1 / cycles seen, 1 - exp(-dt / days)); see background.ratio."""
    limits, now = setting.configuration.checks.first_guess, round(setting.valid_time.timestamp() * 1e6)
    scaled = (observed.value - comparison.background) / comparison.expected
    out = dict(earlier)
    for group, seen in ratios(observed, scaled, limits.fewest).items():
        before = out.get(group, Ratio(seen, 0, now))
        gain = max(1.0 / (before.cycles + 1), 1.0 - np.exp(-(now - before.seen) / 8.64e10 / limits.days))
        # one poor background must not open the limits for days: it counts as far as it was believed
        believed = min(seen, limits.bounds[1] * max(before.value, limits.bounds[0])) if before.cycles else seen
        value = float(np.sqrt((1 - gain) * before.value**2 + gain * believed**2))
        out[group] = Ratio(value, before.cycles + 1, now)
    return out


def update_unchanged(
    earlier: Mapping[Place, Unchanged], observed: Observed, setting: Setting
) -> dict[Place, Unchanged]:
    """The last value of each station's surface variables, since when and in how many reports it is the same."""
    now = round(setting.valid_time.timestamp() * 1e6)
    horizon = now - round(FORGET_UNCHANGED.total_seconds() * 1e6)
    out = {place: same for place, same in earlier.items() if same.since >= horizon}
    value, time, (stations, station) = observed.number("value"), observed.microseconds(), observed.names("station")
    nameless = observed.nameless()
    for kind, variable, rows in observed.pairs():
        if variable not in SURFACE_VARIABLES:
            continue
        rows = rows[~nameless[rows]]
        rows = rows[np.lexsort((time[rows], station[rows]))]
        for mine in runs(station[rows]):
            some = rows[mine]
            place = (kind, str(stations[station[some[0]]]), variable)
            known = out.get(place)
            for row in some:
                same = known is not None and known.value == value[row]
                known = (
                    Unchanged(known.value, known.since, known.reports + 1)
                    if same and known is not None
                    else Unchanged(float(value[row]), int(time[row]), 1)
                )
            if known is not None:
                out[place] = known
    return out


def runs(numbers: Integers) -> Iterable[slice]:
    """Slices of equal numbers in a row."""
    if not len(numbers):
        return []
    edges = np.flatnonzero(np.diff(numbers)) + 1
    return [slice(a, b) for a, b in zip([0, *edges], [*edges, len(numbers)], strict=True)]
