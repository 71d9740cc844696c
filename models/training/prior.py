"""Stage 4: the denoiser of the prior, on backgrounds of every age from a running pool of forecasts.

A pool of forecast trajectories starts from the truth; every step advances a part of it by 6 h and trains on the
pairs (background, truth) this gives, so that hardly a pair is seen twice (a fixed set of a few thousand pairs is
over-fitted within minutes and comes out under-dispersive).
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.diffusion.prior import ErrorStatistics, LevelPrior
from models.diffusion.schedule import Level, alpha_sigma
from models.networks.autoencoder import Autoencoder
from models.networks.denoiser import DenoiserNetwork
from models.networks.forecast import ForecastModel
from models.training.backgrounds import load_networks
from models.training.data import Anomalies, TrainingData
from models.training.loop import optimise
from models.training.recipe import Recipe

DRAWS = 2  # noise levels per pair
RESET_PROBABILITY = 0.1
T_RANGE = (0.02, 0.997)
VALIDATION_LEVELS = (0.15, 0.4, 0.7, 0.9)


class ForecastPool:
    """Forecast trajectories of different ages over one nature run, advanced 6 h at a time."""

    def __init__(
        self, runs: list[Anomalies], size: int, oldest: int, forecast: ForecastModel, seed: int, device: torch.device
    ) -> None:
        self.runs, self.oldest, self.forecast, self.device = runs, oldest, forecast, device
        self.generator = np.random.default_rng(seed)
        lengths = np.array([len(run) - oldest - 1 for run in runs], dtype=float)
        self.share = lengths / lengths.sum()
        self.run = np.zeros(size, dtype=int)
        self.time = np.zeros(size, dtype=int)
        self.age = np.zeros(size, dtype=int)
        self.state = torch.zeros(size, *runs[0].array.shape[1:])
        for slot in range(size):
            self._restart(slot)

    def _restart(self, slot: int) -> None:
        self.run[slot] = self.generator.choice(len(self.runs), p=self.share)
        run = self.runs[self.run[slot]]
        self.time[slot] = self.generator.integers(0, len(run) - self.oldest - 1)
        self.age[slot] = 0
        self.state[slot] = run.batch(np.array([self.time[slot]]))[0]

    def season(self, slots: np.ndarray) -> Tensor:
        values = [self.runs[self.run[slot]].season[self.time[slot]] for slot in slots]
        return torch.stack(values)

    @torch.no_grad()
    def advance(self, count: int) -> tuple[Tensor, Tensor, np.ndarray, Tensor]:
        """(background, truth) [count, channel, latitude, longitude], age in steps [count], season [count]."""
        slots = self.generator.choice(len(self.age), size=count, replace=False)
        for slot in slots:
            if self.age[slot] >= self.oldest or self.generator.random() < RESET_PROBABILITY:
                self._restart(slot)
        x = self.forecast(self.state[slots].to(self.device), self.season(slots).to(self.device))
        self.state[slots] = x.cpu()
        self.time[slots] += 1
        self.age[slots] += 1
        truth = torch.cat([self.runs[self.run[s]].batch(np.array([self.time[s]])) for s in slots])
        return x, truth.to(self.device), self.age[slots].copy(), self.season(slots)


class PriorLoss:
    """|F - (w - Wiener)/sigma|^2 over a batch of pairs whose error levels differ."""

    def __init__(
        self, statistics: ErrorStatistics, lead_hours: tuple[int, ...], step_hours: int, autoencoder: Autoencoder
    ) -> None:
        self.autoencoder = autoencoder
        nodes = np.array([0.0, *np.log([hours / step_hours for hours in lead_hours])])[1:]
        logs = statistics.level.log().cpu().numpy()
        ages = range(1, lead_hours[-1] // step_hours + 1)
        self.priors: dict[int, LevelPrior] = {
            age: statistics.at(math.exp(np.interp(math.log(age), nodes, logs[:-1]))) for age in ages
        }
        self.cold = statistics.at(float(statistics.level[-1]))

    def encode(self, background: Tensor, truth: Tensor, age: np.ndarray, cold: np.ndarray) -> tuple[Tensor, Tensor]:
        """Whitened increments w and latents z_b [batch, latent, row, column]; `cold` entries have no background."""
        with torch.no_grad():
            z, z_b = self.autoencoder.encode(torch.cat([truth, background])).chunk(2)
            z_b = torch.where(torch.from_numpy(cold).to(z.device)[:, None, None, None], 0.0, z_b)
            pieces = [
                (self.cold if is_cold else self.priors[int(a)]).whiten((z - z_b)[i : i + 1])
                for i, (a, is_cold) in enumerate(zip(age, cold, strict=True))
            ]
        return torch.cat(pieces), z_b

    def __call__(
        self,
        network: Callable[..., Tensor],
        w: Tensor,
        z_b: Tensor,
        age: np.ndarray,
        cold: np.ndarray,
        season: Tensor,
        t: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Loss of each pair [batch]."""
        alpha, sigma = alpha_sigma(t)
        x = alpha[:, None, None, None] * w + sigma[:, None, None, None] * noise
        chosen = [self.cold if is_cold else self.priors[int(a)] for a, is_cold in zip(age, cold, strict=True)]
        with torch.no_grad(), torch.autocast(w.device.type, enabled=False):
            wiener = torch.cat([p.gaussian.denoise(x[i : i + 1], Level(float(t[i]))) for i, p in enumerate(chosen)])
        levels = torch.tensor([p.error_level for p in chosen], device=w.device)
        correction = network(x, wiener, z_b, (alpha / sigma).log(), levels, season.to(w.device))
        target = (w - wiener) / sigma[:, None, None, None]
        return ((correction - target) ** 2).mean(dim=(1, 2, 3))


