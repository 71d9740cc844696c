"""Backgrounds with their truth: forecasts of the bundle's own model from states the prior was not trained on.

Case i of a seed is always the same, so nothing of it has to be stored.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.alignment.recipe import CasesRecipe, Period, as_time
from models.assimilation import FRESH, FRESH_OTHERWISE
from models.bundle import Bundle
from models.climate import year_fraction
from models.diffusion.denoiser import Denoiser
from models.diffusion.prior import LevelPrior, PriorDenoiser
from models.diffusion.samplers import dpm_solver
from models.ensemble import by_variable, recentred, widened, without_negative
from models.grid import area_weights
from models.observation_operator import ObservationSet
from models.precision import networks_on
from models.rewards import channel_rmse, roll_forward
from models.training.data import Anomalies, NatureFile
from models.training.pool import AnalysisLikeErrors

LEVEL_NODES = 40


@dataclass(frozen=True)
class Case:
    """One background and its truth, anomalies [1, channel, latitude, longitude] in units of `Climate.std`."""

    number: int
    valid_time: datetime
    lead_hours: int
    perturbed: bool
    background: Tensor
    truth: Tensor
    later: Tensor
    """The truth `forecast_hours` after `valid_time`."""
    error_level: float
    """Of the background: its RMS error, as the prior was trained with; of a cycled one what the system takes it for."""
    modulation: Tensor | None = None
    """Of a cycled background: where its spread is above or below its mean, [row, column] of the latent."""
    share: float = 1.0
    """Of the network's correction that an analysis of such a background takes."""
    observations: ObservationSet | None = None
    """Of a cycled background: those of its cycle."""


class CaseSource(Protocol):
    """Numbered cases: of forecasts (`Cases`) or of cycles (models.alignment.cycled)."""

    recipe: CasesRecipe
    seed: int

    def __getitem__(self, number: int) -> Case: ...


class Atmosphere:
    """A bundle seen from its alignment: everything in anomalies, differentiable, on one device."""

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle, self.device, self.spec = bundle, device, bundle.spec
        self.area = area_weights(np.array(self.spec.grid.latitudes)).to(device)[:, None]
        self.moisture = [i for i, channel in enumerate(self.spec.channels) if channel.variable == "q"]
        level = bundle.statistics.level
        self.nodes = np.exp(np.linspace(np.log(level[0].item()), np.log(level[-1].item()), LEVEL_NODES))
        self._priors: dict[int, LevelPrior] = {}

    def prior(self, error_level: float) -> LevelPrior:
        """Whitening and Gaussian reference at the node nearest to `error_level`."""
        node = int(np.abs(np.log(self.nodes / error_level)).argmin())
        if node not in self._priors:
            self._priors[node] = self.bundle.statistics.at(float(self.nodes[node]))
        return self._priors[node]

    def forecast(self, x: Tensor, valid_time: datetime, hours: int) -> Tensor:
        """Anomalies `hours` later, differentiable."""
        steps = hours // self.spec.step_hours
        with networks_on(self.device):
            return roll_forward(
                self.bundle.forecast, self.bundle.climate, x, valid_time, steps, self.spec.step_hours, self.moisture
            )


class Conditioned:
    """The prior of one case: its whitening, its denoiser with any network, and states from whitened increments."""

    def __init__(self, atmosphere: Atmosphere, case: Case) -> None:
        coder = atmosphere.bundle.autoencoder
        self.atmosphere, self.case = atmosphere, case
        self.prior = atmosphere.prior(case.error_level).modulated(case.modulation)
        self.season = year_fraction(case.valid_time)
        with torch.no_grad(), networks_on(atmosphere.device):
            self.z_b = coder.encode(case.background).float()
            self.remainder = case.background - coder.decode(self.z_b)

    def denoiser(self, network: Callable[..., Tensor]) -> PriorDenoiser:
        """E[w_0 | w_t] of this case with `network` as F."""
        return PriorDenoiser(network, self.prior, self.z_b, self.season, self.case.share)

    def state(self, w: Tensor) -> Tensor:
        """x = x_b + P (D(z_b + L w) - D(z_b)) in anomalies, moisture not negative, differentiable: [member, channel,
        latitude, longitude]."""
        return self._physical(self._increment(w))

    def members(self, w: Tensor, centre: Tensor) -> Tensor:
        """States as an analysis makes them of its samples: around the zero-noise sample, with the amplitude of
        models.assimilation."""
        increment = self._increment(recentred(w, centre))
        atmosphere = self.atmosphere
        amplitude = by_variable(atmosphere.spec.channels, FRESH, FRESH_OTHERWISE).to(increment)
        return self._physical(widened(increment, amplitude))

    def _increment(self, w: Tensor) -> Tensor:
        atmosphere = self.atmosphere
        z = self.z_b + self.prior.colour(w)
        with networks_on(w.device):
            decoded = atmosphere.bundle.autoencoder.decode(z)
        return atmosphere.bundle.forecast.cut(decoded.float() + self.remainder - self.case.background)

    def _physical(self, increment: Tensor) -> Tensor:
        atmosphere, case = self.atmosphere, self.case
        climate = atmosphere.bundle.climate
        members = climate.denormalise(case.background + increment, case.valid_time)
        members[:, atmosphere.moisture] = without_negative(members[:, atmosphere.moisture])
        return climate.normalise(members, case.valid_time)

    def noise(self, members: int, generator: torch.Generator) -> Tensor:
        """White noise like `members` whitened increments."""
        shape = (members, *self.z_b.shape[1:])
        return torch.randn(shape, generator=generator).to(self.z_b)

    def sample(self, denoise: Denoiser, members: int, steps: int, generator: torch.Generator) -> Tensor:
        """Stochastic samples of w [member, latent, row, column]; `generator` on the CPU."""
        start = self.noise(members, generator)
        if self.z_b.device.type != "cpu":
            generator = torch.Generator(self.z_b.device).manual_seed(generator.initial_seed())
        return dpm_solver(denoise, start, steps, stochastic=True, generator=generator)

    def centre(self, denoise: Denoiser, steps: int) -> Tensor:
        """The zero-noise sample, on which an analysis is recentred: [1, latent, row, column]."""
        return dpm_solver(denoise, torch.zeros_like(self.z_b), steps, stochastic=False)


