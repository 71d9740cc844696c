"""The store: what was put in comes out, as known at any time, whatever the files; against every row looked at by hand."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.engine import open_engine
from service.catalogue.tables import Batch
from service.ingest import Ingest, keep
from service.observations import partitions
from service.observations.partitions import PartitionWriter
from service.observations.selection import Selection
from service.observations.table import SCHEMA, columns_to_table
from service.settings import Settings
from service.stored_observations import StoredObservations
from service.uploads import Upload

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)
KINDS, VARIABLES, STATIONS = ("temp", "amdar", "synop"), ("t", "u", "v"), ("06260", "10393", "S/1")


def values(count: int, seed: int, hours: float = 60.0) -> pa.Table:
    """Values around NOON on whole minutes, so that many lie exactly on a bound; received up to 10 h later."""
    generator = np.random.default_rng(seed)

    def minutes(high: float) -> Any:
        return generator.integers(0, int(high * 60), count).astype("timedelta64[m]")

    time = np.datetime64("2019-12-31T06:00", "us") + minutes(hours)
    names = {
        name: np.array(known, object)[generator.integers(0, len(known), count)]
        for name, known in (("variable", VARIABLES), ("type", KINDS), ("station", STATIONS), ("source", ("a", "b")))
    }
    return columns_to_table(
        {
            "time": time, "receipt_time": time + minutes(10.0), "latitude": generator.uniform(-90, 90, count),
            "longitude": generator.uniform(-180, 180, count), "pressure": np.full(count, 50000.0),
            "height": np.full(count, np.nan), "value": generator.normal(size=count), "error": np.full(count, 1.0),
            "preqc": np.full(count, -1), **names,
        }
    )  # fmt: skip


class Store:
    """A catalogue, an archive, and every row that was put in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.archive = folder, Archive(folder / "archive")
        self.catalogue = Catalogue.open(f"sqlite:///{folder / 'c.sqlite'}")
        self.stored = StoredObservations(self.catalogue, self.archive)
        self.rows: list[dict[str, Any]] = []

    def put(self, *parts: pa.Table) -> Batch:
        """One batch, in parts as a decoder gives them."""
        number = self.catalogue.batches.page(1, 0).total
        drafts = self.folder / f"draft-{number}"
        drafts.mkdir()
        writer = PartitionWriter(drafts)
        for part in parts:
            writer.add(part)
        files = [keep(self.archive, file, drafts, str(number)) for file in writer.close()]
        batch = Batch(
            sha256=f"{number:064d}", source="a", media_type="x", path=None, raw_path="none", received_at=NOON,
            time_min=min(file.time_min for file in files), time_max=max(file.time_max for file in files),
            received=sum(file.rows for file in files), rejected=0, counts={}, notes=[], status="accepted",
        )  # fmt: skip
        self.rows += pa.concat_tables(parts).to_pylist()
        return self.catalogue.batches.add(batch, files)[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("store"))
    made.put(values(400, 1), values(300, 2))
    made.put(values(200, 3))
    made.put(values(50, 4, hours=1.0))
    return made


def by_hand(row: dict[str, Any], wanted: Selection) -> bool:
    west, south, east, north = wanted.box or (-180.0, -90.0, 180.0, 90.0)
    around = west <= row["longitude"] <= east if west <= east else not east < row["longitude"] < west
    return (
        (wanted.start is None or row["time"] >= wanted.start)
        and (wanted.end is None or row["time"] < wanted.end)
        and (wanted.as_of is None or row["receipt_time"] <= wanted.as_of)
        and all(
            not names or row[column] in names
            for column, names in {
                "type": wanted.types, "variable": wanted.variables, "station": wanted.stations,
                "source": wanted.sources,
            }.items()
        )
        and south <= row["latitude"] <= north
        and around
    )  # fmt: skip


