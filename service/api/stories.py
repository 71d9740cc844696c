"""Explain one observed value: arrival, checks with their numbers, what every cycle made of it, its station later."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from fastapi import Query as Parameter
from pydantic import BaseModel

from service.api.dependencies import ArchiveDep, CatalogueDep, require
from service.api.schemas import EXPERIMENT_NAME, CycleDepartureView
from service.archive import Archive
from service.catalogue import Catalogue, NotFoundError
from service.catalogue.tables import Cycle
from service.errors import UnprocessableError, problem_responses
from service.experiments import Utc
from service.observation_story import Where, checks, in_words, tell, what_next
from service.observations.reasons import Reason
from service.settings import Role

router = APIRouter(tags=["observations"], responses=problem_responses(HTTPStatus.NOT_FOUND))

ObservationId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$", examples=["0123456789abcdef"])]


class ObservedView(BaseModel):
    """What was observed, as reported, SI units."""

    time: datetime | None
    type: str | None
    station: str | None
    variable: str | None
    latitude: float | None
    longitude: float | None
    pressure: float | None
    height: float | None
    value: float | None


class ArrivalView(BaseModel):
    """One time that the value came in: its batch, and `reason` with `detail` if it was rejected on arrival.

    `raw`: the archive key of the bytes as they were sent; `notes`: what decoding said of the whole batch.
    """

    batch_id: int
    source: str
    receipt_time: datetime | None
    received_at: datetime
    format: str
    sha256: str
    raw: str
    preqc: int | None
    error: float | None
    notes: list[str]
    reason: str | None = None
    detail: str | None = None


class CheckView(BaseModel):
    """One filter of quality control: passed, rejected or not reached; its number and limit where they are kept."""

    filter: str
    reason: str
    outcome: str
    value: float | None
    limit: float | None


class NextView(BaseModel):
    """What the next cycle made of the station's values of the same type and variable."""

    cycle_id: int
    valid_time: datetime
    count: int
    reasons: dict[str, int]
    mean_o_b: float | None
    mean_o_a: float | None


class TreatmentView(CycleDepartureView):
    """What one cycle made of the value."""

    experiment: str
    state: str
    reason_in_words: str
    checks: list[CheckView]
    next: NextView | None


class StoryView(BaseModel):
    """The whole story of one observed value."""

    id: str
    observed: ObservedView
    arrivals: list[ArrivalView]
    cycles: list[TreatmentView]


@router.get(
    "/observations/{observation_id}",
    summary="Explain an observed value",
    dependencies=[Depends(require(Role.READER))],
)
def explain_observation(
    catalogue: CatalogueDep,
    archive: ArchiveDep,
    observation_id: ObservationId,
    experiment: Annotated[EXPERIMENT_NAME | None, Parameter(description="Only what this experiment did.")] = None,
    cycle: Annotated[int | None, Parameter(ge=1, le=2**63 - 1, description="Only what this cycle did.")] = None,
    start: Annotated[Utc | None, Parameter(description="It is valid at or after this: found sooner.")] = None,
    end: Annotated[Utc | None, Parameter(description="It is valid before this: found sooner.")] = None,
) -> StoryView:
    """By the `id` of departures. A value that reached no cycle is looked for in the newest 500 batches, or in those that
    overlap `start` to `end`."""
    if start is not None and end is not None and end < start:
        raise UnprocessableError("end lies before start")
    where = Where(
        catalogue.experiments.named(experiment).id if experiment is not None else None,
        catalogue.cycles.get(cycle) if cycle is not None else None,
        start,
        end,
    )
    story = tell(catalogue, archive, observation_id, where)
    if story is None:
        raise NotFoundError("observation", observation_id)
    return StoryView(
        id=observation_id,
        observed=ObservedView.model_validate(story.observation),
        arrivals=[_arrival(row) for row in story.arrivals],
        cycles=[_treatment(catalogue, archive, one, row) for one, row in story.cycles],
    )


def _arrival(row: dict[str, Any]) -> ArrivalView:
    batch, code = row["batch"], row.get("reason")
    return ArrivalView(
        batch_id=batch.id,
        source=batch.source,
        receipt_time=row.get("receipt_time"),
        received_at=batch.received_at,
        format=batch.media_type,
        sha256=batch.sha256,
        raw=batch.raw_path,
        preqc=row.get("preqc"),
        error=row.get("error"),
        notes=batch.notes,
        reason=Reason(code).name if code in set(Reason) else None,
        detail=row.get("detail"),
    )


def _treatment(catalogue: Catalogue, archive: Archive, cycle: Cycle, row: dict[str, Any]) -> TreatmentView:
    return TreatmentView.model_validate(
        {
            **row,
            "cycle_id": cycle.id,
            "valid_time": cycle.valid_time,
            "experiment": catalogue.experiments.get(cycle.experiment_id).name,
            "state": cycle.state,
            "reason_in_words": in_words(row["reason"]),
            "checks": checks(cycle, row),
            "next": what_next(catalogue, archive, cycle, row),
        }
    )
