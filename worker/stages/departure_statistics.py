"""What the departures of a cycle say together: by use, type, variable, layer and region, each also for all.

Errors diagnosed from departures: Desroziers, Berre, Chapnik and Poli 2005 (QJRMS 131, 3385-3396, eqs. 1 to 4). DFS from
departures: Lupu, Gauthier and Laroche 2011 (MWR 139, 726-738). DFS from members: worker/stages/influence.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.departure_statistics import LAYERS, NUMBERS, REGIONS, SCHEMA, SURFACE, USES
from service.observations.reasons import Reason
from worker.stages.departures import Departures, given_error
from worker.stages.influence import degrees_of_freedom
from worker.stages.observed import Bools, Doubles, Integers, Observed

OF_USE = {Reason.ASSIMILATED: 0, Reason.PASSIVE: 1, Reason.WITHHELD: 2, Reason.DENIED: 3}
TROPICS = 20.0  # degrees
ASKED_OF_ONE_VARIABLE = NUMBERS[:8]  # in the variable's unit
GROUPED = ("type", "variable", "layer", "region")
Key = tuple[npt.NDArray[Any], Integers]
"""Distinct names, and which each value has [n]."""


@dataclass(frozen=True)
class _Values:
    """One entry per value: departures, errors and what they make together; nan where there is no equivalent."""

    background: Doubles  # O-B
    analysis: Doubles  # O-A
    sigma_o: Doubles  # as given to the analysis, Huber's weight included
    sigma_b: Doubles
    expected: Doubles  # variance of O-B
    expected_analysis: Doubles  # variance of O-A of what the analysis did not use

    @classmethod
    def of(cls, observed: Observed) -> "_Values":
        sigma_o = given_error(observed, observed.number("observation_error"))
        sigma_b, spread = observed.number("background_error"), np.nan_to_num(observed.number("analysis_spread"))
        return cls(
            observed.value - observed.number("background"), observed.value - observed.number("analysis"),
            sigma_o, sigma_b, sigma_o**2 + sigma_b**2, sigma_o**2 + spread**2,
        )  # fmt: skip

    @property
    def known(self) -> Bools:
        return np.isfinite(self.background) & np.isfinite(self.analysis) & np.isfinite(self.expected)


def statistics(departures: Departures) -> pa.Table:
    """service.departure_statistics.SCHEMA; no rows for groups without values."""
    observed = Observed(departures.table)
    reason = observed.number("qc").astype(np.int64)
    use = np.full(len(observed), USES.index("rejected"))
    for code, position in OF_USE.items():
        use[reason == code] = position
    keys: dict[str, Key] = {
        "type": observed.names("type"), "variable": observed.names("variable"),
        "layer": layer_of(observed), "region": region_of(observed),
    }  # fmt: skip
    values = _Values.of(observed)
    column = np.full(len(observed), -1, np.int64)
    column[departures.used] = np.arange(int(departures.used.sum()))
    rows: list[dict[str, Any]] = []
    for size in range(len(GROUPED) + 1):
        for chosen in combinations(GROUPED, size):
            for members in _groups(use, [keys[name][1] for name in chosen]):
                named = {name: str(keys[name][0][keys[name][1][members[0]]]) for name in chosen}
                rows.append(
                    {
                        **dict.fromkeys(GROUPED, ""), **named, "use": USES[use[members[0]]],
                        **_counts(reason[members], values.known[members]),
                        **_numbers(values, members, "variable" in chosen),
                        **_influence(departures, column[members]),
                    }
                )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def layer_of(observed: Observed) -> Key:
    """The layer of LAYERS of each value, "surface" for those at the ground."""
    names, pressure = np.array([SURFACE, *LAYERS]), observed.pressure
    layer = np.zeros(len(observed), np.int64)
    for number, (low, high) in enumerate(LAYERS.values(), start=1):
        layer[(pressure >= low) & (pressure < high)] = number
    return names, layer


def region_of(observed: Observed) -> Key:
    """The region of REGIONS of each value."""
    latitude = observed.number("latitude")
    return np.array(REGIONS), np.select([latitude >= TROPICS, latitude <= -TROPICS], [0, 2], 1).astype(np.int64)


def _groups(use: Integers, codes: list[Integers]) -> Iterator[Integers]:
    """The rows of each combination that occurs."""
    if not len(use):
        return
    code = use.astype(np.int64)
    for other in codes:
        code = code * (int(other.max()) + 1) + other
    order = np.argsort(code, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(code[order])) + 1)


def _counts(reason: Integers, known: Bools) -> dict[str, Any]:
    codes, numbers = np.unique(reason, return_counts=True)
    reasons = {Reason(int(code)).name: int(number) for code, number in zip(codes, numbers, strict=True)}
    return {"count": len(reason), "compared": int(known.sum()), "reasons": list(reasons.items())}


def _numbers(values: _Values, members: Integers, one_variable: bool) -> dict[str, float | None]:
    """The means over a group; nothing where nothing can be compared."""
    rows = members[values.known[members]]
    if not len(rows):
        return {}
    before, after = values.background[rows], values.analysis[rows]
    found: dict[str, float | None] = {
        "chi_square": float(np.mean(before**2 / values.expected[rows])),
        "chi_square_analysis": float(np.mean(after**2 / values.expected_analysis[rows])),
    }
    if one_variable:
        found |= {
            "bias_background": float(before.mean()), "rms_background": _root(np.mean(before**2)),
            "bias_analysis": float(after.mean()), "rms_analysis": _root(np.mean(after**2)),
            "sigma_o": _root(np.mean(values.sigma_o[rows] ** 2)), "sigma_b": _root(np.mean(values.sigma_b[rows] ** 2)),
            "sigma_o_diagnosed": _root(np.mean(after * before)),
            "sigma_b_diagnosed": _root(np.mean((before - after) * before)),
        }  # fmt: skip
    found["dfs_departures"] = float(np.sum((before - after) * after / values.sigma_o[rows] ** 2))
    return found


def _influence(departures: Departures, columns: Integers) -> dict[str, float]:
    """DFS of a group from the members; of what was not used nothing, not even from departures."""
    columns = columns[columns >= 0]
    if departures.perturbations is None or not len(columns):
        return {"dfs_departures": np.nan}
    trace = degrees_of_freedom(departures.perturbations[:, columns])
    return {"dfs": trace.dfs, "dfs_error": trace.error}


def _root(square: "np.floating[Any]") -> float | None:
    """None of a mean product that came out negative: too few values, or departures that contradict the method."""
    return float(np.sqrt(square)) if square >= 0 else None
