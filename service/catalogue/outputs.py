"""Queries about what came out: products and scores (they are written under a lease, see leases.py)."""

from __future__ import annotations

from sqlalchemy import select

from service.catalogue.engine import Transactions
from service.catalogue.errors import NotFoundError
from service.catalogue.pages import Page, page
from service.catalogue.tables import Cycle, Product, Score


class Products:
    """Published files."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def get(self, product_id: int) -> Product:
        """By id. Raises NotFoundError."""
        with self._transactions.reading() as session:
            row = session.get(Product, product_id)
        if row is None:
            raise NotFoundError("product", product_id)
        return row

    def page(self, cycle_id: int, limit: int, offset: int) -> Page[Product]:
        """In the order of publication."""
        with self._transactions.reading() as session:
            query = select(Product).where(Product.cycle_id == cycle_id).order_by(Product.id)
            return page(session, query, Product, limit, offset)

    def find(self, cycle_id: int, kind: str, format: str, lead_hours: int = 0) -> Product | None:
        """The one product of this kind, format and lead time."""
        query = select(Product).where(
            Product.cycle_id == cycle_id,
            Product.kind == kind,
            Product.format == format,
            Product.lead_hours == lead_hours,
        )
        with self._transactions.reading() as session:
            return session.scalar(query)


class Scores:
    """Numbers about cycles."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def of_cycle(self, cycle_id: int) -> list[Score]:
        """All of one cycle."""
        with self._transactions.reading() as session:
            return list(session.scalars(select(Score).where(Score.cycle_id == cycle_id).order_by(Score.id)))

    def page(
        self,
        experiment_id: int,
        limit: int,
        offset: int,
        *,
        name: str | None = None,
        field: str | None = None,
        variable: str | None = None,
        level: float | None = None,
    ) -> Page[Score]:
        """Of an experiment, in the order of valid time."""
        query = select(Score).join(Cycle, Score.cycle_id == Cycle.id).where(Cycle.experiment_id == experiment_id)
        for column, wanted in ((Score.name, name), (Score.field, field), (Score.variable, variable)):
            if wanted is not None:
                query = query.where(column == wanted)
        if level is not None:
            query = query.where(Score.level == level)
        with self._transactions.reading() as session:
            return page(session, query.order_by(Score.valid_time, Score.id), Score, limit, offset)
