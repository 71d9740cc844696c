"""What routes are given: settings, catalogue, archive, the caller's role, a page."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Path, Query, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from service.api.schemas import PageOf
from service.archive import Archive
from service.catalogue import Catalogue, Page
from service.errors import ProblemError
from service.experiments import NAME_PATTERN, Utc
from service.gateway import Gateway
from service.settings import Role

View = TypeVar("View", bound=BaseModel)


def gateway_of(request: Request) -> Gateway:
    """The open gateway."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayDep = Annotated[Gateway, Depends(gateway_of)]


def catalogue_of(gateway: GatewayDep) -> Catalogue:
    """The open catalogue."""
    return gateway.catalogue


def archive_of(gateway: GatewayDep) -> Archive:
    """The archive."""
    return gateway.archive


CatalogueDep = Annotated[Catalogue, Depends(catalogue_of)]
ArchiveDep = Annotated[Archive, Depends(archive_of)]

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Name = Annotated[str, Path(pattern=NAME_PATTERN)]
Word = Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]

_bearer = HTTPBearer(auto_error=False, description="An API key as bearer token.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key.")


ReceiptTime = Annotated[
    Utc | None, Header(description="When the feed received it, for replays; otherwise the time of this request.")
]


def require(needed: Role) -> Callable[..., None]:
    """A dependency that lets callers with at least this role pass; without any configured key everyone may do all."""

    def check(
        gateway: GatewayDep,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        header: Annotated[str | None, Security(_header)],
    ) -> None:
        if not gateway.settings.keys:
            return
        given = [header or "", bearer.credentials if bearer is not None else ""]
        role = next((role for key in given if (role := role_of(gateway.settings.keys, key))), None)
        if role is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "give a valid API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                {"WWW-Authenticate": "Bearer"},
            )
        if not role.may(needed):
            raise ProblemError(HTTPStatus.FORBIDDEN, f"this needs the role {needed}; the key given has {role}")

    return check


def role_of(keys: dict[str, Role], given: str) -> Role | None:
    """The role of a key, compared in constant time."""
    found = None
    for key, role in keys.items():
        if hmac.compare_digest(key.encode(), given.encode()):
            found = role
    return found


class Paging(BaseModel):
    """Which slice of a collection is wanted."""

    limit: int
    offset: int

    def view(self, page: Page[Any], view: type[View]) -> PageOf[View]:
        """A page of rows as the API shows it."""
        items = [view.model_validate(row) for row in page.rows]
        return PageOf[View](items=items, total=page.total, limit=self.limit, offset=self.offset)


def paging(
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many items.")] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9, description="Skip so many items.")] = 0,
) -> Paging:
    """The query parameters `limit` and `offset`."""
    return Paging(limit=limit, offset=offset)


PagingDep = Annotated[Paging, Depends(paging)]
