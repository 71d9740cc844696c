"""Samples guided by observations in direct fine-tuning: alignment where the prior is used, not only by itself.

The observations are random values of the truth's grid, as in the paper's protocol. What they add to an estimate
(`Mmps.correction`) carries no gradient: the network is trained as if the correction of its estimate stood fixed. Where
the mean error given what the network sees is zero, both gradients are.
"""

import numpy as np
import torch
from torch import Tensor

from models.alignment.cases import Atmosphere, Conditioned
from models.alignment.recipe import ObservedRecipe
from models.assimilation import Assimilator
from models.covariance.guiding import BalancedGuide
from models.diffusion.denoiser import Denoiser
from models.diffusion.guidance import Mmps
from models.diffusion.schedule import Level
from models.latent_observations import LatentObservations
from models.nature.random_values import random_values

MEMBER_ITERATIONS = 6


class WithObservations:
    """A denoiser with what observations add to its estimate, the latter without a gradient."""

    def __init__(self, denoise: Denoiser, mmps: Mmps) -> None:
        self.denoise, self.mmps = denoise, mmps

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        estimate = self.denoise(x, level)
        with torch.no_grad():
            added = self.mmps.correction(estimate.detach(), level)
        return estimate + added


class Observer:
    """Draws observations of a case's truth and makes its denoisers look at them."""

    def __init__(self, atmosphere: Atmosphere, recipe: ObservedRecipe, seed: int) -> None:
        self.assimilator = Assimilator(atmosphere.bundle, str(atmosphere.device))
        self.total_std = atmosphere.bundle.climate.total_std.cpu().numpy()
        self.recipe, self.seed = recipe, seed

    @torch.no_grad()
    def observe(self, conditioned: Conditioned) -> LatentObservations | None:
        """The observations of this case, or None for one that is left unguided; both follow from the seed."""
        case, bundle = conditioned.case, self.assimilator.bundle
        generator = np.random.default_rng([self.seed, case.number, 2])
        if generator.random() >= self.recipe.share:
            return None
        fraction, error = (float(generator.choice(values)) for values in (self.recipe.fractions, self.recipe.errors))
        truth = bundle.climate.denormalise(case.truth, case.valid_time)[0].cpu().numpy()
        observations = random_values(truth, self.assimilator.spec, self.total_std, fraction, error, generator)
        value, sigma = observations.value, self.assimilator.observation_error(observations)
        return LatentObservations(
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

    def members(self, denoise: Denoiser, observed: LatentObservations) -> WithObservations:
        """As samples of an analysis are guided."""
        covariance = observed.prior.gaussian.covariance_times
        return WithObservations(denoise, Mmps(denoise, observed, covariance, iterations=MEMBER_ITERATIONS))

    def centre(self, denoise: Denoiser, observed: LatentObservations) -> WithObservations:
        """As the zero-noise sample of an analysis is guided."""
        statistics, coder = self.assimilator.bundle.covariance, self.assimilator.bundle.autoencoder
        if statistics is None:
            return self.members(denoise, observed)
        balanced = BalancedGuide(statistics, observed.prior, coder)
        return WithObservations(denoise, Mmps(denoise, observed, balanced.covariance_times, tolerance=3e-2))
