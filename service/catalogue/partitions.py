"""Queries about the files that observations are in."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, and_, or_, select

from service.catalogue.engine import Transactions
from service.catalogue.tables import Batch, Partition


class Partitions:
    """One row per file of a batch: valid day, report type, spans of valid and receipt time."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def of_batch(self, batch_id: int) -> list[Partition]:
        """In the order of days and types."""
        with self._transactions.reading() as session:
            return list(session.scalars(select(Partition).where(Partition.batch_id == batch_id).order_by(Partition.id)))

    def holding(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        as_of: datetime | None = None,
        types: Collection[str] = (),
    ) -> list[Partition]:
        """Those that may hold values with start <= valid time < end, receipt time <= as_of, of these types (none: all).

        In the order of days; of one day by type, and then as the batches came. Rows still have to be looked at.
        """
        query = _at(select(Partition).join(Batch, Batch.id == Partition.batch_id), start, end)
        if as_of is not None:
            query = query.where(or_(Partition.receipt_min.is_(None), Partition.receipt_min <= as_of))
        if types:
            query = query.where(or_(Partition.type.is_(None), Partition.type.in_(types)))
        # null, of several days, comes first everywhere
        query = query.order_by(
            Partition.day.is_not(None), Partition.day, Partition.type, Batch.received_at, Batch.id, Partition.id
        )
        with self._transactions.reading() as session:
            return list(session.scalars(query))


def _at(query: Select[Any], start: datetime | None, end: datetime | None) -> Select[Any]:
    days = []
    if start is not None:
        query = query.where(Partition.time_max >= start)
        days.append(Partition.day >= start.astimezone(UTC).date())
    if end is not None:
        query = query.where(Partition.time_min < end)
        days.append(Partition.day <= end.astimezone(UTC).date())
    # the spans say it all; the day is what has an index
    return query.where(or_(Partition.day.is_(None), and_(*days))) if days else query


def undivided(batch: Batch) -> list[Partition]:
    """The one file of a batch that was not partitioned."""
    if batch.path is None or batch.time_min is None or batch.time_max is None:
        return []
    rows = batch.received - batch.rejected
    return [Partition(path=batch.path, rows=rows, time_min=batch.time_min, time_max=batch.time_max)]
