"""Incremental 3D-Var: J(v) = 1/2 |v|^2 + 1/2 |R^-1/2 (y - H(x_b + S U v))|^2 with B = U U^T.

The control vector v preconditions the problem (Lorenc 1988; Courtier et al. 1994). With H linearised the minimum
solves (I + A^T A) v = A^T d with A = R^-1/2 H' S U, by conjugate gradients; S are the scales of the channels. Where
H is not linear that is one of a few outer loops (Gauss-Newton). The smaller the errors, the more iterations it takes
(docs/baselines.md shows how many).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.assimilation import Assimilator
from models.covariance.balanced import BackgroundCovariance
from models.covariance.store import BalancedStatistics
from models.diffusion.guidance import conjugate_gradients
from models.ensemble import without_negative
from models.evaluation.method import Given, States
from models.observation_operator import ObservationOperator, TangentLinear

Linear = Callable[[Tensor], Tensor]
ITERATIONS, TOLERANCE = 1000, 1e-4
OUTER_LOOPS = 3  # where H is not linear
BOUNDS = (0.4, 2.5)  # of what innovations may change the level by
LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observed:
    """The observations of one analysis as a least-squares problem in anomaly units, whitened by R.

    `at`: the derivative of H at the state where it was last `linearised`.
    """

    operator: ObservationOperator
    scale: Tensor
    value: Tensor
    error: Tensor
    at: TangentLinear

    @classmethod
    def of(cls, assimilator: Assimilator, given: Given) -> "Observed":
        """R holds instrument error and time offset; the autoencoder's floor is no matter of these methods.

        Raises ValueError for an observation without an error: an evaluation gives exact values one.
        """
        device = assimilator.device
        error = assimilator.observation_error(given.observations, autoencoder=False)
        if not (error > 0).all():
            raise ValueError(f"{int((error <= 0).sum())} observations have no error; R must be positive")
        operator = assimilator.operator(given.observations)
        mean = given.background.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return cls(
            operator,
            assimilator.bundle.climate.std[:, None, None],
            torch.from_numpy(given.observations.value).float().to(device),
            torch.from_numpy(error).float().to(device),
            operator.linearised(torch.from_numpy(mean).to(device)),
        )

    def linearised(self, state: Tensor) -> "Observed":
        """With the derivative of H at `state` [1, channel, ...] SI; itself where H is linear."""
        return self if self.operator.linear else replace(self, at=self.operator.linearised(state))

    def departures(self, state: Tensor) -> Tensor:
        """R^-1/2 (y - H x): [member, channel, ...] SI -> [member, n]."""
        return (self.value - self.operator(state)) / self.error

    def tangent(self, increment: Tensor) -> Tensor:
        """R^-1/2 H' S dx: [member, channel, ...] anomaly units -> [member, n]."""
        return self.at(increment * self.scale) / self.error

    def adjoint(self, values: Tensor) -> Tensor:
        """The adjoint of `tangent`."""
        return self.at.adjoint(values / self.error) * self.scale


