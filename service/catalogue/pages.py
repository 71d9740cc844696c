"""A page of a collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """A slice of a collection and the size of the whole."""

    rows: list[Row]
    total: int


def page(session: Session, query: Select[Any], entity: type[Row], limit: int, offset: int) -> Page[Row]:
    """Rows `offset .. offset + limit` of an ordered query of one `entity`."""
    total = session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    return Page([row for row in session.scalars(query.limit(limit).offset(offset)) if isinstance(row, entity)], total)
