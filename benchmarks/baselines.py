"""Tuning of the baselines on the validation year (2020): one option at a time, the best so far kept.

    python -m benchmarks.baselines 3dvar --nature nature-3.nc --out benchmarks/results/tuning-3dvar.json
    python -m benchmarks.baselines letkf --members 40 --nature nature-3.nc --out benchmarks/results/tuning-letkf-40.json

The protocols are those of `alignda evaluate` (models/evaluation), on the simulated network without gross errors and
late reports. Cycled from one or more start dates; the last half of the cycles counts. No state of 2021 is read.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from alignda.demo.scenario import NETWORK_SEED
from alignda.evaluate.observations import simulated_network
from benchmarks.record import FIRST, LAST, Row, scores_of, show, validation_world, write
from models.evaluation.cycling import CyclePlan, cycle_times, run_cycles
from models.evaluation.ledger import open_ledgers
from models.evaluation.observing import Observing
from models.evaluation.one_shot import case_times, run_one_shot
from models.evaluation.options import create
from models.evaluation.world import World

STARTS = (datetime(2020, 2, 10, tzinfo=UTC), datetime(2020, 7, 10, tzinfo=UTC))
SEED = 5
Choices = dict[str, tuple[float, ...]]
CYCLED: dict[str, Choices] = {
    "3dvar": {"cycled_level": (0.2, 0.28, 0.4), "exponent": (0.7, 0.85, 1.0)},
    "latent-3dvar": {"cycled_level": (0.2, 0.28, 0.4)},
    "letkf": {
        "horizontal_km": (600.0, 800.0, 1200.0, 1600.0),
        "to_prior": (0.0, 0.5, 0.8, 0.9),
        "relaxation": (0.0, 0.5, 0.9),
        "additive": (0.3, 1.0, 1.5),
        "vertical_ln_p": (0.6, 1.0),
        "static": (0.0, 0.5),
    },
}
ONE_SHOT: dict[str, Choices] = {
    "3dvar": {"factor": (0.8, 1.0, 1.25), "exponent": (0.85, 1.0)},
    "latent-3dvar": {"factor": (0.8, 1.0, 1.25)},
    "letkf": {},
}


@dataclass(frozen=True)
class Harness:
    """Both protocols for any methods, named as for `alignda evaluate`."""

    world: World
    work: Path | None
    starts: tuple[datetime, ...]
    days: float
    cases: int

    def cycled(self, texts: Sequence[str]) -> list[Row]:
        """Every method from every start, beside each other."""
        found: dict[str, list[Row]] = {text: [] for text in texts}
        for start in self.starts:
            work = self.work and self.work / f"{start:%Y%m%d}"
            ledgers = open_ledgers(work, texts, {"start": start.isoformat(), "seed": SEED}, cycling=True)
            methods = [create(text, self.world.assimilator) for text in texts]
            plan = CyclePlan(cycle_times(self.world, start, LAST, self.days), self._network(), 0, SEED)
            run_cycles(self.world, methods, ledgers, plan, print)
            for text in texts:
                counted = [ledgers[text].cases[t] for t in plan.times[len(plan.times) // 2 :]]
                found[text].append(scores_of(counted, self.world))
        return [{"protocol": "cycled", "method": text, **_mean(rows)} for text, rows in found.items()]

    def one_shot(self, texts: Sequence[str]) -> list[Row]:
        """Independent analyses of 48 h backgrounds."""
        work = self.work and self.work / "one-shot"
        ledgers = open_ledgers(work, texts, {"cases": self.cases, "seed": SEED})
        methods = [create(text, self.world.assimilator) for text in texts]
        times = case_times(self.world.truth, FIRST, LAST, self.cases)
        run_one_shot(self.world, methods, ledgers, times, self._network(), SEED, print)
        rows = {text: scores_of([ledgers[text].cases[t] for t in times], self.world) for text in texts}
        return [{"protocol": "one-shot", "method": text, **row} for text, row in rows.items()]

    def _network(self) -> Observing:
        return simulated_network(self.world.truth, NETWORK_SEED)


def _mean(rows: Sequence[Row]) -> Row:
    """Over start dates, z500 as a root of squares."""
    mean = {k: None if rows[0][k] is None else float(np.mean([r[k] for r in rows])) for k in rows[0]}
    return {**mean, "z500": float(np.sqrt(np.mean([r["z500"] ** 2 for r in rows])))}


def search(run: Callable[[Sequence[str]], list[Row]], name: str, fixed: Row, choices: Choices) -> list[Row]:
    """One option after the other; the value with the lowest MSE is kept. Every method that was tried, in order."""
    tried: dict[str, Row] = {}
    for option, values in choices.items():
        texts = [method_text(name, {**fixed, option: value}) for value in values]
        for row in run([text for text in texts if text not in tried]):
            tried[row["method"]] = show(row)
        fixed = {**fixed, option: values[int(np.argmin([tried[text]["mse"] for text in texts]))]}
    return list(tried.values())


def method_text(name: str, options: Row) -> str:
    """As `alignda evaluate` reads it."""
    return f"{name}:{','.join(f'{key}={value}' for key, value in sorted(options.items()))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(CYCLED))
    parser.add_argument("--nature", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keeps finished cycles; the same command goes on from there")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--days", type=float, default=6)
    parser.add_argument("--starts", type=int, default=len(STARTS))
    parser.add_argument("--members", type=int, default=40)
    options = parser.parse_args()
    starts = STARTS[: options.starts]
    world = validation_world(options.nature)
    harness = Harness(world, options.work, starts, options.days, options.cases)
    fixed = {"members": options.members} if options.what == "letkf" else {}
    rows = [
        *search(harness.one_shot, options.what, fixed, ONE_SHOT[options.what]),
        *search(harness.cycled, options.what, fixed, CYCLED[options.what]),
    ]
    write(options.out, world, SEED, rows, starts=[t.isoformat() for t in starts], days=options.days)


if __name__ == "__main__":
    main()
