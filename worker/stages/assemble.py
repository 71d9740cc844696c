"""Assemble a cycle: the observations of its window as known at its `as_of`, and the best background there is."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from service.catalogue.tables import Product
from service.observations.selection import Selection, in_order, read_file
from service.observations.table import empty_table
from worker.model import Array
from worker.stages.field_files import read_state
from worker.work import Result, Work, fallback

OLDEST_BACKGROUND = timedelta(hours=48)


@dataclass(frozen=True)
class Background:
    """What the analysis starts from. `kind`: previous_members, posted, older_members, older_forecast or cold_start."""

    kind: str
    source: str
    lead_hours: float | None
    state: Array  # [member or 1, channel, latitude, longitude]

    @property
    def record(self) -> dict[str, Any]:
        return {"kind": self.kind, "source": self.source, "lead_hours": self.lead_hours, "members": len(self.state)}


def run(work: Work) -> Result:
    """Leaves `observations` (table) and `background` (array) on the desk."""
    observations, batches = gather(work)
    background = choose_background(work)
    work.desk.put_table("observations", observations)
    work.desk.put_array("background", background.state)
    degraded = []
    if background.kind == "cold_start":
        degraded.append(fallback("cold_start", "there is no background: the bundle's climatology takes its place"))
    return Result(
        f"{observations.num_rows} values of {len(batches)} batches; background: {background.kind} ({background.source})",
        counts={"received": observations.num_rows, "batches": batches},
        degraded=degraded,
        background=background.record,
    )


def gather(work: Work) -> tuple[pa.Table, list[int]]:
    """All values with start <= time < end (receipt_time <= as_of if given), and the ids of the batches they are from.

    Their order depends on nothing but themselves: not on the batches that brought them, nor on what else is there.
    """
    start, end = work.window
    wanted = Selection(start=start, end=end, as_of=work.cycle.as_of)
    tables, batches = [empty_table()], set()
    for partition in work.catalogue.partitions.holding(start, end, work.cycle.as_of):
        table = read_file(work.archive.existing(partition.path), wanted)
        if table.num_rows:
            tables.append(table)
            batches.add(partition.batch_id)
    return in_order(pa.concat_tables(tables)), sorted(batches)


def choose_background(work: Work) -> Background:
    """The youngest background that exists; see the order of the cases."""
    return (
        _previous_members(work) or _posted(work) or _older_members(work) or _older_forecast(work) or _cold_start(work)
    )


def _previous_members(work: Work) -> Background | None:
    """The previous cycle's members, one step on."""
    return _members_of(work, work.step, "previous_members")


def _posted(work: Work) -> Background | None:
    """A field that someone posted for this experiment and time."""
    posted = work.catalogue.fields.background(work.cycle.experiment_id, work.valid_time, work.cycle.as_of)
    if posted is None and work.leader is not None and work.valid_time <= work.leader[1]:
        posted = work.catalogue.fields.background(work.leader[0], work.valid_time, work.cycle.as_of)
    if posted is None:
        return None
    state = read_state(work, posted.path)
    return Background("posted", f"field {posted.id}", posted.lead_hours, state)


def _older_members(work: Work) -> Background | None:
    """The members of the cycle before the previous one, two steps on."""
    return _members_of(work, 2 * work.step, "older_members")


def _older_forecast(work: Work) -> Background | None:
    """The mean of the youngest older forecast that reaches this time."""
    for cycle in work.past(OLDEST_BACKGROUND):
        lead = work.valid_time - cycle.valid_time
        forecast = work.catalogue.products.find(cycle.id, "forecast", "netcdf", _hours(lead))
        if forecast is not None and lead % timedelta(hours=1) == timedelta(0):
            return _from_product(work, "older_forecast", forecast, lead)
    return None


def _cold_start(work: Work) -> Background:
    """Nothing is known but the season."""
    mean, _ = work.model.climatology(work.valid_time)
    return Background("cold_start", f"climatology of {work.description.name}", None, mean[None])


def _members_of(work: Work, lead: timedelta, kind: str) -> Background | None:
    moment = work.valid_time - lead
    earlier = work.catalogue.cycles.at(work.cycle.experiment_id, moment)
    if earlier is None and work.leader is not None and moment < work.leader[1]:
        earlier = work.catalogue.cycles.at(work.leader[0], moment)
    if earlier is None:
        return None
    members = work.catalogue.products.find(earlier.id, "members", "netcdf", _hours(lead))
    return None if members is None else _from_product(work, kind, members, lead)


def _from_product(work: Work, kind: str, product: Product, lead: timedelta) -> Background:
    return Background(kind, f"cycle {product.cycle_id}", _hours(lead), read_state(work, product.path))


def _hours(lead: timedelta) -> int:
    return int(lead / timedelta(hours=1))
