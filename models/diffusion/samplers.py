"""Samplers: from noise to data with any denoiser.

- `dpm_solver`: DPM-Solver++(2M) (Lu et al. 2022), deterministic or as an SDE; second order, one evaluation a step.
- `heun`: the probability-flow ODE with Heun's rule in sigma/alpha (Karras et al. 2022), two evaluations a step.
- `ancestral`: DDPM steps with Langevin corrections (Song et al. 2021), the sampler of Align-DA.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from models.diffusion.schedule import Level, levels

Progress = Callable[[float], None]


def part_of(progress: Progress | None, start: float, end: float) -> Progress | None:
    """The progress of a part that is `start` to `end` of the whole, told to the `progress` of the whole."""
    if progress is None:
        return None
    return lambda fraction: progress(start + (end - start) * fraction)


def dpm_solver(
    denoise: Denoiser,
    x: Tensor,
    steps: int,
    *,
    stochastic: bool,
    generator: torch.Generator | None = None,
    schedule: list[Level] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """DPM-Solver++(2M) from `x` (at the first level) to the data.

    With `stochastic` each step adds the noise of the reverse SDE (SDE-DPM-Solver++(2M)); without it, started from
    x = 0, it follows the mean of a Gaussian exactly. Returns the denoised estimate at the last level.
    """
    schedule = schedule or levels(steps)
    previous: Tensor | None = None
    previous_step = 0.0
    for index, (now, after) in enumerate(itertools.pairwise(schedule)):
        estimate = denoise(x, now)
        h = after.log_snr - now.log_snr
        slope = estimate
        if previous is not None:
            ratio = previous_step / h
            slope = estimate + (estimate - previous) / (2 * ratio)
        if stochastic:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = (
                after.sigma / now.sigma * math.exp(-h) * x
                + after.alpha * -math.expm1(-2 * h) * slope
                + after.sigma * math.sqrt(-math.expm1(-2 * h)) * noise
            )
        else:
            x = after.sigma / now.sigma * x + after.alpha * -math.expm1(-h) * slope
        previous, previous_step = estimate, h
        if progress is not None:
            progress((index + 1) / steps)
    return denoise(x, schedule[-1])


def heun(
    denoise: Denoiser,
    x: Tensor,
    steps: int,
    *,
    schedule: list[Level] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Heun's second-order rule for the probability-flow ODE d(x/alpha)/d(s) = (x/alpha - D)/s, s = sigma/alpha."""
    schedule = schedule or levels(steps)
    for index, (now, after) in enumerate(itertools.pairwise(schedule)):
        s0, s1 = now.sigma / now.alpha, after.sigma / after.alpha
        u = x / now.alpha
        slope = (u - denoise(x, now)) / s0
        trial = (u + (s1 - s0) * slope) * after.alpha
        corrected = (trial / after.alpha - denoise(trial, after)) / s1
        x = (u + (s1 - s0) * 0.5 * (slope + corrected)) * after.alpha
        if progress is not None:
            progress((index + 1) / steps)
    return denoise(x, schedule[-1])


def ancestral(
    denoise: Denoiser,
    x: Tensor,
    steps: int = 128,
    *,
    corrections: int = 2,
    signal_to_noise: float = 0.05,
    generator: torch.Generator | None = None,
    schedule: list[Level] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """DDPM ancestral steps, each followed by `corrections` Langevin steps with the score at the new level.

    The Langevin step length is 2 (r sigma)^2 with r = `signal_to_noise` (Song et al. 2021, algorithm 5).
    """
    schedule = schedule or levels(steps)

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)

    for index, (now, after) in enumerate(itertools.pairwise(schedule)):
        estimate = denoise(x, now)
        ratio = now.alpha / after.alpha
        variance = 1 - (ratio * after.sigma / now.sigma) ** 2  # share of the noise that this step removes
        x = (
            ratio * (after.sigma / now.sigma) ** 2 * x
            + after.alpha * variance * estimate
            + after.sigma * math.sqrt(variance) * noise()
        )
        for _ in range(corrections):
            step = 2 * (signal_to_noise * after.sigma) ** 2
            score = (after.alpha * denoise(x, after) - x) / after.sigma**2
            x = x + step * score + math.sqrt(2 * step) * noise()
        if progress is not None:
            progress((index + 1) / steps)
    return denoise(x, schedule[-1])
