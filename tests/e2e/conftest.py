"""The real stack from outside: `alignda serve` with the shipped bundle (or ALIGNDA_BUNDLE) and a client."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import xarray as xr

from alignda.client import Client
from alignda.embedded import environment_of, local_url
from service.fields.contract import to_array
from service.fields.grib import write_grib
from service.fields.grid import BundleDescription
from service.observations.table import columns_to_table
from service.settings import Settings, shipped_bundle
from tests.ports import free_port

BUNDLE = Path(os.environ.get("ALIGNDA_BUNDLE", shipped_bundle()))
SAMPLE = shipped_bundle() / "sample.nc"
START = datetime(2021, 1, 15, 0, tzinfo=UTC)
# As long as a loaded machine needs, and no longer: the tests wait for them.
LEASE_SECONDS = 8.0
RECONCILE_SECONDS = 0.5
REPUBLISH_SECONDS = 5.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.e2e)
            if missing := [file for file in (BUNDLE / "bundle.json", SAMPLE) if not file.is_file()]:
                item.add_marker(pytest.mark.skip(reason=f"{missing[0]} is missing"))


def until(true: Callable[[], object], seconds: float = 60.0, every: float = 0.05) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(every)


@dataclass
class Weather:
    """The truth: six days of the held-out year of the nature run; and what a network makes of it."""

    description: BundleDescription
    states: xr.Dataset

    def truth(self, valid_time: datetime) -> np.ndarray:
        """[channel, latitude, longitude]"""
        moment = np.datetime64(valid_time.replace(tzinfo=None), "ns")
        return to_array(self.states.sel(time=[moment]), self.description)[0]

    def write_field(self, path: Path, state: np.ndarray, valid_time: datetime) -> Path:
        write_grib(path, state[None], self.description, base_time=valid_time, step_hours=0, product="analysis")
        return path

    def write_observations(self, path: Path, valid_time: datetime, count: int = 300, seed: int = 0) -> Path:
        """z, t, u, v of `count` soundings at grid points and 850, 500, 200 hPa, with errors."""
        generator = np.random.default_rng(seed)
        grid, state = self.description.grid, self.truth(valid_time)
        row = generator.integers(4, len(grid.latitudes) - 4, count)
        column = generator.integers(0, len(grid.longitudes), count)
        parts: list[dict[str, Any]] = []
        for variable, error in (("z", 100.0), ("t", 0.8), ("u", 2.0), ("v", 2.0)):
            for level in (850, 500, 200):
                exact = state[self.description.index(variable, level), row, column]
                longitude = np.array(grid.longitudes)[column]
                parts.append(
                    {
                        "latitude": np.array(grid.latitudes)[row],
                        "longitude": (longitude + 180) % 360 - 180,
                        "pressure": np.full(count, level * 100.0),
                        "variable": np.full(count, variable, object),
                        "value": exact + error * generator.normal(size=count),
                        "error": np.full(count, error),
                        "station": np.array([f"S{i:04d}" for i in range(count)], object),
                    }
                )
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        total = len(columns["value"])
        moment = np.datetime64(valid_time.replace(tzinfo=None), "us")
        columns |= {
            "time": np.full(total, moment),
            "receipt_time": np.full(total, moment),
            "height": np.full(total, np.nan),
            "type": np.full(total, "temp", object),
            "source": np.full(total, "test", object),
            "preqc": np.full(total, -1),
        }
        pq.write_table(columns_to_table(columns), path)
        return path


@dataclass
class Served:
    """A running `alignda serve`, which can be stopped and started again on the same data."""

    settings: Settings
    weather: Weather
    scratch: Path
    process: psutil.Process | None = None
    _popen: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def client(self) -> Client:
        return Client(local_url(self.settings))

    def start(self) -> None:
        environment = {**os.environ, **environment_of(self.settings)}
        log = (self.scratch / "serve.log").open("ab")
        self._popen = subprocess.Popen([sys.executable, "-m", "alignda", "serve"], env=environment, stderr=log)
        self.process = psutil.Process(self._popen.pid)
        until(self.ready, 90)

    def ready(self) -> bool:
        import httpx

        try:
            return httpx.get(f"{local_url(self.settings)}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        assert self._popen is not None
        self._popen.send_signal(number)
        return self._popen.wait(timeout=30)

    def end(self) -> None:
        """Whatever happened before: nothing of it stays."""
        if self._popen is not None and self._popen.poll() is None and self.process is not None:
            for member in [self.process, *self.process.children(recursive=True)]:
                member.kill()
            self._popen.wait()

    def child(self, word: str) -> psutil.Process:
        """The child of the supervisor with this word in its command line."""
        assert self.process is not None
        for child in self.process.children():
            if child.status() != psutil.STATUS_ZOMBIE and word in " ".join(child.cmdline()):
                return child
        raise LookupError(word)

    def experiment(self, name: str, background: bool = True, **config: Any) -> str:
        """An experiment whose posted background at START is the weather of the day before."""
        with self.client as client:
            client.create_experiment(name, {"members": 4, "sampler_steps": 8, "forecast_hours": 12, **config})
            if background:
                file = self.weather.write_field(
                    self.scratch / f"{name}.grib2", self.weather.truth(START - timedelta(days=1)), START
                )
                client.post_background(file, experiment=name, lead_hours=48)
        return name

    def observe(self, valid_time: datetime = START, seed: int = 0) -> None:
        with self.client as client:
            file = self.weather.write_observations(self.scratch / f"{seed}.parquet", valid_time, seed=seed)
            client.post_observations(file, source="test")


@pytest.fixture(scope="session")
def weather() -> Weather:
    return Weather(BundleDescription.load(BUNDLE), xr.open_dataset(SAMPLE).load())


@pytest.fixture(scope="module")
def served(weather: Weather) -> Iterator[Served]:
    folder = Path(tempfile.mkdtemp(prefix="ald-"))
    settings = Settings(
        data_dir=folder / "data",
        port=free_port(),
        bundle=BUNDLE,
        lease_seconds=LEASE_SECONDS,
        reconcile_seconds=RECONCILE_SECONDS,
        republish_seconds=REPUBLISH_SECONDS,
        device="cpu",
    )
    stack = Served(settings, weather, folder)
    stack.start()
    try:
        yield stack
    finally:
        stack.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def next_cycle() -> datetime:
    return START + timedelta(hours=6)
