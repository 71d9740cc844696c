"""Stage 5: the denoiser of the prior, on backgrounds of every age from a running pool of forecasts.

A pool of forecast trajectories starts from the truth; every step advances a part of it by 6 h and trains on the
pairs (background, truth) this gives, so that hardly a pair is seen twice (a fixed set of a few thousand pairs is
over-fitted within minutes and comes out under-dispersive). In later rounds a share of every batch comes from the
system's own cycles (models/training/cycles.py).
"""

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
from models.precision import networks_on
from models.training.backgrounds import load_networks
from models.training.cycles import CycledCases
from models.training.data import TrainingData
from models.training.loop import load_averaged, optimise
from models.training.pool import AnalysisLikeErrors, Cases, ForecastPool
from models.training.recipe import Recipe

DRAWS = 2  # noise levels per pair
T_RANGE = (0.02, 0.997)
LEVEL_NODES = 20
LEVEL_JITTER = 0.15  # in ln s, of cycled cases: a running system does not know its error level better
VALIDATION_LEVELS = (0.15, 0.4, 0.7, 0.9)


@dataclass(frozen=True)
class Pairs:
    """Whitened increments `w` and backgrounds `z_b` [batch, latent, row, column], modulation [batch, 1, row, column],
    index of the level [batch]."""

    w: Tensor
    z_b: Tensor
    modulation: Tensor
    node: np.ndarray
    season: Tensor

    def repeated(self, times: int) -> "Pairs":
        """Every pair `times` times, one copy of the batch after the other."""
        return Pairs(
            self.w.repeat(times, 1, 1, 1),
            self.z_b.repeat(times, 1, 1, 1),
            self.modulation.repeat(times, 1, 1, 1),
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

    @torch.no_grad()
    def pairs(self, cases: Cases, cold: np.ndarray, jitter: np.ndarray | float = 0.0) -> Pairs:
        """Whitened increments; `cold` cases [batch] have no background, `jitter` [batch] is added to their ln s."""
        square = ((cases.background - cases.truth) ** 2 * self.area).mean(dim=(1, 2, 3)).sqrt().cpu().numpy()
        level = np.where(cold, self.nodes[-1], square * np.exp(jitter))
        node = np.abs(np.log(self.nodes[None] / level[:, None])).argmin(axis=1)
        with torch.autocast(self.area.device.type, enabled=False):
            z, z_b = self.autoencoder.encode(torch.cat([cases.truth, cases.background])).chunk(2)
        none = torch.from_numpy(cold).to(z.device)[:, None, None, None]
        z_b = torch.where(none, 0.0, z_b)
        modulation = torch.where(none, 1.0, cases.modulation[:, None])
        increment = z - z_b
        w = torch.cat(
            [self.priors[n].modulated(modulation[i, 0]).whiten(increment[i : i + 1]) for i, n in enumerate(node)]
        )
        return Pairs(w, z_b, modulation, node, cases.season)

    def __call__(self, network: Callable[..., Tensor], pairs: Pairs, t: Tensor, noise: Tensor) -> Tensor:
        """Loss of each pair [batch] at times t [batch] with `noise` like w."""
        alpha, sigma = alpha_sigma(t)
        x = alpha[:, None, None, None] * pairs.w + sigma[:, None, None, None] * noise
        chosen = [self.priors[n] for n in pairs.node]
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            wiener = torch.cat([p.gaussian.denoise(x[i : i + 1], Level(float(t[i]))) for i, p in enumerate(chosen)])
        levels = torch.tensor([p.error_level for p in chosen], device=x.device)
        correction = network(x, wiener, pairs.z_b, pairs.modulation, (alpha / sigma).log(), levels, pairs.season)
        target = (pairs.w - wiener) / sigma[:, None, None, None]
        return ((correction - target) ** 2).mean(dim=(1, 2, 3))


def train_prior(
    recipe: Recipe, data: TrainingData, work: Path, device: torch.device, rounds: int = 0
) -> DenoiserNetwork:
    """Train the first prior, or continue it (round `rounds` > 0) on the cycles that rounds 1 .. `rounds` collected."""
    stage = recipe.rounds[rounds - 1].prior if rounds else recipe.prior
    autoencoder, forecast = load_networks(recipe, data, work, device)
    statistics = new_statistics(recipe, data)
    statistics.load_state_dict(torch.load(work / "backgrounds.pt", weights_only=True))
    statistics.to(device)
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    criterion = PriorLoss(statistics, autoencoder, area)
    perturb = AnalysisLikeErrors(statistics, autoencoder)
    seed = recipe.seed + 3 + 100 * rounds
    torch.manual_seed(seed)
    network = new_denoiser(recipe, data)
    cycled = CycledCases.open(work, rounds, data, recipe.networks.autoencoder.patch, device) if rounds else None
    if rounds:
        load_averaged(network, work / f"{prior_name(rounds - 1)}.pt")
    network.to(device)
    oldest = recipe.backgrounds.lead_hours[-1] // recipe.data.step_hours
    patch = recipe.networks.autoencoder.patch
    pool = ForecastPool(data.train, stage.pool, oldest, forecast, perturb, patch, seed, device)
    generator = pool.generator
    scored = validation_pairs(
        ForecastPool([data.validation], 16, oldest, forecast, perturb, patch, recipe.seed + 4, device), criterion
    )
    if cycled is not None:
        cases = cycled.validation()
        scored["_cycled"] = criterion.pairs(cases, np.zeros(len(cases), dtype=bool))

    def batch() -> Pairs:
        from_cycles = 0 if cycled is None else round(stage.batch * stage.cycled_share)
        cases = pool.advance(stage.batch - from_cycles)
        jitter = np.zeros(stage.batch)
        if cycled is not None:
            cases = Cases.joined([cases, cycled.sample(generator, from_cycles)])
            jitter[-from_cycles:] = LEVEL_JITTER * generator.standard_normal(from_cycles)
        cold = generator.random(stage.batch) < stage.cold_share
        return criterion.pairs(cases, cold, jitter)

    def loss(step: int) -> Tensor:
        pairs = batch().repeated(DRAWS)
        t = torch.from_numpy(generator.random(stage.batch)).float().to(device)
        draws = torch.cat([(t + k / DRAWS) % 1.0 for k in range(DRAWS)])  # spread evenly over the levels
        draws = T_RANGE[0] + (T_RANGE[1] - T_RANGE[0]) * draws
        return criterion(network, pairs, draws, torch.randn_like(pairs.w)).mean()

    def validate(averaged: nn.Module) -> dict[str, float]:
        scores: dict[str, float] = {}
        for name, pairs in scored.items():
            noise = torch.randn(pairs.w.shape, generator=torch.Generator().manual_seed(1)).to(device)
            for value in VALIDATION_LEVELS:
                t = torch.full((len(pairs.w),), value, device=device)
                each = criterion(averaged, pairs, t, noise).sum()
                plain = criterion(lambda x, *_: torch.zeros_like(x), pairs, t, noise).sum()
                scores[f"against_wiener{name}_{value}"] = (each / plain).item()
        return scores

    optimise(prior_name(rounds), network, stage, work, loss, validate, device)
    return network


def prior_name(rounds: int) -> str:
    """Name of the checkpoint of the prior after this many rounds of its own cycles."""
    return f"prior-{rounds}" if rounds else "prior"


def new_statistics(recipe: Recipe, data: TrainingData) -> ErrorStatistics:
    """Empty error statistics of this recipe's shape."""
    coder = recipe.networks.autoencoder
    rows, columns = (n // coder.patch for n in data.climate.harmonics.shape[-2:])
    return ErrorStatistics(len(recipe.backgrounds.lead_hours) + 1, coder.latent, rows, columns, len(data.channels))


def new_denoiser(recipe: Recipe, data: TrainingData) -> DenoiserNetwork:
    """An untrained denoiser of this recipe."""
    spec = recipe.networks
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    return DenoiserNetwork(
        spec.denoiser, spec.autoencoder.latent, data.climate.static, latitudes, longitudes, spec.autoencoder.patch
    )


@torch.no_grad()
def validation_pairs(pool: ForecastPool, criterion: PriorLoss) -> dict[str, Pairs]:
    """Fixed pairs of the validation year, with backgrounds and ("_cold") without."""
    parts = []
    with networks_on(pool.device):
        for step in range(1, 9):
            cases = pool.advance(16)
            if step in (2, 4, 8):
                parts.append(cases)
        cases = Cases.joined(parts)
        cold = np.zeros(len(cases), dtype=bool)
        return {"": criterion.pairs(cases, cold), "_cold": criterion.pairs(cases.every(4), ~cold[::4])}
