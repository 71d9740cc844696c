"""Guidance: E[x_0 | x_t, y] from a denoiser and observations y = h(x_0) + e, e ~ N(0, R).

h may be nonlinear; residuals are whitened by R, so R = I below. J is (an approximation of) the Jacobian of h.
Every method wraps a denoiser in a denoiser; exact for a linear h and a Gaussian prior are `Mmps`, and `ObsFree`
trivially. Notation: r = R^-1/2 (y - h(E[x_0 | x_t])), V_t = Cov[x_0 | x_t].
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from models.diffusion.denoiser import Denoiser
from models.diffusion.schedule import Level

Covariance = Callable[[Tensor, Level], Tensor]


class Observed(Protocol):
    """Observations as guidance needs them; x is [member, ...], residuals are [member, n], whitened."""

    def residual(self, x: Tensor) -> Tensor:
        """R^-1/2 (y - h(x)), differentiable in x."""
        ...

    def linearised(self, x: Tensor) -> "Observed":
        """The same observations with J taken at x [member, ...]; itself where h is linear."""
        ...

    def jacobian(self, dx: Tensor) -> Tensor:
        """R^-1/2 J dx."""
        ...

    def adjoint(self, v: Tensor) -> Tensor:
        """J^T R^-1/2 v."""
        ...


def conjugate_gradients(
    times: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float, start: Tensor | None = None
) -> Tensor:
    """Solve A x = b for each member: b [member, n], A symmetric positive definite; `start` is a first guess of x.

    A member stops when its residual is `tolerance` of |b|, or when rounding makes p'Ap <= 0.
    """
    x = torch.zeros_like(b) if start is None else start.clone()
    r = b.clone() if start is None else b - times(start)
    p = r.clone()
    rr = (r * r).sum(dim=1)
    goal = tolerance**2 * (b * b).sum(dim=1)
    for _ in range(iterations):
        if not bool((rr > goal).any()):
            break
        ap = times(p)
        curvature = (p * ap).sum(dim=1)
        active = (rr > goal) & (curvature > 0)
        if not bool(active.any()):
            break
        step = torch.where(active, rr / torch.where(active, curvature, 1.0), 0.0)
        x = x + step[:, None] * p
        r = r - step[:, None] * ap
        after = (r * r).sum(dim=1)
        p = torch.where(active[:, None], r + (after / rr.clamp_min(1e-30))[:, None] * p, p)
        rr = torch.where(active, after, rr)
    return x


class Mmps:
    """Moment matching (MMPS, Rozet et al. 2024): p(y | x_t) = N(h(E[x_0 | x_t]), R + J V_t J^T), by Gauss-Newton.

    E[x_0 | x_t, y] = E[x_0 | x_t] + V_t J^T (I + J V_t J^T)^-1 r, J taken at E[x_0 | x_t] of each member. V_t is the analytic covariance of the Gaussian
    reference prior, not the network's Jacobian: no derivative of the network is needed.

    On its way to the data the solution v hardly changes: for a Gaussian prior and zero noise it is R^-1/2 (y - h(x_a)) at every
    level. `warm`: each solve starts from the one before (of as many members), which spares most of the iterations.
    """

    def __init__(
        self,
        denoise: Denoiser,
        observed: Observed,
        covariance: Covariance,
        *,
        iterations: int = 60,
        tolerance: float = 1e-2,
        warm: bool = True,
    ) -> None:
        self.denoise, self.observed, self.covariance = denoise, observed, covariance
        self.iterations, self.tolerance, self.warm = iterations, tolerance, warm
        self._last: Tensor | None = None

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        estimate = self.denoise(x, level)
        return estimate + self.correction(estimate, level)

    def correction(self, estimate: Tensor, level: Level) -> Tensor:
        """What y adds to E[x_0 | x_t] = `estimate` at this level, same shape."""
        observed = self.observed.linearised(estimate)

        def innovation_covariance(v: Tensor) -> Tensor:
            return v + observed.jacobian(self.covariance(observed.adjoint(v), level))

        residual = observed.residual(estimate)
        start = self._last if self.warm and self._last is not None and self._last.shape == residual.shape else None
        v = conjugate_gradients(innovation_covariance, residual, self.iterations, self.tolerance, start)
        self._last = v
        return self.covariance(observed.adjoint(v), level)


class Dps:
    """Diffusion posterior sampling (Chung et al. 2023; SDA, Rozet & Louppe 2023): gradient through the denoiser.

    p(y | x_t) = N(h(E[x_0 | x_t]), R + gamma sigma^2 / (alpha^2 + sigma^2) diag(J J^T)), which for gamma = 0 is
    DPS. E[x_0 | x_t, y] = E[x_0 | x_t] + zeta (sigma^2 / alpha) grad_{x_t} log p(y | x_t). `spread` [n] is
    diag(J J^T) in whitened units. A step longer than `longest` times the typical size of x_0 is shortened.
    """

    def __init__(
        self,
        denoise: Denoiser,
        observed: Observed,
        spread: Tensor | float,
        *,
        zeta: float = 1.0,
        gamma: float = 1.0,
        longest: float = 1.0,
    ) -> None:
        self.denoise, self.observed, self.spread = denoise, observed, spread
        self.zeta, self.gamma, self.longest = zeta, gamma, longest

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        estimate, step = self._parts(x, level)
        return estimate + step

    def correction(self, x: Tensor, level: Level) -> Tensor:
        """What y adds to E[x_0 | x_t] at x_t = `x`, same shape."""
        return self._parts(x, level)[1]

    def _parts(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            estimate = self.denoise(x, level)
            variance = 1 + self.gamma * level.sigma**2 / (level.alpha**2 + level.sigma**2) * self.spread
            misfit = 0.5 * (self.observed.residual(estimate) ** 2 / variance).sum()
            (gradient,) = torch.autograd.grad(misfit, x)
        step = -self.zeta * level.sigma**2 / level.alpha * gradient
        size = step.flatten(1).square().mean(dim=1).sqrt()
        shorten = (self.longest / size.clamp_min(1e-12)).clamp_max(1.0)
        return estimate.detach(), (step * shorten.view(-1, *[1] * (x.ndim - 1))).detach()


class Repaint:
    """Observed cells are painted over in physical space (RePaint, Lugmayr et al. 2022), using only y.

    `paint(x)` decodes, replaces the observed part by what y says, and encodes again; applied to every estimate.
    """

    def __init__(self, denoise: Denoiser, paint: Callable[[Tensor], Tensor]) -> None:
        self.denoise, self.paint = denoise, paint

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        return self.paint(self.denoise(x, level))
