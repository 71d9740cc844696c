"""Last stage: the finished stages become a bundle."""

import platform
from pathlib import Path

import numpy as np
import torch

from models.bundle import Bundle
from models.covariance.store import COVARIANCE, load_statistics
from models.rewards import geostrophic_imbalance, hydrostatic_imbalance
from models.specification import BalanceReference, BundleSpec, ErrorLevels
from models.training.data import TrainingData
from models.training.forecast import last_forecast
from models.training.loop import load_averaged
from models.training.prior import prior_name
from models.training.recipe import Recipe

BALANCE_STATES = 64


def balance_reference(data: TrainingData) -> BalanceReference:
    """Mean imbalance of states of the validation year."""
    picks = np.linspace(0, len(data.validation) - 1, BALANCE_STATES).astype(int)
    anomalies = data.validation.batch(picks)
    states = torch.stack(
        [data.climate.denormalise(x, data.validation.times[i]) for x, i in zip(anomalies, picks, strict=True)]
    )
    return BalanceReference(
        geostrophic=geostrophic_imbalance(states, data.grid, data.channels).mean().item(),
        hydrostatic=hydrostatic_imbalance(states, data.grid, data.channels).mean().item(),
    )


def build_bundle(recipe: Recipe, data: TrainingData, work: Path, rounds: int) -> Bundle:
    """The bundle of `recipe` after this many rounds of cycling.

    Raises FileNotFoundError when a stage has not run.
    """
    statistics = torch.load(work / "backgrounds.pt", weights_only=True)
    leads = (*(float(hours) for hours in recipe.backgrounds.lead_hours), None)
    steps, seconds = {}, {}
    for name in (
        "autoencoder",
        "forecast",
        *(f"stabilise-{i}" for i in range(len(recipe.stabilise))),
        *(prior_name(index) for index in range(rounds + 1)),
    ):
        saved = torch.load(work / f"{name}.pt", map_location="cpu", weights_only=True)
        steps[name], seconds[name] = str(saved["step"]), f"{saved['seconds']:.0f}"
    bundle = Bundle(
        BundleSpec(
            name=recipe.name,
            description=recipe.description,
            step_hours=recipe.data.step_hours,
            grid=data.grid,
            channels=data.channels,
            networks=recipe.networks,
            error_levels=ErrorLevels(lead_hours=leads, level=tuple(statistics["level"].tolist())),
            balance=balance_reference(data),
            provenance={
                "seed": str(recipe.seed),
                "training_states": str(sum(len(run) for run in data.train)),
                **{f"{name}_steps": value for name, value in steps.items()},
                **{f"{name}_seconds": value for name, value in seconds.items()},
                "torch": torch.__version__,
                "machine": platform.machine(),
            },
            files={},
        )
    )
    bundle.climate.load_state_dict(data.climate.state_dict())
    bundle.build_networks()
    bundle.statistics.load_state_dict(statistics)
    load_averaged(bundle.autoencoder, work / "autoencoder.pt")
    load_averaged(bundle.forecast, work / f"{last_forecast(recipe)}.pt")
    load_averaged(bundle.denoiser, work / f"{prior_name(rounds)}.pt")
    if recipe.covariance is not None:
        bundle.covariance = load_statistics(work / COVARIANCE, bundle.spec, bundle.climate)
    return bundle


def export_bundle(recipe: Recipe, data: TrainingData, work: Path, out: Path) -> BundleSpec:
    """Write the finished bundle of `recipe` to `out` and check that it loads."""
    spec = build_bundle(recipe, data, work, len(recipe.rounds)).save(out)
    Bundle.load(out)
    return spec
