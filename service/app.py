"""The gateway as an ASGI application and as a server. Nothing is opened before the application starts."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.announcing import CeleryPublisher
from service.api import (
    cycles,
    departures,
    experiments,
    fields,
    health,
    observation_configuration,
    observations,
    shadows,
    stored_observations,
    stories,
)
from service.errors import Problem, install_error_handlers, problem_response, problem_responses
from service.gateway import Gateway
from service.metrics import RequestTimer
from service.scheduling import Pace, Publish
from service.settings import Settings, is_loopback

if TYPE_CHECKING:
    from uvicorn import Server

PREFIX = "/v1"
SHUTDOWN_SECONDS = 3  # event streams may last for minutes; they are cut after this
COMMON = problem_responses(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.SERVICE_UNAVAILABLE,
)


def create_app(settings: Settings, publish: Publish | None = None, pace: Pace | None = None) -> FastAPI:
    """The application. `publish(cycle_id)` announces a cycle to the workers; by default through Celery's broker."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        publisher = CeleryPublisher(settings.broker_url) if publish is None else None
        gateway = Gateway.open(settings, publish or publisher, pace)  # type: ignore[arg-type]
        app.state.gateway = gateway
        try:
            yield
        finally:
            gateway.close()
            if publisher is not None:
                publisher.close()

    app = FastAPI(
        title="alignda",
        summary="Generative data assimilation: observations in, analyses and forecasts out, cycle after cycle.",
        version=installed_version(),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
    )
    app.add_middleware(RequestTimer)
    if not settings.keys:
        app.add_middleware(OwnMachineOnly)
    install_error_handlers(app)
    for module in (
        observations, stored_observations, fields, experiments, observation_configuration, cycles, departures, stories,
        shadows,
    ):  # fmt: skip
        app.include_router(module.router, prefix=PREFIX, responses=COMMON)
    app.include_router(health.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def from_environment() -> FastAPI:
    """For `uvicorn --factory service.app:from_environment`."""
    return create_app(Settings())


def make_server(settings: Settings, publish: Publish | None = None, pace: Pace | None = None) -> Server:
    """A uvicorn server (httptools parser); `.run()` blocks, `.should_exit = True` ends it."""
    import uvicorn

    config = uvicorn.Config(
        create_app(settings, publish, pace),
        host=settings.host,
        port=settings.port,
        http="httptools",
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    return uvicorn.Server(config)


def installed_version() -> str:
    """The version of the distribution, or of a checkout that is not installed."""
    try:
        return version("alignda")
    except PackageNotFoundError:
        return "0.0.0"


class OwnMachineOnly:
    """Without API keys only programs of this machine may call. A web page in a browser of this machine is not one of
    them: it shows by a foreign Origin, or by a foreign name in Host (DNS rebinding)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse with 403 or pass on."""
        if scope["type"] == "http":
            request = Request(scope)
            origin = request.headers.get("origin")
            for name in (f"//{request.headers.get('host', '')}", origin):
                if name is not None and not is_loopback(_host_of(name)):
                    detail = "without API keys the gateway answers only to programs of its own machine"
                    await problem_response(request, HTTPStatus.FORBIDDEN, detail)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            license_info=app.license_info,
            routes=app.routes,
        )
        schemas = document["components"]["schemas"]
        # Errors are problems, not FastAPI's own form.
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(problem.pop("$defs"))
        schemas["Problem"] = problem
        app.openapi_schema = document
    return app.openapi_schema