def some(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(st.just(()), st.lists(st.sampled_from(names), min_size=1, max_size=2).map(tuple))


moments = st.one_of(st.none(), st.integers(-40 * 60, 50 * 60).map(lambda minutes: NOON + timedelta(minutes=minutes)))
degrees = st.floats(-180, 180)
boxes = st.tuples(degrees, degrees, degrees, degrees).map(
    lambda b: (b[0], min(b[1], b[3]) / 2, b[2], max(b[1], b[3]) / 2)
)
selections = st.builds(
    Selection, moments, moments, moments, some(KINDS), some(VARIABLES), some(STATIONS), some(("a", "b")),
    st.one_of(st.none(), boxes),
)  # fmt: skip


@hypothesis_settings(max_examples=120, deadline=None)
@given(wanted=selections, offset=st.integers(0, 1000), limit=st.integers(1, 400))
def test_every_selection_is_what_looking_at_every_row_gives(
    store: Store, wanted: Selection, offset: int, limit: int
) -> None:
    expected = sorted(row["id"] for row in store.rows if by_hand(row, wanted))
    whole = store.stored.page(wanted, 10_000, 0)
    assert sorted(row["id"] for row in whole.rows) == expected and whole.total == len(expected)
    page = store.stored.page(wanted, limit, offset)
    assert page.rows == whole.rows[offset : offset + limit] and page.total == whole.total


def test_a_selection_as_a_file_is_the_same_rows(store: Store, tmp_path: Path) -> None:
    wanted = Selection(NOON - timedelta(hours=3), NOON + timedelta(hours=3), as_of=NOON + timedelta(hours=2))
    number = store.stored.write(wanted, tmp_path / "x.parquet")
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.schema.equals(SCHEMA) and number == table.num_rows > 0
    assert table.to_pylist() == store.stored.page(wanted, 10_000, 0).rows


def test_only_the_files_that_can_hold_it_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from service import stored_observations

    read: list[str] = []
    real = stored_observations.read_file
    monkeypatch.setattr(
        stored_observations, "read_file", lambda path, *rest: (read.append(str(path)), real(path, *rest))[1]
    )
    store.stored.page(Selection(datetime(2020, 1, 2, tzinfo=UTC), types=("temp",)), 1000, 0)
    assert read and all("/day=2020-01-02/type=temp/" in path for path in read)
    read.clear()
    store.stored.page(Selection(as_of=datetime(2019, 12, 31, tzinfo=UTC)), 1000, 0)
    assert read == []
    # what the catalogue knows to be wholly selected is counted without being read
    assert store.stored.page(Selection(), 1, 0).total == len(store.rows) and len(read) == 1


def test_files_are_by_day_and_type_and_their_rows_say_so(store: Store) -> None:
    files = store.catalogue.partitions.of_batch(1)
    assert {(file.day, file.type) for file in files} == {
        (date(2019, 12, 31) + timedelta(days=d), kind) for d in range(3) for kind in KINDS
    }
    for file in files:
        rows = pq.ParquetFile(store.archive.existing(file.path)).read().to_pylist()
        assert {(row["time"].date(), row["type"]) for row in rows} == {(file.day, file.type)}
        for column, low, high in (
            ("time", file.time_min, file.time_max), ("receipt_time", file.receipt_min, file.receipt_max),
        ):  # fmt: skip
            assert (min(row[column] for row in rows), max(row[column] for row in rows)) == (low, high)
        assert len(rows) == file.rows


def test_a_batch_of_too_many_days_is_kept_together_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MOST_PARTITIONS", 4)
    monkeypatch.setattr(partitions, "_WAITING", 100)
    made = Store(tmp_path)
    made.put(*(values(60, seed, hours=24.0 * 30) for seed in range(5)))
    files = made.catalogue.partitions.of_batch(1)
    assert len(files) == 4 + len(KINDS) and sum(file.day is None for file in files) == len(KINDS)
    for start in (NOON, NOON + timedelta(days=20)):
        wanted = Selection(start, start + timedelta(days=2), as_of=start + timedelta(days=1))
        found = made.stored.page(wanted, 1000, 0)
        assert sorted(row["id"] for row in found.rows) == sorted(r["id"] for r in made.rows if by_hand(r, wanted))
    made.catalogue.close()


def test_batches_of_before_partitions_are_found_and_read(tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config

    from service.catalogue import engine as engines

    url, archive, table = f"sqlite:///{tmp_path / 'c.sqlite'}", Archive(tmp_path / "archive"), values(50, 9)
    pq.write_table(table, tmp_path / "old.parquet")
    archive.put(tmp_path / "old.parquet", "observations/ab/abc.parquet")
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(engines.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO batches (sha256, source, media_type, path, raw_path, received_at, time_min, time_max, "
                "received, rejected, counts, notes, status) VALUES ('abc', 'gts', 'x', 'observations/ab/abc.parquet', "
                "'r', '2020-01-01 12:00:00.000000', '2019-12-31 06:00:00.000000', '2020-01-02 18:00:00.000000', "
                "52, 2, '{}', '[]', 'accepted')"
            )
        )
    engine.dispose()
    catalogue = Catalogue.open(url)
    stored, wanted = StoredObservations(catalogue, archive), Selection(as_of=NOON, types=("temp",))
    expected = [row["id"] for row in table.to_pylist() if by_hand(row, wanted)]
    assert [row["id"] for row in stored.page(wanted, 1000, 0).rows] == expected != []
    assert stored.page(Selection(), 1, 0).total == 50
    catalogue.close()


def test_the_same_bytes_from_another_feed_at_once_do_not_replace_the_first(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.incoming_dir.mkdir(parents=True)
    catalogue, archive = Catalogue.open(settings.catalogue_url), Archive(settings.archive_dir)
    row = {
        "time": "2020-01-01T12:00:00Z",
        "latitude": 50,
        "longitude": 5,
        "variable": "sp",
        "value": 1e5,
        "type": "synop",
    }
    for source in ("first", "second"):  # neither knew of the other when it asked
        file = settings.incoming_dir / source
        file.write_bytes(json.dumps([row, row | {"value": 1.0}]).encode())
        upload = Upload(file, "0" * 64, 1, "application/json")
        batch, created = Ingest(settings, catalogue, archive).observations(upload, source, NOON)
        assert (batch.source, created) == ("first", source == "first")
    files = [path for path in archive.root.rglob("*.parquet")]
    assert len(files) == 2  # accepted and rejected, of the first
    found = StoredObservations(catalogue, archive).page(Selection(), 10, 0)
    assert [row["source"] for row in found.rows] == ["first"]
    catalogue.close()


def post(client: Any, source: str, receipt: str, *rows: dict[str, Any]) -> None:
    standard = {"time": "2020-01-01T12:00:00Z", "latitude": 50.0, "longitude": 5.0, "pressure": 5e4, "variable": "t",
                "value": 250.0, "type": "temp", "station": "06260"}  # fmt: skip
    headers = {"X-Source": source, "X-Receipt-Time": receipt, "Content-Type": "application/json"}
    body = json.dumps([standard | row for row in rows]).encode()
    assert client.post("/v1/observations", content=body, headers=headers).status_code == 201


def test_values_are_found_over_http_as_known_at_a_time(client: Any, tmp_path: Path) -> None:
    post(client, "gts", "2020-01-01T12:30:00Z", {}, {"variable": "u", "value": 3.0, "station": "S/1"})
    post(client, "other", "2020-01-01T15:00:00Z", {"value": 251.0, "longitude": 179.0}, {"type": "amdar"})

    def asked(**query: Any) -> list[float]:
        answer = client.get("/v1/observations", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == len(answer.json()["items"])
        return sorted(row["value"] for row in answer.json()["items"])

    assert asked() == [3.0, 250.0, 250.0, 251.0]
    assert asked(as_of="2020-01-01T12:30:00Z") == [3.0, 250.0]
    assert asked(as_of="2020-01-01T12:29:59Z") == []
    assert asked(type=["amdar", "synop"]) == [250.0] and asked(station="S/1", variable="u") == [3.0]
    assert asked(source="other", box="170,0,-170,60") == [251.0]
    assert asked(start="2020-01-01T12:00:00Z", end="2020-01-01T12:00:00Z") == []
    one = client.get("/v1/observations", params={"limit": 1, "offset": 3}).json()
    assert (len(one["items"]), one["total"]) == (1, 4)
    answer = client.get("/v1/observations", params={"format": "parquet", "variable": "t"})
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    (tmp_path / "x.parquet").write_bytes(answer.content)
    assert pq.read_table(tmp_path / "x.parquet").num_rows == 3


@pytest.mark.parametrize("box", ["1,2,3", "0,60,10,50", "0,-91,1,0", "200,0,210,1", "a,b,c,d"])
def test_a_box_that_is_none_is_refused(client: Any, box: str) -> None:
    answer = client.get("/v1/observations", params={"box": box})
    assert answer.status_code == 422 and "box" in answer.json()["detail"]