def train_prior(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> DenoiserNetwork:
    stage = recipe.prior
    autoencoder, forecast = load_networks(recipe, data, work, device)
    leads = recipe.backgrounds.lead_hours
    rows, columns = (n // recipe.networks.autoencoder.patch for n in data.climate.harmonics.shape[-2:])
    latent = recipe.networks.autoencoder.latent
    statistics = ErrorStatistics(len(leads) + 1, latent, rows, columns, len(data.channels))
    statistics.load_state_dict(torch.load(work / "backgrounds.pt", weights_only=True))
    statistics.to(device)
    criterion = PriorLoss(statistics, leads, recipe.data.step_hours, autoencoder)
    torch.manual_seed(recipe.seed + 3)
    network = new_denoiser(recipe, data).to(device)
    oldest = leads[-1] // recipe.data.step_hours
    pool = ForecastPool(data.train, stage.pool, oldest, forecast, recipe.seed + 3, device)
    validation = validation_pairs(recipe, data, forecast, criterion, device)

    def loss(step: int) -> Tensor:
        background, truth, age, season = pool.advance(stage.batch)
        cold = pool.generator.random(stage.batch) < stage.cold_share
        w, z_b = criterion.encode(background, truth, age, cold)
        t = torch.from_numpy(pool.generator.random(stage.batch)).float().to(device)
        draws = torch.cat([(t + k / DRAWS) % 1.0 for k in range(DRAWS)])  # spread evenly over the levels
        draws = T_RANGE[0] + (T_RANGE[1] - T_RANGE[0]) * draws
        w, z_b, season = w.repeat(DRAWS, 1, 1, 1), z_b.repeat(DRAWS, 1, 1, 1), season.repeat(DRAWS)
        each = criterion(network, w, z_b, np.tile(age, DRAWS), np.tile(cold, DRAWS), season, draws, torch.randn_like(w))
        return each.mean()

    def validate(averaged: nn.Module) -> dict[str, float]:
        w, z_b, age, cold, season = validation
        noise = torch.randn(w.shape, generator=torch.Generator().manual_seed(1)).to(device)
        scores: dict[str, float] = {}
        for value in VALIDATION_LEVELS:
            t = torch.full((len(w),), value, device=device)
            each = criterion(averaged, w, z_b, age, cold, season, t, noise)
            plain = criterion(lambda x, *_: torch.zeros_like(x), w, z_b, age, cold, season, t, noise)
            warm = torch.from_numpy(~cold)
            scores[f"against_wiener_{value}"] = (each[warm].sum() / plain[warm].sum()).item()
            scores[f"against_wiener_cold_{value}"] = (each[~warm].sum() / plain[~warm].sum()).item()
        return scores

    optimise("prior", network, stage, work, loss, validate, device)
    return network


def new_denoiser(recipe: Recipe, data: TrainingData) -> DenoiserNetwork:
    """An untrained denoiser of this recipe."""
    spec = recipe.networks
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    return DenoiserNetwork(
        spec.denoiser, spec.autoencoder.latent, data.climate.static, latitudes, longitudes, spec.autoencoder.patch
    )


def validation_pairs(
    recipe: Recipe, data: TrainingData, forecast: ForecastModel, criterion: PriorLoss, device: torch.device
) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray, Tensor]:
    """Fixed pairs of the validation year: every age of the level table and some without a background."""
    oldest = recipe.backgrounds.lead_hours[-1] // recipe.data.step_hours
    pool = ForecastPool([data.validation], 16, oldest, forecast, recipe.seed + 4, device)
    parts: list[tuple[Tensor, Tensor, np.ndarray, np.ndarray, Tensor]] = []
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        for step in range(1, 9):
            background, truth, age, season = pool.advance(16)
            if step in (2, 4, 8):
                cold = np.arange(16) % 4 == 0
                parts.append((*criterion.encode(background, truth, age, cold), age, cold, season))
    return (
        torch.cat([part[0] for part in parts]),
        torch.cat([part[1] for part in parts]),
        np.concatenate([part[2] for part in parts]),
        np.concatenate([part[3] for part in parts]),
        torch.cat([part[4] for part in parts]),
    )