@dataclass(frozen=True)
class CostFunction:
    """J of a control vector [1, ...], its gradient and its minimum; `tangent` is A, `departure` d [1, n]."""

    tangent: Linear
    adjoint: Linear
    departure: Tensor

    def value(self, v: Tensor) -> Tensor:
        residual = self.departure - self.tangent(v)
        return 0.5 * (v.double() ** 2).sum() + 0.5 * (residual.double() ** 2).sum()

    def gradient(self, v: Tensor) -> Tensor:
        return v - self.adjoint(self.departure - self.tangent(v))

    def residual(self, v: Tensor) -> float:
        """|grad J(v)| / |grad J(0)|: how far from the minimum v is."""
        start = self.adjoint(self.departure).double().norm()
        return float(self.gradient(v).double().norm() / start.clamp_min(1e-30))

    def minimum(self, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Tensor:
        """v of the minimum, to a `residual` of `tolerance`; a warning is logged when the iterations do not get there."""
        right = self.adjoint(self.departure)
        shape, runs = right.shape, 0

        def hessian(v: Tensor) -> Tensor:
            nonlocal runs
            runs += 1
            return v + self.adjoint(self.tangent(v.reshape(shape))).flatten(1)

        v = conjugate_gradients(hessian, right.flatten(1), iterations, tolerance).reshape(shape)
        if runs >= iterations and (residual := self.residual(v)) > tolerance:
            LOG.warning("not converged after %d iterations: |grad J| is %.1e of its first value", runs, residual)
        return v


def cost_function(covariance: BackgroundCovariance, observed: Observed, departure: Tensor) -> CostFunction:
    """J for the background covariance `covariance` and R^-1/2 (y - H x_b) = `departure` [1, n]."""
    return CostFunction(
        lambda v: observed.tangent(covariance.root(v)),
        lambda r: covariance.root_adjoint(observed.adjoint(r)),
        departure,
    )


@dataclass(frozen=True)
class VarianceSettings:
    """How wide B is: the background-error level by the age of the background, tuned (docs/baselines.md).

    `cycled_level` for a background of one step, which in this protocol comes out of the method's own cycle and
    carries the errors of its analyses; `factor` times the bundle's level of a forecast from the truth at 48 h;
    in between linear in the logarithms. With `innovations` that level is a first guess, which the departures of each
    analysis scale by `innovation_ratio`, within `BOUNDS` (Wang and Bishop 2003).
    """

    cycled_level: float
    factor: float = 1.0
    innovations: bool = False

    def level(self, assimilator: Assimilator, lead_hours: float) -> float:
        step = assimilator.spec.step_hours
        ends = np.log([self.cycled_level, self.factor * assimilator.error_level(48.0)])
        return float(np.exp(np.interp(np.log(max(lead_hours, step)), np.log([step, 48.0]), ends)))

    def level_given(self, assimilator: Assimilator, given: Given) -> float:
        """The level of this background, innovations counted if they are asked for."""
        first, observations = self.level(assimilator, given.lead_hours), given.observations
        if not self.innovations:
            return first
        departures = observations.value - assimilator.equivalents(given.background, observations).mean(axis=0)
        ratio = assimilator.innovation_ratio(
            observations, departures, assimilator.background_error(observations, first)
        )
        return float(first * np.clip(ratio, *BOUNDS) ** assimilator.confidence(observations))


def to_states(assimilator: Assimilator, members: Tensor) -> States:
    """SI tensor -> states, moisture not negative."""
    members[:, assimilator.moisture] = without_negative(members[:, assimilator.moisture])
    return members.cpu().numpy()


class ThreeDVar:
    """3D-Var from the mean of the background; one member out."""

    def __init__(
        self,
        assimilator: Assimilator,
        statistics: BalancedStatistics,
        settings: VarianceSettings,
        *,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
        name: str = "3dvar",
    ) -> None:
        self.assimilator, self.statistics, self.settings = assimilator, statistics, settings
        self.iterations, self.tolerance = iterations, tolerance
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def first_guess(self, given: Given) -> Tensor:
        """x_b [1, channel, latitude, longitude], SI."""
        mean = given.background.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return torch.from_numpy(mean).to(self.assimilator.device)

    @torch.no_grad()
    def analyse(self, given: Given) -> States:
        background = self.first_guess(given)
        observed = Observed.of(self.assimilator, given)
        level = self.settings.level_given(self.assimilator, given)
        covariance = self.statistics.at(level)
        increment = torch.zeros_like(background)
        for _ in range(1 if observed.operator.linear else OUTER_LOOPS):
            state = background + increment * observed.scale
            observed = observed.linearised(state)
            departure = observed.departures(state) + observed.tangent(increment)  # linearised about the state
            cost = cost_function(covariance, observed, departure)
            increment = covariance.root(cost.minimum(self.iterations, self.tolerance))
        return to_states(self.assimilator, background + increment * observed.scale)
