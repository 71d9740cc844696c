"""Backgrounds of the system's own cycles, so that an alignment can be made for them (`alignda align`, stage `cycles`).

A cycled background is another thing than a forecast of a known age: it carries the errors that its own analyses left,
its members say where it is good, and innovations say how good. Each run cycles the product's ensemble on the simulated
network, from a time of the recipe's periods, and keeps of every background what the prior is told: mean, map of the
spread, level as estimated. The observations follow from the network's seed and are simulated again when asked for.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.alignment.cases import Atmosphere, Case
from models.alignment.recipe import CasesRecipe, CyclesRecipe, Period
from models.assimilation import CYCLED_SHARE, AnalysisSettings, Assimilator
from models.evaluation.method import States
from models.evaluation.observing import SimulatedNetwork, case_seed
from models.evaluation.truth_run import TruthRun
from models.nature.network import ErrorTable, Network
from models.nature.stations import load_stations
from models.observation_operator import ObservationSet
from models.training.data import Anomalies

ARRAYS = ("background", "modulation", "level", "share")
FIRST_LEAD_HOURS = 48  # age of a run's first background, as in `alignda evaluate cycle`


@dataclass(frozen=True)
class CycledRun:
    """One run on disk, a row for each background kept."""

    background: NDArray[np.float16]
    """Mean of the members: [cycle, channel, latitude, longitude], anomalies."""
    modulation: NDArray[np.float32]
    """Where the members' spread is above or below its mean: [cycle, row, column] of the latent; NaN: a single background."""
    level: NDArray[np.float64]
    """Background-error level as estimated: [cycle]."""
    share: NDArray[np.float64]
    """Of the network's correction that its analysis takes: [cycle]."""
    period: int
    """Which of the recipe's periods."""
    first: int
    """Index in that period of the first background's time."""
    network_seed: int

    @classmethod
    def open(cls, path: Path) -> "CycledRun":
        with np.load(path) as held:
            arrays = {name: held[name] for name in ARRAYS}
            return cls(**arrays, **json.loads(str(held["about"])))

    def write(self, path: Path) -> None:
        """All at once: what is under `path` is complete."""
        about = json.dumps({"period": self.period, "first": self.first, "network_seed": self.network_seed})
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **{name: getattr(self, name) for name in ARRAYS}, about=np.array(about))
        os.replace(partial, path)


def run_path(folder: Path, number: int) -> Path:
    """Where a round keeps run `number`."""
    return folder / f"run-{number:03d}.npz"


class ObservedTruth:
    """A period of a nature run, and what simulated networks report of it."""

    def __init__(self, system: Assimilator, period: Period, run: Anomalies, nature: Path, errors: ErrorTable) -> None:
        self.system, self.run, self.errors = system, run, errors
        self.truth = TruthRun(nature / period.file, system.spec)
        self._networks: dict[int, SimulatedNetwork] = {}

    def observations(self, valid_time: datetime, network_seed: int) -> ObservationSet:
        """Supported ones, without gross errors, repetitions and what came late."""
        if network_seed not in self._networks:
            network = Network(network_seed, load_stations(), self.errors)
            self._networks[network_seed] = SimulatedNetwork(self.truth, network)
        given = self._networks[network_seed].at(valid_time)
        return given.select(self.system.supported(given))


@torch.no_grad()
def cycle(
    period: ObservedTruth, recipe: CyclesRecipe, start: int, steps: tuple[int, int, int], network_seed: int, seed: int
) -> dict[str, NDArray[Any]]:
    """ARRAYS of the cycles kept; `steps`: before the first, not kept, all."""
    system, times = period.system, period.run.times
    climate, (lead, skipped, count) = system.bundle.climate, steps
    state = climate.denormalise(period.run.batch(np.array([start])).to(system.device), times[start]).cpu().numpy()
    *_, background = system.forecast(state, times[start], lead)
    hours: float = FIRST_LEAD_HOURS
    kept: dict[str, list[Any]] = {name: [] for name in ARRAYS}
    for number in range(count):
        valid_time = times[start + lead + number]
        given = period.observations(valid_time, network_seed)
        departures = given.value - system.equivalents(background, given).mean(axis=0)
        level = system.estimate_error_level(given, departures, system.error_level(hours), background)
        if number >= skipped:
            mean = torch.from_numpy(background).mean(dim=0, keepdim=True).to(system.device)
            kept["background"].append(climate.normalise(mean, valid_time)[0].cpu().numpy().astype(np.float16))
            kept["modulation"].append(spread_map(system, background))
            kept["level"].append(level)
            kept["share"].append(CYCLED_SHARE if len(background) > 1 else 1.0)
        settings = AnalysisSettings(
            members=recipe.members, alignment=recipe.alignment, seed=case_seed(seed, valid_time)
        )
        analysis = system.analyse(background, given, valid_time, level, settings).members
        (background,) = system.forecast(analysis, valid_time, 1)
        hours = system.spec.step_hours
    return {name: np.stack(values) for name, values in kept.items()}


