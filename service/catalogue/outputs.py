"""Queries about what came out: products and scores (they are written under a lease, see leases.py)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from service.catalogue.engine import Transactions
from service.catalogue.errors import NotFoundError
from service.catalogue.pages import Page, page
from service.catalogue.tables import Cycle, Product, Score

IN_A_QUERY = 500  # ids; databases limit the number of parameters


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

    def of_experiment(
        self,
        experiment_id: int | None,
        kind: str,
        format: str,
        start: datetime | None = None,
        end: datetime | None = None,
        at_most: int | None = None,
    ) -> list[tuple[Cycle, Product]]:
        """Each cycle with its product of this kind at lead time 0, start <= valid time < end, in the order of valid time;
        of more than `at_most` the newest. Without `experiment_id` of all experiments."""
        query = (
            select(Cycle, Product)
            .join(Product, Product.cycle_id == Cycle.id)
            .where(
                Product.kind == kind,
                Product.format == format,
                Product.lead_hours == 0,
            )
            .order_by(Cycle.valid_time.desc(), Cycle.id.desc())
        )
        if experiment_id is not None:
            query = query.where(Cycle.experiment_id == experiment_id)
        if start is not None:
            query = query.where(Cycle.valid_time >= start)
        if end is not None:
            query = query.where(Cycle.valid_time < end)
        with self._transactions.reading() as session:
            found = [(cycle, product) for cycle, product in session.execute(query.limit(at_most))]
        return found[::-1]

    def next_after(self, cycle: Cycle, kind: str, format: str) -> tuple[Cycle, Product] | None:
        """The first later cycle of the experiment that has a product of this kind, with it."""
        query = (
            select(Cycle, Product)
            .join(Product, Product.cycle_id == Cycle.id)
            .where(
                Cycle.experiment_id == cycle.experiment_id,
                Cycle.valid_time > cycle.valid_time,
                Product.kind == kind,
                Product.format == format,
            )
            .order_by(Cycle.valid_time)
            .limit(1)
        )
        with self._transactions.reading() as session:
            return next(((later, product) for later, product in session.execute(query)), None)


class Scores:
    """Numbers about cycles."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def of_cycle(self, cycle_id: int) -> list[Score]:
        """All of one cycle."""
        with self._transactions.reading() as session:
            return list(session.scalars(select(Score).where(Score.cycle_id == cycle_id).order_by(Score.id)))

    def of_cycles(
        self, cycle_ids: Sequence[int], names: Sequence[str], field: str | None = None, variable: str | None = None
    ) -> list[Score]:
        """Those of these names (and of this field and variable) of each of the cycles."""
        found: list[Score] = []
        with self._transactions.reading() as session:
            for first in range(0, len(cycle_ids), IN_A_QUERY):
                some = cycle_ids[first : first + IN_A_QUERY]
                query = select(Score).where(Score.cycle_id.in_(some), Score.name.in_(names))
                for column, wanted in ((Score.field, field), (Score.variable, variable)):
                    if wanted is not None:
                        query = query.where(column == wanted)
                found += session.scalars(query)
        return found

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
