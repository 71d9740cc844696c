"""The local ensemble transform Kalman filter (Hunt, Kostelich & Szunyogh 2007), observations localised in R.

At each column and level of a coarse grid the observation errors are divided by a taper of horizontal distance and
of ln p; the k x k weights are interpolated to the full grid. Spread is kept up by additive inflation with draws of
the 3D-Var's B (the forecast model has no stochastic error of its own), relaxation to prior spread (RTPS, Whitaker &
Hamill 2012) and relaxation to prior perturbations (RTPP, Zhang, Snyder & Sun 2004). As an option the mean is analysed
once more by 3D-Var with its static B (hybrid gain, Penny 2014): what the few members cannot span.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from models.assimilation import Assimilator
from models.baselines.localisation import WeightGrid, gaspari_cohn, great_circle_km, observation_heights, unit_vectors
from models.baselines.three_d_var import Observed, VarianceSettings, cost_function, to_states
from models.covariance.store import BalancedStatistics
from models.evaluation.method import Given, States


@dataclass(frozen=True)
class LetkfSettings:
    """Tuned on the validation year (benchmarks/results/tuning-letkf-40.json, docs/baselines.md)."""

    members: int = 40
    horizontal_km: float = 1200.0  # half the distance at which the taper is zero
    vertical_ln_p: float = 0.6
    relaxation: float = 0.0  # RTPS
    to_prior: float = 0.5  # RTPP: share of the background's perturbations, before RTPS
    additive: float = 1.0  # standard deviation of the additive draws, in units of the level of a 6 h forecast
    stride: int = 2
    static: float = 0.0  # share of the 3D-Var increment from the LETKF's mean; 0: the plain LETKF


def transform(precision: Tensor, projected: Tensor) -> tuple[Tensor, Tensor]:
    """ETKF weights from Y^T R^-1 Y [..., k, k] and Y^T R^-1 d [..., k], Y the perturbations of H(x) about their mean.

    Returns the weights of the mean [..., k] and the symmetric transform of the perturbations [..., k, k].
    """
    k = precision.shape[-1]
    values, vectors = torch.linalg.eigh(precision)
    values = values.clamp_min(0.0) + (k - 1)
    mean = (vectors @ ((vectors.mT @ projected[..., None]) / values[..., None]))[..., 0]
    root = (vectors * ((k - 1) / values).sqrt()[..., None, :]) @ vectors.mT
    return mean, root


def project(perturbations: Tensor, departure: Tensor, taper: Tensor) -> tuple[Tensor, Tensor]:
    """What `transform` needs, for several tapers of the same observations.

    `perturbations` [n, k] and `departure` [n] are whitened by R; `taper` [level, n] multiplies R^-1. Returns
    Y^T R^-1 Y [level, k, k] and Y^T R^-1 d [level, k].
    """
    product = (taper[:, None, :] * perturbations.T) @ torch.cat([perturbations, departure[:, None]], dim=1)
    return product[..., :-1], product[..., -1]


def relax_spread(prior: Tensor, posterior: Tensor, relaxation: float) -> Tensor:
    """RTPS: perturbations [k, ...] rescaled towards the spread of the prior's, s_a + relaxation (s_b - s_a)."""
    before, after = prior.square().sum(dim=0).sqrt(), posterior.square().sum(dim=0).sqrt()
    return posterior * (1 + relaxation * (before / after.clamp_min(1e-12) - 1))


