"""A real catalogue (SQLite) and archive in a temporary folder, with the toy atmosphere for a bundle."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.archive import Archive
from service.catalogue import Catalogue
from service.catalogue.tables import Batch, Cycle, Experiment, Field, FieldPurpose
from service.experiments import ExperimentConfig
from service.fields.contract import from_array
from service.fields.netcdf import write_netcdf
from service.ingest import keep
from service.observations.partitions import PartitionWriter
from service.observations.table import columns_to_table
from service.settings import Settings
from tests.worker.toy import ToyModel, truth, write_bundle
from worker.cycle import run_cycle
from worker.desk import Desk
from worker.runtime import Runtime
from worker.work import Work

NOON = datetime(2001, 1, 1, 12, tzinfo=UTC)


def columns(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Columns of the observation table from rows that name only what matters to them."""
    standard = {
        "time": NOON, "receipt_time": NOON, "latitude": 50.0, "longitude": 10.0, "pressure": 50000.0,
        "height": np.nan, "variable": "t", "value": 255.0, "error": 1.0, "type": "temp", "station": "10410",
        "source": "test", "preqc": -1,
    }  # fmt: skip
    full = [{**standard, **row} for row in rows]
    out: dict[str, np.ndarray] = {}
    for name, example in standard.items():
        values = [row[name] for row in full]
        if name in ("time", "receipt_time"):
            out[name] = np.array([value.astimezone(UTC).replace(tzinfo=None) for value in values], "datetime64[us]")
        else:
            out[name] = np.array(values, object if isinstance(example, str) else None)
    return out


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """An observation table."""
    return columns_to_table(columns(rows))


@dataclass
class House:
    """The rooms that the worker works in."""

    settings: Settings
    runtime: Runtime
    models: list[ToyModel]

    @property
    def catalogue(self) -> Catalogue:
        return self.runtime.catalogue

    @property
    def archive(self) -> Archive:
        return self.runtime.archive

    @property
    def model(self) -> ToyModel:
        model = self.runtime.model("toy")
        assert isinstance(model, ToyModel)
        return model

    def experiment(self, name: str = "exp", **config: Any) -> Experiment:
        config = {"members": 4, "forecast_hours": 12, **config}
        return self.catalogue.experiments.create(name, ExperimentConfig(**config).model_dump(mode="json"), "toy")

    def cycle(self, experiment: Experiment, valid_time: datetime = NOON, as_of: datetime | None = None) -> Cycle:
        return self.catalogue.cycles.accept(experiment.id, valid_time, seed=7, as_of=as_of)[0]

    def post(self, observations: pa.Table, received_at: datetime = NOON) -> Batch:
        """As the gateway would after decoding."""
        number = self.catalogue.batches.page(1, 0).total
        folder = self.settings.data_dir / "draft"
        folder.mkdir(exist_ok=True)
        writer = PartitionWriter(folder)
        writer.add(observations)
        partitions = [keep(self.archive, file, folder, str(number)) for file in writer.close()]
        times = observations.column("time").to_pylist()
        batch = Batch(
            sha256=f"{number:064d}", source="test", media_type="application/vnd.apache.parquet", path=None,
            raw_path="none", received_at=received_at, time_min=min(times), time_max=max(times),
            received=len(times), rejected=0, counts={}, notes=[], status="accepted",
        )  # fmt: skip
        return self.catalogue.batches.add(batch, partitions)[0]

    def post_field(
        self,
        state: np.ndarray,
        purpose: FieldPurpose,
        valid_time: datetime = NOON,
        experiment: Experiment | None = None,
    ) -> Field:
        """`state` [channel, latitude, longitude]; a background if an experiment is given."""
        path = self.settings.data_dir / "draft.nc"
        write_netcdf(path, from_array(state[None], self.model.description, valid_time), product="analysis")
        number = len(list(self.archive.root.rglob("*.nc")))
        stored = self.archive.put(path, f"fields/{number}.nc")
        field = Field(
            sha256=stored.sha256, purpose=purpose, experiment_id=experiment.id if experiment else None,
            valid_time=valid_time, lead_hours=48 if experiment else None, path=stored.path, raw_path=stored.path,
            received_at=NOON, notes=[],
        )  # fmt: skip
        return self.catalogue.fields.add(field)[0]

    def work(self, cycle: Cycle) -> Work:
        """A cycle claimed and laid out, for a stage on its own."""
        lease = self.catalogue.leases.claim(cycle.id, "test")
        assert lease is not None
        experiment = self.catalogue.experiments.get(cycle.experiment_id)
        return Work(
            cycle=self.catalogue.cycles.get(cycle.id),
            experiment=experiment.name,
            config=ExperimentConfig.model_validate(experiment.config),
            lease=lease,
            catalogue=self.catalogue,
            archive=self.archive,
            model=self.model,
            desk=Desk(self.runtime.desks, cycle.id, lease.token),
            progress=lambda fraction, message: None,
        )

    def run(self, cycle: Cycle) -> Cycle:
        """The whole story; returns the cycle as it was left."""
        run_cycle(cycle.id, self.runtime)
        return self.catalogue.cycles.get(cycle.id)

    def soundings(self, count: int = 150, valid_time: datetime = NOON, steps: int = 0, error: float = 0.1) -> pa.Table:
        """Observations of the toy's truth: z, t and u at both levels, at `count` places."""
        generator = np.random.default_rng(3)
        state = truth(self.model, steps)[None]
        rows = []
        for number in range(count):
            place = {"latitude": float(generator.uniform(-80, 80)), "longitude": float(generator.uniform(-180, 180))}
            for variable, scale in (("z", 100.0), ("t", 1.0), ("u", 2.0)):
                for pressure in (85000.0, 50000.0):
                    rows.append(
                        {**place, "variable": variable, "pressure": pressure, "station": f"S{number}",
                         "error": scale, "time": valid_time, "receipt_time": valid_time}
                    )  # fmt: skip
        from worker.stages.observed import Observed

        first = table(rows)
        exact = self.model.equivalents(state, Observed(first).observations(valid_time))[0]
        noise = generator.normal(size=len(rows)) * error
        return table([{**row, "value": float(exact[i] + noise[i] * row["error"])} for i, row in enumerate(rows)])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    settings = Settings(data_dir=tmp_path / "data", bundle=write_bundle(tmp_path / "bundles" / "toy"))
    settings.data_dir.mkdir(parents=True)
    models: list[ToyModel] = []

    def load(folder: Path, device: str) -> ToyModel:
        models.append(ToyModel(folder, device))
        return models[-1]

    catalogue = Catalogue.open(settings.catalogue_url)
    yield House(settings, Runtime(settings, catalogue, Archive(settings.archive_dir), load), models)
    catalogue.close()


@pytest.fixture
def later() -> Callable[[float], datetime]:
    """NOON plus so many hours."""
    return lambda hours: NOON + timedelta(hours=hours)
