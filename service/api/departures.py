"""What cycles made of the observations: every value, of one cycle or of an experiment, and their statistics."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi import Query as Parameter
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from service import departure_statistics
from service.api.cycles import CycleDep
from service.api.dependencies import ArchiveDep, CatalogueDep, GatewayDep, Name, PagingDep, Word, require
from service.api.schemas import CycleDepartureView, DepartureStatisticsView, DepartureView, PageOf
from service.archive import Archive
from service.catalogue import Catalogue, NotFoundError
from service.catalogue.tables import Cycle
from service.departure_files import write_file
from service.departures import Box, Query, read_files
from service.errors import UnprocessableError, problem_responses
from service.experiments import Utc
from service.settings import Role

router = APIRouter(tags=["departures"], responses=problem_responses(HTTPStatus.NOT_FOUND))

READ = [Depends(require(Role.READER))]
WIDEST_WINDOW = timedelta(hours=12)  # half of the longest that an experiment can have
MOST_CYCLES = 2000
MOST_ROWS = 10_000_000
MEDIA_TYPES = {"parquet": "application/vnd.apache.parquet", "csv": "text/csv"}
Hpa = Annotated[float | None, Parameter(ge=0, le=2000, allow_inf_nan=False, description="hPa")]


def query(
    type: Word = None,
    variable: Word = None,
    station: Word = None,
    source: Word = None,
    reason: Annotated[Word, Parameter(description="A name such as FIRST_GUESS.")] = None,
    level_min: Hpa = None,
    level_max: Hpa = None,
    bbox: Annotated[
        str | None,
        Parameter(max_length=100, description="west,south,east,north in degrees; across the date line if west > east"),
    ] = None,
    start: Annotated[Utc | None, Parameter(description="Valid at or after this.")] = None,
    end: Annotated[Utc | None, Parameter(description="Valid before this.")] = None,
) -> Query:
    """Which values are wanted."""
    try:
        box = Box.parse(bbox) if bbox is not None else None
    except ValueError as error:
        raise UnprocessableError(f"bbox: {error}") from error
    wanted = Query(type, variable, station, source, reason, level_min, level_max, box, start, end)
    try:
        wanted.condition()
    except KeyError as error:
        raise UnprocessableError(f"there is no reason {reason!r}: use a name such as DUPLICATE") from error
    return wanted


QueryDep = Annotated[Query, Depends(query)]


@router.get("/cycles/{cycle_id}/departures", summary="List departures", dependencies=READ)
def list_departures(
    catalogue: CatalogueDep, archive: ArchiveDep, paging: PagingDep, cycle: CycleDep, wanted: QueryDep
) -> PageOf[DepartureView]:
    """Every observed value that the cycle saw, with O-B, O-A, influence and its reason code; rejected ones too."""
    path = _of_cycle(catalogue, archive, cycle, "departures")
    rows, total = read_files([path], paging.limit, paging.offset, wanted)
    items = [DepartureView.model_validate(row) for row in rows]
    return PageOf[DepartureView](items=items, total=total, limit=paging.limit, offset=paging.offset)


@router.get("/experiments/{name}/departures", summary="List departures of all cycles", dependencies=READ)
def list_all_departures(
    catalogue: CatalogueDep, archive: ArchiveDep, paging: PagingDep, name: Name, wanted: QueryDep
) -> PageOf[CycleDepartureView]:
    """In the order of the cycles; `start` and `end` also say which cycles are looked at (2000 at most)."""
    found = _of_experiment(catalogue, archive, name, wanted)
    rows, total = read_files([path for _, path in found], paging.limit, paging.offset, wanted)
    items = [
        CycleDepartureView.model_validate({**row, "cycle_id": cycle.id, "valid_time": cycle.valid_time})
        for row in rows
        for cycle, _ in [found[row["file"]]]
    ]
    return PageOf[CycleDepartureView](items=items, total=total, limit=paging.limit, offset=paging.offset)


@router.get(
    "/experiments/{name}/departures/file",
    summary="Download departures",
    response_class=FileResponse,
    dependencies=READ,
    responses={
        HTTPStatus.OK.value: {"content": {kind: {} for kind in MEDIA_TYPES.values()}, "description": "The file"}
    },
)
def departures_file(
    catalogue: CatalogueDep,
    archive: ArchiveDep,
    gateway: GatewayDep,
    name: Name,
    wanted: QueryDep,
    format: Literal["parquet", "csv"] = "parquet",
    cycle: Annotated[int | None, Parameter(ge=1, le=2**63 - 1, description="Only this cycle.")] = None,
) -> FileResponse:
    """The same values in one file, with the columns `cycle_id` and `valid_time` (10 million rows at most)."""
    found = [(one, path) for one, path in _of_experiment(catalogue, archive, name, wanted) if cycle in (None, one.id)]
    _, total = read_files([path for _, path in found], 0, 0, wanted)
    if total > MOST_ROWS:
        raise UnprocessableError(f"{total} rows match, at most {MOST_ROWS} go into a file: narrow `start` and `end`")
    handle, file = tempfile.mkstemp(prefix="departures-", dir=gateway.settings.incoming_dir)
    os.close(handle)
    try:
        write_file(Path(file), format, [(one.id, one.valid_time, path) for one, path in found], wanted)
    except BaseException:
        Path(file).unlink(missing_ok=True)
        raise
    gone = BackgroundTask(Path(file).unlink, missing_ok=True)
    return FileResponse(file, media_type=MEDIA_TYPES[format], filename=f"{name}-departures.{format}", background=gone)


Words = Annotated[str | None, Parameter(pattern=r"^[A-Za-z0-9_.-]{0,32}$", description='"" is all together.')]


def groups(
    use: Words = None, type: Words = None, variable: Words = None, layer: Words = None, region: Words = None
) -> dict[str, str | None]:
    """Which groups are wanted; None: each."""
    return {"use": use, "type": type, "variable": variable, "layer": layer, "region": region}


GroupsDep = Annotated[dict[str, str | None], Depends(groups)]


@router.get("/cycles/{cycle_id}/departure-statistics", summary="List statistics of departures", dependencies=READ)
def list_statistics(
    catalogue: CatalogueDep, archive: ArchiveDep, paging: PagingDep, cycle: CycleDep, wanted: GroupsDep
) -> PageOf[DepartureStatisticsView]:
    """By use, type, variable, layer and region: count, bias, RMS, errors assumed and diagnosed, chi-square, DFS."""
    path = _of_cycle(catalogue, archive, cycle, departure_statistics.KIND)
    return _statistics(paging, [(cycle, path)], wanted)


@router.get(
    "/experiments/{name}/departure-statistics", summary="List statistics of departures over time", dependencies=READ
)
def list_statistics_series(
    catalogue: CatalogueDep,
    archive: ArchiveDep,
    paging: PagingDep,
    name: Name,
    wanted: GroupsDep,
    start: Annotated[Utc | None, Parameter(description="Cycles valid at or after this.")] = None,
    end: Annotated[Utc | None, Parameter(description="Cycles valid before this.")] = None,
    cycles: Annotated[int, Parameter(ge=1, le=MOST_CYCLES, description="At most so many of the newest cycles.")] = 40,
) -> PageOf[DepartureStatisticsView]:
    """In the order of valid time."""
    experiment = catalogue.experiments.named(name)
    found = catalogue.products.of_experiment(experiment.id, departure_statistics.KIND, "parquet", start, end, cycles)
    return _statistics(paging, [(cycle, archive.existing(product.path)) for cycle, product in found], wanted)


def _statistics(
    paging: PagingDep, files: list[tuple[Cycle, Path]], wanted: dict[str, str | None]
) -> PageOf[DepartureStatisticsView]:
    rows: list[dict[str, Any]] = []
    for cycle, path in files:
        found = departure_statistics.read_statistics(path, **wanted)
        rows += [{**row, "cycle_id": cycle.id, "valid_time": cycle.valid_time} for row in found]
    items = [DepartureStatisticsView.model_validate(row) for row in rows[paging.offset : paging.offset + paging.limit]]
    return PageOf[DepartureStatisticsView](items=items, total=len(rows), limit=paging.limit, offset=paging.offset)


def _of_cycle(catalogue: Catalogue, archive: Archive, cycle: Cycle, kind: str) -> Path:
    product = catalogue.products.find(cycle.id, kind, "parquet")
    if product is None:
        raise NotFoundError(f"{kind.replace('_', ' ')} file of cycle", cycle.id)
    return archive.existing(product.path)


def _of_experiment(catalogue: Catalogue, archive: Archive, name: str, wanted: Query) -> list[tuple[Cycle, Path]]:
    """The cycles whose windows may hold values of [start, end), with their files."""
    start, end = _moved(wanted.start, -WIDEST_WINDOW), _moved(wanted.end, WIDEST_WINDOW)
    experiment = catalogue.experiments.named(name)
    found = catalogue.products.of_experiment(experiment.id, "departures", "parquet", start, end, MOST_CYCLES + 1)
    if len(found) > MOST_CYCLES:
        raise UnprocessableError(f"more than {MOST_CYCLES} cycles: narrow `start` and `end`")
    return [(cycle, archive.existing(product.path)) for cycle, product in found]


def _moved(moment: datetime | None, by: timedelta) -> datetime | None:
    return None if moment is None else moment + by
