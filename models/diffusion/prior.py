"""Whitened latent increments, and the background-conditioned prior p(z | z_b, s) as a denoiser.

For a background with latent z_b and error level s, z = z_b + L_s w with L_s the symmetric square root, at each
latitude, of the covariance of latent background errors at that level. w has unit variance, and its zonally
homogeneous covariance is the Gaussian reference. For the highest level (no background) z_b = 0, the climatology.
With an ensemble of backgrounds the increment is scaled by where its spread is: z = z_b + L_s (m * w), m the spread
at each place relative to its mean.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.diffusion.gaussian import ZonalGaussian
from models.diffusion.schedule import Level
from models.precision import networks_on


def _by_row(matrix: Tensor, x: Tensor) -> Tensor:
    """A matrix [row, latent, latent] for each latitude, in float32 even under autocast: roots are ill-conditioned."""
    with torch.autocast(x.device.type, enabled=False):
        return torch.einsum("rkl,blrc->bkrc", matrix, x.float())


@dataclass(frozen=True)
class LevelPrior:
    """Whitening and Gaussian reference at one background-error level."""

    error_level: float
    root: Tensor  # [row, latent, latent], L_s
    inverse_root: Tensor
    gaussian: ZonalGaussian
    modulation: Tensor | None = None  # [row, column], m; None: 1 everywhere

    def colour(self, w: Tensor) -> Tensor:
        """L_s (m w): whitened -> latent increment, [member, latent, row, column]."""
        return _by_row(self.root, w if self.modulation is None else w * self.modulation)

    def colour_adjoint(self, increment: Tensor) -> Tensor:
        """m L_s^T dz, the adjoint of `colour` (L_s is symmetric)."""
        w = _by_row(self.root, increment)
        return w if self.modulation is None else w * self.modulation

    def whiten(self, increment: Tensor) -> Tensor:
        """w = L_s^-1 (z - z_b) / m."""
        w = _by_row(self.inverse_root, increment)
        return w if self.modulation is None else w / self.modulation

    def whiten_adjoint(self, w: Tensor) -> Tensor:
        """L_s^-1 (w / m), the adjoint of `whiten` (L_s is symmetric)."""
        return _by_row(self.inverse_root, w if self.modulation is None else w / self.modulation)

    def modulated(self, modulation: Tensor | None) -> "LevelPrior":
        """The same prior with another modulation [row, column]."""
        return replace(self, modulation=modulation)


def symmetric_inverse(matrix: Tensor) -> Tensor:
    """Inverse of symmetric positive definite matrices [..., k, k] by their eigenvectors, in double precision."""
    values, vectors = torch.linalg.eigh(matrix.double())
    inverse: Tensor = (vectors / values[..., None, :]) @ vectors.transpose(-1, -2)
    return inverse.to(matrix.dtype)


class ErrorStatistics(nn.Module):
    """Statistics of background errors at the tabulated levels, interpolated in ln s in between.

    Buffers: `level` [n] ascending, the last without a background; `root` [n, row, latent, latent];
    `covariance` [n, latent, wavenumber, row, row] of whitened errors; `channel_error` [n, channel] RMS error by
    channel, `floor` [channel] RMS of what the autoencoder cannot carry, both in anomaly units.
    """

    level: Tensor
    root: Tensor
    covariance: Tensor
    channel_error: Tensor
    floor: Tensor

    def __init__(self, levels: int, latent: int, rows: int, columns: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("level", torch.ones(levels))
        self.register_buffer("root", torch.zeros(levels, rows, latent, latent))
        self.register_buffer("covariance", torch.zeros(levels, latent, columns // 2 + 1, rows, rows))
        self.register_buffer("channel_error", torch.ones(levels, channels))
        self.register_buffer("floor", torch.zeros(channels))

    def weights(self, error_level: float) -> Tensor:
        """Interpolation weights [n] of the tabulated levels (constant beyond the ends)."""
        nodes = self.level.log().double()
        s = torch.tensor(error_level, dtype=torch.float64, device=nodes.device).log().clamp(nodes[0], nodes[-1])
        upper = int(torch.searchsorted(nodes, s).clamp(1, len(nodes) - 1))
        share = (s - nodes[upper - 1]) / (nodes[upper] - nodes[upper - 1])
        out = torch.zeros_like(self.level)
        out[upper - 1], out[upper] = 1 - share.float(), share.float()
        return out

    def at(self, error_level: float) -> LevelPrior:
        """Whitening and Gaussian reference at `error_level`; below the lowest level those of it, scaled down."""
        weights = self.weights(error_level)
        # a prior may be made, and kept, inside a training step
        with torch.autocast(weights.device.type, enabled=False):
            root = torch.einsum("n,nrkl->rkl", weights, self.root.float()) * self._below(error_level)
            covariance = torch.einsum("n,nkmij->kmij", weights, self.covariance.float())
        gaussian = ZonalGaussian(covariance).to(root.device)
        return LevelPrior(error_level, root, symmetric_inverse(root), gaussian)

    def channel_errors(self, error_level: float) -> Tensor:
        """RMS background error by channel [channel] at `error_level`, in anomaly units."""
        variance: Tensor = self.weights(error_level) @ self.channel_error**2
        return variance.sqrt() * self._below(error_level)

    def _below(self, error_level: float) -> float:
        """How much smaller than the lowest tabulated level `error_level` is, at most 1."""
        return min(1.0, error_level / self.level[0].item())


class PriorDenoiser:
    """E[w_0 | w_t, z_b, s] for a batch of members that share one error level and season.

    `background` is z_b, [1 or member, latent, row, column]. `share` of the network's correction is used: 1 where the
    background is of the kind it was trained on, less where it is not; 0 is the Gaussian reference.
    """

    def __init__(
        self, network: Callable[..., Tensor], prior: LevelPrior, background: Tensor, season: float, share: float = 1.0
    ) -> None:
        self.network, self.prior, self.background, self.season = network, prior, background, season
        self.share = share
        self.evaluations = 0

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        self.evaluations += 1
        wiener = self.prior.gaussian.denoise(x, level)
        if not self.share:
            return wiener
        member = torch.ones(len(x), device=x.device)
        modulation = torch.ones_like(x[0, 0]) if self.prior.modulation is None else self.prior.modulation
        with networks_on(x.device):
            correction: Tensor = self.network(
                x,
                wiener,
                self.background.expand(len(x), -1, -1, -1),
                modulation.expand(len(x), 1, -1, -1),
                member * level.log_snr,
                member * self.prior.error_level,
                member * self.season,
            )
        return wiener + self.share * level.sigma * correction
