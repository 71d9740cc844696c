"""How many iterations 3D-Var's conjugate gradients need, and what stopping early costs, on the validation year.

    python -m benchmarks.convergence --nature nature-3.nc --out benchmarks/results/convergence.json

`residual` is |grad J| over its first value; `distance` of the increment from that of a residual of 3e-7.
"""

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from alignda.demo.scenario import NETWORK_SEED
from alignda.evaluate.observations import simulated_network
from benchmarks.record import Row, show, validation_world, write
from models.baselines.methods import EXPONENT
from models.baselines.three_d_var import CostFunction, Observed, cost_function
from models.evaluation.observing import Observing, RandomGrid
from models.evaluation.world import BACKGROUND_HOURS, World
from models.scores import mean_square_error

TIME = datetime(2020, 2, 11, tzinfo=UTC)
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5)
CONVERGED = 3e-7
SEED = 0


@torch.no_grad()
def rows_of(world: World, what: str, observing: Observing) -> Iterator[Row]:
    """A row per tolerance."""
    assimilator, statistics = world.assimilator, world.assimilator.bundle.covariance
    assert statistics is not None
    background, truth = world.first_background(TIME), world.truth.state(TIME)
    given = world.given(background, observing.at(TIME), TIME, BACKGROUND_HOURS, SEED, observing.screened)
    observed = Observed.of(assimilator, given)
    covariance = statistics.steepened(EXPONENT).at(assimilator.error_level(BACKGROUND_HOURS))
    first = torch.from_numpy(background)
    cost = cost_function(covariance, observed, observed.departures(first))
    best = covariance.root(cost.minimum(1500, CONVERGED))
    for tolerance in TOLERANCES:
        runs = 0

        def counted(v: torch.Tensor) -> torch.Tensor:
            nonlocal runs
            runs += 1
            return cost.tangent(v)

        v = CostFunction(counted, cost.adjoint, cost.departure).minimum(1500, tolerance)
        increment = covariance.root(v)
        analysis = (first + increment * observed.scale)[0].numpy() / world.scorer.scale
        error = mean_square_error(analysis, truth / world.scorer.scale, world.scorer.latitudes)
        yield {
            "observations": what, "count": len(given.observations), "tolerance": tolerance, "iterations": runs,
            "residual": cost.residual(v), "distance": float((increment - best).norm() / best.norm()),
            "cost": float(cost.value(v)), "mse": float(np.mean(error)),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nature", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    world = validation_world(options.nature)
    scale = world.scorer.scale[:, 0, 0]
    sources: dict[str, Observing] = {
        f"1 % of the grid, error {error}": RandomGrid(world.truth, world.assimilator.spec, scale, 0.01, error, SEED)
        for error in (0.0, 0.02, 0.05)
    }
    sources["simulated network"] = simulated_network(world.truth, NETWORK_SEED)
    rows = [show(row) for what, observing in sources.items() for row in rows_of(world, what, observing)]
    write(options.out, world, SEED, rows, valid_time=TIME.isoformat())


if __name__ == "__main__":
    main()
