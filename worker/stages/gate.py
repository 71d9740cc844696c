"""The gate: no unphysical analysis is published. What fails is drawn again, then with weaker guidance, then replaced
by the background; every step down is recorded.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from service.fields.grid import BundleDescription
from worker.model import Array
from worker.stages.analyse import draw, error_level, gather_evidence
from worker.work import CycleError, Result, Work, fallback

# What a grid-box mean can be (SI units).
LIMITS = {
    "z": (-1.0e4, 5.0e5),
    "t": (150.0, 350.0),
    "t2m": (160.0, 350.0),
    "u": (-200.0, 200.0),
    "v": (-200.0, 200.0),
    "u10": (-100.0, 100.0),
    "v10": (-100.0, 100.0),
    "q": (-5.0e-3, 0.05),
    "sp": (4.0e4, 1.15e5),
}
# An adherence is too low when it is below both. 0.6 is an imbalance D with |D - D_ref| = 0.85, for the hydrostatic one
# 0.85 D_ref (models.rewards); an analysis need not be better balanced than what it came from.
LOWEST_BALANCE = 0.6
LARGEST_DROP = 0.3  # from the background's adherence
ANOTHER_SEED = 0x5EED
WEAKER = 3.0  # factor on the observation errors
WEAKER_GUIDANCE, BACKGROUND = "drawn again with weaker guidance", "background as analysis"  # as counts.accepted says


def run(work: Work) -> Result:
    """Leaves the accepted `analysis` on the desk, and its balance and the background's in the counts."""
    background = work.desk.array("background")
    if fault := range_fault(background, work.description):
        raise CycleError(
            f"The background ({work.background['source']}) cannot be used: {fault}. Post another and retry."
        )
    reference = mean_balance(work, background)
    degraded = []
    for name, analysis in _ladder(work):
        fault = range_fault(analysis, work.description)
        balance = reference if analysis is background else mean_balance(work, analysis)
        fault = fault or (None if _cold(work) else balance_fault(balance, reference))
        if fault is None:
            break
        degraded.append(fallback("analysis_rejected", f"{name}: {fault}"))
    if degraded:
        degraded.append(fallback("fallback_analysis", name))
        work.desk.put_array("analysis", analysis)
    return Result(
        f"accepted: {name}; geostrophic {balance[0]:.3f}, hydrostatic {balance[1]:.3f}",
        counts={
            "members": len(analysis),
            "accepted": name,
            "balance": {"background": list(reference), "analysis": list(balance)},
        },
        degraded=degraded,
    )


def range_fault(state: Array, description: BundleDescription) -> str | None:
    """What is impossible about [member, channel, latitude, longitude], in words; None if nothing is."""
    for index, channel in enumerate(description.channels):
        field = state[:, index]
        if not np.isfinite(field).all():
            return f"{channel.name} is not finite"
        low, high = LIMITS.get(channel.variable, (-np.inf, np.inf))
        if field.min() < low or field.max() > high:
            return f"{channel.name} runs from {field.min():.5g} to {field.max():.5g}, possible is {low:g} to {high:g}"
    return None


def balance_fault(balance: tuple[float, float], reference: tuple[float, float]) -> str | None:
    """Which balance the analysis has lost against its background, in words; None if neither."""
    for name, value, before in zip(("geostrophic", "hydrostatic"), balance, reference, strict=True):
        if not value >= min(LOWEST_BALANCE, before - LARGEST_DROP):
            return f"{name} adherence {value:.3f}, the background has {before:.3f}"
    return None


def mean_balance(work: Work, state: Array) -> tuple[float, float]:
    """Geostrophic and hydrostatic adherence, averaged over the members."""
    geostrophic, hydrostatic = work.model.balance(state)
    return float(np.mean(geostrophic)), float(np.mean(hydrostatic))


def _ladder(work: Work) -> Iterator[tuple[str, Array]]:
    """The analysis as it was drawn, then what takes its place, computed only when it is asked for."""
    background = work.desk.array("background")
    analysis = work.desk.array("analysis")
    if analysis.shape == background.shape and np.array_equal(analysis, background):
        yield BACKGROUND, background
        return
    yield "analysis as drawn", analysis
    yield from ((name, again()) for name, again in _fallbacks(work))
    yield BACKGROUND, background


def _fallbacks(work: Work) -> list[tuple[str, Callable[[], Array]]]:
    evidence = gather_evidence(work)
    level = error_level(work, evidence)
    weaker = replace(evidence, observations=evidence.observations.inflated(WEAKER))
    seed = work.cycle.seed ^ ANOTHER_SEED
    return [
        ("drawn again with another seed", lambda: draw(work, evidence, level, seed)),
        (WEAKER_GUIDANCE, lambda: draw(work, weaker, level, seed)),
    ]


def _cold(work: Work) -> bool:
    """The climate is smoother than any weather: its balance is no measure for an analysis."""
    return bool(work.background["kind"] == "cold_start")
