"""The demo's story: start the service, post, cycle, watch, collect, report."""

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from alignda.client import Client, GatewayError
from alignda.demo.cycle_row import CycleRow
from alignda.demo.display import Display
from alignda.demo.report import Report
from alignda.demo.scenario import BACKGROUND_LEAD_HOURS, STEP, Scenario
from alignda.embedded import background_service

MARKER = ".alignda-demo"
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "demo": {"seed": 1},
    "free": {"assimilate": False, "members": 1},
}


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass(frozen=True)
class DemoOptions:
    """`members` and `cycles` of the assimilating experiment; `port` 0 takes any free one."""

    out: Path
    cycles: int = 8
    members: int = 16
    port: int = 0
    resume: bool = False
    keep: bool = False


def prepare_folder(out: Path, resume: bool) -> None:
    """An empty demo folder, or the one to resume. Raises DemoError rather than delete what is not a demo's."""
    if out.exists() and any(out.iterdir()):
        if not (out / MARKER).exists():
            raise DemoError(f"{out} exists and is not a demo's folder; choose another with --out")
        if not resume:
            shutil.rmtree(out)
    elif resume:
        raise DemoError(f"there is no demo to resume in {out}")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("This folder belongs to `alignda demo`, which deletes and rebuilds it.\n")


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_demo(options: DemoOptions, say: Callable[[str], None]) -> Path:
    """Run the demo and return the path of its summary.json. Raises DemoError, StackError or GatewayError."""
    from service.settings import Settings

    bundle = Settings().bundle
    if not (bundle / "bundle.json").exists():
        raise DemoError(f"there is no model bundle at {bundle}; train one with `alignda train`, or set ALIGNDA_BUNDLE")
    prepare_folder(options.out, options.resume)
    settings = Settings(
        data_dir=options.out / "service",
        bundle=bundle,
        host="127.0.0.1",
        port=options.port or free_port(),
    )
    scenario = Scenario(bundle)
    times = scenario.cycle_times(options.cycles)
    began = time.monotonic()
    say(f"SPEEDY held-out sample, {len(times)} cycles from {times[0]:%Y-%m-%d %H}Z, {options.members} members")
    with background_service(settings) as url, Client(url) as client:
        say(f"service ready at {url} after {time.monotonic() - began:.1f} s (documentation at {url}/docs)")
        report = Report(options.out, scenario.description)
        with Display(say) as display:
            _set_up(client, scenario, times[0], options)
            for valid_time in times:
                _post_window(client, scenario, valid_time, options.out)
                cycles = {name: _cycle(client, name, valid_time, display) for name in EXPERIMENTS}
                row = report.add(client, valid_time, cycles["demo"], cycles["free"])
                display.row(row)
        summary = report.finish(client)
        for line in _verdict(report.rows, time.monotonic() - began):
            say(line)
        say(f"products, plots and summary.json are in {options.out}")
        if options.keep:
            say(f"the service stays up at {url} (metrics at {url}/metrics); Ctrl-C ends it")
            while True:
                time.sleep(1)
    return summary


def _set_up(client: Client, scenario: Scenario, first: datetime, options: DemoOptions) -> None:
    """Create both experiments and give them the same first background, as GRIB."""
    existing = {experiment["name"] for experiment in client.experiments()}
    path = options.out / "first-background.grib2"
    if not path.exists():
        scenario.write_background(first, path)
    for name, config in EXPERIMENTS.items():
        if name not in existing:
            client.create_experiment(name, {"members": options.members, **config})
        client.post_background(path, experiment=name, lead_hours=BACKGROUND_LEAD_HOURS, receipt_time=first)


def _post_window(client: Client, scenario: Scenario, valid_time: datetime, out: Path) -> None:
    """Post the window's observations as they come in, and the truth that will verify the cycle."""
    for batch in scenario.batches(valid_time):
        client.post_observations(
            batch.content, source=batch.source, media_type=batch.media_type, receipt_time=batch.receipt_time
        )
    path = out / "truth" / f"{valid_time:%Y%m%dT%H}.nc"
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        scenario.write_truth(valid_time, path)
    client.post_verification(path)


def _cycle(client: Client, experiment: str, valid_time: datetime, display: Display) -> dict[str, Any]:
    """Run one cycle as known at the end of its window, showing its progress."""
    cycle = client.run_cycle(experiment, valid_time, as_of=valid_time + STEP / 2)
    for event in client.events(cycle["id"]):
        if "stage" in event and "fraction" in event:
            display.progress(experiment, valid_time, event["stage"], event["fraction"], event["message"])
    ended = client.cycle(cycle["id"])
    if ended["state"] not in ("done", "degraded"):
        raise GatewayError(f"cycle {valid_time:%Y-%m-%d %H}Z of {experiment} {ended['state']}", str(ended["error"]))
    return ended


def _verdict(rows: list[CycleRow], seconds: float) -> list[str]:
    better = sum(row.rmse["analysis"]["z500"] < row.rmse["background"]["z500"] for row in rows[2:])
    last = rows[-1].rmse
    ratio = last["analysis"]["z500"] / last["free"]["z500"]
    return [
        f"analysis beats background (z500) in {better} of {len(rows[2:])} cycles after the second",
        f"z500 error of the last analysis is {ratio:.2f} of the run without observations; {seconds:.0f} s in all",
    ]
