"""Samples guided by observations in direct fine-tuning: alignment where the prior is used, not only by itself.

The observations are random values of the truth's grid, as in the paper's protocol; of a cycled background those of its
cycle. What they add to an estimate
(`Mmps.correction`, `Dps.correction`) carries no gradient: the network is trained as if the correction of its estimate
stood fixed. Where the mean error given what the network sees is zero, both gradients are.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.alignment.cases import Atmosphere, Conditioned
from models.alignment.recipe import ObservedRecipe
from models.assimilation import Assimilator
from models.covariance.guiding import BalancedGuide
from models.covariance.store import BalancedStatistics
from models.diffusion.denoiser import Denoiser
from models.diffusion.guidance import Dps, Mmps
from models.diffusion.schedule import Level
from models.latent_observations import LatentObservations
from models.nature.random_values import random_values
from models.observation_operator import ObservationSet

MEMBER_ITERATIONS = 6

Correction = Callable[[Tensor, Tensor, Level], Tensor]
"""x_t, E[x_0 | x_t] and the level -> what observations add to the estimate."""


class WithObservations:
    """A denoiser with what observations add to its estimate, the latter without a gradient."""

    def __init__(self, denoise: Denoiser, correction: Correction) -> None:
        self.denoise, self.correction = denoise, correction

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        estimate = self.denoise(x, level)
        with torch.no_grad():
            added = self.correction(x.detach(), estimate.detach(), level)
        return estimate + added


@dataclass(frozen=True)
class ObservedCase:
    """The observations of one case and how they guide: by moment matching as an analysis does, or by DPS."""

    latent: LatentObservations
    statistics: BalancedStatistics | None
    by_dps: bool

    def members(self, denoise: Denoiser, probe: Denoiser) -> WithObservations:
        """As samples of an analysis are guided; `probe`: the same denoiser, for what DPS asks beside it."""
        if self.by_dps:
            dps = Dps(probe, self.latent, self.latent.spread())
            return WithObservations(denoise, lambda x, estimate, level: dps.correction(x, level))
        covariance = self.latent.prior.gaussian.covariance_times
        return _matched(denoise, Mmps(denoise, self.latent, covariance, iterations=MEMBER_ITERATIONS))

    def centre(self, denoise: Denoiser, probe: Denoiser) -> WithObservations:
        """As the zero-noise sample of an analysis is guided."""
        if self.by_dps or self.statistics is None:
            return self.members(denoise, probe)
        balanced = BalancedGuide(self.statistics, self.latent.prior, self.latent.autoencoder)
        return _matched(denoise, Mmps(denoise, self.latent, balanced.covariance_times, tolerance=3e-2))


def _matched(denoise: Denoiser, mmps: Mmps) -> WithObservations:
    return WithObservations(denoise, lambda x, estimate, level: mmps.correction(estimate, level))


class Observer:
    """Draws observations of a case's truth."""

    def __init__(self, atmosphere: Atmosphere, recipe: ObservedRecipe, seed: int) -> None:
        self.assimilator = Assimilator(atmosphere.bundle, str(atmosphere.device))
        self.total_std = atmosphere.bundle.climate.total_std.cpu().numpy()
        self.recipe, self.seed = recipe, seed

    @torch.no_grad()
    def observe(self, conditioned: Conditioned) -> ObservedCase | None:
        """The observations of this case, or None for one that is left unguided; both follow from the seed. A cycled
        background is never left unguided."""
        case = conditioned.case
        if case.observations is not None:
            return self._observed(conditioned, case.observations, by_dps=False)
        generator = np.random.default_rng([self.seed, case.number, 2])
        if generator.random() >= self.recipe.share:
            return None
        fraction, error = (float(generator.choice(values)) for values in (self.recipe.fractions, self.recipe.errors))
        climate = self.assimilator.bundle.climate
        truth = climate.denormalise(case.truth, case.valid_time)[0].cpu().numpy()
        observations = random_values(truth, self.assimilator.spec, self.total_std, fraction, error, generator)
        return self._observed(conditioned, observations, bool(generator.random() < self.recipe.dps_share))

    def _observed(self, conditioned: Conditioned, observations: ObservationSet, by_dps: bool) -> ObservedCase:
        case, bundle = conditioned.case, self.assimilator.bundle
        value, sigma = observations.value, self.assimilator.observation_error(observations)
        latent = LatentObservations(
            bundle.autoencoder,
            bundle.climate,
            conditioned.prior,
            case.background,
            conditioned.z_b,
            case.valid_time,
            self.assimilator.operator(observations),
            torch.from_numpy(value).to(case.truth),
            torch.from_numpy(sigma).to(case.truth),
        )
        return ObservedCase(latent, bundle.covariance, by_dps)
