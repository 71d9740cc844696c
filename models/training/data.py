"""Nature runs as training data: one pass fits the climate, another writes anomalies as a float16 memory map."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.climate import Climate, seasonal_basis, year_fraction
from models.grid import area_weights
from models.specification import ChannelSpec, GridSpec
from models.training.recipe import DataRecipe

UPPER_AIR = ("z", "q", "u", "v", "t")
SURFACE = ("u10", "v10", "t2m", "sp")
CHUNK = 200  # times read at once


@dataclass(frozen=True)
class NatureFile:
    """One nature run on disk: its times, grid and channels."""

    path: Path
    times: tuple[datetime, ...]
    grid: GridSpec
    channels: tuple[ChannelSpec, ...]

    @classmethod
    def open(cls, path: Path, before: datetime | None = None) -> "NatureFile":
        """Raises FileNotFoundError or ValueError (not a nature run). Times at or after `before` are left out."""
        from netCDF4 import Dataset, num2date

        if not path.exists():
            raise FileNotFoundError(f"{path}: no such nature run; make it with `alignda nature --out {path}`")
        with Dataset(path) as file:
            missing = [name for name in (*UPPER_AIR, *SURFACE, "orography", "lsm") if name not in file.variables]
            if missing:
                raise ValueError(f"{path} is not a nature run: it has no {', '.join(missing)}")
            stamps: Any = num2date(file["time"][:], file["time"].units, only_use_cftime_datetimes=False)
            times = tuple(datetime(s.year, s.month, s.day, s.hour, tzinfo=UTC) for s in stamps)
            levels = [float(level) for level in file["level"][:]]
            latitudes = tuple(float(v) for v in file["latitude"][:])
            longitudes = tuple(float(v) for v in file["longitude"][:])
        channels = [ChannelSpec(variable=v, level=level) for v in UPPER_AIR for level in levels]
        channels += [ChannelSpec(variable=v, level=None) for v in SURFACE]
        kept = tuple(t for t in times if before is None or t < before)
        grid = GridSpec(N=len(latitudes) // 2, latitudes=latitudes, longitudes=longitudes)
        return cls(path, kept, grid, tuple(channels))

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive states: (times, [time, channel, latitude, longitude] SI)."""
        from netCDF4 import Dataset

        with Dataset(self.path) as file:
            for start in range(0, len(self.times), CHUNK):
                part = slice(start, min(start + CHUNK, len(self.times)))
                upper = [np.asarray(file[name][part]) for name in UPPER_AIR]
                surface = np.stack([np.asarray(file[name][part]) for name in SURFACE], axis=1)
                yield part, torch.from_numpy(np.concatenate([*upper, surface], axis=1))

    def static(self) -> Tensor:
        """[2, latitude, longitude]: orography (km), land-sea mask."""
        from netCDF4 import Dataset

        with Dataset(self.path) as file:
            return torch.from_numpy(np.stack([file["orography"][:] / 1000.0, file["lsm"][:]]).astype(np.float32))

    def basis(self) -> Tensor:
        """Seasonal basis of every time: [time, 5]."""
        return seasonal_basis(torch.tensor([year_fraction(t) for t in self.times]))


def fit_climate(files: list[NatureFile]) -> Climate:
    """Least-squares seasonal mean and the scales of every channel, from all training states."""
    rows, columns, channels = len(files[0].grid.latitudes), len(files[0].grid.longitudes), len(files[0].channels)
    climate = Climate(channels, rows, columns)
    weights = area_weights(np.array(files[0].grid.latitudes)).double()[:, None]
    basis_size = climate.harmonics.shape[0]
    normal = torch.zeros(basis_size, basis_size, dtype=torch.float64)
    projection = torch.zeros(basis_size, channels * rows * columns, dtype=torch.float64)
    change, changes = torch.zeros(channels, dtype=torch.float64), 0
    first, second, square, count = (torch.zeros(channels, dtype=torch.float64) for _ in range(4))
    for file in files:
        basis = file.basis().double()
        for part, states in file.chunks():
            local = basis[part]
            normal += local.T @ local
            projection += (local.float().T @ states.flatten(1)).double()
            steps = states[1:] - states[:-1]
            change += ((steps**2).mean(dim=3).double() * weights[:, 0]).mean(dim=2).sum(dim=0)
            changes += len(steps)
            first += (states.mean(dim=3).double() * weights[:, 0]).mean(dim=2).sum(dim=0)
            second += ((states.double() ** 2).mean(dim=3) * weights[:, 0]).mean(dim=2).sum(dim=0)
            count += len(states)
    coefficients = torch.linalg.solve(normal, projection)
    climate.harmonics.copy_(coefficients.reshape(climate.harmonics.shape).float())
    climate.tendency_std.copy_((change / changes).sqrt().float())
    climate.total_std.copy_((second / count - (first / count) ** 2).sqrt().float())
    climate.static.copy_(files[0].static())
    total = 0
    for file in files:
        basis = file.basis()
        for part, states in file.chunks():
            if part.start // CHUNK % 4 == 0:  # a quarter of the states fixes a global scale well enough
                anomaly = states - torch.einsum("tk,kchw->tchw", basis[part], climate.harmonics)
                square += ((anomaly**2).mean(dim=3).double() * weights[:, 0]).mean(dim=2).sum(dim=0)
                total += len(states)
    climate.std.copy_((square / total).sqrt().float())
    return climate


class Anomalies:
    """Anomalies of one nature run in a float16 memory map: `x[i]` is [channel, latitude, longitude]."""

    def __init__(self, directory: Path) -> None:
        meta = json.loads((directory / "meta.json").read_text())
        self.array: NDArray[np.float16] = np.load(directory / "anomalies.npy", mmap_mode="r")
        first = datetime.fromisoformat(meta["first"])
        step = timedelta(hours=meta["step_hours"])
        self.times = [first + step * i for i in range(len(self.array))]
        self.season = torch.tensor([year_fraction(t) for t in self.times], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.array)

    def batch(self, indices: NDArray[np.int64]) -> Tensor:
        """States at `indices`: [batch, channel, latitude, longitude] float32."""
        return torch.from_numpy(np.stack([self.array[i] for i in indices]).astype(np.float32))

    @classmethod
    def write(cls, file: NatureFile, climate: Climate, directory: Path, step_hours: int) -> "Anomalies":
        """Normalise a nature run into `directory` (left alone if it is complete already)."""
        if not (directory / "meta.json").exists():
            directory.mkdir(parents=True, exist_ok=True)
            shape = (len(file.times), *climate.harmonics.shape[1:])
            array = np.lib.format.open_memmap(directory / "anomalies.npy", "w+", np.float16, shape)
            basis = file.basis()
            for part, states in file.chunks():
                mean = torch.einsum("tk,kchw->tchw", basis[part], climate.harmonics)
                array[part] = ((states - mean) / climate.std[:, None, None]).numpy().astype(np.float16)
            array.flush()
            meta = {"first": file.times[0].isoformat(), "step_hours": step_hours, "source": str(file.path.name)}
            (directory / "meta.json").write_text(json.dumps(meta))
        return cls(directory)


class TrainingData:
    """Climate and anomalies of a recipe's training and validation periods, cached in the work folder."""

    def __init__(self, recipe: DataRecipe, base: Path, work: Path) -> None:
        held_out = datetime.fromisoformat(recipe.held_out_from).replace(tzinfo=UTC)
        files = [NatureFile.open(base / name) for name in recipe.train]
        validation = NatureFile.open(base / recipe.validation, before=held_out)
        self.grid, self.channels = files[0].grid, files[0].channels
        cache = work / "climate.pt"
        self.climate = Climate(len(self.channels), len(self.grid.latitudes), len(self.grid.longitudes))
        if cache.exists():
            self.climate.load_state_dict(torch.load(cache, weights_only=True))
        else:
            work.mkdir(parents=True, exist_ok=True)
            self.climate = fit_climate(files)
            torch.save(self.climate.state_dict(), cache)
        steps = recipe.step_hours
        self.train = [
            Anomalies.write(file, self.climate, work / f"anomalies-{i}", steps) for i, file in enumerate(files)
        ]
        self.validation = Anomalies.write(validation, self.climate, work / "anomalies-validation", steps)

    def sample(self, generator: np.random.Generator, batch: int, ahead: int = 0) -> tuple[list[Tensor], Tensor]:
        """Random training states and the `ahead` states after each: ([batch, ...] per time, season [batch])."""
        sizes = np.array([len(run) - ahead for run in self.train], dtype=float)
        runs = generator.choice(len(self.train), size=batch, p=sizes / sizes.sum())
        starts = [int(generator.integers(0, int(sizes[run]))) for run in runs]
        states = [
            torch.cat(
                [self.train[run].batch(np.array([start + lead])) for run, start in zip(runs, starts, strict=True)]
            )
            for lead in range(ahead + 1)
        ]
        season = torch.stack([self.train[run].season[start] for run, start in zip(runs, starts, strict=True)])
        return states, season
