"""Queries about cycles: accepting, reading, cancelling, retrying, and which may start.

An experiment's cycles run in the order of their valid times: one may start when it is past its cut-off, its
experiment is active, no one holds it and no earlier cycle of the experiment is unfinished.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from service.catalogue.engine import Transactions
from service.catalogue.errors import ConflictError, NotFoundError
from service.catalogue.pages import Page, page
from service.catalogue.tables import (
    COMPLETED,
    FINISHED,
    UNFINISHED,
    Cycle,
    CycleState,
    Event,
    Experiment,
    ExperimentState,
    Field,
    FieldPurpose,
    OutboxMessage,
    Product,
    Score,
)

RETRIABLE = frozenset({CycleState.FAILED, CycleState.CANCELLED, CycleState.DEGRADED})


def unheld(now: datetime) -> ColumnElement[bool]:
    """No one's lease, or one that ran out."""
    return or_(Cycle.lease_owner.is_(None), Cycle.lease_expires_at < now)


def due(now: datetime) -> ColumnElement[bool]:
    """Unfinished, past the cut-off, of an active experiment."""
    return and_(
        Cycle.state.in_(UNFINISHED),
        or_(Cycle.cutoff_at.is_(None), Cycle.cutoff_at <= now),
        exists().where(Experiment.id == Cycle.experiment_id, Experiment.state == ExperimentState.ACTIVE),
    )


def startable(now: datetime) -> ColumnElement[bool]:
    """Due, and every earlier cycle of the experiment is finished (held or not: see `unheld`)."""
    earlier = aliased(Cycle)
    return and_(
        due(now),
        ~exists().where(
            earlier.experiment_id == Cycle.experiment_id,
            earlier.valid_time < Cycle.valid_time,
            earlier.state.in_(UNFINISHED),
        ),
    )


def unverified() -> ColumnElement[bool]:
    """Completed, and a newer verification was posted than the one that the cycle was last verified with."""
    return and_(
        Cycle.state.in_(COMPLETED),
        exists().where(
            Field.purpose == FieldPurpose.VERIFICATION,
            Field.valid_time == Cycle.valid_time,
            Field.id > func.coalesce(Cycle.verified_with, 0),
        ),
    )


def announce_next(session: Session, experiment_id: int, now: datetime, only: int | None = None) -> None:
    """Put the experiment's next startable cycle, if any (and if it is `only`), into this transaction's outbox."""
    which = [Cycle.experiment_id == experiment_id, startable(now)]
    if only is not None:
        which.append(Cycle.id == only)
    _announce(session, now, which)


def announce_unverified(session: Session, now: datetime, *which: ColumnElement[bool]) -> None:
    """Put those of these completed cycles that a newer verification is there for into this transaction's outbox."""
    _announce(session, now, [unverified(), *which])


def _announce(session: Session, now: datetime, which: list[ColumnElement[bool]]) -> None:
    session.flush()
    pending = exists().where(OutboxMessage.cycle_id == Cycle.id, OutboxMessage.published_at.is_(None))
    for cycle_id in session.scalars(select(Cycle.id).where(*which, unheld(now), ~pending).order_by(Cycle.valid_time)):
        session.add(OutboxMessage(cycle_id=cycle_id, created_at=now, attempts=0))


def free_lease(session: Session, cycle: Cycle) -> None:
    """Take the cycle away from whoever holds it: the next fencing token makes their writes stale."""
    cycle.fencing_token = cycle.fencing_token + 1
    cycle.lease_owner = None
    cycle.lease_expires_at = None
    session.flush()


def forget_results(session: Session, cycle: Cycle) -> None:
    """Back before the first stage: what an earlier attempt found and published must not mix with what the next one does.

    Only rows go; the files stay in the archive.
    """
    cycle.stage = None
    cycle.degraded, cycle.counts, cycle.seconds, cycle.background = [], {}, {}, None
    cycle.verified_with, cycle.verify_attempt = None, 0
    for results in (Product, Score):
        session.execute(delete(results).where(results.cycle_id == cycle.id))


