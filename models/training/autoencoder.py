"""Stage 1: principal components of patches, then the convolutional refinement with a small KL term."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.grid import area_weights
from models.networks.autoencoder import Autoencoder
from models.training.data import TrainingData
from models.training.loop import optimise
from models.training.recipe import Recipe

COMPONENT_STATES = 600
VALIDATION_STATES = 48


def channel_weights(data: TrainingData) -> Tensor:
    """[channel]: anomaly units -> units of 6 h tendencies, in which every channel matters to a forecast."""
    return data.climate.std / data.climate.tendency_std


def fit_components(model: Autoencoder, data: TrainingData, generator: np.random.Generator) -> None:
    """Principal components of patches in units of tendencies; latent components get unit variance."""
    states, _ = data.sample(generator, COMPONENT_STATES)
    weights = channel_weights(data)
    patch, latent = model.spec.patch, model.spec.latent
    scaled = functional.pixel_unshuffle(states[0] * weights[:, None, None], patch)
    rows = scaled.permute(0, 2, 3, 1).reshape(-1, scaled.shape[1]).double()
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    values, vectors = values.flip(0)[:latent], vectors.flip(1)[:, :latent]
    spread = values.sqrt()
    scale = weights.double().repeat_interleave(patch**2)
    model.components.copy_((vectors * scale[:, None] / spread).T.float())
    model.synthesis.copy_((vectors * spread / scale[:, None]).float())


def reconstruction_error(model: Autoencoder, states: Tensor, data: TrainingData, device: torch.device) -> Tensor:
    """Mean square error of decode(encode(x)) by channel, area weighted, in units of the anomalies' variance."""
    weights = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    error = torch.cat([model.decode(model.encode(part)) - part for part in states.to(device).split(16)])
    return (error**2 * weights).mean(dim=(0, 2, 3))


def train_autoencoder(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> Autoencoder:
    stage = recipe.autoencoder
    generator = np.random.default_rng(recipe.seed)
    torch.manual_seed(recipe.seed)
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    model = Autoencoder(recipe.networks.autoencoder, len(data.channels), data.climate.static, latitudes, longitudes)
    if not (work / "autoencoder.pt").exists():
        fit_components(model, data, generator)
    model.to(device)
    weights = channel_weights(data).to(device)[:, None, None]
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    picks = np.linspace(0, len(data.validation) - 1, VALIDATION_STATES).astype(int)
    states = data.validation.batch(picks)
    to_total = (data.climate.std / data.climate.total_std).to(device) ** 2

    def loss(step: int) -> Tensor:
        x = data.sample(generator, stage.batch)[0][0].to(device)
        mean, log_variance = model.posterior(x)
        decoded = model.decode(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return ((decoded - x) ** 2 * weights**2 * area).mean() + stage.kl_weight * kl

    def validate(averaged: nn.Module) -> dict[str, float]:
        assert isinstance(averaged, Autoencoder)
        error = reconstruction_error(averaged, states, data, device)
        return {"nmse": (error * to_total).mean().item(), "anomaly_nmse": error.mean().item()}

    optimise("autoencoder", model, stage, work, loss, validate, device)
    return model
