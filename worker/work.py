"""One cycle being worked on: what every stage may read, and what it hands back for the catalogue."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from service.archive import Archive, cycle_key
from service.catalogue import Catalogue, Lease, NewProduct, NewScore
from service.catalogue.tables import Cycle
from service.experiments import ExperimentConfig
from service.fields.grid import BundleDescription
from worker.desk import Desk
from worker.model import Model


class CycleError(Exception):
    """A cycle that cannot succeed however often it is tried; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Work:
    """The cycle, its experiment, and the tools at hand. Stages read this and leave their arrays on the desk."""

    cycle: Cycle
    experiment: str
    config: ExperimentConfig
    lease: Lease
    catalogue: Catalogue
    archive: Archive
    model: Model
    desk: Desk
    progress: Callable[[float, str], None]

    @property
    def valid_time(self) -> datetime:
        return self.cycle.valid_time

    @property
    def description(self) -> BundleDescription:
        return self.model.description

    @property
    def leader(self) -> tuple[int, datetime] | None:
        """Of a shadow: the id of the experiment that it follows, and the time before which that one's past is its own."""
        shadow = self.config.shadow
        return None if shadow is None else (self.catalogue.experiments.named(shadow.of).id, shadow.start)

    def past(self, within: timedelta) -> Iterator[Cycle]:
        """The completed cycles before this one, newest first; of a shadow then the leader's, before its start."""
        yield from self.catalogue.cycles.completed_before(self.cycle.experiment_id, self.valid_time, within)
        if self.leader is not None:
            leader_id, start = self.leader
            earliest = self.valid_time - within
            for cycle in self.catalogue.cycles.completed_before(leader_id, min(start, self.valid_time), within):
                if cycle.valid_time >= earliest:
                    yield cycle

    @property
    def step(self) -> timedelta:
        return timedelta(hours=self.description.step_hours)

    @property
    def window(self) -> tuple[datetime, datetime]:
        """[start, end): values at `start` are in, values at `end` belong to the next window."""
        half = timedelta(hours=self.config.window_hours) / 2
        return self.valid_time - half, self.valid_time + half

    @property
    def background(self) -> Mapping[str, Any]:
        """What assemble chose: kind, source, lead_hours, members."""
        return self.catalogue.cycles.get(self.cycle.id).background or {}

    def publish(self, draft: Path, kind: str, format_: str, extension: str, lead_hours: int = 0) -> NewProduct:
        """Move a finished file into the archive. It becomes a product when the catalogue takes the returned row.

        The key holds the fencing token: a worker that lost its lease cannot replace what its successor published.
        """
        name = kind if lead_hours == 0 else f"{kind}_{lead_hours:03d}h"
        key = cycle_key(self.experiment, self.valid_time, f"{self.lease.token}/{name}.{extension}")
        stored = self.archive.put(draft, key)
        draft.unlink()
        return NewProduct(kind, format_, stored.path, stored.sha256, stored.size, lead_hours)


@dataclass(frozen=True)
class Result:
    """What a stage tells the catalogue when it is complete."""

    message: str
    counts: Mapping[str, Any] = field(default_factory=dict)
    degraded: Sequence[Mapping[str, str]] = ()
    background: Mapping[str, Any] | None = None
    products: Sequence[NewProduct] = ()
    scores: Sequence[NewScore] = ()
    verified_with: int | None = None


def fallback(reason: str, detail: str) -> dict[str, str]:
    """An entry of the cycle's `degraded` list."""
    return {"reason": reason, "detail": detail}
