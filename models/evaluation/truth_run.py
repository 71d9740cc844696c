"""The truth of an evaluation: a nature run on disk, read state by state."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.specification import BundleSpec, ChannelSpec

State = NDArray[np.float32]  # [channel, latitude, longitude], SI


class TruthRun:
    """The states of a netCDF file of `alignda nature`, in the channel order of a bundle.

    Raises ValueError when the file is on another grid or lacks a channel.
    """

    def __init__(self, path: Path, spec: BundleSpec) -> None:
        self.path, self.spec = path, spec
        self._states = xr.open_dataset(path, cache=False)
        rows, columns = (self._states[axis].values.tolist() for axis in ("latitude", "longitude"))
        if not spec.grid.is_at(rows, columns):
            raise ValueError(f"{path} is not on the grid of the bundle {spec.name}")
        self._levels = [float(level) for level in self._states["level"].values]
        lacking = [f"{c.variable} {c.level}" for c in spec.channels if not self._has(c)]
        if lacking:
            raise ValueError(f"{path} lacks {', '.join(lacking)}")
        seconds = self._states["time"].values.astype("datetime64[s]").astype(np.int64)
        self.times = [datetime.fromtimestamp(int(s), UTC) for s in seconds]
        self._index = {time: i for i, time in enumerate(self.times)}

    def _has(self, channel: ChannelSpec) -> bool:
        return channel.variable in self._states and (channel.level is None or channel.level in self._levels)

    def holds(self, valid_time: datetime) -> bool:
        """Whether there is a state of this time."""
        return valid_time in self._index

    def state(self, valid_time: datetime) -> State:
        """[channel, latitude, longitude], SI. Raises ValueError when the file does not hold this time."""
        if valid_time not in self._index:
            raise ValueError(f"{self.path} holds no state of {valid_time:%Y-%m-%dT%H} UTC")
        fields = {
            name: values.values
            for name, values in self._states.isel(time=self._index[valid_time]).data_vars.items()
            if any(c.variable == name for c in self.spec.channels)
        }
        return np.stack([self._field(fields, c) for c in self.spec.channels]).astype(np.float32)

    def _field(self, fields: dict[object, NDArray[np.float32]], channel: ChannelSpec) -> NDArray[np.float32]:
        values = fields[channel.variable]
        return values if channel.level is None else values[self._levels.index(channel.level)]

    def around(self, valid_time: datetime) -> xr.Dataset:
        """The states from one step before to one step after, as the simulated network reads them."""
        step = timedelta(hours=self.spec.step_hours)
        wanted = [self._index[t] for t in (valid_time - step, valid_time, valid_time + step) if t in self._index]
        return self._states.isel(time=wanted).load()

    def within(self, start: datetime | None, end: datetime | None) -> list[datetime]:
        """The times of the file from `start` to `end`, both included."""
        return [t for t in self.times if (start is None or t >= start) and (end is None or t <= end)]
