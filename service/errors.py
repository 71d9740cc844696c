"""Problem details for HTTP APIs (RFC 9457): every error leaves as application/problem+json with the same words
that the exception carries. The exceptions of the rooms are mapped to a status in one table.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from service.archive import ArchiveError
from service.catalogue import ConflictError, NotFoundError
from service.settings import SettingsError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:alignda:problem:"

log = logging.getLogger(__name__)


class InvalidPart(BaseModel):
    """One part of a request that was refused."""

    location: list[str | int]
    message: str


class Problem(BaseModel):
    """What went wrong, where, and what to do (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[InvalidPart] | None = None


class ProblemError(Exception):
    """Raised where a request is refused for a reason of HTTP itself (size, media type, key)."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


class UnprocessableError(ProblemError):
    """The content cannot be used, for the reason given."""

    def __init__(self, detail: str) -> None:
        super().__init__(HTTPStatus.UNPROCESSABLE_ENTITY, detail)


class UnsupportedMediaTypeError(ProblemError):
    """The content is of no format that is accepted here."""

    def __init__(self, detail: str) -> None:
        super().__init__(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)


STATUS_OF: dict[type[Exception], HTTPStatus] = {
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    SettingsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ArchiveError: HTTPStatus.INTERNAL_SERVER_ERROR,
}


def title_of(status: HTTPStatus) -> str:
    """The name of a status in RFC 9110; Python's own phrases changed between its versions."""
    return {413: "Content Too Large", 422: "Unprocessable Content"}.get(status.value, status.phrase)


def problem_response(
    request: Request,
    status: HTTPStatus,
    detail: str,
    *,
    errors: list[InvalidPart] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A problem as a response."""
    title = title_of(status)
    problem = Problem(
        type=TYPE_PREFIX + title.lower().replace(" ", "-"),
        title=title,
        status=status.value,
        detail=detail,
        instance=request.url.path,
        errors=errors,
    )
    content = problem.model_dump(exclude_none=True)
    return JSONResponse(content, status.value, dict(headers or {}), media_type=MEDIA_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of `app` a problem."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ProblemError)
        return problem_response(request, error.status, error.detail, headers=error.headers)

    async def mapped(request: Request, error: Exception) -> JSONResponse:
        status = next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)
        return problem_response(request, status, str(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
        detail = str(error.detail)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            # The router knows only the first route of a path.
            headers["Allow"] = ", ".join(methods_of(app.openapi(), request.url.path)) or headers.get("Allow", "")
            detail = f"{request.method} is not possible here; use {headers['Allow']}"
        return problem_response(request, status, detail, headers=headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        parts = [InvalidPart(location=list(part["loc"]), message=str(part["msg"])) for part in error.errors()]
        detail = "; ".join(f"{'.'.join(map(str, part.location))}: {part.message}" for part in parts)
        return problem_response(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=parts)

    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        log.error("the catalogue cannot be reached: %s", error)
        detail = "the catalogue cannot be reached or is busy; try again in a few seconds"
        return problem_response(request, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("unexpected error at %s %s", request.method, request.url.path, exc_info=error)
        detail = "an unexpected error was logged by the gateway; report it with the time of this response"
        return problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)

    app.add_exception_handler(ProblemError, refused)
    for kind in STATUS_OF:
        app.add_exception_handler(kind, mapped)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    for unreachable in (OperationalError, InterfaceError, PoolTimeout):
        app.add_exception_handler(unreachable, unavailable)
    app.add_exception_handler(Exception, unexpected)


def methods_of(document: Mapping[str, Any], path: str) -> list[str]:
    """The methods that an OpenAPI document has for a path, in upper case."""
    found = set()
    for template, operations in document["paths"].items():
        pattern = "[^/]+".join(re.escape(part) for part in re.split(r"\{[^}]*\}", template))
        if re.fullmatch(pattern, path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def problem_responses(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI entries of problems, for `responses=` of a route."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status.value: {"description": title_of(status), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }
