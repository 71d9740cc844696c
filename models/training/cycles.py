"""Stage 6: backgrounds of the system's own cycles, collected over the training years.

A cycled background carries the errors that its own analyses left, where nothing observes more than elsewhere. Each
run cycles single analyses (the centre of the ensemble) of a simulated network for some days. The error level is the
true one, as in a system that knows how good it is; where the background is good is the error map of the runs so far.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.assimilation import AnalysisSettings, Assimilator
from models.error_model import modulation_of
from models.grid import area_weights
from models.nature.clean import clean_reports
from models.nature.network import ErrorTable, Network
from models.nature.stations import load_stations
from models.observation_operator import ObservationSet
from models.training.data import SURFACE, UPPER_AIR, Anomalies, TrainingData
from models.training.pool import Cases
from models.training.recipe import CyclesStage, Recipe

FIRST_LEAD_HOURS = 48
RUNS_BEFORE_MAP = 4  # until then the error map is flat
MAP_JITTER = 0.2  # in ln m: an ensemble's spread is a noisy map of its error

Floats = NDArray[np.float32]


class TrainingTruth:
    """One nature run of the training data as states in SI units, and its simulated observations."""

    def __init__(self, data: TrainingData, run: Anomalies, network: Network) -> None:
        self.data, self.run, self.network = data, run, network

    def state(self, index: int) -> Floats:
        """[1, channel, latitude, longitude] SI."""
        anomaly = self.run.batch(np.array([index]))
        return np.asarray(self.data.climate.denormalise(anomaly, self.run.times[index]).numpy(), np.float32)

    def dataset(self, indices: list[int]) -> xr.Dataset:
        """The states at `indices` as the network wants them (see models.nature.truth)."""
        states = np.concatenate([self.state(index) for index in indices])
        levels = [c.level for c in self.data.channels if c.variable == UPPER_AIR[0]]
        time = [np.datetime64(self.run.times[i].replace(tzinfo=None), "ns") for i in indices]
        axes = {"time": time, "latitude": list(self.data.grid.latitudes), "longitude": list(self.data.grid.longitudes)}
        fields: dict[str, tuple[tuple[str, ...], Floats]] = {}
        for name in (*UPPER_AIR, *SURFACE):
            rows = [i for i, c in enumerate(self.data.channels) if c.variable == name]
            if name in UPPER_AIR:
                fields[name] = (("time", "level", "latitude", "longitude"), states[:, rows])
            else:
                fields[name] = (("time", "latitude", "longitude"), states[:, rows[0]])
        orography, land = self.data.climate.static.numpy()
        fields["orography"] = (("latitude", "longitude"), 1000.0 * orography)
        fields["lsm"] = (("latitude", "longitude"), land)
        return xr.Dataset(fields, coords={**axes, "level": levels})

    def observations(self, index: int, system: Assimilator) -> ObservationSet:
        """What the network reports in time for the analysis at `index`, without gross errors and duplicates."""
        states = self.dataset([index - 1, index, index + 1])
        given = clean_reports(self.network, states, self.run.times[index])
        return given.select(system.supported(given))


@dataclass(frozen=True)
class CycledRun:
    """The backgrounds of one run [cycle, channel, latitude, longitude] (float16 anomalies) and where they lie."""

    backgrounds: NDArray[np.float16]
    nature: int  # index of the training run; -1: the validation year
    first: int  # index of the first background's time

    @classmethod
    def open(cls, path: Path) -> "CycledRun":
        """From `<path>.json` and `<path>.npy`."""
        return cls(
            np.load(path.with_suffix(".npy"), mmap_mode="r"), **json.loads(path.with_suffix(".json").read_text())
        )

    def write(self, path: Path) -> None:
        """The description is written last: a run without it does not count."""
        np.save(path.with_suffix(".npy"), self.backgrounds)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps({"nature": self.nature, "first": self.first}))
        os.replace(partial, path.with_suffix(".json"))


def finished(directory: Path) -> list[Path]:
    """The runs that are complete, in order."""
    return sorted(directory.glob("run-*.json"))


def squared_errors(run: CycledRun, data: TrainingData) -> Tensor:
    """Mean over cycles and channels, in units of the anomalies' variance: [latitude, longitude]."""
    nature = data.validation if run.nature < 0 else data.train[run.nature]
    truth = nature.batch(np.arange(run.first, run.first + len(run.backgrounds)))
    difference = torch.from_numpy(np.asarray(run.backgrounds, np.float32)) - truth
    return (difference**2).mean(dim=(0, 1))


def error_map(paths: list[Path], data: TrainingData, patch: int) -> Tensor | None:
    """Where cycled backgrounds are better or worse than their mean: m [row, column], None while there are few."""
    if len(paths) < RUNS_BEFORE_MAP:
        return None
    squares = torch.stack([squared_errors(CycledRun.open(path), data) for path in paths]).mean(dim=0)
    return modulation_of(squares, area_weights(np.array(data.grid.latitudes))[:, None], patch)


def collect_cycles(
    recipe: Recipe, data: TrainingData, work: Path, index: int, system: Assimilator, errors: ErrorTable
) -> None:
    """Cycle round `index` (from 1) of the recipe with `system`; complete runs are kept and not done again."""
    stage = recipe.rounds[index - 1].cycles
    directory = work / f"cycled-{index}"
    directory.mkdir(parents=True, exist_ok=True)
    patch = recipe.networks.autoencoder.patch
    for number in range(stage.validation_runs + stage.runs):
        path = directory / f"run-{number:04d}"
        if path.with_suffix(".json").exists():
            continue
        generator = np.random.default_rng([recipe.seed, index, number])
        validation = number < stage.validation_runs
        nature = -1 if validation else int(generator.integers(len(data.train)))
        run = data.validation if validation else data.train[nature]
        network = Network(int(generator.integers(2**31)), load_stations(), errors)
        start = int(generator.integers(0, len(run) - stage.length - FIRST_LEAD_HOURS // recipe.data.step_hours - 2))
        modulation = error_map(finished(directory), data, patch)
        backgrounds, first = cycle(TrainingTruth(data, run, network), start, stage, system, modulation)
        CycledRun(backgrounds, nature, first).write(path)
        rms = squared_errors(CycledRun.open(path), data).mean().sqrt()
        print(f"cycles {index}: run {number + 1} of {stage.validation_runs + stage.runs}, error {rms:.3f}", flush=True)


def cycle(
    truth: TrainingTruth, start: int, stage: CyclesStage, system: Assimilator, modulation: Tensor | None
) -> tuple[NDArray[np.float16], int]:
    """Backgrounds [length - spin_up, ...] (anomalies) of one run from a forecast of the state at `start`."""
    climate, times = truth.data.climate, truth.run.times
    steps = FIRST_LEAD_HOURS // system.spec.step_hours
    *_, background = system.forecast(truth.state(start), times[start], steps)
    settings = AnalysisSettings(members=1, steps=stage.steps, share=stage.share)
    kept = []
    for index in range(start + steps, start + steps + stage.length):
        valid_time: datetime = times[index]
        anomaly = climate.normalise(torch.from_numpy(background), valid_time)
        if index >= start + steps + stage.spin_up:
            kept.append(anomaly.numpy().astype(np.float16))
        level = system.distance(background, truth.state(index))
        given = truth.observations(index, system)
        analysis = system.analyse(background, given, valid_time, level, settings, modulation=modulation).members
        (background,) = system.forecast(analysis, valid_time, 1)
        assert times[index + 1] - valid_time == timedelta(hours=system.spec.step_hours)
    return np.concatenate(kept), start + steps + stage.spin_up


class CycledCases:
    """All cycled backgrounds of the rounds so far, to draw from at random."""

    def __init__(self, runs: list[CycledRun], data: TrainingData, modulation: Tensor, device: torch.device) -> None:
        self.training = [run for run in runs if run.nature >= 0]
        self.held_back = [run for run in runs if run.nature < 0]
        self.data, self.modulation, self.device = data, modulation, device

    @classmethod
    def open(cls, work: Path, rounds: int, data: TrainingData, patch: int, device: torch.device) -> "CycledCases":
        """Rounds 1 .. `rounds`. Raises FileNotFoundError when one of them has not run."""
        paths = []
        for index in range(1, rounds + 1):
            found = finished(work / f"cycled-{index}")
            if not found:
                raise FileNotFoundError(f"{work / f'cycled-{index}'}: run the stage `rounds` first")
            paths += found
        modulation = error_map(finished(work / f"cycled-{rounds}"), data, patch)
        if modulation is None:
            raise FileNotFoundError(f"{work / f'cycled-{rounds}'} holds too few runs for an error map")
        return cls([CycledRun.open(path) for path in paths], data, modulation, device)

    def _cases(self, chosen: list[tuple[CycledRun, int]], maps: Tensor) -> Cases:
        natures = [self.data.validation if run.nature < 0 else self.data.train[run.nature] for run, _ in chosen]
        at = [run.first + cycle for run, cycle in chosen]
        background = np.stack([run.backgrounds[cycle] for run, cycle in chosen]).astype(np.float32)
        truth = torch.cat([nature.batch(np.array([i])) for nature, i in zip(natures, at, strict=True)])
        season = torch.stack([nature.season[i] for nature, i in zip(natures, at, strict=True)])
        device = self.device
        return Cases(torch.from_numpy(background).to(device), truth.to(device), season.to(device), maps.to(device))

    def sample(self, generator: np.random.Generator, count: int) -> Cases:
        """`count` cases of the training years, each with the error map in a noisy version."""
        runs = generator.choice(len(self.training), count)
        chosen = [(self.training[r], int(generator.integers(len(self.training[r].backgrounds)))) for r in runs]
        coarse = torch.from_numpy(generator.standard_normal((count, 1, 4, 8)).astype(np.float32))
        noise = functional.interpolate(coarse, size=self.modulation.shape, mode="bilinear")[:, 0]
        return self._cases(chosen, self.modulation * (MAP_JITTER * noise).exp())

    def validation(self) -> Cases:
        """Every third cycled background of the validation year."""
        chosen = [(run, cycle) for run in self.held_back for cycle in range(0, len(run.backgrounds), 3)]
        return self._cases(chosen, self.modulation.expand(len(chosen), -1, -1))
