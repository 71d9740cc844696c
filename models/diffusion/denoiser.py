"""What every sampler and every guidance share: a denoiser gives E[x_0 | x_t].

Guidance wraps a denoiser in another denoiser, E[x_0 | x_t, y], so that any sampler runs any guidance. The score
follows by Tweedie's formula: s(x_t) = (alpha E[x_0 | x_t] - x_t) / sigma^2.
"""

from typing import Protocol

from torch import Tensor

from models.diffusion.schedule import Level


class Denoiser(Protocol):
    """E[x_0 | x_t]: `x` [member, ...] at noise level `level` -> the same shape. `evaluations` counts networks run."""

    @property
    def evaluations(self) -> int: ...

    def __call__(self, x: Tensor, level: Level) -> Tensor: ...
