"""What the catalogue keeps: schema, experiments, batches, fields, cycles, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import inspect, text

from service.catalogue import Catalogue, ConflictError, NotFoundError
from service.catalogue.engine import migrate, open_engine
from service.catalogue.tables import Base, Batch, CycleState, Field, FieldPurpose

NOON = datetime(2009, 1, 23, 12, tzinfo=UTC)


def batch(sha256: str, first: datetime | None = NOON, last: datetime | None = NOON, **other: object) -> Batch:
    row = {"source": "gts", "media_type": "text/csv", "path": "observations/a.parquet", "raw_path": "r", "notes": []}
    row |= {"received_at": NOON, "received": 3, "rejected": 1, "counts": {"RANGE": 1}, "status": "accepted"}
    return Batch(sha256=sha256, time_min=first, time_max=last, **(row | other))


def field(sha256: str, **other: object) -> Field:
    row = {"purpose": FieldPurpose.VERIFICATION, "valid_time": NOON, "path": "f.nc", "raw_path": "f", "notes": []}
    return Field(sha256=sha256, **(row | {"received_at": NOON} | other))


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_migrations_make_exactly_the_tables_of_the_code(database_url):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_engine(database_url)
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = [
            step
            for step in compare_metadata(context, Base.metadata)
            # SQLite cannot reflect indexes on expressions; that they exist is checked below.
            if not (step[0] == "add_index" and step[1].name in {"uq_fields_identity", "uq_scores_identity"})
        ]
        assert differences == []
        master = "sqlite_master" if engine.dialect.name == "sqlite" else "pg_class"
        column = "name" if engine.dialect.name == "sqlite" else "relname"
        for index in ("uq_fields_identity", "uq_scores_identity"):
            query = text(f"SELECT count(*) FROM {master} WHERE {column} = :index")
            assert connection.execute(query, {"index": index}).scalar_one() == 1
    engine.dispose()


def test_processes_that_migrate_at_once_queue_up(database_url):
    start = threading.Barrier(4)

    def open_catalogue():
        start.wait()
        Catalogue.open(database_url).close()

    with ThreadPoolExecutor(4) as pool:
        for opening in [pool.submit(open_catalogue) for _ in range(4)]:
            opening.result()
    engine = open_engine(database_url)
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_sqlite_keeps_its_write_ahead_log(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'c.sqlite'}")
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    engine.dispose()


def test_times_come_back_in_utc_and_naive_ones_are_refused(catalogue, experiment):
    tokyo = datetime(2009, 1, 23, 21, tzinfo=timezone(timedelta(hours=9)))
    cycle, _ = catalogue.cycles.accept(experiment.id, tokyo, seed=0)
    found = catalogue.cycles.get(cycle.id).valid_time
    assert found == NOON and found.tzinfo is UTC
    with pytest.raises(Exception, match="only times with a zone"):
        catalogue.cycles.accept(experiment.id, datetime(2009, 1, 23), seed=0)


def test_an_experiments_name_is_its_own(catalogue, experiment):
    with pytest.raises(ConflictError, match="'demo' exists already"):
        catalogue.experiments.create("demo", {}, "small")
    with pytest.raises(NotFoundError, match="no experiment 'other'"):
        catalogue.experiments.named("other")


def test_the_same_valid_time_is_the_same_cycle_even_when_asked_for_at_once(catalogue, experiment):
    results, start = [], threading.Barrier(6)

    def ask():
        start.wait()
        cycle, created = catalogue.cycles.accept(experiment.id, NOON, seed=1)
        results.append((cycle.id, created))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({cycle_id for cycle_id, _ in results}) == 1
    assert [created for _, created in results].count(True) == 1
    assert len(catalogue.outbox.unpublished()) == 1


def test_the_same_batch_is_stored_once(catalogue):
    first, created = catalogue.batches.add(batch("a" * 64))
    again, repeated = catalogue.batches.add(batch("a" * 64, source="other"))
    assert (created, repeated) == (True, False)
    assert again.id == first.id and again.source == "gts"


def test_batches_are_found_by_what_they_overlap(catalogue):
    hour = timedelta(hours=1)
    before = batch("1", NOON - 9 * hour, NOON - 3 * hour - timedelta(seconds=1))
    touching = batch("2", NOON - 9 * hour, NOON - 3 * hour)
    around = batch("3", NOON - 9 * hour, NOON + 9 * hour)
    at_the_end = batch("4", NOON + 3 * hour, NOON + 4 * hour)
    empty = batch("5", None, None, path=None)
    for row in (before, touching, around, at_the_end, empty):
        catalogue.batches.add(row)
    found = catalogue.partitions.holding(NOON - 3 * hour, NOON + 3 * hour)
    assert [catalogue.batches.get(row.batch_id).sha256 for row in found] == ["2", "3"]


def test_one_file_may_serve_two_purposes_but_each_once(catalogue, experiment):
    background = {"purpose": FieldPurpose.BACKGROUND, "experiment_id": experiment.id, "lead_hours": 6}
    assert catalogue.fields.add(field("f"))[1]
    assert catalogue.fields.add(field("f", **background))[1]
    assert not catalogue.fields.add(field("f"))[1]
    assert not catalogue.fields.add(field("f", **background))[1]
    assert catalogue.fields.page(FieldPurpose.VERIFICATION, 10, 0).total == 1


def test_the_background_posted_last_wins_unless_it_came_too_late(catalogue, experiment):
    own = {"purpose": FieldPurpose.BACKGROUND, "experiment_id": experiment.id, "lead_hours": 6}
    catalogue.fields.add(field("early", **own))
    catalogue.fields.add(field("late", **own | {"received_at": NOON + timedelta(hours=5)}))
    assert catalogue.fields.background(experiment.id, NOON).sha256 == "late"
    assert catalogue.fields.background(experiment.id, NOON, as_of=NOON + timedelta(hours=1)).sha256 == "early"
    assert catalogue.fields.background(experiment.id, NOON + timedelta(hours=6)) is None
    assert catalogue.fields.verification(NOON) is None


def test_completed_cycles_are_found_newest_first_within_reach(catalogue, accept, experiment):
    for hours in (0, 6, 12, 18):
        lease = catalogue.leases.claim(accept(hours).id, "worker")
        if hours == 12:
            catalogue.leases.fail(lease, "no")
        else:
            catalogue.leases.finish(lease)
    found = catalogue.cycles.completed_before(experiment.id, NOON + timedelta(hours=18), timedelta(hours=12))
    assert [cycle.valid_time for cycle in found] == [NOON + timedelta(hours=6)]
    assert catalogue.cycles.newest_completed(experiment.id).valid_time == NOON + timedelta(hours=18)


def test_pages_are_slices_of_an_ordered_whole(catalogue, accept, experiment):
    for hours in (12, 0, 6):
        accept(hours)
    page = catalogue.cycles.page(experiment.id, limit=2, offset=1)
    assert page.total == 3
    assert [cycle.valid_time.hour for cycle in page.rows] == [18, 0]
    assert catalogue.cycles.page(experiment.id, 10, 0, CycleState.DONE).total == 0


def test_only_what_ended_badly_can_be_retried(catalogue, accept):
    cycle = accept()
    with pytest.raises(ConflictError, match="is waiting"):
        catalogue.cycles.retry(cycle.id)
    lease = catalogue.leases.claim(cycle.id, "worker")
    catalogue.leases.fail(lease, "no observations")
    with pytest.raises(ConflictError, match="nothing to cancel"):
        catalogue.cycles.cancel(cycle.id)
    retried = catalogue.cycles.retry(cycle.id)
    assert (retried.state, retried.error, retried.attempt, retried.finished_at) == ("waiting", None, 0, None)
    again = catalogue.leases.claim(cycle.id, "worker")
    assert again.token > lease.token
