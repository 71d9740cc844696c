"""The ensemble of a cycled analysis: background perturbations, inflated and updated with perturbed observations.

An ensemble of assimilations (Houtekamer and Mitchell 1998; Isaksen et al. 2010): member perturbations follow
dx_a = (I - K H) dx_b + K e, with e drawn from R and the gain K of the Gaussian reference prior, the same for all.
Their covariance is that of the analysis error where that of dx_b is the background's. Unlike fresh samples of the
posterior they keep the growing structures of the flow, and so their spread keeps up with the error.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.diffusion.guidance import conjugate_gradients
from models.diffusion.prior import LevelPrior
from models.latent_observations import LatentObservations
from models.networks.autoencoder import Autoencoder
from models.specification import ChannelSpec

ITERATIONS, TOLERANCE = 30, 1e-2


def centred(perturbations: Tensor) -> Tensor:
    """Take the mean over members out, keeping the variance [member > 1, ...] expected of them."""
    members = len(perturbations)
    scale: float = (members / (members - 1)) ** 0.5
    return scale * (perturbations - perturbations.mean(dim=0))


def without_negative(members: Tensor) -> Tensor:
    """Members [member, ...] of a quantity that is never negative, with the mean that they had where that is not negative.

    Setting the negative ones to zero alone would raise the mean: where a quantity is close to zero, as moisture aloft,
    every analysis would moisten it. So the others are scaled down to the mean.
    """
    mean, kept = members.mean(dim=0).clamp_min(0.0), members.clamp_min(0.0)
    raised = kept.mean(dim=0)
    above = raised > mean
    return kept * torch.where(above, mean / torch.where(above, raised, 1.0), 1.0)  # no 0 / 0, for the gradient's sake


def recentred(samples: Tensor, centre: Tensor) -> Tensor:
    """`samples` [member > 1, ...] moved to the mean `centre` [1, ...], each with the variance about it that it had about
    its own distribution's mean."""
    return centre + centred(samples)


def widened(members: Tensor, amplitude: Tensor | float) -> Tensor:
    """`members` [member, ...] with their perturbations times `amplitude` (that broadcasts)."""
    mean = members.mean(dim=0, keepdim=True)
    return mean + amplitude * (members - mean)


def by_variable(channels: Sequence[ChannelSpec], numbers: Mapping[str, float], otherwise: float = 1.0) -> Tensor:
    """The number of each channel's variable, `otherwise` where it has none: [channel, 1, 1]."""
    return torch.tensor([numbers.get(channel.variable, otherwise) for channel in channels])[:, None, None]


def with_model_error(
    perturbations: Tensor,
    prior: LevelPrior,
    coder: Autoencoder,
    generator: torch.Generator,
    amplitude: Tensor | float = 1.0,
) -> Tensor:
    """Add a sample of `prior`, the error of one model step, times `amplitude` (that broadcasts), to each of
    [member, channel, latitude, longitude]."""
    shape = (len(perturbations), prior.root.shape[-1], prior.root.shape[0], prior.gaussian.longitudes)
    noise = torch.randn(shape, generator=generator, device=perturbations.device)
    sample = coder.decode_linear(prior.colour(prior.gaussian.sample(noise)))
    return perturbations + amplitude * centred(sample)


def updated(perturbations: Tensor, latent: LatentObservations, generator: torch.Generator) -> Tensor:
    """(I - K H) dx_b + K e: [member, channel, latitude, longitude] in anomaly units, mean zero."""
    gaussian = latent.prior.gaussian
    noise = torch.randn(len(perturbations), len(latent.error), generator=generator, device=perturbations.device)
    rhs = centred(noise) - latent.tangent(perturbations * latent.scale) / latent.error

    def innovation_covariance(v: Tensor) -> Tensor:
        return v + latent.jacobian(gaussian.times(latent.adjoint(v)))

    v = conjugate_gradients(innovation_covariance, rhs, ITERATIONS, TOLERANCE)
    increment = latent.prior.colour(gaussian.times(latent.adjoint(v)))
    out = perturbations + latent.autoencoder.decode_linear(increment)
    return out - out.mean(dim=0)
