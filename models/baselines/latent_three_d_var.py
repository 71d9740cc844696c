"""3D-Var in the latent space of the bundle: B is its Gaussian reference at the level, R holds the autoencoder's floor.

J(w) = 1/2 w^T B_w^-1 w + 1/2 |residual(w)|^2 for whitened increments w; the decoder is not linear, so J is minimised
by Gauss-Newton steps, each by conjugate gradients with the decoder's linear part, preconditioned by the root of B_w.
"""

import numpy as np
import torch
from torch import Tensor

from models.assimilation import Assimilator
from models.baselines.three_d_var import ITERATIONS, TOLERANCE, CostFunction, VarianceSettings, to_states
from models.evaluation.method import Given, States
from models.latent_observations import LatentObservations


class LatentThreeDVar:
    """The mean of the background in, one member out."""

    name = "latent-3dvar"

    def __init__(
        self,
        assimilator: Assimilator,
        settings: VarianceSettings,
        *,
        outer: int = 2,
        iterations: int = ITERATIONS,
        tolerance: float = TOLERANCE,
    ) -> None:
        self.assimilator, self.settings = assimilator, settings
        self.outer, self.iterations, self.tolerance = outer, iterations, tolerance

    def _problem(self, given: Given) -> LatentObservations:
        assimilator = self.assimilator
        bundle, device = assimilator.bundle, assimilator.device
        level = self.settings.level(assimilator, given.lead_hours)
        mean = given.background.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        anomaly = bundle.climate.normalise(torch.from_numpy(mean).to(device), given.valid_time)
        observations = given.observations
        return LatentObservations(
            bundle.autoencoder,
            bundle.climate,
            bundle.statistics.at(level),
            anomaly,
            bundle.autoencoder.encode(anomaly),
            given.valid_time,
            assimilator.operator(observations),
            torch.from_numpy(observations.value).float().to(device),
            torch.from_numpy(assimilator.observation_error(observations)).float().to(device),
        )

    @torch.no_grad()
    def analyse(self, given: Given) -> States:
        problem = self._problem(given)
        root = problem.prior.gaussian.sample  # symmetric

        def tangent(v: Tensor) -> Tensor:
            return problem.jacobian(root(v))

        def adjoint(r: Tensor) -> Tensor:
            return root(problem.adjoint(r))

        v = torch.zeros_like(problem.z_b)
        for _ in range(self.outer):
            problem = problem.linearised(root(v))
            departure = problem.residual(root(v)) + tangent(v)  # linearised about v
            v = CostFunction(tangent, adjoint, departure).minimum(self.iterations, self.tolerance)
        climate = self.assimilator.bundle.climate
        return to_states(self.assimilator, climate.denormalise(problem.state(root(v)), given.valid_time))
