"""The variance-preserving process x_t = alpha_t x_0 + sigma_t eps with a cosine schedule.

alpha_t = cos(pi t / 2), sigma_t = sin(pi t / 2), 0 < t < 1 (Nichol & Dhariwal 2021; Align-DA writes mu, sigma).
lambda_t = ln(alpha_t / sigma_t) is half the log signal-to-noise ratio, the natural time of the samplers.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

T_START = 0.995  # almost pure noise: alpha = 0.008
T_END = 0.03  # sigma = 0.047, below every latent's signal


@dataclass(frozen=True)
class Level:
    """One noise level as plain numbers; alpha^2 + sigma^2 = 1."""

    t: float

    @property
    def alpha(self) -> float:
        return math.cos(0.5 * math.pi * self.t)

    @property
    def sigma(self) -> float:
        return math.sin(0.5 * math.pi * self.t)

    @property
    def log_snr(self) -> float:
        return math.log(self.alpha / self.sigma)


def alpha_sigma(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha_t and sigma_t of a tensor of times."""
    return torch.cos(0.5 * math.pi * t), torch.sin(0.5 * math.pi * t)


def levels(steps: int, t_start: float = T_START, t_end: float = T_END) -> list[Level]:
    """`steps` + 1 levels from noise to data, equidistant in lambda (as DPM-Solver++ asks for)."""
    if steps < 1:
        raise ValueError(f"a sampler needs at least one step, got {steps}")
    first, last = Level(t_start).log_snr, Level(t_end).log_snr
    snrs = [first + (last - first) * i / steps for i in range(steps + 1)]
    return [Level(2 / math.pi * math.atan(math.exp(-snr))) for snr in snrs]
