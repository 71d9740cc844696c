"""Quality control on the shipped held-out sample or a nature run: what it rejects, what it costs, what it is worth.

    python benchmarks/quality_control.py --out benchmarks/results/quality_control.json
    python benchmarks/quality_control.py --nature nature-3.nc --start 2020-04-10 --cycles 28 --out ...

The simulated network with 3 % gross errors, 5 % duplicates, aircraft 1.5 K too warm and one land station 10 hPa too
high, cycled by the real worker: once clean, once as it is, once with every check switched off.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from alignda.demo.scenario import BACKGROUND_LEAD_HOURS, Scenario
from models.bundle import SHIPPED, file_digest
from models.nature import network
from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.tables import Batch, Field, FieldPurpose
from service.experiments import ExperimentConfig
from service.fields.contract import from_array, to_array
from service.fields.netcdf import write_netcdf
from service.observation_state import KIND, read_biases
from service.observations.reasons import Reason
from service.observations.table import columns_to_table
from service.settings import Settings
from worker.cycle import run_cycle
from worker.model import BundleModel
from worker.runtime import Runtime

GROSS, DUPLICATE = 0.03, 0.05
AIRCRAFT_BIAS, STATION_BIAS = 1.5, 1000.0  # K, Pa
REDUNDANT = (Reason.DUPLICATE, Reason.THINNED, Reason.SUPEROBBED)
FAR = 1.0e6  # sigmas
CHANNELS = ("z500", "t850", "u500", "sp")
UNCHECKED: dict[str, Any] = {
    "checks": {
        "huber": FAR, "buddy": {"sigmas": FAR}, "hydrostatic": {"sigmas": FAR}, "lapse": {"sigmas": FAR},
        "wind": {"turned": 180.0, "fastest": {"1000": FAR, "700": FAR, "300": FAR, "100": FAR, "10": FAR}},
    },
    "types": {
        kind: {"variables": {name: {"bias": None, "limits": None} for name in names}}
        for kind, names in {
            "amdar": ("t", "u", "v"), "temp": ("t", "u", "v", "q"), "satwind": ("u", "v"),
            "synop": ("sp", "t2m", "u10", "v10"), "ship": ("sp", "t2m", "u10", "v10"), "buoy": ("sp",),
        }.items()
    },
}  # fmt: skip


@dataclass(frozen=True)
class Feed:
    """The tables of all cycles, and what only the simulation knows about their values, by valid time."""

    tables: dict[datetime, pa.Table]
    flags: dict[datetime, dict[str, Any]]
    station: str


def feed(scenario: Scenario, times: list[datetime], *, clean: bool) -> Feed:
    """`clean`: the same network without gross errors, duplicates and biases."""
    network.GROSS_SHARE, network.DUPLICATE_SHARE, network.LATE_SHARE = (
        (0.0, 0.0, 0.0) if clean else (GROSS, DUPLICATE, 0.0)
    )
    tables, flags = {}, {}
    station = str(scenario.network.land_stations.id[0])
    for valid_time in times:
        columns, flag = scenario.network.observe_with_flags(scenario.truth, valid_time)
        off = (columns["type"] == "synop") & (columns["station"] == station) & (columns["variable"] == "sp")
        if not clean:
            columns["value"] = columns["value"] + np.where(off, STATION_BIAS, 0.0)
            warm = (columns["type"] == "amdar") & (columns["variable"] == "t")
            columns["value"] = (columns["value"] + np.where(warm, AIRCRAFT_BIAS, 0.0)).astype(np.float32)
        tables[valid_time], flags[valid_time] = columns_to_table(columns), {**flag, "off": off}
    return Feed(tables, flags, station)


class House:
    """A catalogue and an archive of its own, and a worker in this process."""

    def __init__(self, folder: Path, model: BundleModel) -> None:
        folder.mkdir(parents=True)
        self.settings = Settings(data_dir=folder, bundle=SHIPPED)
        self.catalogue = Catalogue.open(self.settings.catalogue_url)
        self.archive = Archive(self.settings.archive_dir)
        self.runtime = Runtime(self.settings, self.catalogue, self.archive, lambda folder, device: model)

    def experiment(self, scenario: Scenario, first: datetime, background: Any, config: dict[str, Any]) -> int:
        """Creates it and gives it its first background; returns its id."""
        wanted = ExperimentConfig.model_validate(config).model_dump(mode="json")
        experiment = self.catalogue.experiments.create("run", wanted, SHIPPED.name).id
        path = self.settings.data_dir / "first.nc"
        write_netcdf(path, from_array(background, scenario.description, first), product="forecast")
        stored = self.archive.put(path, "fields/first.nc")
        field = Field(
            sha256=stored.sha256, purpose=FieldPurpose.BACKGROUND, experiment_id=experiment, valid_time=first,
            lead_hours=BACKGROUND_LEAD_HOURS, path=stored.path, raw_path=stored.path, received_at=first, notes=[],
        )  # fmt: skip
        self.catalogue.fields.add(field)
        return experiment

    def post(self, table: pa.Table, number: int) -> None:
        """As the gateway would after decoding."""
        path = self.settings.data_dir / "draft.parquet"
        pq.write_table(table, path)
        stored = self.archive.put(path, f"observations/{number}.parquet")
        times = table.column("time").to_pylist()
        batch = Batch(
            sha256=f"{number:064d}", source="benchmark", media_type="application/vnd.apache.parquet",
            path=stored.path, raw_path=stored.path, received_at=min(times), time_min=min(times), time_max=max(times),
            received=len(times), rejected=0, counts={}, notes=[], status="accepted",
        )  # fmt: skip
        self.catalogue.batches.add(batch)

    def product(self, cycle_id: int, kind: str, format_: str) -> Path:
        found = self.catalogue.products.find(cycle_id, kind, format_)
        if found is None:
            raise SystemExit(f"cycle {cycle_id} has no {kind}: {self.catalogue.cycles.get(cycle_id).error}")
        return self.archive.existing(found.path)


def counted(departures: pa.Table, given: pa.Table, flags: dict[str, Any]) -> dict[str, int]:
    """Of the values that the model can compare: gross errors and good values, and how many of each were rejected.

    Duplicates and thinned values are neither lost nor found: another value stands for them. `flags` are of the rows of
    `given`, in whose order the departures are not.
    """
    made = departures.select(["id", "qc", "background"]).to_pandas()
    made["again"] = made.qc == int(Reason.DUPLICATE)
    made = made.sort_values("again", kind="stable").drop_duplicates("id").set_index("id")
    made = made.loc[given.column("id").to_pylist()]
    reason, comparable = made.qc.to_numpy(), np.isfinite(made.background.to_numpy(float))
    judged = comparable & ~flags["duplicate"] & ~np.isin(reason, [int(kind) for kind in REDUNDANT])
    rejected = reason >= Reason.MISSING_VALUE
    gross, good = judged & flags["gross"], judged & ~flags["gross"] & ~flags["off"]
    return {
        "gross": int(gross.sum()), "gross_rejected": int((gross & rejected).sum()),
        "good": int(good.sum()), "good_rejected": int((good & rejected).sum()),
    }  # fmt: skip


def cycled(
    folder: Path,
    name: str,
    given: Feed,
    scenario: Scenario,
    background: Any,
    model: BundleModel,
    config: dict[str, Any],
) -> Iterator[dict[str, Any]]:
    """One row per cycle: what was rejected, the analysis error against the truth, the biases as known afterwards."""
    house = House(folder / name, model)
    times = sorted(given.tables)
    experiment = house.experiment(scenario, times[0], background, config)
    for number, valid_time in enumerate(times):
        house.post(given.tables[valid_time], number)
        cycle = house.catalogue.cycles.accept(experiment, valid_time, seed=number)[0]
        run_cycle(cycle.id, house.runtime)
        cycle = house.catalogue.cycles.get(cycle.id)
        departures = pq.read_table(house.product(cycle.id, "departures", "parquet"))
        truth = scenario.state(valid_time)[0]
        analysis = to_array(xr.load_dataset(house.product(cycle.id, "analysis", "netcdf")), scenario.description)[0]
        error = dict(zip(CHANNELS, model.rmse(analysis, truth)[[_index(scenario, c) for c in CHANNELS]], strict=True))
        state = house.product(cycle.id, KIND, "parquet")
        yield {
            "run": name, "valid_time": valid_time.isoformat(), "state": cycle.state,
            "degraded": [entry["reason"] for entry in cycle.degraded],
            **counted(departures, given.tables[valid_time], given.flags[valid_time]),
            "control_quality_seconds": round(cycle.seconds["control_quality"], 3),
            "rmse": {channel: float(value) for channel, value in error.items()},
            "aircraft_bias": _bias(state, "amdar", "", "t"),
            "station_bias": _bias(state, "synop", given.station, "sp"),
        }  # fmt: skip
    house.catalogue.close()


def _index(scenario: Scenario, channel: str) -> int:
    return [c.name for c in scenario.description.channels].index(channel)


def _bias(state: Path, kind: str, station: str, variable: str) -> float | None:
    rows = [r for r in read_biases(state, type=kind, station=station, variable=variable)]
    return next((row["value"] for row in rows if row["predictor"] == "constant"), None)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares over all cycles; analysis errors are means over the cycles of the second half."""
    out: dict[str, Any] = {}
    for name in dict.fromkeys(row["run"] for row in rows):
        mine = [row for row in rows if row["run"] == name]
        total = {key: sum(row[key] for row in mine) for key in ("gross", "gross_rejected", "good", "good_rejected")}
        later = mine[len(mine) // 2 :]
        out[name] = {
            "gross_rejected_share": total["gross_rejected"] / total["gross"] if total["gross"] else None,
            "good_lost_share": total["good_rejected"] / total["good"],
            "rmse": {channel: float(np.mean([row["rmse"][channel] for row in later])) for channel in CHANNELS},
            "aircraft_bias_found": mine[-1]["aircraft_bias"],
            "station_bias_found": mine[-1]["station_bias"],
            "degraded_cycles": sum(bool(row["degraded"]) for row in mine),
        }
    return out


def part_of(nature: Path, start: datetime, cycles: int) -> xr.Dataset:
    """The states of a nature run that `cycles` cycles from `start` (UTC) need."""
    first = np.datetime64(start - timedelta(hours=BACKGROUND_LEAD_HOURS))
    last = np.datetime64(start + timedelta(hours=6 * cycles))
    with xr.open_dataset(nature) as run:
        return run.sel(time=slice(first, last)).load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cycles", type=int, default=12)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--nature", type=Path, help="a nature run instead of the shipped sample")
    parser.add_argument("--start", type=datetime.fromisoformat, help="valid time of its first cycle, e.g. 2020-04-10")
    options = parser.parse_args()
    scenario, model = Scenario(SHIPPED), BundleModel(SHIPPED, "cpu")
    if options.nature is not None:
        scenario.truth = part_of(options.nature, options.start, options.cycles)
    times = scenario.cycle_times(options.cycles)
    base = times[0] - timedelta(hours=BACKGROUND_LEAD_HOURS)
    *_, background = model.forecast(scenario.state(base), base, BACKGROUND_LEAD_HOURS // 6)
    basic = {"members": options.members, "sampler_steps": options.steps, "forecast_hours": 6, "seed": 1}
    clean, faulty = feed(scenario, times, clean=True), feed(scenario, times, clean=False)
    runs = {
        "clean": (clean, basic),
        "controlled": (faulty, basic),
        "unchecked": (faulty, {**basic, "gross_check_sigma": 1000.0, "observations": UNCHECKED}),
    }
    rows = []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, (given, config) in runs.items():
            for row in cycled(Path(folder), name, given, scenario, background, model, config):
                rows.append(row)
                print(json.dumps(row), flush=True)
    report = {
        "command": f"python benchmarks/quality_control.py --cycles {options.cycles} --members {options.members} "
        f"--steps {options.steps}"
        + (f" --nature {options.nature.name} --start {options.start:%Y-%m-%dT%H}" if options.nature else ""),
        "date": datetime.now(UTC).date().isoformat(), "machine": f"{platform.machine()}, 2 cores, CPU",
        "seconds": round(time.perf_counter() - began), "bundle": file_digest(SHIPPED / "bundle.json"),
        "faults": {"gross": GROSS, "duplicates": DUPLICATE, "aircraft_K": AIRCRAFT_BIAS, "station_Pa": STATION_BIAS},
        "summary": summary(rows), "rows": rows,
    }  # fmt: skip
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
