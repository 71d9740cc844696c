"""A synthetic atmosphere: travelling waves on a seasonal mean, geostrophic and hydrostatic by construction.

Phi(ln p, latitude, longitude, t) is analytic; u, v = (-dPhi/dy, dPhi/dx) / f and T = -dPhi/dlnp / R follow exactly
(Phi varies as sin^2 of the latitude, so that the wind stays finite at the equator).
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.constants import EARTH_RADIUS, GAS_CONSTANT, OMEGA
from models.nature import speedy
from models.specification import ChannelSpec, GridSpec

Array = NDArray[np.float64]

LEVELS_HPA = (925.0, 500.0, 200.0)
SURFACE_PRESSURE = 1.0e5
WAVES = 10
CHANNELS = (
    *(ChannelSpec(variable=v, level=p) for v in "zquvt" for p in LEVELS_HPA),
    *(ChannelSpec(variable=v, level=None) for v in ("u10", "v10", "t2m", "sp")),
)


def gaussian_grid(rows: int = 16) -> GridSpec:
    """A regular Gaussian grid of `rows` x 2 `rows` points, north to south."""
    latitudes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1]
    return GridSpec(N=rows // 2, latitudes=tuple(latitudes), longitudes=tuple(np.arange(2 * rows) * 180.0 / rows))


@dataclass(frozen=True)
class Atmosphere:
    """The waves of one seed; the seasonal mean is the same for every seed."""

    seed: int

    def fields(self, valid_time: datetime, grid: GridSpec) -> dict[str, NDArray[np.float32]]:
        """Variable -> [level, latitude, longitude] or [latitude, longitude], SI."""
        generator = np.random.default_rng([self.seed, 1])
        phase, vertical_phase, beat = generator.uniform(0, 2 * np.pi, (3, WAVES))
        days = (valid_time - datetime(2000, 1, 1, tzinfo=UTC)) / timedelta(days=1)
        summer = -np.cos(2 * np.pi * days / 365.25)
        latitude, longitude = np.meshgrid(np.deg2rad(grid.latitudes), np.deg2rad(grid.longitudes), indexing="ij")
        sine, cosine = np.sin(latitude), np.cos(latitude)
        x = np.log(np.array([100.0 * p for p in LEVELS_HPA]) / SURFACE_PRESSURE)[:, None, None]
        # the mean: temperature t0 + slope x, a jet that grows upwards, stronger in the northern winter
        t0, slope = 288.0 + 3.0 * summer, 40.0
        jet = 8000.0 - 1500.0 * summer
        z = -GAS_CONSTANT * (t0 * x + 0.5 * slope * x**2) + jet * x * sine**2
        dz_dx = -GAS_CONSTANT * (t0 + slope * x) + jet * sine**2
        u = -2 * jet * x * sine * cosine / (2 * OMEGA * sine * EARTH_RADIUS)
        v = np.zeros_like(u)
        for k in range(WAVES):
            wave, period = 1 + k % 5, 8.0 + 1.5 * k
            amplitude = 4000.0 / wave * (1 + 0.5 * np.sin(2 * np.pi * days / (17 + 3 * k) + beat[k]))
            tilt, growth, lean = 0.6 * np.sin(vertical_phase[k]), 0.5, 0.8 * np.cos(vertical_phase[k])
            angle = wave * longitude - 2 * np.pi * days / period + phase[k] + tilt * x
            profile, shape = amplitude * (1 - growth * x), sine**2 * cosine**2 * (1 + lean * sine)
            # d(shape)/d(latitude) / sine, finite everywhere
            slope_y = cosine * ((2 * cosine**2 - 2 * sine**2) * (1 + lean * sine) + lean * sine * cosine**2)
            z = z + profile * shape * np.cos(angle)
            dz_dx = dz_dx - shape * (amplitude * growth * np.cos(angle) + profile * tilt * np.sin(angle))
            u = u - profile * slope_y * np.cos(angle) / (2 * OMEGA * EARTH_RADIUS)
            v = v - wave * profile * sine * cosine * (1 + lean * sine) * np.sin(angle) / (2 * OMEGA * EARTH_RADIUS)
        t = -dz_dx / GAS_CONSTANT
        q = 0.012 * np.exp(3.0 * x + 0.06 * (t - t0 - slope * x))
        sp = 100.0 * LEVELS_HPA[0] * np.exp(z[0] / (GAS_CONSTANT * t[0]))
        surface = {"u10": 0.7 * u[0], "v10": 0.7 * v[0], "t2m": t[0] + 3.0, "sp": sp}
        fields = {"z": z, "q": q, "u": u, "v": v, "t": t, **surface}
        return {name: np.broadcast_to(values, values.shape).astype(np.float32) for name, values in fields.items()}

    def state(self, valid_time: datetime, grid: GridSpec) -> NDArray[np.float32]:
        """[channel, latitude, longitude] in the order of CHANNELS, SI."""
        fields = self.fields(valid_time, grid)
        return np.concatenate([fields[v].reshape(-1, *fields[v].shape[-2:]) for v in dict.fromkeys(_variables())])


def _variables() -> list[str]:
    return [channel.variable for channel in CHANNELS]


def write_nature(path: Path, seed: int, start: datetime, days: int, grid: GridSpec, noise: float = 0.01) -> Path:
    """`days` days of 6-hourly states in the very layout of `alignda nature`, with a little noise (of each std)."""
    atmosphere, generator = Atmosphere(seed), np.random.default_rng([seed, 2])
    latitude, longitude = np.meshgrid(np.deg2rad(grid.latitudes), np.deg2rad(grid.longitudes), indexing="ij")
    run: Any = SimpleNamespace(
        latitude=np.array(grid.latitudes),
        longitude=np.array(grid.longitudes),
        orography=800.0 * np.maximum(0.0, np.cos(latitude) * np.sin(2 * longitude)),
        land=(np.sin(2 * longitude) > 0).astype(np.float32),
    )
    count = days * 24 // speedy.STEP_HOURS
    times = [start + timedelta(hours=speedy.STEP_HOURS * (i + 1)) for i in range(count)]
    states = [atmosphere.fields(time, grid) for time in times]
    path.parent.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speedy, "LEVELS_HPA", LEVELS_HPA)
        file = speedy._create(path, run, seed, start.replace(tzinfo=None))
    with file:
        file["time"][:] = speedy.STEP_HOURS * np.arange(1, count + 1)
        for name in speedy.UPPER_AIR | speedy.SURFACE:
            values = np.stack([state[name] for state in states])
            deviation = values.std(axis=(0, -1), keepdims=True) * noise
            file[name][:] = values + deviation * generator.standard_normal(values.shape, dtype=np.float32)
    return path
