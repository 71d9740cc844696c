"""Queries about what was put in: experiments, batches of observations, posted fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.catalogue.cycles import announce_next, announce_unverified
from service.catalogue.engine import Transactions
from service.catalogue.errors import ConflictError, NotFoundError
from service.catalogue.pages import Page, page
from service.catalogue.partitions import undivided
from service.catalogue.tables import Batch, Cycle, Experiment, ExperimentState, Field, FieldPurpose, Partition


class Experiments:
    """Named cycling configurations."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def create(self, name: str, config: dict[str, Any], bundle: str) -> Experiment:
        """A new experiment. Raises ConflictError when the name is taken."""
        row = Experiment(name=name, config=config, bundle=bundle, state=ExperimentState.ACTIVE)
        row.created_at = self._transactions.clock()
        try:
            with self._transactions.writing() as session:
                session.add(row)
        except IntegrityError as error:
            raise ConflictError(f"an experiment named {name!r} exists already; choose another name") from error
        return row

    def get(self, experiment_id: int) -> Experiment:
        """By id. Raises NotFoundError."""
        with self._transactions.reading() as session:
            row = session.get(Experiment, experiment_id)
        if row is None:
            raise NotFoundError("experiment", experiment_id)
        return row

    def named(self, name: str) -> Experiment:
        """By name. Raises NotFoundError."""
        with self._transactions.reading() as session:
            return _experiment_named(session, name)

    def page(self, limit: int, offset: int) -> Page[Experiment]:
        """In the order of creation."""
        with self._transactions.reading() as session:
            return page(session, select(Experiment).order_by(Experiment.id), Experiment, limit, offset)

    def all(self) -> list[Experiment]:
        """In the order of creation."""
        with self._transactions.reading() as session:
            return list(session.scalars(select(Experiment).order_by(Experiment.id)))

    def active(self) -> list[Experiment]:
        """All that may start cycles."""
        with self._transactions.reading() as session:
            query = select(Experiment).where(Experiment.state == ExperimentState.ACTIVE).order_by(Experiment.id)
            return list(session.scalars(query))

    def reconfigure(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Experiment:
        """Replace the configuration by what `change` makes of it, in one transaction; what it raises changes nothing.

        Raises NotFoundError.
        """
        with self._transactions.writing() as session:
            row = _experiment_named(session, name)
            row.config = change(row.config)
        return row

    def set_state(self, name: str, state: ExperimentState) -> Experiment:
        """Suspend or resume; on resuming, the earliest cycle that can start is announced to the workers."""
        with self._transactions.writing() as session:
            row = _experiment_named(session, name)
            row.state = state
            session.flush()
            if state is ExperimentState.ACTIVE:
                announce_next(session, row.id, self._transactions.clock())
        return row


def _experiment_named(session: Session, name: str) -> Experiment:
    row = session.scalar(select(Experiment).where(Experiment.name == name))
    if row is None:
        raise NotFoundError("experiment", name)
    return row


class Batches:
    """Uploads of observations, one row per distinct content."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, batch: Batch, partitions: Sequence[Partition] = ()) -> tuple[Batch, bool]:
        """Store with its files, or return what the same bytes gave before. Returns (row, created)."""
        try:
            with self._transactions.writing() as session:
                session.add(batch)
                session.flush()
                for partition in partitions or undivided(batch):
                    partition.batch_id = batch.id
                    session.add(partition)
        except IntegrityError:
            known = self.with_content(batch.sha256)
            if known is None:
                raise
            return known, False
        return batch, True

    def with_content(self, sha256: str) -> Batch | None:
        """The batch of these bytes, if they came before."""
        with self._transactions.reading() as session:
            return session.scalar(select(Batch).where(Batch.sha256 == sha256))

    def get(self, batch_id: int) -> Batch:
        """By id. Raises NotFoundError."""
        with self._transactions.reading() as session:
            row = session.get(Batch, batch_id)
        if row is None:
            raise NotFoundError("batch", batch_id)
        return row

    def page(self, limit: int, offset: int, source: str | None = None) -> Page[Batch]:
        """Newest first."""
        query = select(Batch).order_by(Batch.id.desc())
        if source is not None:
            query = query.where(Batch.source == source)
        with self._transactions.reading() as session:
            return page(session, query, Batch, limit, offset)

    def totals(self) -> list[tuple[str, str, int]]:
        """(source, status, number of batches)."""
        query = select(Batch.source, Batch.status, func.count()).group_by(Batch.source, Batch.status)
        with self._transactions.reading() as session:
            return [(source, status, count) for source, status, count in session.execute(query)]


class Fields:
    """Posted backgrounds and verifications."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def add(self, field: Field) -> tuple[Field, bool]:
        """Store, or return what the same bytes for the same purpose gave before. Returns (row, created).

        A verification announces the completed cycles of its valid time to the workers, in the same transaction.
        """
        try:
            with self._transactions.writing() as session:
                session.add(field)
                if field.purpose == FieldPurpose.VERIFICATION:
                    now = self._transactions.clock()
                    announce_unverified(session, now, Cycle.valid_time == field.valid_time)
        except IntegrityError:
            known = self.with_content(field.sha256, FieldPurpose(field.purpose), field.experiment_id, field.lead_hours)
            if known is None:
                raise
            return known, False
        return field, True

    def with_content(
        self, sha256: str, purpose: FieldPurpose, experiment_id: int | None, lead_hours: int | None
    ) -> Field | None:
        """The field of these bytes for this purpose, if it came before."""
        query = select(Field).where(
            Field.sha256 == sha256,
            Field.purpose == purpose,
            Field.experiment_id.is_not_distinct_from(experiment_id),
            Field.lead_hours.is_not_distinct_from(lead_hours),
        )
        with self._transactions.reading() as session:
            return session.scalar(query)

    def get(self, field_id: int) -> Field:
        """By id. Raises NotFoundError."""
        with self._transactions.reading() as session:
            row = session.get(Field, field_id)
        if row is None:
            raise NotFoundError("field", field_id)
        return row

    def page(self, purpose: FieldPurpose, limit: int, offset: int, experiment_id: int | None = None) -> Page[Field]:
        """Newest valid time first."""
        query = select(Field).where(Field.purpose == purpose).order_by(Field.valid_time.desc(), Field.id.desc())
        if experiment_id is not None:
            query = query.where(Field.experiment_id == experiment_id)
        with self._transactions.reading() as session:
            return page(session, query, Field, limit, offset)

    def background(self, experiment_id: int, valid_time: datetime, as_of: datetime | None = None) -> Field | None:
        """The field posted last as this experiment's background for this time (and, if given, by `as_of`)."""
        query = select(Field).where(Field.experiment_id == experiment_id)
        return self._newest(query, FieldPurpose.BACKGROUND, valid_time, as_of)

    def verification(self, valid_time: datetime) -> Field | None:
        """The field posted last to verify this time."""
        return self._newest(select(Field), FieldPurpose.VERIFICATION, valid_time, None)

    def _newest(
        self, query: Select[Field], purpose: FieldPurpose, valid_time: datetime, as_of: datetime | None
    ) -> Field | None:
        query = query.where(Field.purpose == purpose, Field.valid_time == valid_time)
        if as_of is not None:
            query = query.where(Field.received_at <= as_of)
        with self._transactions.reading() as session:
            rows: Sequence[Field] = session.scalars(query.order_by(Field.id.desc()).limit(1)).all()
        return rows[0] if rows else None
