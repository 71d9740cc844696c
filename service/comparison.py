"""Two experiments beside each other: paired differences of their scores over common valid times, with intervals.

Circular block bootstrap over cycles (Politis and Romano 1992): neighbouring cycles are not independent. Blocks of n^(1/3)
cycles (Hall, Horowitz and Jing 1995, Biometrika 82, 561-574). The resampling is seeded: the same scores, the same answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from service.catalogue.tables import Score

NAMES = ("rmse", "withheld_rmse", "departure_rms")
"""Root mean squares, which are averaged as squares."""
RESAMPLES = 1000
FEWEST = 5  # pairs below which an interval would say nothing
CONFIDENCE = 0.95

Key = tuple[str, str, str, str, float | None, int | None, str]
"""name, field, variable, type, level, lead_hours, unit"""


@dataclass(frozen=True)
class Difference:
    """One score over the valid times that both have: root mean square of each and `difference` = value - control,
    with its interval (None for fewer than FEWEST pairs). Negative: the experiment is nearer."""

    name: str
    field: str
    variable: str
    type: str
    level: float | None
    lead_hours: int | None
    unit: str
    pairs: int
    value: float
    control: float
    difference: float
    low: float | None
    high: float | None


def compare(scores: Sequence[Score], control: Sequence[Score]) -> list[Difference]:
    """One row for each score that both have, in the order of their keys."""
    mine, theirs = _series(scores), _series(control)
    rows = []
    for key in sorted(mine.keys() & theirs.keys(), key=lambda key: tuple(str(part) for part in key)):
        times = sorted(mine[key].keys() & theirs[key].keys())
        if times:
            a, b = (np.array([series[key][time] for time in times]) for series in (mine, theirs))
            rows.append(Difference(*key, len(times), *_paired(a, b)))
    return rows


def _series(scores: Sequence[Score]) -> dict[Key, dict[datetime, float]]:
    out: dict[Key, dict[datetime, float]] = defaultdict(dict)
    for row in scores:
        if np.isfinite(row.value):
            key = (row.name, row.field, row.variable, row.type, row.level, row.lead_hours, row.unit)
            out[key][row.valid_time] = row.value
    return out


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float, float | None, float | None]:
    value, control = _rms(a), _rms(b)
    if len(a) < FEWEST:
        return float(value), float(control), float(value - control), None, None
    rows = block_resamples(len(a), RESAMPLES)
    differences = _rms(a[rows]) - _rms(b[rows])
    low, high = np.quantile(differences, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(value), float(control), float(value - control), float(low), float(high)


def _rms(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.mean(np.square(values), axis=-1)))


def block_resamples(n: int, resamples: int) -> NDArray[np.int64]:
    """Positions [resamples, n]: blocks of round(n^(1/3)) neighbours, the last followed by the first."""
    length = max(1, round(n ** (1 / 3)))
    blocks = -(-n // length)
    starts = np.random.default_rng(0).integers(0, n, size=(resamples, blocks))
    return np.asarray(((starts[..., None] + np.arange(length)) % n).reshape(resamples, -1)[:, :n], np.int64)
