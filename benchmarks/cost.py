"""Accuracy against cost of one analysis: the paper's sampler beside ours, on the validation year, in one run.

    python -m benchmarks.cost --nature nature-3.nc --out benchmarks/results/cost.json --work cost-work
    python -m benchmarks.cost --full-size --out benchmarks/results/cost-full-size.json

One-shot cases from 48 h backgrounds: 1 % of the grid values, and the simulated network. `evaluations` are batched runs
of the denoiser. Seconds are medians over the cases, so that compiling, in the first case, does not count. With
--full-size: the paper's size with random weights (benchmarks/full_size.py), on CUDA where there is one.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast
from unittest.mock import patch

import numpy as np
import torch

from alignda.demo.scenario import NETWORK_SEED
from alignda.evaluate.observations import simulated_network
from benchmarks import full_size
from benchmarks.record import FIRST, LAST, Row, scores_of, show, validation_world, write
from models.diffusion.guidance import Dps, Mmps
from models.evaluation.ledger import open_ledgers
from models.evaluation.method import Given, Method, States
from models.evaluation.observing import Observing, RandomGrid
from models.evaluation.one_shot import case_times, run_one_shot
from models.evaluation.options import create
from models.evaluation.world import World
from models.networks.layers import UNet

SEED = 13
FRACTION, ERROR = 0.01, 0.02
COMPILED: dict[UNet, UNet] = {}
PAPER = "paper: 128 ancestral steps, 2 corrections, DPS"


@dataclass(frozen=True)
class Configured:
    """A method with switches that the product does not have: they are put in place while it runs."""

    name: str
    method: Method
    iterations: int | None = None
    single: bool = False
    bfloat16: bool = True
    compiled: bool = False
    world: World | None = None

    def analyse(self, given: Given) -> States:
        with self._switched():
            return self.method.analyse(given)

    @contextmanager
    def _switched(self) -> Iterator[None]:
        with ExitStack() as switches:
            if self.iterations:
                switches.enter_context(patch("models.assimilation.Mmps", stopped_after(self.iterations)))
            if self.single:  # the variance of DPS itself, without SDA's term
                switches.enter_context(patch("models.assimilation.Dps", partial(Dps, gamma=0.0)))
            if not self.bfloat16:
                switches.enter_context(patch("torch.cuda.is_bf16_supported", return_value=False))
            if self.compiled and self.world:
                switches.enter_context(compiled(self.world))
            yield


def stopped_after(iterations: int) -> Callable[..., Mmps]:
    """Mmps with so many iterations of conjugate gradients, whatever it is asked for."""
    return lambda *arguments, **options: Mmps(*arguments, **{**options, "iterations": iterations})


@contextmanager
def compiled(world: World) -> Iterator[None]:
    """The denoiser's U-Net as torch.compile makes it."""
    denoiser = world.assimilator.bundle.denoiser
    plain = denoiser.network
    if plain not in COMPILED:
        COMPILED[plain] = cast(UNet, torch.compile(plain))
    denoiser.network = COMPILED[plain]
    try:
        yield
    finally:
        denoiser.network = plain


def configurations(world: World, members: int) -> list[Configured]:
    """The paper's sampler first: the others are compared with it."""

    def ours(name: str, text: str, **switches: object) -> Configured:
        method = create(f"ours:{text}" if "members" in text else f"ours:members={members},{text}", world.assimilator)
        return Configured(name, method, world=world, **switches)  # type: ignore[arg-type]

    found = [
        ours(PAPER, "sampler=ancestral,guidance=dps,steps=128"),
        ours("the same, without SDA's variance", "sampler=ancestral,guidance=dps,steps=128", single=True),
        ours("the same, 32 steps", "sampler=ancestral,guidance=dps,steps=32"),
        ours("ancestral, MMPS, 128 steps", "sampler=ancestral,guidance=mmps,steps=128"),
        ours("DPM-Solver++, DPS, 16 steps", "guidance=dps,steps=16"),
    ]
    found += [ours(f"ours, {steps} steps", f"steps={steps}") for steps in (1, 2, 4, 8, 16)]
    found += [ours(f"ours, 8 steps, {n} CG iterations", "steps=8", iterations=n) for n in (3, 6, 24)]
    found += [ours(f"ours, 8 steps, {n} members", f"members={n},steps=8") for n in (1, 4, 32)]
    if world.assimilator.device.type == "cuda":  # elsewhere all are in float32
        found.append(ours("ours, 8 steps, float32", "steps=8", bfloat16=False))
    return [*found, ours("ours, 8 steps, compiled", "steps=8", compiled=True)]


def measure(
    world: World, methods: Sequence[Configured], observing: Observing, what: str, cases: int, work: Path | None
) -> list[Row]:
    """A row per method, with ratios to the first of them."""
    names = [m.name for m in methods]
    ledgers = open_ledgers(work and work / what, names, {"observations": what, "cases": cases, "seed": SEED})
    times = case_times(world.truth, FIRST, LAST, cases)
    run_one_shot(world, methods, ledgers, times, observing, SEED, print)
    rows: list[Row] = []
    for name in names:
        if ledgers[name].failure:
            rows.append(show({"observations": what, "method": name, "failure": ledgers[name].failure}))
            continue
        done = [ledgers[name].cases[t] for t in times]
        row = {"observations": what, "method": name, "members": done[0].members, **scores_of(done, world)}
        row["seconds"] = float(np.median([case.cost.seconds for case in done]))
        row["seconds_per_member"] = row["seconds"] / row["members"]
        if rows and "mse" in rows[0]:
            first = rows[0]
            row |= {f"{key}_ratio": row[key] / first[key] for key in ("mse", "mse_member", "crps", "seconds")}
            row["times_fewer_evaluations"] = first["evaluations"] / row["evaluations"]
        rows.append(show(row))
    return rows


def table(rows: Sequence[Row]) -> str:
    """For the terminal."""
    heads = ("mse", "mse_member", "crps", "spread_skill", "evaluations", "seconds")
    ratios = ("mse_ratio", "crps_ratio", "seconds_ratio", "times_fewer_evaluations")
    lines = [f"{'':58}" + "".join(f"{head[:12]:>13}" for head in (*heads, *ratios))]
    for row in rows:
        cells = [row.get(key) for key in (*heads, *ratios)]
        text = "".join(f"{'-' if cell is None else format(cell, '.4g'):>13}" for cell in cells)
        lines.append(f"{row['observations'][:8]:9}{row['method']:49}{text}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nature", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keeps finished cases; the same command goes on from there")
    parser.add_argument("--cases", type=int, default=4)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--only", nargs="*", help="parts of the names of the methods to run, the first is the reference"
    )
    parser.add_argument("--full-size", action="store_true")
    options = parser.parse_args()
    if options.full_size:
        full_size.main(options.out, options.device, options.members)
        return
    if options.nature is None:
        parser.error("--nature is needed but for --full-size")
    world = validation_world(options.nature, options.device)
    methods = configurations(world, options.members)
    if options.only:
        methods = [m for m in methods if any(part in m.name for part in options.only)]
    sources: dict[str, Observing] = {
        "1 % of the grid": RandomGrid(
            world.truth, world.assimilator.spec, world.scorer.scale[:, 0, 0], FRACTION, ERROR, SEED
        ),
        "simulated network": simulated_network(world.truth, NETWORK_SEED),
    }
    rows = []
    for what, observing in sources.items():
        rows += measure(world, methods, observing, what, options.cases, options.work)
    print(table(rows))
    write(options.out, world, SEED, rows, fraction=FRACTION, error=ERROR)


if __name__ == "__main__":
    main()
