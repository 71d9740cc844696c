"""An evaluation from top to bottom: open truth and bundle, make the methods, run the cases, summarise."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from alignda.evaluate.observations import ObservationFile, simulated_network
from models.assimilation import Assimilator
from models.bundle import SHIPPED
from models.evaluation.cycling import CyclePlan, cycle_times, run_cycles
from models.evaluation.ledger import open_ledgers
from models.evaluation.method import Method
from models.evaluation.observing import Observing, RandomGrid
from models.evaluation.one_shot import case_times, run_one_shot
from models.evaluation.options import create, named_alignment
from models.evaluation.report import Report, Run, alignment_digests, bundle_digest, make_report
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import World

SAMPLE = "sample.nc"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Asked:
    """What both commands understand."""

    methods: tuple[str, ...]
    reference: str
    bundle: Path
    truth: Path
    climate: Path | None
    start: datetime | None
    end: datetime | None
    seed: int
    device: str
    work: Path | None
    block: timedelta

    @classmethod
    def of(cls, *, methods: tuple[str, ...], reference: str | None, bundle: Path | None, truth: Path | None,
           start: datetime | None, end: datetime | None, block_days: float, **others: Any) -> "Asked":  # fmt: skip
        """From the options of the command line. Raises ValueError: a method twice, or another reference."""
        chosen, folder = reference or methods[0], bundle or SHIPPED
        if len(set(methods)) < len(methods):
            raise ValueError("a method is named twice; give every --method once")
        if chosen not in methods:
            raise ValueError(f"the reference {chosen!r} is not one of the methods {', '.join(methods)}")
        return cls(
            methods=methods,
            reference=chosen,
            bundle=folder,
            truth=truth or folder / SAMPLE,
            start=_utc(start),
            end=_utc(end),
            block=timedelta(days=block_days),
            **others,
        )

    @property
    def versions(self) -> dict[str, str]:
        """sha256 of the alignment of each method that names one; the file may change under its name."""
        digests = alignment_digests(self.bundle, self.methods)
        return {text: digests[name] for text in self.methods if (name := named_alignment(text))}

    def protocol(self, **more: Any) -> dict[str, Any]:
        """What the cases depend on, apart from the methods."""
        return {
            "bundle_sha256": bundle_digest(self.bundle),
            "truth": self.truth.name,
            "truth_bytes": self.truth.stat().st_size,
            "climate": (self.climate or self.truth).name,
            "from": self.start and self.start.isoformat(),
            "to": self.end and self.end.isoformat(),
            "seed": self.seed,
            **more,
        }


def one_shot(asked: Asked, cases: int, observations: str, fraction: float, error: float, tell: Tell) -> Report:
    """`alignda evaluate one-shot`. Raises ValueError or BundleError: it cannot be done as asked."""
    world, methods = _open(asked)
    times = case_times(world.truth, asked.start, asked.end, cases)
    observing: Observing
    drawn: dict[str, Any] = {"observations": observations}
    if observations == "network":
        observing = simulated_network(world.truth, asked.seed)
    else:
        scale = world.scorer.scale[:, 0, 0]
        observing = RandomGrid(world.truth, world.assimilator.spec, scale, fraction, error, asked.seed)
        drawn |= {"fraction": fraction, "error": error}
    protocol = asked.protocol(cases=cases, **drawn)
    ledgers = open_ledgers(asked.work, asked.methods, protocol, versions=asked.versions)
    run_one_shot(world, methods, ledgers, times, observing, asked.seed, tell)
    run = Run("one-shot", asked.bundle, protocol, asked.reference, asked.block)
    return make_report(world, ledgers, run, times)


def cycle(asked: Asked, days: float, observations: str, forecast_every: int, tell: Tell) -> Report:
    """`alignda evaluate cycle`. Raises ValueError or BundleError: it cannot be done as asked."""
    world, methods = _open(asked)
    times = cycle_times(world, asked.start, asked.end, days)
    observing: Observing
    if observations == "network":
        observing = simulated_network(world.truth, asked.seed)
    else:
        observing = ObservationFile(Path(observations), world.assimilator.spec.step_hours)
    # the length is left out: a longer run goes on from a shorter one
    protocol = asked.protocol(observations=observations, forecast_every=forecast_every)
    ledgers = open_ledgers(asked.work, asked.methods, protocol, cycling=True, versions=asked.versions)
    run_cycles(world, methods, ledgers, CyclePlan(times, observing, forecast_every, asked.seed), tell)
    run = Run("cycle", asked.bundle, {**protocol, "days": days}, asked.reference, asked.block)
    return make_report(world, ledgers, run, times)


def _open(asked: Asked) -> tuple[World, list[Method]]:
    assimilator = Assimilator(asked.bundle, asked.device)
    methods = [create(text, assimilator) for text in asked.methods]
    truth = TruthRun(asked.truth, assimilator.spec)
    climate = TruthRun(asked.climate, assimilator.spec) if asked.climate else truth
    # the truth outside the period is not looked at
    sampled = climate.times if asked.climate else truth.within(asked.start, asked.end)
    if not sampled:
        raise ValueError(f"{asked.truth} holds no state of the period")
    return World.of(assimilator, truth, climate, sampled), methods


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)
