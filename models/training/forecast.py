"""Stages 2 and 3: the 6 h forecast model, first by single steps, then through more and more of its own output."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.grid import area_weights
from models.networks.forecast import ForecastModel
from models.training.data import TrainingData
from models.training.loop import load_averaged, optimise
from models.training.recipe import Recipe

VALIDATION_CASES = 12
VALIDATION_STEPS = (1, 4, 8, 120)
STEP_OF_YEAR = 0.25 / 365.25


def new_forecast_model(recipe: Recipe, data: TrainingData) -> ForecastModel:
    """An untrained forecast model of this recipe."""
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    networks = recipe.networks
    return ForecastModel(networks.forecast, data.channels, data.climate, latitudes, longitudes, networks.truncation)


def last_forecast(recipe: Recipe) -> str:
    """Name of the checkpoint that later stages use."""
    return f"stabilise-{len(recipe.stabilise) - 1}"


class RolloutLoss:
    """Mean square error of `ahead` steps of the model's own output, in units of 6 h changes, area weighted."""

    def __init__(self, model: ForecastModel, data: TrainingData, seed: int, device: torch.device) -> None:
        self.model, self.data, self.device = model, data, device
        self.generator = np.random.default_rng(seed)
        self.area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]

    def __call__(self, batch: int, ahead: int) -> Tensor:
        states, season = self.data.sample(self.generator, batch, ahead=ahead)
        x, season = states[0].to(self.device), season.to(self.device)
        total = torch.zeros((), device=self.device)
        for lead in range(ahead):
            x = self.model(x, season + lead * STEP_OF_YEAR)
            error = (x - states[lead + 1].to(self.device)) / self.model.tendency_scale
            total = total + (error**2 * self.area).mean()
        return total / ahead

    def of_step(self, step: int, batch: int, ahead: int) -> Tensor:
        """The same as a loss of the optimisation loop, which counts its steps."""
        return self(batch, ahead)


def forecast_scores(model: nn.Module, data: TrainingData, device: torch.device) -> dict[str, float]:
    """Errors at 6 h, 1, 2 and 30 days over the validation year; size: anomalies' RMS over the truth's."""
    assert isinstance(model, ForecastModel)
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    leads = [lead for lead in VALIDATION_STEPS if 2 * lead < len(data.validation)]
    starts = np.linspace(0, len(data.validation) - leads[-1] - 1, VALIDATION_CASES).astype(int)
    z500 = next(i for i, c in enumerate(data.channels) if (c.variable, c.level) == ("z", 500.0))
    x = data.validation.batch(starts).to(device)
    season = data.validation.season[torch.from_numpy(starts)].to(device)
    scores = {}
    for lead in range(1, leads[-1] + 1):
        x = model(x, season + (lead - 1) * STEP_OF_YEAR)
        if lead in leads:
            truth = data.validation.batch(starts + lead).to(device)
            error, variance = ((field**2 * area).mean(dim=(0, 2, 3)) for field in (x - truth, truth))
            size = ((x**2 * area).mean(dim=(0, 2, 3)) / variance).sqrt().mean()
            scores[f"anomaly_nmse_{6 * lead}h"] = error.mean().item()
            scores[f"z500_{6 * lead}h"] = (error[z500].sqrt() * data.climate.std[z500].to(device)).item()
            scores[f"size_{6 * lead}h"] = size.item()
    return scores


def train_forecast(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> ForecastModel:
    """Stage 2: single steps first, the last `rollout_share` of the training through `rollout` steps."""
    stage = recipe.forecast
    torch.manual_seed(recipe.seed + 1)
    model = new_forecast_model(recipe, data).to(device)
    loss = RolloutLoss(model, data, recipe.seed + 1, device)
    single_steps = round(stage.steps * (1 - stage.rollout_share))
    optimise(
        "forecast",
        model,
        stage,
        work,
        lambda step: loss(stage.batch, 1 if step < single_steps else stage.rollout),
        lambda averaged: forecast_scores(averaged, data, device),
        device,
    )
    return model


def stabilise_forecast(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> ForecastModel:
    """Stage 3: the averaged model of stage 2 goes on through longer and longer roll-outs."""
    model = new_forecast_model(recipe, data)
    before = work / "forecast.pt"
    for index, stage in enumerate(recipe.stabilise):
        seed = recipe.seed + 5 + 100 * index
        torch.manual_seed(seed)
        load_averaged(model, before)
        model.to(device)
        loss = RolloutLoss(model, data, seed, device)
        optimise(
            f"stabilise-{index}",
            model,
            stage,
            work,
            partial(loss.of_step, batch=stage.batch, ahead=stage.rollout),
            lambda averaged: forecast_scores(averaged, data, device),
            device,
        )
        before = work / f"stabilise-{index}.pt"
    return model
