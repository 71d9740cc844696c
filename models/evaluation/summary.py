"""From scored cases to what is reported: means with intervals per method, and each method against the reference.

A score is a mean over cases of a number per case, then perhaps a root: `statistic` first, non-linear function last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.evaluation.intervals import Comparison, Interval, Resampling
from models.evaluation.ranks import Flatness, flatness
from models.evaluation.scoring import CaseScores, Errors, Spectra, channel_groups
from models.specification import BundleSpec, ChannelSpec, Frozen

Statistic = Callable[[CaseScores], float | None]
KEY_CHANNELS = (("z", 500.0), ("t", 850.0), ("q", 850.0), ("u", 500.0), ("v", 500.0), ("u10", None), ("v10", None),
                ("t2m", None), ("sp", None))  # fmt: skip
STATES = {
    "analysis_mean": "analysis_mean",
    "analysis_member": "analysis_member",
    "48h_mean": "forecast_mean",
    "48h_member": "forecast_member",
    "background": "background",
}


@dataclass(frozen=True)
class Score:
    """`statistic` is None where a case does not have it; `root`: of the mean over cases."""

    name: str
    unit: str
    statistic: Statistic
    root: bool = False


class MethodSummary(Frozen):
    """One method over all its cases. `wrmse` by state and channel (SI); `spread_skill` by channel group
    (sqrt((m + 1) / m * mean variance / mean square error of the mean), Fortin et al. 2014: 1 where members and truth are
    drawn alike)."""

    cases: int
    scores: dict[str, Interval]
    wrmse: dict[str, dict[str, float]]
    spread_skill: dict[str, float]
    spread_skill_interval: dict[str, Interval] = Field(default_factory=dict)
    ranks: dict[str, Flatness]
    spectra: dict[str, Spectra]


def all_scores(spec: BundleSpec, total_std: NDArray[np.floating]) -> list[Score]:
    """Every score with an interval, in the order of the table."""
    scores = []
    for name, attribute in STATES.items():
        scores += [
            Score(f"mse_{name}", "1", _mean_of(attribute, "mse")),
            Score(f"mae_{name}", "1", _mean_of(attribute, "mae")),
        ]
        scores += [
            Score(
                f"wrmse_{channel_name(spec.channels[i])}_{name}", "SI", _scaled(attribute, i, float(total_std[i])), True
            )
            for i in _key_channels(spec.channels)
        ]
    scores += [
        Score("crps", "1", lambda case: float(np.mean(case.crps))),
        Score("geo_score", "1/100", lambda case: 100 * case.geostrophic),
        Score("hydro_score", "1/100", lambda case: 100 * case.hydrostatic),
        Score("geo_score_of_mean", "1/100", lambda case: 100 * case.geostrophic_of_mean),
        Score("hydro_score_of_mean", "1/100", lambda case: 100 * case.hydrostatic_of_mean),
    ]
    for quantity in ("wind", "humidity"):
        scores += [
            Score(f"{what}_{quantity}", unit, _extreme(quantity, attribute))
            for what, unit, attribute in (
                ("brier", "1", "brier"),
                ("tail_crps", "SI", "tail_crps"),
                ("share_above_observed", "1", "observed"),
                ("share_above_members", "1", "forecast"),
                ("share_above_mean", "1", "of_mean"),
            )
        ]
    return [
        *scores,
        Score("seconds", "s", lambda case: case.cost.seconds),
        Score("evaluations", "1", lambda case: float(case.cost.evaluations)),
        Score("evaluated_states", "1", lambda case: float(case.cost.evaluated_states)),
    ]


def channel_name(channel: ChannelSpec) -> str:
    """z500, t2m."""
    return channel.variable if channel.level is None else f"{channel.variable}{channel.level:g}"


def _key_channels(channels: tuple[ChannelSpec, ...]) -> list[int]:
    return [i for i, c in enumerate(channels) if (c.variable, c.level) in KEY_CHANNELS]


def _mean_of(attribute: str, kind: str) -> Statistic:
    def statistic(case: CaseScores) -> float | None:
        errors: Errors | None = getattr(case, attribute)
        return None if errors is None else float(np.mean(getattr(errors, kind)))

    return statistic


def _scaled(attribute: str, channel: int, unit: float) -> Statistic:
    def statistic(case: CaseScores) -> float | None:
        errors: Errors | None = getattr(case, attribute)
        return None if errors is None else errors.mse[channel] * unit**2

    return statistic


def _extreme(quantity: str, attribute: str) -> Statistic:
    return lambda case: float(getattr(case.extremes[quantity], attribute))


def summarise(
    cases: Sequence[CaseScores],
    spec: BundleSpec,
    total_std: NDArray[np.floating],
    block: timedelta,
) -> MethodSummary:
    """Everything about one method; `cases` in order of time, at least one."""
    resampling = Resampling.of_times([case.valid_time for case in cases], block)
    series = {score: _series(score, cases) for score in all_scores(spec, total_std)}
    scores = {
        score.name: Resampling.of_times(times, block).mean(values, score.root)
        for score, (times, values) in series.items()
        if len(values)
    }
    groups = {"all": list(range(len(spec.channels))), **channel_groups(spec.channels)}
    ratios = {name: ratio for name, i in groups.items() if (ratio := spread_skill(cases, i, resampling)) is not None}
    same_size = [case for case in cases if case.members == cases[-1].members and case.members > 1]
    return MethodSummary(
        cases=len(cases),
        scores=scores,
        wrmse={name: _wrmse(attribute, cases, spec, total_std) for name, attribute in STATES.items()},
        spread_skill={name: ratio.estimate for name, ratio in ratios.items() if ratio.estimate is not None},
        spread_skill_interval=ratios,
        ranks=_ranks(same_size, resampling) if len(same_size) == len(cases) else {},
        spectra=_spectra(cases),
    )


def _series(score: Score, cases: Sequence[CaseScores]) -> tuple[list[datetime], NDArray[np.float64]]:
    found = [(case.valid_time, value) for case in cases if (value := score.statistic(case)) is not None]
    return [time for time, _ in found], np.array([value for _, value in found])


def _wrmse(
    attribute: str, cases: Sequence[CaseScores], spec: BundleSpec, total_std: NDArray[np.floating]
) -> dict[str, float]:
    squares = [errors.mse for case in cases if (errors := getattr(case, attribute)) is not None]
    if not squares:
        return {}
    roots = np.sqrt(np.mean(squares, axis=0)) * total_std
    return {channel_name(c): float(value) for c, value in zip(spec.channels, roots, strict=True)}


def spread_skill(cases: Sequence[CaseScores], channels: list[int], resampling: Resampling) -> Interval | None:
    """The ratio over cases and these channels; None without an ensemble of one size."""
    members = cases[0].members
    if members < 2 or any(case.members != members for case in cases):
        return None
    variance = np.array([np.mean(np.array(case.variance)[channels]) for case in cases])
    error = np.array([np.mean(np.array(case.analysis_mean.mse)[channels]) for case in cases])
    return resampling.compare((members + 1) / members * variance, np.maximum(error, 1e-30), root=True).ratio


def _ranks(cases: Sequence[CaseScores], resampling: Resampling) -> dict[str, Flatness]:
    groups = cases[0].ranks if cases else {}
    tested = {name: flatness(np.array([case.ranks[name] for case in cases]), resampling) for name in groups}
    return {name: result for name, result in tested.items() if result is not None}


def _spectra(cases: Sequence[CaseScores]) -> dict[str, Spectra]:
    def mean(channel: str, which: str) -> list[float]:
        power: NDArray[np.float64] = np.mean([getattr(case.spectra[channel], which) for case in cases], axis=0)
        return [float(f"{value:.5g}") for value in power]

    return {
        channel: Spectra(**{which: mean(channel, which) for which in Spectra.model_fields})
        for channel in cases[0].spectra
    }


def compare(
    cases: Sequence[CaseScores],
    reference: Sequence[CaseScores],
    spec: BundleSpec,
    total_std: NDArray[np.floating],
    block: timedelta,
) -> dict[str, Comparison]:
    """Score -> the method beside the reference, over the valid times that both have."""
    comparisons = {}
    theirs = {case.valid_time: case for case in reference}
    for score in all_scores(spec, total_std):
        times, ours, others = [], [], []
        for case in cases:
            other = theirs.get(case.valid_time)
            a, b = score.statistic(case), None if other is None else score.statistic(other)
            if a is not None and b is not None:
                times.append(case.valid_time)
                ours.append(a)
                others.append(b)
        if times:
            resampling = Resampling.of_times(times, block)
            comparisons[score.name] = resampling.compare(np.array(ours), np.array(others), score.root)
    return comparisons
