"""What an alignment does to unguided samples on the validation period, paired with the base: same cases, same noise.

Of a background of cycles also to the centre of its analysis. Scores by case, all over all channels (errors in units of
the channel's total standard deviation, CRPS in that of its anomalies); docs/alignment.md defines each.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.alignment.candidates import balance_scores
from models.alignment.cases import Atmosphere, Case, CaseSource, Conditioned
from models.alignment.guided import Observer
from models.alignment.recipe import ObservedRecipe, ValidationRecipe
from models.alignment_card import ScoreChange
from models.rewards import accuracy, fair_crps, fair_energy_score

RESAMPLES = 2000

Network = Callable[..., Tensor]
Scores = dict[str, NDArray[np.float64]]  # [case]


@torch.no_grad()
def case_scores(
    atmosphere: Atmosphere, case: Case, network: Network, recipe: ValidationRecipe, forecast_hours: int
) -> dict[str, float]:
    """Scores of one background's unguided ensemble, made as an analysis makes its members."""
    conditioned, area, climate = Conditioned(atmosphere, case), atmosphere.area, atmosphere.bundle.climate
    unit = climate.total_std / climate.std
    one = torch.ones_like(unit)
    generator = torch.Generator().manual_seed(77_000 + case.number)
    denoise = conditioned.denoiser(network)
    w = conditioned.sample(denoise, recipe.members, recipe.steps, generator)
    centre = conditioned.centre(denoise, recipe.steps)
    x, x_centre = conditioned.members(w, centre), conditioned.state(centre)
    mean = x.mean(dim=0, keepdim=True)

    def error(field: Tensor, truth: Tensor) -> float:
        return -accuracy(field, truth, area, unit).mean().item()

    analysis = {}
    if case.observations is not None:
        observed = Observer(atmosphere, ObservedRecipe(), 0).observe(conditioned)
        assert observed is not None  # a cycled background is never left unguided
        x_guided = conditioned.state(conditioned.centre(observed.centre(denoise, denoise), recipe.analysis_steps))
        guided_later = atmosphere.forecast(x_guided, case.valid_time, forecast_hours)
        analysis = {
            "analysis_mse": error(x_guided, case.truth),
            "analysis_later_mse": error(guided_later, case.later),
        }
    later = atmosphere.forecast(torch.cat([x[: recipe.forecast_members], mean]), case.valid_time, forecast_hours)
    geostrophic, hydrostatic = balance_scores(atmosphere, x, case)
    return {
        "sample_mse": error(x, case.truth),
        "mean_mse": error(mean, case.truth),
        "centre_mse": error(x_centre, case.truth),
        "variance": -accuracy(x, mean, area, unit).mean().item() * len(x) / (len(x) - 1),
        "crps": fair_crps(x, case.truth[0], area, one, centred=True).mean().item(),
        "energy_score": fair_energy_score(x, case.truth[0], area, one, centred=True).mean().item(),
        "sample_later_mse": error(later[:-1], case.later),
        "mean_later_mse": error(later[-1:], case.later),
        "geostrophic": geostrophic.mean().item(),
        "hydrostatic": hydrostatic.mean().item(),
        "background_mse": error(case.background, case.truth),
        **analysis,
    }


def validation_scores(
    atmosphere: Atmosphere,
    cases: CaseSource,
    network: Network,
    recipe: ValidationRecipe,
    told: Callable[[str], None] = print,
) -> Scores:
    """Scores of every validation case: name -> [case]."""
    rows = []
    for number in range(recipe.backgrounds):
        rows.append(case_scores(atmosphere, cases[number], network, recipe, cases.recipe.forecast_hours))
        if (number + 1) % max(1, recipe.backgrounds // 4) == 0:
            told(f"validation {number + 1}/{recipe.backgrounds}")
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def compared(before: Scores, after: Scores, members: int, seed: int = 0) -> dict[str, ScoreChange]:
    """Means and relative changes, with 95 % intervals from resampling the cases (pairs stay together)."""
    count = len(before["crps"])
    draws = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    found = {}
    for name in before:
        found[name] = _change(partial(_mean, name), before, after, draws)
    found["spread_skill"] = _change(partial(_spread_skill, members), before, after, draws)
    return found


def _mean(name: str, scores: Scores, pick: NDArray[np.int64]) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = scores[name][pick].mean(axis=-1)
    return mean


def _spread_skill(members: int, scores: Scores, pick: NDArray[np.int64]) -> NDArray[np.float64]:
    ratio = _mean("variance", scores, pick) / _mean("mean_mse", scores, pick)
    return np.sqrt((members + 1) / members * ratio)


def _change(
    statistic: Callable[[Scores, NDArray[np.int64]], NDArray[np.float64]],
    before: Scores,
    after: Scores,
    draws: NDArray[np.int64],
) -> ScoreChange:
    everything = np.arange(draws.shape[1])[None]
    one, two = (float(statistic(scores, everything)[0]) for scores in (before, after))
    relative = 100 * (statistic(after, draws) / statistic(before, draws) - 1)
    low, high = np.quantile(relative, [0.025, 0.975])
    return ScoreChange(
        before=one,
        after=two,
        change_percent=100 * (two / one - 1),
        low_percent=float(low),
        high_percent=float(high),
    )
