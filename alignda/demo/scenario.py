"""What the demo posts: a first background, observation batches and the truth, from the shipped held-out sample.

The atmosphere is a SPEEDY nature run that no model was trained or tuned on; the first background is the learned
model's 48 h forecast from the truth two days before the first cycle.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    import xarray as xr
    from numpy.typing import NDArray

SAMPLE = "sample.nc"
BACKGROUND_LEAD_HOURS = 48
STEP = timedelta(hours=6)
NETWORK_SEED = 7
LATENESS = timedelta(hours=3)  # after the window, when late reports come in


@dataclass(frozen=True)
class Batch:
    """One upload: bytes, their media type, the feed, and when they were received."""

    content: bytes
    media_type: str
    source: str
    receipt_time: datetime


class Scenario:
    """The held-out sample of a bundle and the simulated network that observes it."""

    def __init__(self, bundle: Path) -> None:
        import xarray as xr

        from models.nature.network import Network
        from models.nature.stations import load_stations
        from service.fields.grid import BundleDescription
        from service.observations.table import default_error

        self.bundle = bundle
        self.description = BundleDescription.load(bundle / "bundle.json")
        self.truth: xr.Dataset = xr.load_dataset(bundle / SAMPLE)
        self.network = Network(NETWORK_SEED, load_stations(), default_error)

    @cached_property
    def times(self) -> list[datetime]:
        """Valid times of the sample, UTC."""
        seconds = self.truth.time.values.astype("datetime64[s]").astype(np.int64)
        return [datetime.fromtimestamp(int(s), UTC) for s in seconds]

    def cycle_times(self, count: int) -> list[datetime]:
        """The first `count` cycles. Raises ValueError when the sample is too short."""
        first = self.times[0] + timedelta(hours=BACKGROUND_LEAD_HOURS)
        last = self.times[-1] - STEP  # the network interpolates in time to the end of the window
        wanted = [first + i * STEP for i in range(count)]
        if wanted[-1] > last:
            possible = int((last - first) / STEP) + 1
            raise ValueError(f"the shipped sample is long enough for {possible} cycles, not {count}")
        return wanted

    def state(self, valid_time: datetime) -> "NDArray[np.float32]":
        """The truth [1, channel, latitude, longitude], SI."""
        from service.fields.contract import to_array

        return to_array(self._at(valid_time), self.description)

    def _at(self, valid_time: datetime) -> "xr.Dataset":
        return self.truth.isel(time=[self.times.index(valid_time)])

    def write_background(self, first_cycle: datetime, path: Path) -> None:
        """The 48 h forecast from the truth as GRIB."""
        from models.assimilation import Assimilator
        from service.fields.grib import write_grib

        base = first_cycle - timedelta(hours=BACKGROUND_LEAD_HOURS)
        *_, state = Assimilator(self.bundle).forecast(self.state(base), base, BACKGROUND_LEAD_HOURS // 6)
        write_grib(path, state, self.description, base_time=base, step_hours=BACKGROUND_LEAD_HOURS, product="forecast")

    def write_truth(self, valid_time: datetime, path: Path) -> None:
        """The verifying truth as netCDF."""
        from service.fields.contract import from_array
        from service.fields.netcdf import write_netcdf

        dataset = from_array(self.state(valid_time), self.description, valid_time.replace(tzinfo=None))
        write_netcdf(path, dataset, product="analysis", title="truth of the demo: SPEEDY nature run")

    def batches(self, valid_time: datetime) -> list[Batch]:
        """The window's reports as they come in: soundings as BUFR, the rest as Parquet; the late ones by themselves."""
        import pyarrow.compute as pc

        from service.observations.table import columns_to_table

        end = valid_time + STEP / 2
        table = columns_to_table(self.network.observe(self.truth, valid_time))
        late = pc.greater_equal(table.column("receipt_time"), _scalar(end, table.schema.field("receipt_time").type))
        on_time = table.filter(pc.invert(late))
        return [
            *_uploads(on_time, "simulated", end - timedelta(seconds=1)),
            *_uploads(table.filter(late), "simulated-late", end + LATENESS),
        ]


def _scalar(time: datetime, kind: "pa.DataType") -> "pa.Scalar":
    import pyarrow as pa

    return pa.scalar(time, kind)


def _uploads(table: "pa.Table", source: str, receipt_time: datetime) -> list[Batch]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from service.observations.encode_bufr import encode_soundings

    sounding = pc.equal(table.column("type").cast(pa.string()), "temp")
    batches = []
    if (soundings := table.filter(sounding)).num_rows:
        batches.append(Batch(encode_soundings(soundings), "application/bufr", f"{source}-temp", receipt_time))
    if (others := table.filter(pc.invert(sounding))).num_rows:
        sink = pa.BufferOutputStream()
        pq.write_table(others, sink)
        content = sink.getvalue().to_pybytes()
        batches.append(Batch(content, "application/vnd.apache.parquet", source, receipt_time))
    return batches
