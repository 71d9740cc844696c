"""Stage: the balanced covariance of background errors, from forecasts of the trained model over the training runs."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.covariance.balanced import ParameterTransform, fit_background_covariance
from models.covariance.store import COVARIANCE, BalancedStatistics, save_statistics
from models.grid import area_weights
from models.networks.forecast import ForecastModel
from models.precision import networks_on
from models.specification import GridSpec
from models.training.backgrounds import load_networks
from models.training.data import TrainingData
from models.training.forecast import STEP_OF_YEAR
from models.training.recipe import CovarianceStage, Recipe

BATCH = 16


@torch.no_grad()
def forecast_errors(forecast: ForecastModel, data: TrainingData, steps: int, starts: int) -> Tensor:
    """Truth minus forecast after `steps` steps from evenly spaced starts: [start, channel, latitude, longitude]."""
    per_run = starts // len(data.train)
    places = [(run, int(i)) for run in data.train for i in np.linspace(0, len(run) - 1 - steps, per_run)]
    errors = []
    for begin in range(0, len(places), BATCH):
        part = places[begin : begin + BATCH]
        x = torch.cat([run.batch(np.array([i])) for run, i in part])
        season = torch.stack([run.season[i] for run, i in part])
        for step in range(steps):
            with networks_on(torch.device("cpu")):
                x = forecast(x, season + step * STEP_OF_YEAR).float()
        errors.append(torch.cat([run.batch(np.array([i + steps])) for run, i in part]) - x)
    return torch.cat(errors)


def fit_structure(
    errors: Tensor, transform: ParameterTransform, grid: GridSpec, provenance: dict[str, str] | None = None
) -> BalancedStatistics:
    """B of these errors without their mean; its level is their RMS over channels."""
    area = area_weights(np.array(grid.latitudes))
    errors = errors - errors.mean(dim=0)
    level = float((errors**2 * area[:, None]).mean().sqrt())
    fitted = fit_background_covariance(errors, transform, area)
    return BalancedStatistics(transform, fitted, level, provenance)


def fit_covariance(recipe: Recipe, stage: CovarianceStage, data: TrainingData, work: Path) -> Path:
    """Write `work/covariance.safetensors` (on the CPU, whatever the other stages run on)."""
    _, forecast = load_networks(recipe, data, work, torch.device("cpu"))
    errors = forecast_errors(forecast, data, stage.lead_hours // recipe.data.step_hours, stage.starts)
    provenance = {
        "training_runs": ", ".join(recipe.data.train), "lead_hours": str(stage.lead_hours),
        "starts": str(stage.starts), "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip
    transform = ParameterTransform(data.channels, data.grid, data.climate.std, stage.truncation)
    statistics = fit_structure(errors, transform, data.grid, provenance)
    save_statistics(work / COVARIANCE, statistics)
    print(f"covariance: level {statistics.level:.4f} from {len(errors)} forecasts of {stage.lead_hours} h", flush=True)
    return work / COVARIANCE
