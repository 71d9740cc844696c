"""Observations out: what is stored, by valid time, as known at a time, by type, variable, station, feed and place."""

from __future__ import annotations

import tempfile
from enum import StrEnum
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from service.api.dependencies import GatewayDep, PagingDep, require
from service.api.schemas import PageOf, StoredValueView
from service.errors import UnprocessableError, problem_responses
from service.experiments import Utc
from service.observations.selection import Selection
from service.settings import Role
from service.stored_observations import StoredObservations

router = APIRouter(prefix="/observations", tags=["observations"])

PARQUET = "application/vnd.apache.parquet"
NUMBER = r"-?[0-9]{1,3}(\.[0-9]{1,12})?"
Names = Annotated[list[Annotated[str, Query(pattern=r"^[A-Za-z0-9_]{1,32}$")]], Query()]
Texts = Annotated[list[Annotated[str, Query(min_length=1, max_length=64)]], Query()]
Box = Annotated[
    str | None,
    Query(
        pattern=rf"^{NUMBER}(,{NUMBER}){{3}}$",
        description="west,south,east,north in degrees; west > east: across the date line.",
        examples=["-10,45,30,60"],
    ),
]


class Form(StrEnum):
    """A page of JSON, or the whole selection as a Parquet file."""

    JSON = "json"
    PARQUET = "parquet"


def selection(
    start: Annotated[Utc | None, Query(description="First valid time.")] = None,
    end: Annotated[Utc | None, Query(description="Valid times before this one.")] = None,
    as_of: Annotated[Utc | None, Query(description="Only what had been received by then.")] = None,
    type: Names = [],  # noqa: B006
    variable: Names = [],  # noqa: B006
    station: Texts = [],  # noqa: B006
    source: Texts = [],  # noqa: B006
    box: Box = None,
) -> Selection:
    """The query parameters that choose values; of repeated ones any may hold."""
    return Selection(
        start, end, as_of, tuple(type), tuple(variable), tuple(station), tuple(source), _corners(box)
    )  # fmt: skip


def _corners(box: str | None) -> tuple[float, float, float, float] | None:
    if box is None:
        return None
    west, south, east, north = map(float, box.split(","))
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise UnprocessableError(f"box {box} is not west,south,east,north within [-180, 180] and [-90, 90] degrees")
    return west, south, east, north


@router.get(
    "",
    summary="Find values",
    response_model=PageOf[StoredValueView],
    dependencies=[Depends(require(Role.READER))],
    responses={
        HTTPStatus.OK.value: {
            "content": {PARQUET: {"schema": {"type": "string", "format": "binary"}}},
            "description": "A page of values; with format=parquet all of them as one file",
        },
        **problem_responses(HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def find_observations(
    gateway: GatewayDep,
    paging: PagingDep,
    wanted: Annotated[Selection, Depends(selection)],
    format: Annotated[Form, Query(description="parquet: everything that is selected, without pages.")] = Form.JSON,
) -> Response | PageOf[StoredValueView]:
    """By valid day and type, then as they came. Every feed's report of a value is there: duplicates are the cycle's."""
    stored = StoredObservations(gateway.catalogue, gateway.archive)
    if format is Form.PARQUET:
        return _file(stored, wanted, gateway.settings.incoming_dir)
    page = stored.page(wanted, paging.limit, paging.offset)
    items = [StoredValueView.model_validate(row) for row in page.rows]
    return PageOf[StoredValueView](items=items, total=page.total, limit=paging.limit, offset=paging.offset)


def _file(stored: StoredObservations, wanted: Selection, folder: Path) -> FileResponse:
    with tempfile.NamedTemporaryFile(dir=folder, prefix="answer-", suffix=".parquet", delete=False) as out:
        path = Path(out.name)
    try:
        stored.write(wanted, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    remove = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=PARQUET, filename="observations.parquet", background=remove)
