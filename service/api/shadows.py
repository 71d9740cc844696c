"""Data denial: a shadow experiment that does without some observations, and its scores beside its parent's."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict

from service.api.dependencies import CatalogueDep, GatewayDep, Name, Word, require
from service.api.schemas import EXPERIMENT_NAME, ExperimentView
from service.catalogue import Catalogue
from service.catalogue.tables import Cycle, Experiment
from service.comparison import NAMES, compare
from service.errors import UnprocessableError, problem_responses
from service.experiments import Denial, ExperimentConfig, Shadow, Utc, ValidTime
from service.settings import Role

router = APIRouter(prefix="/experiments", tags=["experiments"], responses=problem_responses(HTTPStatus.NOT_FOUND))

MOST_CYCLES = 1000


class ShadowRequest(BaseModel):
    """What to deny, and from which cycle on; without `start` from the one after the newest completed."""

    model_config = ConfigDict(extra="forbid")

    name: EXPERIMENT_NAME
    denied: Denial
    start: ValidTime | None = None


class DifferenceView(BaseModel):
    """A score over the valid times that both have: root mean squares, `difference` = value - control, 95 % interval.

    `low` and `high` are null for fewer than five pairs.
    """

    model_config = ConfigDict(from_attributes=True)

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


class ComparisonView(BaseModel):
    """`cycles`: valid times that both have completed; `unequal`: those of them at which they gathered different numbers of
    values (the difference is then not of the denial alone)."""

    experiment: str
    control: str
    cycles: int
    unequal: int
    first: datetime | None
    last: datetime | None
    scores: list[DifferenceView]


@router.post(
    "/{name}/shadow",
    summary="Create a shadow without some observations",
    status_code=HTTPStatus.CREATED,
    dependencies=[Depends(require(Role.WRITER))],
    responses=problem_responses(HTTPStatus.CONFLICT),
)
def create_shadow(
    catalogue: CatalogueDep, gateway: GatewayDep, response: Response, name: Name, wanted: ShadowRequest
) -> ExperimentView:
    """It starts from this experiment's state, then makes the same cycles from the same observations but the denied,
    each when this one has completed its own, with the same configuration (as it is now) and random numbers."""
    parent = catalogue.experiments.named(name)
    config = ExperimentConfig.model_validate(parent.config)
    start = wanted.start or _next(catalogue, parent, config)
    shadow = {"denied": wanted.denied.model_dump(), "shadow": Shadow(of=name, start=start).model_dump(mode="json")}
    try:
        made = ExperimentConfig.model_validate({**parent.config, **shadow, "schedule": None})
    except ValueError as error:
        raise UnprocessableError(f"this cannot be denied: {error}") from error
    experiment = catalogue.experiments.create(wanted.name, made.model_dump(mode="json"), parent.bundle)
    gateway.scheduler.nudge()
    response.headers["Location"] = f"/v1/experiments/{experiment.name}"
    return ExperimentView.model_validate(experiment)


@router.get(
    "/{name}/comparison", summary="Compare with another experiment", dependencies=[Depends(require(Role.READER))]
)
def compare_experiments(
    catalogue: CatalogueDep,
    name: Name,
    against: Annotated[EXPERIMENT_NAME | None, Parameter(description="A shadow's parent if not given.")] = None,
    score: Annotated[Word, Parameter(alias="name", description="rmse, withheld_rmse or departure_rms.")] = None,
    field: Annotated[Word, Parameter(description="background, analysis or forecast")] = None,
    variable: Word = None,
    start: Annotated[Utc | None, Parameter(description="Cycles valid at or after this.")] = None,
    end: Annotated[Utc | None, Parameter(description="Cycles valid before this.")] = None,
) -> ComparisonView:
    """Paired differences of scores, with bootstrap intervals over cycles: against posted verifications (rmse), withheld
    observations (withheld_rmse) and used ones (departure_rms). The newest 1000 cycles count."""
    experiment = catalogue.experiments.named(name)
    config = ExperimentConfig.model_validate(experiment.config)
    if against is None and config.shadow is None:
        raise UnprocessableError(f"{name} is no shadow: name the experiment to compare it with as `against`")
    control = catalogue.experiments.named(against or (config.shadow.of if config.shadow is not None else ""))
    mine, theirs = (_completed(catalogue, one.id, start, end) for one in (experiment, control))
    common = sorted(mine.keys() & theirs.keys())
    names = [score] if score is not None else list(NAMES)
    if not set(names) <= set(NAMES):
        raise UnprocessableError(f"{score} cannot be compared: choose from {', '.join(NAMES)}")
    scores = [
        catalogue.scores.of_cycles([cycles[time].id for time in common], names, field, variable)
        for cycles in (mine, theirs)
    ]
    return ComparisonView(
        experiment=name,
        control=control.name,
        cycles=len(common),
        unequal=sum(mine[time].counts.get("received") != theirs[time].counts.get("received") for time in common),
        first=common[0] if common else None,
        last=common[-1] if common else None,
        scores=[DifferenceView.model_validate(row) for row in compare(*scores)],
    )


def _next(catalogue: Catalogue, parent: Experiment, config: ExperimentConfig) -> datetime:
    newest = catalogue.cycles.newest_completed(parent.id)
    if newest is None:
        raise UnprocessableError(f"{parent.name} has completed no cycle yet: say from which one on as `start`")
    return newest.valid_time + timedelta(hours=config.step_hours)


def _completed(
    catalogue: Catalogue, experiment_id: int, start: datetime | None, end: datetime | None
) -> dict[datetime, Cycle]:
    found = catalogue.cycles.newest_completed_of(experiment_id, MOST_CYCLES)
    return {
        cycle.valid_time: cycle
        for cycle in found
        if (start is None or cycle.valid_time >= start) and (end is None or cycle.valid_time < end)
    }
