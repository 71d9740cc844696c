"""The story of one observed value: arrival, decoding, checks, what each cycle made of it, what came of its station.

The value is looked for in the newest cycles first, by the file of ids of each (a few reads a cycle). Once its time is
known, only cycles whose window can hold it and batches that overlap it are looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from service.archive import Archive
from service.arrivals import arrivals, arrivals_at
from service.catalogue import Catalogue
from service.catalogue.tables import Cycle, Product
from service.departures import IDS, Query, read_files, rows_of
from service.observations.reasons import DESCRIPTIONS, Reason

WIDEST_WINDOW = timedelta(hours=12)  # half of the longest that an experiment can have
MOST_CYCLES = 20_000
MOST_OF_STATION = 10_000
NAMELESS = frozenset({"", "unknown", "SHIP", "MASKSTID"})
SHOWN = ("time", "type", "station", "variable", "latitude", "longitude", "pressure", "height", "value")


@dataclass(frozen=True)
class Where:
    """Where to look; None: anywhere. `start` and `end`: valid times of the value."""

    experiment_id: int | None = None
    cycle: Cycle | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Story:
    """`observation`: what was observed; `arrivals`: rows of batches; `cycles`: (cycle, row of its departures)."""

    observation: dict[str, Any]
    arrivals: list[dict[str, Any]] = field(default_factory=list)
    cycles: list[tuple[Cycle, dict[str, Any]]] = field(default_factory=list)


def tell(catalogue: Catalogue, archive: Archive, observation_id: str, where: Where) -> Story | None:
    """Everything known about a value; None if it is nowhere."""
    first = next(_in_cycles(catalogue, archive, observation_id, where), None)
    if first is not None:
        time = first[1]["time"]
        around = Where(where.experiment_id, where.cycle, time, time)
        cycles = sorted(_in_cycles(catalogue, archive, observation_id, around), key=lambda found: found[0].id)
        came = arrivals_at(catalogue, archive, observation_id, time)
        return Story({name: first[1].get(name) for name in SHOWN}, came, cycles)
    came = arrivals(catalogue, archive, observation_id, where.start, where.end)
    return Story({name: came[0].get(name) for name in SHOWN}, came) if came else None


def _in_cycles(
    catalogue: Catalogue, archive: Archive, observation_id: str, where: Where
) -> Iterator[tuple[Cycle, dict[str, Any]]]:
    """Each row of the value in a cycle's departures, newest cycle first."""
    for cycle, departures, ids in _candidates(catalogue, where):
        path = archive.path(departures.path)
        if path.is_file():
            for row in rows_of(observation_id, path, archive.path(ids.path) if ids is not None else None):
                yield cycle, row


def _candidates(catalogue: Catalogue, where: Where) -> Iterator[tuple[Cycle, Product, Product | None]]:
    """Cycles that may hold the value, newest first: (cycle, departures, file of ids or None)."""
    if where.cycle is not None:
        departures = catalogue.products.find(where.cycle.id, "departures", "parquet")
        if departures is not None:
            yield where.cycle, departures, catalogue.products.find(where.cycle.id, IDS, "npy")
        return
    start = None if where.start is None else where.start - WIDEST_WINDOW
    end = None if where.end is None else where.end + WIDEST_WINDOW + timedelta(microseconds=1)
    given = (where.experiment_id, start, end)
    files = _of(catalogue, "departures", "parquet", *given)
    ids = {cycle.id: product for cycle, product in _of(catalogue, IDS, "npy", *given)}
    for cycle, departures in reversed(files):
        yield cycle, departures, ids.get(cycle.id)


def _of(
    catalogue: Catalogue,
    kind: str,
    format: str,
    experiment_id: int | None,
    start: datetime | None,
    end: datetime | None,
) -> list[tuple[Cycle, Product]]:
    return catalogue.products.of_experiment(experiment_id, kind, format, start, end, MOST_CYCLES)


def checks(cycle: Cycle, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Every filter of the cycle in order: `outcome` passed, rejected or not reached, with number and limit where kept.

    Empty for cycles that were run before the filters were recorded with their reasons.
    """
    told, rejected = [], False
    filters = cycle.counts.get("filters", [])
    by = {entry.get("reason") for entry in filters}
    # in a free run all that passed is PASSIVE, without a filter having said so
    decided = row["reason"] in by and not (row["reason"] == Reason.PASSIVE.name and row.get("check_value") is not None)
    for entry in filters:
        if "reason" not in entry:
            return []
        mine = decided and entry["reason"] == row["reason"]
        outcome = "rejected" if mine else "not reached" if rejected else "passed"
        numbered = mine or (not decided and entry["reason"] == Reason.FIRST_GUESS.name)
        told.append(
            {
                "filter": entry["filter"], "reason": entry["reason"], "outcome": outcome,
                "value": row.get("check_value") if numbered else None,
                "limit": row.get("check_limit") if numbered else None,
            }
        )  # fmt: skip
        rejected = rejected or mine
    return told


def what_next(catalogue: Catalogue, archive: Archive, cycle: Cycle, row: dict[str, Any]) -> dict[str, Any] | None:
    """What the next cycle made of the station's values of this type and variable; None if there is none, or the
    platform has no name."""
    found = catalogue.products.next_after(cycle, "departures", "parquet")
    if found is None or row["station"] in NAMELESS:
        return None
    later, product = found
    wanted = Query(type=row["type"], variable=row["variable"], station=row["station"])
    rows, total = read_files([archive.existing(product.path)], MOST_OF_STATION, 0, wanted)
    departures = {name: [one[name] for one in rows if one[name] is not None] for name in ("o_b", "o_a")}
    return {
        "cycle_id": later.id,
        "valid_time": later.valid_time,
        "count": total,
        "reasons": dict(Counter(one["reason"] for one in rows)),
        **{f"mean_{name}": sum(some) / len(some) if some else None for name, some in departures.items()},
    }


def in_words(reason: str | None) -> str:
    """What a reason says."""
    return DESCRIPTIONS[Reason[reason]] if reason is not None and reason in Reason.__members__ else "unknown"
