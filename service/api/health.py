"""Is the process alive, can it serve, and what does Prometheus see."""

from __future__ import annotations

import os
import time
from http import HTTPStatus

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError

from service.api.dependencies import GatewayDep, require
from service.api.schemas import Health, Readiness
from service.errors import problem_responses
from service.settings import Role

router = APIRouter(tags=["health"])

PATIENCE_SECONDS = 60.0


@router.get("/healthz", summary="Liveness")
def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Readiness",
    response_model=Readiness,
    responses={HTTPStatus.SERVICE_UNAVAILABLE.value: {"model": Readiness, "description": "Not ready"}},
)
def readyz(gateway: GatewayDep) -> JSONResponse:
    """Whether requests can be served. A dead broker does not make the gateway unready: accepted work waits in the
    outbox, and the check named `announcing` says so."""
    scheduler = gateway.scheduler
    checks = {"catalogue": "ok", "archive": "ok", "scheduler": "ok", "announcing": scheduler.last_error or "ok"}
    try:
        gateway.catalogue.ping()
    except SQLAlchemyError as error:
        checks["catalogue"] = type(error).__name__
    if not os.access(gateway.archive.root, os.W_OK):
        checks["archive"] = "not writable"
    silent = scheduler.last_attempt is None or time.monotonic() - scheduler.last_attempt > PATIENCE_SECONDS
    if not scheduler.alive or silent:
        checks["scheduler"] = "not running"
    ready = all(checks[part] == "ok" for part in ("catalogue", "archive", "scheduler"))
    status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(Readiness(ready=ready, checks=checks).model_dump(), status.value)


@router.get(
    "/metrics",
    summary="Metrics",
    response_class=PlainTextResponse,
    dependencies=[Depends(require(Role.READER))],
    responses=problem_responses(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE),
)
def metrics(gateway: GatewayDep) -> Response:
    """Skill, work and requests in Prometheus' text format; docs/scores.md defines every score."""
    return Response(generate_latest(gateway.registry), media_type=CONTENT_TYPE_LATEST)
