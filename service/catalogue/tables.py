"""The catalogue's tables: what exists, what is due, who holds it. One class per table, times in UTC.

Files are named by their archive key (`path`); JSON columns hold small typed records described beside them.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class CycleState(StrEnum):
    """Where a cycle is. Everything between `waiting` and `verifying` is the stage now running."""

    WAITING = "waiting"
    ASSEMBLING = "assembling"
    CONTROLLING = "controlling"
    ANALYSING = "analysing"
    GATING = "gating"
    PUBLISHING = "publishing"
    FORECASTING = "forecasting"
    VERIFYING = "verifying"
    DONE = "done"
    DEGRADED = "degraded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """True when no stage will run any more (unless someone asks for a retry)."""
        return self in FINISHED


COMPLETED = frozenset({CycleState.DONE, CycleState.DEGRADED})
FINISHED = COMPLETED | {CycleState.FAILED, CycleState.CANCELLED}
UNFINISHED = frozenset(CycleState) - FINISHED


class ExperimentState(StrEnum):
    """A suspended experiment keeps its cycles; none of them starts."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class FieldPurpose(StrEnum):
    """What a posted field is for."""

    BACKGROUND = "background"
    VERIFICATION = "verification"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime on every database (SQLite drops the zone, so it is put back on reading)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: a time without a zone is a forecast for somewhere else."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the catalogue takes only times with a zone, got {value!r}")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Always UTC, always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only for INTEGER PRIMARY KEY.
Identity = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """All tables, with constraint names that migrations can refer to."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON(none_as_null=True), list[Any]: JSON}  # noqa: RUF012


class Experiment(Base):
    """A named cycling configuration; `config` is a service.experiments.ExperimentConfig, `bundle` a bundle's name."""

    __tablename__ = "experiments"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    state: Mapped[str] = mapped_column(String(16), default=ExperimentState.ACTIVE)
    config: Mapped[dict[str, Any]]
    bundle: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]


class Batch(Base):
    """One upload of observations. `rejected_path`: rows rejected at decoding (Parquet). Its values are in partitions.

    `path`: the one table of a batch that was not partitioned, as batches of revision 0002 and earlier were not.
    """

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    source: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(String(127))
    path: Mapped[str | None] = mapped_column(Text)
    raw_path: Mapped[str] = mapped_column(Text)
    rejected_path: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(index=True)
    time_min: Mapped[datetime | None]
    time_max: Mapped[datetime | None]
    received: Mapped[int]
    rejected: Mapped[int]
    counts: Mapped[dict[str, Any]]  # reason name -> number of rejected values
    notes: Mapped[list[Any]]  # sentences: what a sender should know that concerns no single value
    status: Mapped[str] = mapped_column(String(16))  # accepted | empty

    __table_args__ = (Index(None, "time_min", "time_max"),)


class Partition(Base):
    """One file of a batch's values (Parquet): those of one valid day and report type; null: of several.

    Spans are inclusive. `receipt_min` null: not known, the rows must be looked at.
    """

    __tablename__ = "partitions"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), index=True)
    day: Mapped[date | None]
    type: Mapped[str | None] = mapped_column(String(32))
    path: Mapped[str] = mapped_column(Text)
    rows: Mapped[int]
    time_min: Mapped[datetime]
    time_max: Mapped[datetime]
    receipt_min: Mapped[datetime | None]
    receipt_max: Mapped[datetime | None]

    __table_args__ = (Index(None, "day", "type"),)


class Field(Base):
    """One posted field: a background of one experiment, or a verification for all. `path`: contract netCDF."""

    __tablename__ = "fields"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(String(16))
    experiment_id: Mapped[int | None] = mapped_column(ForeignKey("experiments.id"))
    valid_time: Mapped[datetime]
    lead_hours: Mapped[int | None]
    path: Mapped[str] = mapped_column(Text)
    raw_path: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime]
    notes: Mapped[list[Any]]  # sentences: what was regridded, converted, derived

    __table_args__ = (Index(None, "purpose", "valid_time"),)


Index(
    "uq_fields_identity",
    Field.sha256,
    Field.purpose,
    func.coalesce(Field.experiment_id, -1),
    func.coalesce(Field.lead_hours, -1),
    unique=True,
)


class Cycle(Base):
    """One valid time of an experiment. `stage` is the last stage completed, `state` says what runs now."""

    __tablename__ = "cycles"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id"))
    valid_time: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16), default=CycleState.WAITING)
    stage: Mapped[str | None] = mapped_column(String(32))
    degraded: Mapped[list[Any]] = mapped_column(default=list)  # [{"reason": ..., "detail": ...}]
    error: Mapped[str | None] = mapped_column(Text)
    attempt: Mapped[int] = mapped_column(default=0)
    fencing_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(255))
    lease_expires_at: Mapped[datetime | None]
    seed: Mapped[int]
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict)  # received, used, rejected, reasons {name: n}, ...
    seconds: Mapped[dict[str, Any]] = mapped_column(default=dict)  # stage -> wall seconds
    background: Mapped[dict[str, Any] | None]  # kind, source, lead_hours
    verified_with: Mapped[int | None] = mapped_column(ForeignKey("fields.id"))  # the verification last looked at
    verify_attempt: Mapped[int] = mapped_column(default=0, server_default="0")  # late ones, of a newer verification
    as_of: Mapped[datetime | None]
    cutoff_at: Mapped[datetime | None]  # not started before; null: due at once
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("experiment_id", "valid_time"), Index(None, "state"))


class OutboxMessage(Base):
    """A cycle to be announced to the workers, written in the transaction that made it due."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"), index=True)
    created_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)

    __table_args__ = (Index(None, "published_at"),)


class Product(Base):
    """A published file; `lead_hours` is 0 for everything valid at the analysis time."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"))
    kind: Mapped[str] = mapped_column(String(32))
    format: Mapped[str] = mapped_column(String(16))
    lead_hours: Mapped[int] = mapped_column(default=0)
    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("cycle_id", "kind", "format", "lead_hours"),)


class Score(Base):
    """One number about a cycle; `type` is the report type of a departure score ("" for all), `level` in hPa."""

    __tablename__ = "scores"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"))
    name: Mapped[str] = mapped_column(String(48))
    field: Mapped[str] = mapped_column(String(16))  # background | analysis | forecast | observation
    variable: Mapped[str] = mapped_column(String(16), default="")
    type: Mapped[str] = mapped_column(String(16), default="")
    level: Mapped[float | None] = mapped_column(Float)
    lead_hours: Mapped[int | None]
    value: Mapped[float] = mapped_column(Float)
    unit: Mapped[str] = mapped_column(String(16))
    valid_time: Mapped[datetime]


# NULLs are distinct in a plain UNIQUE, so a surface score could be written twice without the coalesce.
Index(
    "uq_scores_identity",
    Score.cycle_id,
    Score.name,
    Score.field,
    Score.variable,
    Score.type,
    func.coalesce(Score.level, -1.0),
    func.coalesce(Score.lead_hours, -1),
    unique=True,
)


class Event(Base):
    """One step in a cycle's story, as shown to those who watch it."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    cycle_id: Mapped[int] = mapped_column(ForeignKey("cycles.id"), index=True)
    time: Mapped[datetime]
    stage: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
    fraction: Mapped[float | None] = mapped_column(Float)


class Leader(Base):
    """Which gateway runs the periodic duties of this name, until when."""

    __tablename__ = "leaders"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime]
