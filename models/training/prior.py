"""Stage 4: the denoiser of the prior, on backgrounds of every age from a running pool of forecasts.

A pool of forecast trajectories starts from the truth; every step advances a part of it by 6 h and trains on the
pairs (background, truth) this gives, so that hardly a pair is seen twice (a fixed set of a few thousand pairs is
over-fitted within minutes and comes out under-dispersive). A share of the trajectories starts from the truth plus a
sample of analysis-like error, since a cycled background carries its own errors and is not a smooth long forecast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.diffusion.prior import ErrorStatistics
from models.diffusion.schedule import Level, alpha_sigma
from models.grid import area_weights
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
PERTURBED_SHARE, PERTURBED_STEPS = 0.6, 4
PERTURBATION_LEVELS = (0.06, 0.45)
LEVEL_NODES = 20
VALIDATION_LEVELS = (0.15, 0.4, 0.7, 0.9)


class ForecastPool:
    """Forecast trajectories of different ages over one nature run, advanced 6 h at a time."""

    def __init__(
        self,
        runs: list[Anomalies],
        size: int,
        oldest: int,
        forecast: ForecastModel,
        perturb: Callable[[Tensor, np.random.Generator], Tensor],
        seed: int,
        device: torch.device,
    ) -> None:
        self.runs, self.oldest, self.forecast, self.device = runs, oldest, forecast, device
        self.perturb = perturb
        self.generator = np.random.default_rng(seed)
        lengths = np.array([len(run) - oldest - 1 for run in runs], dtype=float)
        self.share = lengths / lengths.sum()
        self.run = np.zeros(size, dtype=int)
        self.time = np.zeros(size, dtype=int)
        self.age = np.zeros(size, dtype=int)
        self.end = np.zeros(size, dtype=int)  # age at which the trajectory starts anew
        self.state = torch.zeros(size, *runs[0].array.shape[1:])
        for slot in range(size):
            self._restart(slot)

    def _restart(self, slot: int) -> None:
        self.run[slot] = self.generator.choice(len(self.runs), p=self.share)
        run = self.runs[self.run[slot]]
        self.time[slot] = self.generator.integers(0, len(run) - self.oldest - 1)
        self.age[slot] = 0
        state = run.batch(np.array([self.time[slot]]))
        self.end[slot] = self.oldest
        if self.generator.random() < PERTURBED_SHARE:
            state = self.perturb(state, self.generator)
            self.end[slot] = PERTURBED_STEPS
        self.state[slot] = state[0]

    def season(self, slots: np.ndarray) -> Tensor:
        values = [self.runs[self.run[slot]].season[self.time[slot]] for slot in slots]
        return torch.stack(values)

    @torch.no_grad()
    def advance(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(background, truth) [count, channel, latitude, longitude], season [count]."""
        slots = self.generator.choice(len(self.age), size=count, replace=False)
        for slot in slots:
            if self.age[slot] >= self.end[slot] or self.generator.random() < RESET_PROBABILITY:
                self._restart(slot)
        x = self.forecast(self.state[slots].to(self.device), self.season(slots).to(self.device))
        self.state[slots] = x.cpu()
        self.time[slots] += 1
        self.age[slots] += 1
        truth = torch.cat([self.runs[self.run[s]].batch(np.array([self.time[s]])) for s in slots])
        return x, truth.to(self.device), self.season(slots)


@dataclass(frozen=True)
class Pairs:
    """Whitened increments `w` and backgrounds `z_b` [batch, latent, row, column], index of the level [batch]."""

    w: Tensor
    z_b: Tensor
    node: np.ndarray
    season: Tensor

    def repeated(self, times: int) -> "Pairs":
        """Every pair `times` times, one copy of the batch after the other."""
        return Pairs(
            self.w.repeat(times, 1, 1, 1),
            self.z_b.repeat(times, 1, 1, 1),
            np.tile(self.node, times),
            self.season.repeat(times),
        )


class PriorLoss:
    """|F - (w - Wiener)/sigma|^2 over a batch of pairs whose error levels differ."""

    def __init__(self, statistics: ErrorStatistics, autoencoder: Autoencoder, area: Tensor) -> None:
        self.autoencoder, self.area = autoencoder, area
        first, last = statistics.level[0].item(), statistics.level[-1].item()
        self.nodes = np.exp(np.linspace(np.log(first), np.log(last), LEVEL_NODES))
        self.priors = [statistics.at(float(node)) for node in self.nodes]

    def pairs(self, background: Tensor, truth: Tensor, cold: np.ndarray, season: Tensor) -> Pairs:
        """Whitened increments of (background, truth); `cold` entries have no background."""
        with torch.no_grad():
            square = ((background - truth) ** 2 * self.area).mean(dim=(1, 2, 3)).sqrt().cpu().numpy()
            level = np.where(cold, self.nodes[-1], square)
            node = np.abs(np.log(self.nodes[None] / level[:, None])).argmin(axis=1)
            z, z_b = self.autoencoder.encode(torch.cat([truth, background])).chunk(2)
            z_b = torch.where(torch.from_numpy(cold).to(z.device)[:, None, None, None], 0.0, z_b)
            w = torch.cat([self.priors[n].whiten((z - z_b)[i : i + 1]) for i, n in enumerate(node)])
        return Pairs(w, z_b, node, season.to(w.device))

    def __call__(self, network: Callable[..., Tensor], pairs: Pairs, t: Tensor, noise: Tensor) -> Tensor:
        """Loss of each pair [batch] at times t [batch] with `noise` like w."""
        alpha, sigma = alpha_sigma(t)
        x = alpha[:, None, None, None] * pairs.w + sigma[:, None, None, None] * noise
        chosen = [self.priors[n] for n in pairs.node]
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            wiener = torch.cat([p.gaussian.denoise(x[i : i + 1], Level(float(t[i]))) for i, p in enumerate(chosen)])
        levels = torch.tensor([p.error_level for p in chosen], device=x.device)
        correction = network(x, wiener, pairs.z_b, (alpha / sigma).log(), levels, pairs.season)
        target = (pairs.w - wiener) / sigma[:, None, None, None]
        return ((correction - target) ** 2).mean(dim=(1, 2, 3))


