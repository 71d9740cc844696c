"""A tiny nature run and a tiny bundle trained on it, both made once a session and read by all its processes."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from netCDF4 import Dataset

from models.assimilation import Assimilator
from models.training.cli import train
from service.observations.table import default_error
from tests.models.synthetic import gaussian_grid, write_nature
from tests.sharing import made_once

HELD_OUT_FROM = datetime(2001, 1, 31, tzinfo=UTC)
RECIPE: dict[str, Any] = {
    "name": "tiny",
    "description": "synthetic waves on a 16 x 32 grid",
    "seed": 7,
    "data": {"train": ["train.nc"], "validation": "validation.nc", "held_out_from": "2001-01-31T00:00:00"},
    "networks": {
        "autoencoder": {"patch": 4, "latent": 40, "width": 16, "blocks": 1},
        "denoiser": {"width": 16, "deep_width": 16, "blocks": 1, "deep_blocks": 1},
        "forecast": {"width": 16, "deep_width": 16, "blocks": 1, "deep_blocks": 1, "patch": 2},
        "truncation": 12,
    },
    "autoencoder": {"steps": 40, "batch": 4, "learning_rate": 1.0e-3, "warmup": 5, "average_decay": 0.8},
    "forecast": {"steps": 80, "batch": 4, "learning_rate": 3.0e-3, "warmup": 5, "average_decay": 0.9},
    "stabilise": [{"steps": 8, "batch": 4, "learning_rate": 1.0e-3, "warmup": 2, "average_decay": 0.8, "rollout": 4}],
    "backgrounds": {"starts": 96, "lead_hours": [6, 12, 24], "batch": 16},
    "prior": {"steps": 40, "batch": 4, "learning_rate": 1.0e-3, "warmup": 5, "average_decay": 0.8, "pool": 16},
    "rounds": [
        {
            "cycles": {"runs": 5, "validation_runs": 1, "length": 7, "spin_up": 1, "share": 0.0, "steps": 1},
            "prior": {
                "steps": 10,
                "batch": 4,
                "learning_rate": 1.0e-3,
                "warmup": 2,
                "average_decay": 0.8,
                "pool": 16,
                "cycled_share": 0.5,
            },
        }
    ],
}


@dataclass(frozen=True)
class Trained:
    """A finished training: its recipe file, its work folder and the bundle that came out."""

    config: Path
    work: Path
    bundle: Path


def held_out_rows(path: Path) -> slice:
    """The times of a validation file that no stage of the tiny recipe may read."""
    with Dataset(path) as file:
        hours = (HELD_OUT_FROM - datetime(2001, 1, 1, tzinfo=UTC)).total_seconds() / 3600
        return slice(int((file["time"][:] < hours).sum()), None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Claims of bitwise equality hold for a fixed number of threads; small arrays are fastest with one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def nature(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder with `train.nc` (a year) and `validation.nc` (60 days, the held-out half of it NaN)."""
    return made_once(tmp_path_factory, worker_id, "nature", write_runs)


def write_runs(folder: Path) -> None:
    grid = gaussian_grid()
    write_nature(folder / "train.nc", 1, datetime(2000, 1, 1, tzinfo=UTC), 366, grid)
    write_nature(folder / "validation.nc", 2, datetime(2001, 1, 1, tzinfo=UTC), 60, grid)
    with Dataset(folder / "validation.nc", "a") as file:
        rows = held_out_rows(folder / "validation.nc")
        for name in ("z", "q", "u", "v", "t", "u10", "v10", "t2m", "sp"):
            file[name][rows] = float("nan")


def trained_in(folder: Path) -> Trained:
    return Trained(folder / "recipe.yaml", folder / "work", folder / "bundle")


def train_in(folder: Path, nature: Path, recipe: dict[str, Any]) -> None:
    """Train `recipe` on the runs in `nature`, everything else in `folder`."""
    run = trained_in(folder)
    run.work.mkdir()
    (run.work / "nature").symlink_to(nature)
    run.config.write_text(yaml.safe_dump(recipe))
    train(run.config, run.work, run.bundle, device="cpu", errors=default_error)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str, nature: Path) -> Trained:
    """Read it, copy it, and leave it as it is."""
    train_it = partial(train_in, nature=nature, recipe=RECIPE)
    return trained_in(made_once(tmp_path_factory, worker_id, "trained", train_it))


@pytest.fixture(scope="session")
def assimilator(trained: Trained) -> Assimilator:
    return Assimilator(trained.bundle, "cpu")
