"""`alignda train --config RECIPE`: the stages of a bundle in order, each resumable."""

from pathlib import Path

import torch

from models.nature.network import ErrorTable
from models.training.data import TrainingData
from models.training.recipe import Recipe

STAGES = (
    "autoencoder",
    "forecast",
    "stabilise",
    "backgrounds",
    "covariance",
    "prior",
    "rounds",
    "bundle",
    "hydrostatic",
)


def train(
    config: Path,
    work: Path,
    out: Path,
    stages: tuple[str, ...] = STAGES,
    device: str = "auto",
    errors: ErrorTable | None = None,
) -> None:
    """Run `stages` of the recipe at `config`; nature runs are looked up beside `work`'s `nature` folder.

    Checkpoints, logs and caches go to `work`; the finished bundle to `out`. Each stage continues where an
    interrupted run stopped and needs the stages before it to be complete. `errors`: of simulated observations.

    Raises:
        FileNotFoundError: a nature run or an earlier stage is missing.
        pydantic.ValidationError: the recipe is wrong.
    """
    recipe = Recipe.load(config)
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if set(stages) != {"hydrostatic"}:
        train_networks(recipe, work, out, stages, chosen, errors)
    if "hydrostatic" in stages and recipe.hydrostatic is not None:
        from models.training.hydrostatic import fit_hydrostatic

        if errors is None:
            raise ValueError("the stage `hydrostatic` simulates observations and needs their error table")
        fit_hydrostatic(recipe.hydrostatic, work / "nature", out, errors, chosen)


def train_networks(
    recipe: Recipe, work: Path, out: Path, stages: tuple[str, ...], chosen: torch.device, errors: ErrorTable | None
) -> None:
    """The stages that read the training runs, up to the finished bundle."""
    data = TrainingData(recipe.data, work / "nature", work)
    if "autoencoder" in stages:
        from models.training.autoencoder import train_autoencoder

        train_autoencoder(recipe, data, work, chosen)
    if "forecast" in stages:
        from models.training.forecast import train_forecast

        train_forecast(recipe, data, work, chosen)
    if "stabilise" in stages:
        from models.training.forecast import stabilise_forecast

        stabilise_forecast(recipe, data, work, chosen)
    if "backgrounds" in stages:
        from models.training.backgrounds import collect_backgrounds

        collect_backgrounds(recipe, data, work, chosen)
    if "covariance" in stages and recipe.covariance is not None:
        from models.training.covariance import fit_covariance

        fit_covariance(recipe, recipe.covariance, data, work)
    if "prior" in stages:
        from models.training.prior import train_prior

        train_prior(recipe, data, work, chosen)
    if "rounds" in stages:
        from models.training.rounds import train_rounds

        if errors is None:
            raise ValueError("the stage `rounds` simulates observations and needs their error table")
        train_rounds(recipe, data, work, errors, chosen)
    if "bundle" in stages:
        from models.training.export import export_bundle

        export_bundle(recipe, data, work, out)
