"""Stage 2: the 6 h forecast model, its last steps trained through its own output."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.grid import area_weights
from models.networks.forecast import ForecastModel
from models.training.data import TrainingData
from models.training.loop import optimise
from models.training.recipe import Recipe

VALIDATION_CASES = 24
VALIDATION_STEPS = 8
STEP_OF_YEAR = 0.25 / 365.25


def train_forecast(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> ForecastModel:
    stage = recipe.forecast
    generator = np.random.default_rng(recipe.seed + 1)
    torch.manual_seed(recipe.seed + 1)
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    model = ForecastModel(recipe.networks.forecast, data.climate, latitudes, longitudes).to(device)
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    single_steps = round(stage.steps * (1 - stage.rollout_share))
    starts = np.linspace(0, len(data.validation) - VALIDATION_STEPS - 1, VALIDATION_CASES).astype(int)
    z500 = next(i for i, c in enumerate(data.channels) if (c.variable, c.level) == ("z", 500.0))

    def loss(step: int) -> Tensor:
        ahead = 1 if step < single_steps else stage.rollout
        states, season = data.sample(generator, stage.batch, ahead=ahead)
        x, season = states[0].to(device), season.to(device)
        total = torch.zeros((), device=device)
        for lead in range(ahead):
            x = model(x, season + lead * STEP_OF_YEAR)
            error = (x - states[lead + 1].to(device)) / model.tendency_scale
            total = total + (error**2 * area).mean()
        return total / ahead

    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, ForecastModel)
        x = data.validation.batch(starts).to(device)
        season = data.validation.season[torch.from_numpy(starts)].to(device)
        scores = {}
        for lead in range(1, VALIDATION_STEPS + 1):
            x = averaged(x, season + (lead - 1) * STEP_OF_YEAR)
            if lead in (1, 4, 8):
                error = ((x - data.validation.batch(starts + lead).to(device)) ** 2 * area).mean(dim=(0, 2, 3))
                scores[f"anomaly_nmse_{6 * lead}h"] = error.mean().item()
                scores[f"z500_{6 * lead}h"] = (error[z500].sqrt() * data.climate.std[z500].to(device)).item()
        return scores

    optimise("forecast", model, stage, work, loss, validate, device)
    return model
