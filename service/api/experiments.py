"""Experiments, the cycles asked of them, and their scores."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from service.api.dependencies import CatalogueDep, GatewayDep, Name, PagingDep, Word, require
from service.api.schemas import (
    CycleRequest,
    CycleView,
    ExperimentRequest,
    ExperimentView,
    PageOf,
    ScoreView,
)
from service.catalogue.tables import CycleState, ExperimentState
from service.errors import UnprocessableError, problem_responses
from service.experiments import ExperimentConfig
from service.fields.errors import FieldError
from service.fields.grid import BundleDescription
from service.settings import Role

router = APIRouter(prefix="/experiments", tags=["experiments"], responses=problem_responses(HTTPStatus.NOT_FOUND))

READ = [Depends(require(Role.READER))]
WRITE = [Depends(require(Role.WRITER))]


@router.post(
    "",
    summary="Create an experiment",
    status_code=HTTPStatus.CREATED,
    dependencies=WRITE,
    responses=problem_responses(HTTPStatus.CONFLICT),
)
def create_experiment(
    catalogue: CatalogueDep,
    gateway: GatewayDep,
    response: Response,
    wanted: ExperimentRequest,
) -> ExperimentView:
    """Its configuration is recorded as it is now; a changed one is another experiment, but for `observations`."""
    bundle = wanted.bundle or gateway.settings.bundle.name
    try:
        description = BundleDescription.load(gateway.settings.bundle_named(bundle))
    except FieldError as error:
        raise UnprocessableError(
            f"there is no usable bundle {bundle!r} on this gateway; leave it out to use {gateway.settings.bundle.name}"
        ) from error
    if wanted.config.step_hours != description.step_hours:
        raise UnprocessableError(
            f"bundle {bundle} steps {description.step_hours} h, the configuration says {wanted.config.step_hours} h"
        )
    if wanted.config.shadow is not None:
        raise UnprocessableError("a shadow is made by POST /v1/experiments/{name}/shadow")
    try:
        wanted.config.check_alignment(gateway.settings.bundle_named(bundle))
    except ValueError as error:
        raise UnprocessableError(str(error)) from error
    config = wanted.config.model_dump(mode="json")
    experiment = catalogue.experiments.create(wanted.name, config, bundle)
    gateway.scheduler.nudge()
    response.headers["Location"] = f"/v1/experiments/{experiment.name}"
    return ExperimentView.model_validate(experiment)


@router.get("", summary="List experiments", dependencies=READ)
def list_experiments(catalogue: CatalogueDep, paging: PagingDep) -> PageOf[ExperimentView]:
    """In the order of creation."""
    return paging.view(catalogue.experiments.page(paging.limit, paging.offset), ExperimentView)


@router.get("/{name}", summary="Show an experiment", dependencies=READ)
def show_experiment(catalogue: CatalogueDep, name: Name) -> ExperimentView:
    """One experiment with its configuration."""
    return ExperimentView.model_validate(catalogue.experiments.named(name))


@router.post("/{name}/suspend", summary="Suspend", dependencies=WRITE)
def suspend_experiment(catalogue: CatalogueDep, name: Name) -> ExperimentView:
    """Start no further cycle; one that runs is completed."""
    return ExperimentView.model_validate(catalogue.experiments.set_state(name, ExperimentState.SUSPENDED))


@router.post("/{name}/resume", summary="Resume", dependencies=WRITE)
def resume_experiment(catalogue: CatalogueDep, gateway: GatewayDep, name: Name) -> ExperimentView:
    """Go on with the earliest cycle that is unfinished."""
    experiment = catalogue.experiments.set_state(name, ExperimentState.ACTIVE)
    gateway.scheduler.nudge()
    return ExperimentView.model_validate(experiment)


@router.post(
    "/{name}/cycles",
    summary="Ask for a cycle",
    status_code=HTTPStatus.ACCEPTED,
    dependencies=WRITE,
    responses={HTTPStatus.OK.value: {"model": CycleView, "description": "There is one for this time already"}},
)
def create_cycle(
    catalogue: CatalogueDep, gateway: GatewayDep, response: Response, name: Name, wanted: CycleRequest
) -> CycleView:
    """It starts when every earlier cycle of the experiment is finished; watch GET /v1/cycles/{id}/events."""
    experiment = catalogue.experiments.named(name)
    config = ExperimentConfig.model_validate(experiment.config)
    cycle, created = catalogue.cycles.accept(
        experiment.id, wanted.valid_time, seed=config.cycle_seed(wanted.valid_time), as_of=wanted.as_of
    )
    gateway.scheduler.nudge()
    response.status_code = HTTPStatus.ACCEPTED if created else HTTPStatus.OK
    response.headers["Location"] = f"/v1/cycles/{cycle.id}"
    return CycleView.model_validate(cycle)


@router.get("/{name}/cycles", summary="List cycles", dependencies=READ)
def list_cycles(
    catalogue: CatalogueDep,
    paging: PagingDep,
    name: Name,
    state: Annotated[CycleState | None, Query(description="Only cycles in this state.")] = None,
) -> PageOf[CycleView]:
    """In the order of valid time."""
    experiment = catalogue.experiments.named(name)
    return paging.view(catalogue.cycles.page(experiment.id, paging.limit, paging.offset, state), CycleView)


@router.get("/{name}/scores", summary="List scores", tags=["scores"], dependencies=READ)
def list_scores(
    catalogue: CatalogueDep,
    paging: PagingDep,
    name: Name,
    score: Annotated[Word, Query(alias="name", description="rmse, departure_rms, departure_bias, ...")] = None,
    field: Annotated[Word, Query(description="background, analysis or forecast")] = None,
    variable: Word = None,
    level: Annotated[float | None, Query(allow_inf_nan=False, description="hPa")] = None,
) -> PageOf[ScoreView]:
    """In the order of valid time; docs/scores.md defines every score."""
    experiment = catalogue.experiments.named(name)
    page = catalogue.scores.page(
        experiment.id, paging.limit, paging.offset, name=score, field=field, variable=variable, level=level
    )
    return paging.view(page, ScoreView)