class Cases:
    """Cases of one or more periods, numbered from 0; the same number and seed give the same case."""

    def __init__(self, atmosphere: Atmosphere, runs: Sequence[Anomalies], recipe: CasesRecipe, seed: int) -> None:
        self.atmosphere, self.runs, self.recipe, self.seed = atmosphere, runs, recipe, seed
        bundle = atmosphere.bundle
        self.perturb = AnalysisLikeErrors(bundle.statistics, bundle.autoencoder)
        step = atmosphere.spec.step_hours
        self.reach = (max(recipe.lead_hours) + recipe.forecast_hours) // step
        self.sizes = np.array([len(run) - self.reach for run in runs], dtype=float)
        if self.sizes.min() < 1:
            raise ValueError(f"a period is shorter than the {self.reach * step} h that a case spans")

    @torch.no_grad()
    def __getitem__(self, number: int) -> Case:
        generator = np.random.default_rng([self.seed, number])
        index = int(generator.choice(len(self.runs), p=self.sizes / self.sizes.sum()))
        run, step = self.runs[index], self.atmosphere.spec.step_hours
        start = int(generator.integers(0, int(self.sizes[index])))
        lead = self.recipe.lead_hours[int(generator.integers(len(self.recipe.lead_hours)))]
        perturbed = bool(generator.random() < self.recipe.perturbed_share)
        device = self.atmosphere.device
        x = run.batch(np.array([start])).to(device)
        if perturbed:
            x = self.perturb(x, generator)
        background = self.atmosphere.forecast(x, run.times[start], lead)
        now = start + lead // step
        truth, later = (run.batch(np.array([i])).to(device) for i in (now, now + self.recipe.forecast_hours // step))
        level = channel_rmse(background, truth, self.atmosphere.area).square().mean().sqrt().item()
        return Case(number, run.times[now], lead, perturbed, background, truth, later, level)


class PeriodOf(Anomalies):
    """A part of a run of anomalies."""

    def __init__(self, run: Anomalies, period: Period) -> None:
        kept = [i for i, t in enumerate(run.times) if as_time(period.since) <= t < as_time(period.before)]
        if not kept:
            raise ValueError(f"{period.file} has no state from {period.since} to {period.before}")
        part = slice(kept[0], kept[-1] + 1)
        self.array, self.times, self.season = run.array[part], run.times[part], run.season[part]


def open_periods(periods: Sequence[Period], bundle: Bundle, nature: Path, work: Path) -> list[Anomalies]:
    """The anomalies of `periods`, cached in `work`. States at or after `before` are not read.

    Raises FileNotFoundError or ValueError when a nature run is missing or of another grid than the bundle.
    """
    runs: list[Anomalies] = []
    for period in periods:
        file = NatureFile.open(nature / period.file, before=as_time(period.before))
        on_grid = bundle.spec.grid.is_at(file.grid.latitudes, file.grid.longitudes)
        if not on_grid or file.channels != bundle.spec.channels:
            raise ValueError(f"{file.path} is not on the grid and channels of bundle {bundle.spec.name}")
        until = f"{file.times[-1] + timedelta(hours=bundle.spec.step_hours):%Y%m%dT%H}"
        folder = work / f"anomalies-{Path(period.file).stem}-until-{until}"
        climate = copy.deepcopy(bundle.climate).cpu()
        run = Anomalies.write(file, climate, folder, bundle.spec.step_hours)
        runs.append(PeriodOf(run, period))
    return runs
