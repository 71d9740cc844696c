"""Observations of the state seen from the latent: y = H(x(w)) + e with x(w) = x_b + D(z_b + L w) - D(z_b).

Residuals use the full decoder and H; the Jacobian uses the decoder's linear part, which carries almost all of it and costs
no network, and the derivative of H: at the background, or at the states where it was last `linearised`.
"""

import copy
from datetime import datetime
from functools import cached_property

import torch
from torch import Tensor

from models.climate import Climate
from models.diffusion.prior import LevelPrior
from models.networks.autoencoder import Autoencoder
from models.observation_operator import ObservationOperator
from models.precision import networks_on

PROBES = 32


class LatentObservations:
    """`models.diffusion.guidance.Observed` for whitened latent increments w [member, latent, row, column].

    `background` [1, channel, latitude, longitude] in anomaly units with latent `z_b`; `value`, `error` [n] SI.
    `kept` (that broadcasts): how much stays of what the autoencoder cannot carry of the background, x_b - D(z_b).
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        climate: Climate,
        prior: LevelPrior,
        background: Tensor,
        z_b: Tensor,
        valid_time: datetime,
        operator: ObservationOperator,
        value: Tensor,
        error: Tensor,
        kept: Tensor | float = 1.0,
    ) -> None:
        self.autoencoder, self.prior, self.z_b, self.operator = autoencoder, prior, z_b, operator
        self.scale = climate.std[:, None, None]
        self.value, self.error, self.kept = value, error, kept
        self.remainder = kept * (background - self._decode(z_b))
        self.first_guess = climate.denormalise(background, valid_time)
        self.innovation = value - operator(self.first_guess)[0]
        self.background = background
        self.tangent = operator.linearised(self.first_guess)

    def _decode(self, z: Tensor) -> Tensor:
        with networks_on(z.device):
            return self.autoencoder.decode(z)

    def without_remainder(self, perturbations: Tensor) -> Tensor:
        """Of perturbations [member, channel, latitude, longitude] of the background what is `kept` of it: to first order."""
        carried = self.autoencoder.decode_linear(self.autoencoder.encode_linear(perturbations))
        return carried + self.kept * (perturbations - carried)

    def state(self, w: Tensor) -> Tensor:
        """x(w) in anomaly units: [member, channel, latitude, longitude]."""
        return self._decode(self.z_b + self.prior.colour(w)) + self.remainder

    def residual(self, w: Tensor) -> Tensor:
        """R^-1/2 (y - H x(w)): [member, n]. The departure from x_b is taken first, to keep float32 digits."""
        increment = (self.state(w) - self.background) * self.scale
        return (self.innovation - self.operator.change(self.first_guess, increment)) / self.error

    def linearised(self, w: Tensor) -> "LatentObservations":
        """The same observations, their Jacobian taken at x(w) [member, ...]; itself where H is linear."""
        if self.operator.linear:
            return self
        there = copy.copy(self)
        state = self.first_guess + (self.state(w) - self.background) * self.scale
        there.tangent = self.operator.linearised(state)
        return there

    def jacobian(self, dw: Tensor) -> Tensor:
        """R^-1/2 H' S Q L dw, with S the channel scales and Q the linear decoder."""
        return self.tangent(self.autoencoder.decode_linear(self.prior.colour(dw)) * self.scale) / self.error

    def adjoint(self, v: Tensor) -> Tensor:
        """The adjoint of `jacobian`."""
        gridded = self.tangent.adjoint(v / self.error) * self.scale
        return self.prior.colour_adjoint(self.autoencoder.decode_linear_adjoint(gridded))

    def spread(self) -> Tensor:
        """diag(J B J^T) by random probes: [n], whitened; the prior variance of each observation."""
        noise = torch.randn(PROBES, *self.z_b.shape[1:], generator=torch.Generator().manual_seed(0)).to(self.z_b)
        return (self.jacobian(self.prior.gaussian.sample(noise)) ** 2).mean(dim=0)

    @cached_property
    def gain(self) -> Tensor:
        """The prior's share of the variance of each innovation: [n], in [0, 1)."""
        variance = self.spread()
        return variance / (1 + variance)

    def paint(self, w: Tensor) -> Tensor:
        """Replace observed cells by what y says (Repaint): decode, compose by the mask of observation, encode.

        At an observed cell of the observed variable the innovation is spread by its interpolation weights, times
        the share of the prior's variance; what is made of several variables is shared among them.
        """
        innovation = self.residual(w) * self.error * self.gain
        pull, reach = self.linearised(w).tangent.painted(innovation, self.scale[:, 0, 0])
        mask = reach.abs() > 0.05
        x = self.state(w) + torch.where(mask, pull / torch.where(mask, reach, 1.0), 0.0) / self.scale
        with networks_on(w.device):
            z = self.autoencoder.encode(x - self.remainder)
        return self.prior.whiten(z - self.z_b)
