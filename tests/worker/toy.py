"""A small atmosphere without networks, to exercise the stages: optimal interpolation on an N8 Gaussian grid.

Real arithmetic at every point where the worker depends on the model: its interpolation is bilinear in the
horizontal and linear in ln p, its analysis draws towards the observations, its forecast moves one column east a step.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from service.fields.grid import BundleDescription, gaussian_latitudes
from worker.model import Array, Observations, Progress, Sampling

LEVELS = (850, 500)
CHANNELS = [(v, level) for v in ("z", "t", "u") for level in LEVELS] + [("u10", None), ("t2m", None), ("sp", None)]
CLIMATE = {"z850": 14500.0, "z500": 55000.0, "t850": 280.0, "t500": 255.0, "u850": 5.0, "u500": 12.0}
CLIMATE |= {"u10": 3.0, "t2m": 285.0, "sp": 1.0e5}
DEVIATION = {"z": 800.0, "t": 6.0, "u": 8.0, "u10": 5.0, "t2m": 6.0, "sp": 900.0}


def write_bundle(folder: Path) -> Path:
    """A bundle.json with the toy's grid and channels."""
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "name": folder.name,
        "step_hours": 6,
        "grid": {
            "kind": "regular_gg",
            "latitudes": gaussian_latitudes(16).tolist(),
            "longitudes": (np.arange(32) * 11.25).tolist(),
        },
        "channels": [{"variable": variable, "level": level} for variable, level in CHANNELS],
    }
    (folder / "bundle.json").write_text(json.dumps(description))
    return folder


@dataclass
class ToyModel:
    """A `worker.model.Model`. `spoil` counts analyses still to be ruined, for the gate."""

    folder: Path
    device: str = "cpu"
    spoil: int = 0
    analyses: int = 0

    def __post_init__(self) -> None:
        self.description = BundleDescription.load(self.folder)
        self.latitudes = np.array(self.description.grid.latitudes)
        self.longitudes = np.array(self.description.grid.longitudes)

    def supported(self, observations: Observations) -> np.ndarray:
        surface = np.isin(observations.variable, ("u10", "t2m", "sp"))
        bracketed = (observations.pressure <= 85000.0) & (observations.pressure >= 50000.0)
        return surface | (np.isin(observations.variable, ("z", "t", "u")) & bracketed)

    def equivalents(self, state: Array, observations: Observations) -> Array:
        out = np.empty((len(state), len(observations)), np.float32)
        rows, row_weight = _between(-self.latitudes, -observations.latitude)
        column = (observations.longitude % 360.0) / 11.25
        west, east_weight = np.floor(column).astype(int) % 32, column - np.floor(column)
        for n, variable in enumerate(observations.variable):
            channels = [(self.description.index(str(variable), None), 1.0)] if variable in ("u10", "t2m", "sp") else []
            if not channels:
                share = np.log(85000.0 / observations.pressure[n]) / np.log(85.0 / 50.0)
                lower, upper = (self.description.index(str(variable), level) for level in LEVELS)
                channels = [(lower, 1 - share), (upper, share)]
            total = 0.0
            for channel, weight in channels:
                for row, a in ((rows[n], 1 - row_weight[n]), (min(rows[n] + 1, 15), row_weight[n])):
                    for col, b in ((west[n], 1 - east_weight[n]), ((west[n] + 1) % 32, east_weight[n])):
                        total = total + weight * a * b * state[:, channel, row, col]
            out[:, n] = total
        return out

    def observation_error(self, observations: Observations) -> np.ndarray:
        return observations.error

    def background_error(self, observations: Observations, error_level: float) -> np.ndarray:
        return error_level * np.array([DEVIATION[str(variable)] for variable in observations.variable])

    def analyse(
        self,
        background: Array | None,
        observations: Observations,
        valid_time: datetime,
        error_level: float,
        sampling: Sampling,
        progress: Progress,
    ) -> Array:
        """Successive corrections: each channel moves towards the nearby departures of its variable."""
        self.analyses += 1
        mean, deviation = self.climatology(valid_time)
        start = mean[None] if background is None else background.mean(axis=0, keepdims=True)
        departure = observations.value - self.equivalents(start, observations)[0]
        increment = np.zeros_like(mean)
        lat, lon = np.meshgrid(self.latitudes, self.longitudes, indexing="ij")
        for index, channel in enumerate(self.description.channels):
            mine = observations.variable == channel.variable
            if channel.level is not None:
                mine &= np.abs(np.log(observations.pressure / 100.0 / channel.level)) < 0.1
            top, bottom = np.zeros(lat.shape), np.zeros(lat.shape)
            background_variance = (error_level * deviation[index, 0, 0]) ** 2
            for n in np.flatnonzero(mine):
                east = (lon - observations.longitude[n] + 180) % 360 - 180
                weight = np.exp(-((lat - observations.latitude[n]) ** 2 + east**2) / (2 * 12.0**2))
                top += weight * departure[n] * background_variance / (background_variance + observations.error[n] ** 2)
                bottom += weight
            increment[index] = top / np.maximum(bottom, 1.0)
        progress(0.5)
        noise = np.random.default_rng(sampling.seed).normal(size=(sampling.members, *mean.shape))
        members = start + increment + 0.02 * deviation * noise
        if self.spoil > 0:
            self.spoil -= 1
            members[0, 0, 3, 3] = np.nan
        return members.astype(np.float32)

    def forecast(self, state: Array, valid_time: datetime, steps: int) -> Iterator[Array]:
        for _ in range(steps):
            state = np.roll(state, 1, axis=-1)
            yield state

    def error_level(self, lead_hours: float | None) -> float:
        return 1.0 if lead_hours is None else min(1.0, 0.2 + lead_hours / 100.0)

    def estimate_error_level(
        self, observations: Observations, departures: Array, first: float, background: Array
    ) -> float:
        return first

    def climatology(self, valid_time: datetime) -> tuple[Array, Array]:
        mean = np.array([CLIMATE[channel.name] for channel in self.description.channels])
        deviation = np.array([DEVIATION[channel.variable] for channel in self.description.channels])
        shape = self.description.shape
        return (
            np.broadcast_to(mean[:, None, None], shape).astype(np.float32),
            np.broadcast_to(deviation[:, None, None], shape).astype(np.float32),
        )

    def rmse(self, a: Array, b: Array) -> Array:
        weights = np.cos(np.radians(self.latitudes))[:, None] * np.ones(32)
        return np.sqrt((np.square(a - b) * weights).sum((1, 2)) / weights.sum()).astype(np.float32)

    def balance(self, state: Array) -> tuple[Array, Array]:
        roughness = np.abs(np.diff(state[:, 0], axis=-1)).mean((1, 2)) / DEVIATION["z"]
        adherence = np.exp(-roughness).astype(np.float32)
        return adherence, adherence


def _between(axis: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    index = np.clip(np.searchsorted(axis, where) - 1, 0, len(axis) - 2)
    return index, np.clip((where - axis[index]) / (axis[index + 1] - axis[index]), 0.0, 1.0)


def truth(model: ToyModel, steps: int = 0) -> Array:
    """A wavy state [channel, latitude, longitude] that moves as the toy's forecast does."""
    mean, deviation = model.climatology(datetime(2001, 1, 1))
    lat, lon = np.radians(model.latitudes)[:, None], np.radians(model.longitudes)[None, :]
    phases = np.arange(len(mean))[:, None, None]
    wave = np.cos(lat) ** 2 * np.cos(2 * lon + 0.7 * phases)
    return np.roll((mean + deviation * wave).astype(np.float32), steps, axis=-1)
