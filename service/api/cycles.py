"""Cycles: how far they are, what they published, what they made of each observation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Header
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from service.api.dependencies import ArchiveDep, CatalogueDep, GatewayDep, Id, PagingDep, require
from service.api.schemas import CycleView, EventView, PageOf, ProductView
from service.catalogue.tables import Cycle, CycleState
from service.errors import problem_responses
from service.settings import Role

router = APIRouter(responses=problem_responses(HTTPStatus.NOT_FOUND))

READ = [Depends(require(Role.READER))]
WRITE = [Depends(require(Role.WRITER))]
CONFLICT = problem_responses(HTTPStatus.CONFLICT)
POLL_SECONDS = 0.3


def cycle_of(catalogue: CatalogueDep, cycle_id: Id) -> Cycle:
    """The cycle of the path, or 404."""
    return catalogue.cycles.get(cycle_id)


CycleDep = Annotated[Cycle, Depends(cycle_of)]


@router.get("/cycles/{cycle_id}", summary="Show a cycle", tags=["cycles"], dependencies=READ)
def show_cycle(cycle: CycleDep) -> CycleView:
    """Its state, counts and seconds by stage."""
    return CycleView.model_validate(cycle)


@router.post("/cycles/{cycle_id}/cancel", summary="Cancel", tags=["cycles"], dependencies=WRITE, responses=CONFLICT)
def cancel_cycle(catalogue: CatalogueDep, gateway: GatewayDep, cycle_id: Id) -> CycleView:
    """Stop it; a worker on it notices at its next heartbeat and can write nothing more."""
    cycle = catalogue.cycles.cancel(cycle_id)
    gateway.scheduler.nudge()
    return CycleView.model_validate(cycle)


@router.post("/cycles/{cycle_id}/retry", summary="Retry", tags=["cycles"], dependencies=WRITE, responses=CONFLICT)
def retry_cycle(catalogue: CatalogueDep, gateway: GatewayDep, cycle_id: Id) -> CycleView:
    """Run a failed, cancelled or degraded cycle again from its first stage. Its products and scores are forgotten."""
    cycle = catalogue.cycles.retry(cycle_id)
    gateway.scheduler.nudge()
    return CycleView.model_validate(cycle)


@router.get(
    "/cycles/{cycle_id}/events",
    summary="Watch a cycle",
    tags=["cycles"],
    response_class=EventSourceResponse,
    dependencies=READ,
)
async def watch_cycle(
    catalogue: CatalogueDep,
    cycle: CycleDep,
    last_event_id: Annotated[
        int, Header(ge=0, le=2**63 - 1, description="Go on after this event, as browsers do.")
    ] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events named `progress` from the cycle's beginning; the last is `end` with the cycle itself."""
    last = last_event_id
    while True:
        # The state is read before the events: what happened up to the end is then never missed.
        now = await run_in_threadpool(catalogue.cycles.get, cycle.id)
        for event in await run_in_threadpool(catalogue.cycles.events_after, cycle.id, last):
            last = event.id
            yield ServerSentEvent(data=EventView.model_validate(event), event="progress", id=str(event.id))
        if CycleState(now.state).finished:
            yield ServerSentEvent(data=CycleView.model_validate(now), event="end")
            return
        await asyncio.sleep(POLL_SECONDS)


@router.get("/cycles/{cycle_id}/products", summary="List products", tags=["products"], dependencies=READ)
def list_products(catalogue: CatalogueDep, paging: PagingDep, cycle: CycleDep) -> PageOf[ProductView]:
    """What the cycle published, in order."""
    return paging.view(catalogue.products.page(cycle.id, paging.limit, paging.offset), ProductView)


@router.get("/products/{product_id}", summary="Show a product", tags=["products"], dependencies=READ)
def show_product(catalogue: CatalogueDep, product_id: Id) -> ProductView:
    """One published file."""
    return ProductView.model_validate(catalogue.products.get(product_id))


@router.get(
    "/products/{product_id}/content",
    summary="Download a product",
    tags=["products"],
    response_class=FileResponse,
    dependencies=READ,
    responses={HTTPStatus.OK.value: {"content": {"application/octet-stream": {}}, "description": "The file"}},
)
def product_content(catalogue: CatalogueDep, archive: ArchiveDep, product_id: Id) -> FileResponse:
    """The file; its ETag is its sha256."""
    product = catalogue.products.get(product_id)
    path = archive.existing(product.path)
    headers = {"ETag": f'"{product.sha256}"'}
    return FileResponse(path, media_type="application/octet-stream", filename=path.name, headers=headers)