class Cycles:
    """Valid times of experiments and how far they are."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions

    def accept(
        self,
        experiment_id: int,
        valid_time: datetime,
        *,
        seed: int,
        as_of: datetime | None = None,
        cutoff_at: datetime | None = None,
    ) -> tuple[Cycle, bool]:
        """A cycle for this valid time, or the one that exists. Returns (cycle, created).

        The announcement to the workers is committed in the same transaction.
        """
        now = self._transactions.clock()
        cycle = Cycle(
            experiment_id=experiment_id,
            valid_time=valid_time,
            state=CycleState.WAITING,
            seed=seed,
            as_of=as_of,
            cutoff_at=cutoff_at,
            created_at=now,
        )
        try:
            with self._transactions.writing() as session:
                session.add(cycle)
                session.flush()
                message = "accepted" if cutoff_at is None else f"scheduled, starts at {cutoff_at:%Y-%m-%dT%H:%M:%SZ}"
                session.add(Event(cycle_id=cycle.id, time=now, stage=cycle.state, message=message, fraction=0.0))
                announce_next(session, experiment_id, now, only=cycle.id)
        except IntegrityError:
            known = self.at(experiment_id, valid_time)
            if known is None:
                raise
            return known, False
        return cycle, True

    def get(self, cycle_id: int) -> Cycle:
        """By id. Raises NotFoundError."""
        with self._transactions.reading() as session:
            return _cycle(session, cycle_id)

    def at(self, experiment_id: int, valid_time: datetime) -> Cycle | None:
        """The experiment's cycle at this valid time."""
        query = select(Cycle).where(Cycle.experiment_id == experiment_id, Cycle.valid_time == valid_time)
        with self._transactions.reading() as session:
            return session.scalar(query)

    def page(self, experiment_id: int, limit: int, offset: int, state: CycleState | None = None) -> Page[Cycle]:
        """In the order of valid time."""
        query = select(Cycle).where(Cycle.experiment_id == experiment_id).order_by(Cycle.valid_time)
        if state is not None:
            query = query.where(Cycle.state == state)
        with self._transactions.reading() as session:
            return page(session, query, Cycle, limit, offset)

    def completed_before(self, experiment_id: int, valid_time: datetime, within: timedelta) -> list[Cycle]:
        """Done or degraded cycles with valid_time - within <= their valid time < valid_time, newest first."""
        query = (
            select(Cycle)
            .where(
                Cycle.experiment_id == experiment_id,
                Cycle.state.in_(COMPLETED),
                Cycle.valid_time < valid_time,
                Cycle.valid_time >= valid_time - within,
            )
            .order_by(Cycle.valid_time.desc())
        )
        with self._transactions.reading() as session:
            return list(session.scalars(query))

    def newest_completed(self, experiment_id: int) -> Cycle | None:
        """The done or degraded cycle with the latest valid time."""
        query = select(Cycle).where(Cycle.experiment_id == experiment_id, Cycle.state.in_(COMPLETED))
        with self._transactions.reading() as session:
            return session.scalars(query.order_by(Cycle.valid_time.desc()).limit(1)).first()

    def newest_completed_of(self, experiment_id: int, at_most: int) -> list[Cycle]:
        """The `at_most` done or degraded cycles with the latest valid times, newest first."""
        query = select(Cycle).where(Cycle.experiment_id == experiment_id, Cycle.state.in_(COMPLETED))
        with self._transactions.reading() as session:
            return list(session.scalars(query.order_by(Cycle.valid_time.desc()).limit(at_most)))

    def newest_scheduled_time(self, experiment_id: int) -> datetime | None:
        """The latest valid time that the experiment's schedule made (only scheduled cycles have a cut-off)."""
        query = select(func.max(Cycle.valid_time)).where(
            Cycle.experiment_id == experiment_id, Cycle.cutoff_at.is_not(None)
        )
        with self._transactions.reading() as session:
            return session.scalar(query)

    def to_follow(self, leader_id: int, follower_id: int, start: datetime, at_most: int) -> list[Cycle]:
        """The completed cycles of an experiment from `start` on that the one that follows it lacks, oldest first."""
        own = aliased(Cycle)
        query = (
            select(Cycle)
            .where(
                Cycle.experiment_id == leader_id,
                Cycle.state.in_(COMPLETED),
                Cycle.valid_time >= start,
                ~exists().where(own.experiment_id == follower_id, own.valid_time == Cycle.valid_time),
            )
            .order_by(Cycle.valid_time)
            .limit(at_most)
        )
        with self._transactions.reading() as session:
            return list(session.scalars(query))

    def cancel(self, cycle_id: int) -> Cycle:
        """Stop a cycle; whoever works on it finds its lease stale. Raises NotFoundError, ConflictError."""
        now = self._transactions.clock()
        with self._transactions.writing() as session:
            cycle = _cycle(session, cycle_id, lock=True)
            if cycle.state in FINISHED:
                raise ConflictError(f"cycle {cycle_id} is {cycle.state} already: there is nothing to cancel")
            cycle.state = CycleState.CANCELLED
            cycle.finished_at = now
            free_lease(session, cycle)
            session.add(Event(cycle_id=cycle.id, time=now, stage=cycle.state, message="cancelled on request"))
            announce_next(session, cycle.experiment_id, now)
        return cycle

    def retry(self, cycle_id: int) -> Cycle:
        """Run a failed, cancelled or degraded cycle again from its first stage; its products and scores are forgotten.

        Raises NotFoundError, ConflictError.
        """
        now = self._transactions.clock()
        with self._transactions.writing() as session:
            cycle = _cycle(session, cycle_id, lock=True)
            if cycle.state not in RETRIABLE:
                raise ConflictError(
                    f"cycle {cycle_id} is {cycle.state}: only failed, cancelled or degraded cycles can be retried"
                )
            forget_results(session, cycle)
            cycle.state, cycle.error = CycleState.WAITING, None
            cycle.attempt, cycle.started_at, cycle.finished_at = 0, None, None
            free_lease(session, cycle)
            session.add(Event(cycle_id=cycle.id, time=now, stage=cycle.state, message="retry on request", fraction=0.0))
            announce_next(session, cycle.experiment_id, now)
        return cycle

    def give_up_lost(self, max_attempts: int) -> list[int]:
        """Fail cycles whose worker was lost `max_attempts` times, so that they cannot kill workers for ever."""
        now = self._transactions.clock()
        given_up = []
        with self._transactions.writing() as session:
            query = select(Cycle).where(
                Cycle.state.in_(UNFINISHED), Cycle.lease_expires_at < now, Cycle.attempt >= max_attempts
            )
            for cycle in session.scalars(query.with_for_update()):
                cycle.error = f"the worker was lost in {cycle.attempt} attempts, last while {cycle.state}"
                cycle.state = CycleState.FAILED
                cycle.finished_at = now
                free_lease(session, cycle)
                session.add(Event(cycle_id=cycle.id, time=now, stage=cycle.state, message=cycle.error))
                announce_next(session, cycle.experiment_id, now)
                given_up.append(cycle.id)
        return given_up

    def events_after(self, cycle_id: int, last_event_id: int = 0) -> list[Event]:
        """The cycle's story from there on, in order."""
        query = select(Event).where(Event.cycle_id == cycle_id, Event.id > last_event_id).order_by(Event.id)
        with self._transactions.reading() as session:
            return list(session.scalars(query))

    def counts_by_state(self) -> list[tuple[str, str, int]]:
        """(experiment name, state, number of cycles)."""
        query = (
            select(Experiment.name, Cycle.state, func.count())
            .join(Cycle, Cycle.experiment_id == Experiment.id)
            .group_by(Experiment.name, Cycle.state)
        )
        with self._transactions.reading() as session:
            return [(name, state, count) for name, state, count in session.execute(query)]

    def queue(self) -> tuple[int, float]:
        """(number of due cycles that no one holds, seconds that the oldest of them has been due)."""
        now = self._transactions.clock()
        query = select(Cycle.created_at, Cycle.cutoff_at).where(due(now), unheld(now))
        with self._transactions.reading() as session:
            since = [max(created, cutoff or created) for created, cutoff in session.execute(query)]
        return len(since), max(((now - moment).total_seconds() for moment in since), default=0.0)


def _cycle(session: Session, cycle_id: int, *, lock: bool = False) -> Cycle:
    cycle = session.get(Cycle, cycle_id, with_for_update=lock or None)
    if cycle is None:
        raise NotFoundError("cycle", cycle_id)
    return cycle
