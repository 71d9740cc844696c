"""How fast a gateway takes observations in over HTTP, and how much memory that needs for a small and a large batch.

    python benchmarks/ingest.py --out benchmarks/results/ingest.json

Starts the embedded stack without a worker and posts files over HTTP, one at a time. Counted is the time from the first
byte sent to the answer: received, decoded in its own process, checked, named, written by day and type, in the catalogue.
Memory is the largest resident size of the gateway and of its decoding process, sampled; CPU seconds are those of both.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from alignda.client import Client
from alignda.embedded import Stack
from service.settings import Settings

FORMATS = ("parquet", "json", "csv")
FIRST = np.datetime64("2026-01-01T00:00", "us")
KINDS = {"temp": ("z", "t", "u", "v", "q"), "amdar": ("t", "u", "v"), "satwind": ("u", "v"), "synop": ("sp", "t2m")}
USUAL = {"z": (50_000.0, 5_000.0), "t": (260.0, 10.0), "u": (10.0, 8.0), "v": (0.0, 8.0), "q": (4e-3, 1e-3),
         "sp": (100_000.0, 900.0), "t2m": (285.0, 6.0)}  # fmt: skip
HOURS = 24


def rows(count: int, seed: int) -> pa.Table:
    """A day of `count` values of four report types, as a feed would send them: in the order of valid time."""
    generator = np.random.default_rng(seed)
    pairs = [(kind, variable) for kind, variables in KINDS.items() for variable in variables]
    pair = generator.integers(0, len(pairs), count)
    kind = np.array([kind for kind, _ in pairs], object)[pair]
    variable = np.array([variable for _, variable in pairs], object)[pair]
    centre, width = (np.array([USUAL[name][i] for _, name in pairs])[pair] for i in (0, 1))
    seconds = np.sort(generator.integers(0, HOURS * 3600, count))
    surface = kind == "synop"
    pressure = np.where(surface, np.nan, np.round(generator.uniform(10_000, 100_000, count)))
    return pa.table(
        {
            "time": pa.array(FIRST + seconds.astype("timedelta64[s]"), pa.timestamp("us", "UTC")),
            "latitude": np.round(generator.uniform(-90, 90, count), 4),
            "longitude": np.round(generator.uniform(-180, 179.99, count), 4),
            "pressure": pa.array(pressure, from_pandas=True),
            "variable": pa.array(variable, pa.string()),
            "value": np.abs(np.round(centre + width * generator.normal(size=count), 5)),
            "type": pa.array(kind, pa.string()),
            "station": pa.array(np.array([f"{n:05d}" for n in range(10_000)], object)[generator.integers(0, 10_000, count)]),
        }
    )  # fmt: skip


def write(table: pa.Table, form: str, path: Path) -> None:
    """The same rows in one of the formats."""
    if form == "parquet":
        pq.write_table(table, path, row_group_size=1 << 20)
        return
    with path.open("w") as file:
        if form == "csv":
            file.write(",".join(table.column_names) + "\n")
        for number, batch in enumerate(table.to_batches(50_000)):
            listed = [{**row, "time": row["time"].strftime("%Y-%m-%dT%H:%M:%SZ")} for row in batch.to_pylist()]
            if form == "csv":
                cells = (("" if cell is None else str(cell) for cell in row.values()) for row in listed)
                file.writelines(",".join(line) + "\n" for line in cells)
                continue
            file.write("," if number else "[")
            file.write(",".join(json.dumps(row) for row in listed))
        if form == "json":
            file.write("]")


@dataclass
class Watch:
    """What a gateway and the processes that it starts use."""

    gateway: psutil.Process
    memory: dict[str, int] = field(default_factory=lambda: {"gateway": 0, "decoder": 0})

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample memory until the end."""
        self.memory = {"gateway": 0, "decoder": 0}
        ended = threading.Event()
        thread = threading.Thread(target=self._sample, args=(ended,))
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def cpu(self) -> float:
        """CPU seconds of the gateway and of its ended children."""
        times = self.gateway.cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            self._note("gateway", self.gateway)
            for child in self.gateway.children():
                self._note("decoder", child)

    def _note(self, name: str, process: psutil.Process) -> None:
        try:
            self.memory[name] = max(self.memory[name], process.memory_info().rss)
        except psutil.NoSuchProcess:
            return


def measure(client: Client, watch: Watch, path: Path, count: int) -> dict[str, Any]:
    """Post one file; what it took."""
    before, started = watch.cpu(), time.perf_counter()
    with watch.watching():
        batch = client.post_observations(path, source="benchmark")
    seconds, cpu = time.perf_counter() - started, watch.cpu() - before
    if (batch["received"], batch["rejected"]) != (count, 0):
        raise SystemExit(f"{path.name}: {batch['received']} received, {batch['reasons']}; expected {count} good values")
    return {
        "values": count, "megabytes": round(path.stat().st_size / 1e6, 1), "seconds": round(seconds, 2),
        "values_per_second": round(count / seconds), "cpu_seconds": round(cpu, 2),
        "values_per_cpu_second": round(count / cpu),
        "peak_rss_mb": {name: round(size / 1e6) for name, size in watch.memory.items()},
    }  # fmt: skip


def free_port() -> int:
    """A port of this machine that no one listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--values", type=int, nargs=2, default=(500_000, 2_000_000), help="Of Parquet.")
    parser.add_argument("--rows", type=int, nargs=2, default=(200_000, 800_000), help="Of JSON and CSV.")
    parser.add_argument("--format", choices=FORMATS, action="append", help="Only this one (repeatable).")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ald-"))
    results: dict[str, list[dict[str, Any]]] = {}
    load = os.getloadavg()[0]
    try:
        settings = Settings(data_dir=folder / "data", port=free_port())
        with Stack(settings, worker=False) as stack, Client(stack.url, timeout=600.0) as client:
            stack.wait_until_ready()
            pid = next(child for child in stack.children if child.name == "gateway").process.pid
            watch = Watch(psutil.Process(pid))
            for form in options.format or FORMATS:
                for count in options.values if form == "parquet" else options.rows:
                    path = folder / f"{count}.{form}"
                    write(rows(count, seed=count), form, path)
                    results.setdefault(form, []).append(measure(client, watch, path, count))
                    print(form, json.dumps(results[form][-1]), flush=True)
                    path.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result = {
        "command": " ".join(["python benchmarks/ingest.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, CPU",
        "load_before": round(load, 1), "niceness": os.nice(0), "results": results,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