def spread_map(system: Assimilator, background: States) -> NDArray[np.float32]:
    """What `Assimilator.analyse` tells the prior of the members' spread: [row, column] of the latent; NaN: nothing."""
    modulation = system._modulation(background)
    if modulation is None:
        grid, patch = system.spec.grid, system.spec.networks.autoencoder.patch
        return np.full((len(grid.latitudes) // patch, len(grid.longitudes) // patch), np.nan, np.float32)
    return modulation.cpu().numpy()


class CycledCases:
    """Cases that are drawn from cycled runs; the same number and seed give the same case (models.alignment.cases)."""

    def __init__(
        self,
        atmosphere: Atmosphere,
        periods: Sequence[ObservedTruth],
        folders: Sequence[Path],
        counts: Sequence[int],
        recipe: CasesRecipe,
        seed: int,
    ) -> None:
        """`folders`: of the rounds of `recipe`, `counts`: of the runs in each."""
        self.atmosphere, self.periods, self.recipe, self.seed = atmosphere, periods, recipe, seed
        self.folders, self.counts = folders, counts
        self.step_hours = atmosphere.spec.step_hours

    def collect(self) -> None:
        """Make the runs that the folders do not hold yet. ValueError: a period is too short for one."""
        for recipe, folder, runs in zip(self.recipe.cycles, self.folders, self.counts, strict=True):
            self._collect(recipe, folder, runs)

    def _collect(self, recipe: CyclesRecipe, folder: Path, runs: int) -> None:
        periods = self.periods
        folder.mkdir(parents=True, exist_ok=True)
        wanted = (FIRST_LEAD_HOURS, 24 * recipe.spin_up_days, 24 * recipe.days, self.recipe.forecast_hours)
        lead, skipped, count, ahead = (round(hours / self.step_hours) for hours in wanted)
        if not 0 <= skipped < count:
            raise ValueError(f"of cycles of {recipe.days} days a spin-up of {recipe.spin_up_days} leaves nothing")
        rooms = np.array([len(period.run) - lead - count - max(ahead, 1) for period in periods])
        if rooms.min() < 1:
            raise ValueError(f"a period is too short for cycles of {recipe.days} days and a forecast")
        for number in range(runs):
            path = run_path(folder, number)
            if path.exists():
                continue
            generator = np.random.default_rng([self.seed, number])
            chosen = int(generator.choice(len(periods), p=rooms / rooms.sum()))
            start, network_seed = int(generator.integers(rooms[chosen])), int(generator.integers(2**31))
            kept = cycle(periods[chosen], recipe, start, (lead, skipped, count), network_seed, self.seed)
            made = CycledRun(**kept, period=chosen, first=start + lead + skipped, network_seed=network_seed)
            made.write(path)
            print(f"cycles: run {number + 1} of {runs}, mean level {made.level.mean():.3f}", flush=True)

    @cached_property
    def runs(self) -> list[CycledRun]:
        """Those of all rounds. FileNotFoundError: one is missing."""
        paths = [
            run_path(folder, number)
            for folder, count in zip(self.folders, self.counts, strict=True)
            for number in range(count)
        ]
        for path in paths:
            if not path.exists():
                raise FileNotFoundError(f"{path}: run this stage first (`alignda align --stage cycles`)")
        return [CycledRun.open(path) for path in paths]

    def __len__(self) -> int:
        return sum(len(run.level) for run in self.runs)

    @torch.no_grad()
    def __getitem__(self, number: int) -> Case:
        """Each once, in an order drawn from the seed, before any comes again."""
        again, place = divmod(number, len(self))
        at = int(np.random.default_rng([self.seed, again]).permutation(len(self))[place])
        ends = np.cumsum([len(run.level) for run in self.runs])
        index = int(np.searchsorted(ends, at, side="right"))
        return self._case(number, self.runs[index], at - int(ends[index]) + len(self.runs[index].level))

    def _case(self, number: int, run: CycledRun, cycle: int) -> Case:
        period, device = self.periods[run.period], self.atmosphere.device
        now, modulation = run.first + cycle, run.modulation[cycle]
        valid_time, later = period.run.times[now], now + self.recipe.forecast_hours // self.step_hours
        return Case(
            number,
            valid_time,
            lead_hours=self.step_hours,
            perturbed=False,
            background=torch.from_numpy(run.background[cycle].astype(np.float32))[None].to(device),
            truth=period.run.batch(np.array([now])).to(device),
            later=period.run.batch(np.array([later])).to(device),
            error_level=float(run.level[cycle]),
            modulation=None if np.isnan(modulation).any() else torch.from_numpy(modulation).to(device),
            share=float(run.share[cycle]),
            observations=period.observations(valid_time, run.network_seed),
        )
