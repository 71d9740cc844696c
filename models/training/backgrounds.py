"""Stage 4: error statistics of forecasts from the truth, at every lead time of the level table.

They whiten the latent increments of the prior and define its background-error levels.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.diffusion.gaussian import fit_zonal_covariance
from models.diffusion.prior import ErrorStatistics, symmetric_inverse
from models.grid import area_weights
from models.networks.autoencoder import Autoencoder
from models.networks.forecast import ForecastModel
from models.precision import networks_on
from models.training.autoencoder import reconstruction_error
from models.training.data import TrainingData
from models.training.forecast import STEP_OF_YEAR, last_forecast, new_forecast_model
from models.training.loop import load_averaged
from models.training.recipe import Recipe

RIDGE = 1e-3  # of the mean variance, keeps the whitening bounded


def load_networks(
    recipe: Recipe, data: TrainingData, work: Path, device: torch.device
) -> tuple[Autoencoder, ForecastModel]:
    """The averaged networks of stages 1 and 3. Raises FileNotFoundError when a stage has not run."""
    latitudes, longitudes = torch.tensor(data.grid.latitudes), torch.tensor(data.grid.longitudes)
    static = data.climate.static
    autoencoder = Autoencoder(recipe.networks.autoencoder, len(data.channels), static, latitudes, longitudes)
    forecast = new_forecast_model(recipe, data)
    for name, module in (("autoencoder", autoencoder), (last_forecast(recipe), forecast)):
        load_averaged(module, work / f"{name}.pt")
        module.requires_grad_(False).to(device).eval()
    return autoencoder, forecast


def symmetric_root(covariance: Tensor) -> Tensor:
    """Symmetric square root of [..., k, k] with a small ridge."""
    size = covariance.shape[-1]
    mean = torch.diagonal(covariance, dim1=-2, dim2=-1).mean(dim=-1)[..., None, None]
    values, vectors = torch.linalg.eigh(covariance.double() + RIDGE * mean * torch.eye(size))
    root: Tensor = (vectors * values.sqrt()[..., None, :]) @ vectors.transpose(-1, -2)
    return root.float()


@torch.no_grad()
def forecast_errors(
    recipe: Recipe, data: TrainingData, autoencoder: Autoencoder, forecast: ForecastModel, device: torch.device
) -> tuple[list[Tensor], Tensor]:
    """Latent errors (truth - forecast) [start, latent, row, column] and squared errors [lead, channel] by lead."""
    stage = recipe.backgrounds
    generator = np.random.default_rng(recipe.seed + 2)
    leads = [hours // recipe.data.step_hours for hours in stage.lead_hours]
    area = area_weights(np.array(data.grid.latitudes)).to(device)[:, None]
    latent: list[list[Tensor]] = [[] for _ in (*leads, None)]
    squares = torch.zeros(len(leads) + 1, len(data.channels), device=device)
    for _ in range(stage.starts // stage.batch):
        states, season = data.sample(generator, stage.batch, ahead=leads[-1])
        x, season = states[0].to(device), season.to(device)
        with networks_on(device):
            for lead in range(1, leads[-1] + 1):
                x = forecast(x, season + (lead - 1) * STEP_OF_YEAR)
                if lead in leads:
                    truth = states[lead].to(device)
                    latent[leads.index(lead)].append((autoencoder.encode(truth) - autoencoder.encode(x)).cpu())
                    squares[leads.index(lead)] += ((truth - x) ** 2 * area).mean(dim=(0, 2, 3))
            truth = states[0].to(device)
            latent[-1].append(autoencoder.encode(truth).cpu())
            squares[-1] += (truth**2 * area).mean(dim=(0, 2, 3))
    return [torch.cat(parts) for parts in latent], squares.cpu() / (stage.starts // stage.batch)


def collect_backgrounds(recipe: Recipe, data: TrainingData, work: Path, device: torch.device) -> None:
    """Write `work/backgrounds.pt`: the `ErrorStatistics` of this recipe."""
    autoencoder, forecast = load_networks(recipe, data, work, device)
    latent, squares = forecast_errors(recipe, data, autoencoder, forecast, device)
    rows, columns = latent[0].shape[2:]
    statistics = ErrorStatistics(len(latent), recipe.networks.autoencoder.latent, rows, columns, len(data.channels))
    statistics.level.copy_(squares.mean(dim=1).sqrt())
    statistics.channel_error.copy_(squares.sqrt())
    picks = np.linspace(0, len(data.validation) - 1, 64).astype(int)
    with torch.no_grad():
        floor = reconstruction_error(autoencoder, data.validation.batch(picks), data, device)
    statistics.floor.copy_(floor.sqrt().cpu())
    for index, errors in enumerate(latent):
        covariance = torch.einsum("skrc,slrc->rkl", errors, errors) / (len(errors) * columns)
        root = symmetric_root(covariance)
        whitened = torch.einsum("rkl,slrc->skrc", symmetric_inverse(root), errors)
        statistics.root[index] = root
        statistics.covariance[index] = fit_zonal_covariance(whitened)
    torch.save(statistics.state_dict(), work / "backgrounds.pt")
    for hours, level in zip((*recipe.backgrounds.lead_hours, None), statistics.level.tolist(), strict=True):
        print(f"background-error level at {'climatology' if hours is None else f'{hours} h'}: {level:.4f}")