class AnalysisLikeErrors:
    """Adds a sample of the Gaussian reference at a random level to a state, as an analysis would be wrong."""

    def __init__(self, statistics: ErrorStatistics, autoencoder: Autoencoder) -> None:
        self.autoencoder = autoencoder
        levels = np.exp(np.linspace(math.log(PERTURBATION_LEVELS[0]), math.log(PERTURBATION_LEVELS[1]), 8))
        self.priors = [statistics.at(float(level)) for level in levels]

    def __call__(self, state: Tensor, generator: np.random.Generator) -> Tensor:
        """[batch, channel, latitude, longitude] anomalies -> the same with errors."""
        prior = self.priors[int(generator.integers(len(self.priors)))]
        shape = (len(state), prior.root.shape[-1], prior.root.shape[0], prior.gaussian.longitudes)
        noise = torch.from_numpy(generator.standard_normal(shape).astype(np.float32)).to(prior.root.device)
        increment = self.autoencoder.decode_linear(prior.colour(prior.gaussian.sample(noise)))
        return state + increment.to(state.device)


def train_prior(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> DenoiserNetwork:
    stage = recipe.prior
    autoencoder, forecast = load_networks(recipe, data, work, device)
    leads = recipe.backgrounds.lead_hours
    rows, columns = (n // recipe.networks.autoencoder.patch for n in data.climate.harmonics.shape[-2:])
    latent = recipe.networks.autoencoder.latent
    statistics = ErrorStatistics(len(leads) + 1, latent, rows, columns, len(data.channels))
    statistics.load_state_dict(torch.load(work / "backgrounds.pt", weights_only=True))
    statistics.to(device)
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    criterion = PriorLoss(statistics, autoencoder, area)
    perturb = AnalysisLikeErrors(statistics, autoencoder)
    torch.manual_seed(recipe.seed + 3)
    network = new_denoiser(recipe, data).to(device)
    oldest = leads[-1] // recipe.data.step_hours
    pool = ForecastPool(data.train, stage.pool, oldest, forecast, perturb, recipe.seed + 3, device)
    validation_pool = ForecastPool([data.validation], 16, oldest, forecast, perturb, recipe.seed + 4, device)
    validation, cold_validation = validation_pairs(validation_pool, criterion)

    def loss(step: int) -> Tensor:
        background, truth, season = pool.advance(stage.batch)
        cold = pool.generator.random(stage.batch) < stage.cold_share
        pairs = criterion.pairs(background, truth, cold, season).repeated(DRAWS)
        t = torch.from_numpy(pool.generator.random(stage.batch)).float().to(device)
        draws = torch.cat([(t + k / DRAWS) % 1.0 for k in range(DRAWS)])  # spread evenly over the levels
        draws = T_RANGE[0] + (T_RANGE[1] - T_RANGE[0]) * draws
        return criterion(network, pairs, draws, torch.randn_like(pairs.w)).mean()

    def validate(averaged: nn.Module) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, pairs in (("", validation), ("_cold", cold_validation)):
            noise = torch.randn(pairs.w.shape, generator=torch.Generator().manual_seed(1)).to(device)
            for value in VALIDATION_LEVELS:
                t = torch.full((len(pairs.w),), value, device=device)
                each = criterion(averaged, pairs, t, noise).sum()
                plain = criterion(lambda x, *_: torch.zeros_like(x), pairs, t, noise).sum()
                scores[f"against_wiener{name}_{value}"] = (each / plain).item()
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


@torch.no_grad()
def validation_pairs(pool: ForecastPool, criterion: PriorLoss) -> tuple[Pairs, Pairs]:
    """Fixed pairs of the validation year, with backgrounds and without."""
    states = []
    with torch.autocast(pool.device.type, dtype=torch.bfloat16):
        for step in range(1, 9):
            background, truth, season = pool.advance(16)
            if step in (2, 4, 8):
                states.append((background, truth, season))
        background, truth, season = (torch.cat(parts) for parts in zip(*states, strict=True))
        cold = np.zeros(len(truth), dtype=bool)
        return criterion.pairs(background, truth, cold, season), criterion.pairs(
            background[::4], truth[::4], ~cold[::4], season[::4]
        )
