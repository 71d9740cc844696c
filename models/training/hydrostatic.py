"""Stage: the hydrostatic balance of a finished bundle (models/hydrostatic.py), from a nature run and cycles on it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import torch
from torch import Tensor

from models.assimilation import AnalysisSettings, Assimilator
from models.bundle import Bundle
from models.evaluation.observing import SimulatedNetwork
from models.evaluation.ours import Ours
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import BACKGROUND_HOURS, World
from models.hydrostatic import Fitted, HydrostaticBalance, adjusted, constrained, predictors
from models.nature.network import ErrorTable, Network
from models.nature.stations import load_stations
from models.training.recipe import HydrostaticStage

BLOCK = timedelta(days=30)  # every fifth is left out of the regression and tells what it leaves
RIDGE = 1e-3  # of the predictors' variance; draws a point's regression to that of all points
NEIGHBOURS = 2  # rows on either side whose errors count in a row's covariance


class Regression:
    """Least squares at each grid point, state by state: z = M p, drawn to the regression of all points by `RIDGE`."""

    def __init__(self, targets: Sequence[int], chosen: Sequence[int]) -> None:
        self.targets, self.predictors = list(targets), list(chosen)
        self.second: Tensor | float = 0.0
        self.cross: Tensor | float = 0.0

    def add(self, x: Tensor) -> None:
        """One state of anomalies [channel, latitude, longitude]."""
        p, z = x[self.predictors].double(), x[self.targets].double()
        self.second = self.second + torch.einsum("pyx,qyx->yxpq", p, p)
        self.cross = self.cross + torch.einsum("pyx,zyx->yxpz", p, z)

    def solved(self) -> Tensor:
        """M [target, predictor, latitude, longitude]."""
        assert isinstance(self.second, Tensor) and isinstance(self.cross, Tensor)
        eye = torch.eye(len(self.predictors), dtype=torch.float64)
        size = torch.diagonal(self.second, dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
        everywhere = torch.linalg.solve(
            self.second.mean(dim=(0, 1)) + RIDGE**2 * size.mean() * eye, self.cross.mean(dim=(0, 1))
        )
        found = torch.linalg.solve(self.second + RIDGE * size * eye, self.cross + RIDGE * size * everywhere)
        m: Tensor = found.permute(3, 2, 0, 1)
        return m.float()


def row_covariance(x: Tensor, neighbours: int = 0) -> Tensor:
    """Second moments of [sample, variable, latitude, longitude] by row: [latitude, variable, variable]; `neighbours`: rows
    on either side that count too."""
    by_row = torch.einsum("sayx,sbyx->yab", x.double(), x.double()) / (len(x) * x.shape[3])
    rows = len(by_row)
    near = [by_row[max(0, y - neighbours) : min(rows, y + neighbours + 1)].mean(dim=0) for y in range(rows)]
    return torch.stack(near).float()


def fit_truth(anomalies: Iterator[tuple[datetime, Tensor]], bundle: Bundle) -> tuple[Tensor, Tensor]:
    """M and Sigma of states [channel, latitude, longitude] with their times."""
    channels = bundle.spec.channels
    regression, kept, begin = Regression(constrained(channels), predictors(channels)), [], None
    for time, x in anomalies:
        begin = begin or time
        if (time - begin) // BLOCK % 5 == 4:
            kept.append(x)
        else:
            regression.add(x)
    if not kept:
        raise ValueError(f"the hydrostatic stage needs a nature run of more than {4 * BLOCK.days} days")
    m, x = regression.solved(), torch.stack(kept)
    left = x[:, regression.targets] - torch.einsum("zpyx,mpyx->mzyx", m, x[:, regression.predictors])
    return m, row_covariance(left)


@torch.no_grad()
def cycled_errors(world: World, observing: SimulatedNetwork, start: datetime, stage: HydrostaticStage) -> Tensor:
    """Errors of the analyses' means [cycle, channel, latitude, longitude] in anomaly units, from a 48 h forecast on."""
    system, step = world.assimilator, world.step
    climate, method = system.bundle.climate, Ours(system, AnalysisSettings(hydrostatic=False, remainder=True))
    time, lead = start + timedelta(hours=BACKGROUND_HOURS), float(BACKGROUND_HOURS)
    background, errors = world.first_background(time), []
    for number in range(round(stage.days * timedelta(days=1) / step)):
        given = world.given(background, observing.at(time), time, lead, stage.seed, observing.screened)
        analysis, _ = world.analyse(method, given)
        if number * step >= stage.spin_up_days * timedelta(days=1):
            difference = torch.from_numpy(analysis.mean(axis=0) - world.truth.state(time))
            errors.append(difference / climate.std.cpu()[:, None, None])
        background, lead = world.forecast(analysis, time, system.spec.step_hours), float(system.spec.step_hours)
        time += step
    return torch.stack(errors)


def fit_hydrostatic(stage: HydrostaticStage, runs: Path, out: Path, table: ErrorTable, device: torch.device) -> None:
    """Fit the balance of the bundle at `out` to a nature run in `runs`, and add it to the bundle.

    Raises FileNotFoundError: the nature run is missing; ValueError: it is too short.
    """
    bundle = Bundle.load(out, device)
    system = Assimilator(bundle, str(device))
    path = runs / stage.nature
    if not path.exists():
        raise FileNotFoundError(f"{path}: make the nature run of the stage `hydrostatic` first (`alignda nature`)")
    truth = TruthRun(path, bundle.spec)
    chosen = truth.times[:: stage.every]
    states = ((t, bundle.climate.normalise(torch.from_numpy(truth.state(t)).to(device), t).cpu()) for t in chosen)
    regression, residual = fit_truth(states, bundle)
    world = World.of(system, truth, truth, chosen)
    network = SimulatedNetwork(truth, Network(stage.seed, load_stations(), table))
    span = (truth.times[-1] - truth.times[0]) / stage.starts
    begins = [truth.times[0] + round(span * number / world.step) * world.step for number in range(stage.starts)]
    errors = torch.cat([cycled_errors(world, network, begin, stage) for begin in begins])
    mass = adjusted(bundle.spec.channels)
    fitted = Fitted(regression, residual, row_covariance(errors[:, mass], NEIGHBOURS))
    told = {
        "nature": stage.nature, "states": str(len(chosen)), "cycles": str(len(errors)), "seed": str(stage.seed),
        "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    bundle.add_hydrostatic(HydrostaticBalance(bundle.spec.channels, fitted, told))