def _equivalents(observed: Observed, ensemble: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Perturbations of H(x) about their mean [member, n], SI, and the whitened departures of that mean [n]."""
    if observed.operator.linear:  # keeps the digits of the perturbations
        return observed.at(ensemble - mean), observed.departures(mean)[0]
    values = observed.operator(ensemble)
    centre = values.mean(dim=0)
    return values - centre, (observed.value - centre) / observed.error


class Letkf:
    """An ensemble in, an ensemble out; around a single background the first ensemble is drawn from B."""

    def __init__(
        self,
        assimilator: Assimilator,
        statistics: BalancedStatistics,
        variance: VarianceSettings,
        settings: LetkfSettings = LetkfSettings(),
        name: str | None = None,
    ) -> None:
        self.assimilator, self.statistics, self.variance, self.settings = assimilator, statistics, variance, settings
        self._name = name or f"letkf-{settings.members}"

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def _grid(self) -> WeightGrid:
        spec = self.assimilator.spec
        return WeightGrid.of(spec.grid, spec.channels, self.settings.stride)

    def _draws(self, level: float, seed: int) -> Tensor:
        """Centred draws of B(level), SI: [member, ...]."""
        generator = torch.Generator().manual_seed(seed)
        draws = self.statistics.at(level).draw(self.settings.members, generator)
        return (draws - draws.mean(dim=0)) * self.assimilator.bundle.climate.std[:, None, None]

    def prior_ensemble(self, given: Given) -> Tensor:
        """Mean and perturbations of the background are those of this ensemble: [member, ...] SI.

        Raises ValueError for an ensemble of another size than the settings'.
        """
        background = torch.from_numpy(np.ascontiguousarray(given.background))
        if len(background) == 1:
            level = self.variance.level(self.assimilator, given.lead_hours)
            return background + self._draws(level, given.seed)
        if len(background) != self.settings.members:
            raise ValueError(f"{self.name} was given {len(background)} members, it works with {self.settings.members}")
        inherited = self.assimilator.error_level(self.assimilator.spec.step_hours)
        return background + self._draws(self.settings.additive * inherited, given.seed)

    @torch.no_grad()
    def analyse(self, given: Given) -> States:
        ensemble = self.prior_ensemble(given)
        if not len(given.observations):
            return to_states(self.assimilator, ensemble)
        observed = Observed.of(self.assimilator, given)
        mean = ensemble.mean(dim=0, keepdim=True)
        perturbations = ensemble - mean
        spread, centre = _equivalents(observed, ensemble, mean)
        equivalents = (spread / observed.error).T.contiguous()
        weights = self._weights(given, equivalents, centre)
        increment, posterior = self._apply(perturbations, *weights)
        if self.settings.static:
            increment = increment + self.settings.static * self._static_increment(given, observed, mean + increment)
        posterior = torch.lerp(posterior, perturbations, self.settings.to_prior)
        posterior = relax_spread(perturbations, posterior, self.settings.relaxation)
        return to_states(self.assimilator, mean + increment + posterior)

    def _static_increment(self, given: Given, observed: Observed, mean: Tensor) -> Tensor:
        """Of 3D-Var with `mean` [1, channel, ...] as background: [channel, ...] SI."""
        covariance = self.statistics.at(self.variance.level(self.assimilator, given.lead_hours))
        cost = cost_function(covariance, observed, observed.departures(mean))
        return (covariance.root(cost.minimum()) * observed.scale)[0]

    def _weights(self, given: Given, perturbations: Tensor, departure: Tensor) -> tuple[Tensor, Tensor]:
        """At every coarse column: weights of the mean [coarse, level, k] and transforms [coarse, level, k, k]."""
        grid, settings = self._grid, self.settings
        observations = given.observations
        sites = unit_vectors(observations.latitude, observations.longitude)
        aside = (
            np.abs(grid.heights[:, None] - observation_heights(observations.nominal_pressure()))
            / settings.vertical_ln_p
        )
        vertical = gaspari_cohn(torch.from_numpy(aside).float())
        k = perturbations.shape[1]
        shape = (len(grid.points), len(grid.heights), k)
        precision, projected = torch.empty(*shape, k), torch.empty(shape)
        for start in range(0, len(grid.points), 64):
            distances = great_circle_km(grid.points[start : start + 64], sites)
            for place, ratio in enumerate(distances / settings.horizontal_km, start):
                near = np.flatnonzero(ratio < 2)
                taper = gaspari_cohn(torch.from_numpy(ratio[near]).float()) * vertical[:, near]
                precision[place], projected[place] = project(perturbations[near], departure[near], taper)
        return transform(precision, projected)

    def _apply(self, perturbations: Tensor, mean: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
        """Increment of the mean [channel, ...] and analysed perturbations [member, channel, ...]."""
        grid, shape = self._grid, perturbations.shape
        k = len(perturbations)
        increment, posterior = torch.empty(shape[1:]), torch.empty(shape)
        for level in range(len(grid.heights)):
            channels = np.flatnonzero(grid.level == level).tolist()
            both = torch.cat([root[:, level], mean[:, level, :, None]], dim=2)  # [coarse, k, k + 1]
            fine = (grid.interpolation @ both.flatten(1)).unflatten(1, (k, k + 1))
            local = perturbations[:, channels].flatten(2).permute(2, 1, 0)  # [column, channel, k]
            product = local @ fine
            posterior[:, channels] = product[..., :k].permute(2, 1, 0).reshape(k, len(channels), *shape[2:])
            increment[channels] = product[..., k].T.reshape(len(channels), *shape[2:])
        return increment, posterior
