"""Analyse: draw an ensemble from the posterior p(x | background, observations) with the bundle's guided sampler."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from service.observations.reasons import Reason
from worker.model import Array, Observations, Sampling
from worker.stages.observed import Doubles, Observed
from worker.work import Result, Work, fallback

TELL_EVERY = 0.5  # s between progress events


@dataclass(frozen=True)
class Evidence:
    """The observations that take part, and their departures from the background, O - mean H(x_b) [n]."""

    observations: Observations
    departures: Doubles


def run(work: Work) -> Result:
    """Leaves `analysis` [member, channel, latitude, longitude] on the desk."""
    background = work.desk.array("background")
    if not work.config.assimilate:
        work.desk.put_array("analysis", background)
        return Result("free run: the background is the analysis", counts={"members": len(background)})
    evidence = gather_evidence(work)
    if not len(evidence.observations):
        work.desk.put_array("analysis", background)
        detail = "no observation of the window passed quality control: the background is the analysis"
        return Result(detail, {"members": len(background)}, [fallback("no_observations", detail)])
    level = error_level(work, evidence)
    analysis = draw(work, evidence, level, work.cycle.seed)
    work.desk.put_array("analysis", analysis)
    return Result(
        f"{len(analysis)} members from {len(evidence.observations)} values, background error level {level:.3f}",
        counts={"members": len(analysis), "error_level": level},
    )


def gather_evidence(work: Work) -> Evidence:
    """What quality control has let pass."""
    controlled = Observed(work.desk.table("controlled"))
    used = controlled.where(controlled.number("qc") == Reason.ASSIMILATED)
    given = used.observations(work.valid_time)
    if len(used):
        given = weighted(given, used.number("weight"), work.model.observation_error(given))
    return Evidence(given, used.value - used.number("background"))


def weighted(observations: Observations, weight: Doubles, effective_error: Doubles) -> Observations:
    """The observations with errors for which the whole R, not only the instrument's part, is R / weight.

    R = error^2 + rest, so error^2 <- error^2 + R (1 / weight - 1). `weight` [n] in (0, 1]; nan: 1.
    """
    added = effective_error**2 * (1.0 / np.where(np.isfinite(weight), weight, 1.0) - 1.0)
    return replace(observations, error=np.sqrt(observations.error**2 + added))


def error_level(work: Work, evidence: Evidence) -> float:
    """How wrong the background is: first by its age or its spread, then by what the departures say."""
    background = work.background
    if background["kind"] == "cold_start":
        return work.model.error_level(None)
    first = work.model.error_level(background["lead_hours"])
    members = work.desk.array("background")
    return work.model.estimate_error_level(evidence.observations, evidence.departures, first, members)


def draw(work: Work, evidence: Evidence, level: float, seed: int) -> Array:
    """`config.members` analyses, or one of nan when the sampler did not stay finite.

    A cold start draws without a background.
    """
    sampling = Sampling(
        guidance=work.config.guidance,
        members=work.config.members,
        steps=work.config.sampler_steps,
        seed=seed,
        alignment=work.config.alignment,
    )
    cold = work.background["kind"] == "cold_start"
    background = None if cold else work.desk.array("background")
    tell = _told_sparingly(work.progress)
    try:
        return work.model.analyse(background, evidence.observations, work.valid_time, level, sampling, tell)
    except FloatingPointError:
        # the gate refuses this like any other impossible state, and goes on down its ladder
        return np.full((1, *work.description.shape), np.nan, np.float32)


def _told_sparingly(progress: Callable[[float, str], None]) -> Callable[[float], None]:
    """Those who watch need no event per sampler step; a cancelled cycle is noticed by the next one that is told."""
    last = time.monotonic()

    def tell(fraction: float) -> None:
        nonlocal last
        if time.monotonic() - last >= TELL_EVERY:
            last = time.monotonic()
            progress(fraction, f"sampling, {fraction:.0%}")

    return tell
