"""Direct reward fine-tuning (DRaFT-K, Clark et al. 2024): the gradient of rewards through the last K evaluations.

The rewards are differentiable here, so no preferences are needed. The backpropagation is truncated: the sampler's
earlier evaluations run without gradients. Units, so that weights are comparable:
    accuracy, centre: mean square error over that of the background, mean over channels (minus: higher is better)
    forecast: the same at `forecast_hours`, over that of the oldest tabulated forecast
    crps, energy: fair scores of the members of one background over the RMS error of the background
    geostrophic, hydrostatic: adherence to the truth's own imbalance, 1 is best
Of a cycled background the analysis is the guided zero-noise sample alone, and forecast and balance are rewards of that.
`anchor` weighs mean |F - F_base|^2 at the states visited, which is the Kullback-Leibler divergence of the sampler's
steps from the base's up to a factor of each step. The weight decay of AdamW pulls the change itself to none.
"""

import numpy as np
import torch
from torch import Tensor, nn

from models.alignment.candidates import balance_scores
from models.alignment.cases import Atmosphere, Case, CaseSource, Conditioned
from models.alignment.guided import Observer
from models.alignment.recipe import DraftMethod
from models.diffusion.prior import PriorDenoiser
from models.diffusion.schedule import Level
from models.networks.low_rank import ChangedNetwork, LowRankChange
from models.rewards import accuracy, fair_crps, fair_energy_score, forecast_skill


class Truncated:
    """A denoiser whose first `total - gradient_steps` evaluations carry no gradient; adds up the distance of the rest
    from those of `base`, if one is given."""

    def __init__(self, denoise: PriorDenoiser, base: PriorDenoiser | None, total: int, gradient_steps: int) -> None:
        self.denoise, self.base = denoise, base
        self.free = total - gradient_steps
        self.departure = torch.zeros((), device=denoise.background.device)

    @property
    def evaluations(self) -> int:
        return self.denoise.evaluations

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        if self.denoise.evaluations < self.free:
            with torch.no_grad():
                return self.denoise(x, level)
        estimate = self.denoise(x, level)
        if self.base is None:
            return estimate
        with torch.no_grad():
            base = self.base(x, level)
        self.departure = self.departure + (((estimate - base) / level.sigma) ** 2).mean()
        return estimate


class DraftLoss:
    """Minus the weighted rewards of one step's backgrounds; the draws follow from seed and step alone."""

    def __init__(
        self, atmosphere: Atmosphere, base: nn.Module, change: LowRankChange, cases: CaseSource, method: DraftMethod
    ) -> None:
        self.atmosphere, self.base, self.cases, self.method = atmosphere, base, cases, method
        self.network = ChangedNetwork(base, change)
        self.observer = Observer(atmosphere, method.observed, cases.seed)
        self.later_unit = self._unit(atmosphere.spec.error_levels.level[-2])

    def __call__(self, step: int) -> Tensor:
        batch = self.method.batch
        # the networks choose their precision themselves; geopotential and its gradients have more digits than that
        with torch.autocast(self.atmosphere.device.type, enabled=False):
            losses = [self._of_case(self.cases[step * batch + k], step) for k in range(batch)]
        return torch.stack(losses).mean()

    def _unit(self, error_level: float) -> Tensor:
        """What errors are divided by: [channel], in anomaly units. Of a background of this level the mean square is 1."""
        climate, share = self.atmosphere.bundle.climate, self.method.rewards.by_variance
        error = self.atmosphere.bundle.statistics.channel_errors(error_level).square()
        total = (climate.total_std / climate.std).square()
        return ((1 - share) / error + share / (total * (error / total).mean())).rsqrt()

    def _truncated(self, conditioned: Conditioned) -> Truncated:
        method = self.method
        denoise, base = conditioned.denoiser(self.network), conditioned.denoiser(self.base)
        return Truncated(denoise, base if method.anchor else None, method.sampler_steps + 1, method.gradient_steps)

    def _of_case(self, case: Case, step: int) -> Tensor:
        method, weights, area = self.method, self.method.rewards, self.atmosphere.area
        conditioned = Conditioned(self.atmosphere, case)
        observed = self.observer.observe(conditioned)
        unit = self._unit(case.error_level)
        reward = torch.zeros((), device=area.device)
        departure = torch.zeros((), device=area.device)
        denoise = self._truncated(conditioned)
        guided = denoise if observed is None else observed.centre(denoise, conditioned.denoiser(self.network))
        centre = conditioned.centre(guided, method.sampler_steps)
        x_centre = conditioned.state(centre)
        reward = reward + weights.centre * accuracy(x_centre, case.truth, area, unit).mean()
        departure = departure + denoise.departure
        if case.observations is not None:
            reward = reward + self._of_members(x_centre, case, unit, step)
        elif any((weights.accuracy, weights.crps, weights.energy, weights.geostrophic, weights.hydrostatic,
                weights.forecast)):  # fmt: skip
            generator = torch.Generator().manual_seed(int(np.random.default_rng([self.cases.seed, case.number, 1])
                                                          .integers(2**62)))  # fmt: skip
            denoise = self._truncated(conditioned)
            guided = denoise if observed is None else observed.members(denoise, conditioned.denoiser(self.network))
            w = conditioned.sample(guided, method.members, method.sampler_steps, generator)
            reward = reward + self._of_members(conditioned.members(w, centre), case, unit, step)
            departure = departure + denoise.departure
        return method.anchor * departure - reward

    def _of_members(self, x: Tensor, case: Case, unit: Tensor, step: int) -> Tensor:
        weights, area = self.method.rewards, self.atmosphere.area
        reward = weights.accuracy * accuracy(x, case.truth, area, unit).mean()
        if weights.crps:
            reward = reward - weights.crps * fair_crps(x, case.truth[0], area, unit, centred=True).mean()
        if weights.energy:
            energy = fair_energy_score(x, case.truth[0], area, unit, centred=True)
            reward = reward - weights.energy * energy.mean()
        if weights.geostrophic or weights.hydrostatic:
            geostrophic, hydrostatic = balance_scores(self.atmosphere, x, case)
            reward = reward + weights.geostrophic * geostrophic.mean() + weights.hydrostatic * hydrostatic.mean()
        if weights.forecast and step % self.method.forecast_every == 0:
            later = self.atmosphere.forecast(x, case.valid_time, self.cases.recipe.forecast_hours)
            skill = forecast_skill(later, case.later, area, self.later_unit).mean()
            reward = reward + self.method.forecast_every * weights.forecast * skill
        return reward
