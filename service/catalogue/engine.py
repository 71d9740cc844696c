"""Engines, transactions and migrations: SQLite in WAL mode or PostgreSQL, by URL.

SQLite begins every writing transaction with BEGIN IMMEDIATE: two writers queue instead of failing half-way.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session, sessionmaker

Clock = Callable[[], datetime]

OLDEST_SQLITE = (3, 35, 0)  # UPDATE ... RETURNING
READING = "alignda_reading"
MIGRATION_LOCK = 0x616C6967  # "alig": the PostgreSQL advisory lock of whoever migrates


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


def open_engine(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://...`. Open it in the process that uses it: never across a fork.

    Raises sqlalchemy.exc.ArgumentError for a URL that is neither, RuntimeError for an SQLite that is too old.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(url, parsed.database)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, pool_size=5, max_overflow=20)


def _open_sqlite(url: str, database: str | None) -> Engine:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise RuntimeError(
            f"SQLite {sqlite3.sqlite_version} is too old for the catalogue, it needs 3.35. If the system's is newer, import "
            "`service` before eccodes or cfgrib, whose wheels bring an old one; or use PostgreSQL (ALIGNDA_DATABASE_URL)."
        )
    if database:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": 30.0}, pool_size=5, max_overflow=40)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, record: Any) -> None:
        # The driver's own BEGIN is deferred: it reads first and then fails to upgrade. We send ours.
        connection.isolation_level = None
        for pragma in ("busy_timeout=30000", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _write_ahead(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(READING, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. Of several who do this to a new file at once SQLite refuses all but one, without
    waiting for `busy_timeout`: so try again for as long as that."""
    deadline = time.monotonic() + 30.0
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def migrate(engine: Engine) -> None:
    """Bring the schema to this version. Safe to call from several processes at once: they queue on a lock."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


class Transactions:
    """Where repositories get their sessions: `reading()` takes no lock, `writing()` commits or rolls back."""

    def __init__(self, engine: Engine, clock: Clock = utc_now) -> None:
        self.engine = engine
        self.clock = clock
        self._writing = sessionmaker(engine, expire_on_commit=False)
        self._reading = sessionmaker(engine.execution_options(**{READING: True}), expire_on_commit=False)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A consistent view; what it returns stays readable after the session is closed."""
        with self._reading() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: all or nothing."""
        with self._writing.begin() as session:
            yield session
