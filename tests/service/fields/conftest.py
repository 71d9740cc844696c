"""A bundle like the shipped one, smooth and plausible states on it, and the way to the real files."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.fields.grid import BundleDescription, Channel, Grid, gaussian_latitudes
from service.fields.intake import standard_geopotential

LEVELS = (925.0, 850.0, 700.0, 500.0, 300.0, 200.0, 100.0)
MakeDescription = Callable[..., BundleDescription]


def describe(
    levels: tuple[float, ...] = LEVELS,
    surface: tuple[str, ...] = ("u10", "v10", "t2m", "sp"),
    rows: int = 48,
    kind: str = "regular_gg",
) -> BundleDescription:
    latitudes = gaussian_latitudes(rows) if kind == "regular_gg" else np.linspace(90, -90, rows)
    channels = [Channel(variable, level) for variable in "zquvt" for level in levels]
    return BundleDescription(
        name="test-bundle",
        step_hours=6,
        grid=Grid(kind, tuple(latitudes), tuple(np.arange(2 * rows) * 180.0 / rows)),  # type: ignore[arg-type]
        channels=(*channels, *(Channel(variable) for variable in surface)),
    )


@pytest.fixture(scope="session")
def make_description() -> MakeDescription:
    return describe


@pytest.fixture(scope="session")
def description() -> BundleDescription:
    return describe()


@pytest.fixture(scope="session")
def make_states() -> Callable[[BundleDescription, int], NDArray[np.float32]]:
    """States [number, channel, latitude, longitude] with waves on a standard atmosphere; every slice differs."""

    def states(description: BundleDescription, members: int) -> NDArray[np.float32]:
        phi = np.radians(np.array(description.grid.latitudes))[:, None]
        lam = np.radians(np.array(description.grid.longitudes))[None, :]
        out = np.empty((members, *description.shape), dtype=np.float32)
        for member in range(members):
            for index, channel in enumerate(description.channels):
                wave = np.cos(phi) ** 2 * np.sin((2 + index % 5) * lam + member + 0.1 * index)
                depth = (channel.level or 1000.0) / 1000.0
                out[member, index] = {
                    "z": lambda p, w=wave: standard_geopotential(p or 1000.0) + 2000.0 * (np.cos(phi) ** 2 + w),
                    "q": lambda p, w=wave, d=depth: 0.015 * d**3 * np.cos(phi) ** 2 * (1.2 + w),
                    "t": lambda p, w=wave, d=depth: 210.0 + 70.0 * d + 10.0 * (w + np.cos(phi) ** 2),
                    "t2m": lambda p, w=wave: 260.0 + 30.0 * np.cos(phi) ** 2 + 5.0 * w,
                    "sp": lambda p, w=wave: 98000.0 + 2500.0 * w - 30000.0 * np.exp(-((lam - 1.5) ** 2) - phi**2),
                }.get(channel.variable, lambda p, w=wave, d=depth: 15.0 * w / d)(channel.level)
        return out

    return states


@pytest.fixture(scope="session")
def ensemble(
    description: BundleDescription, make_states: Callable[[BundleDescription, int], NDArray[np.float32]]
) -> NDArray[np.float32]:
    return make_states(description, 3)


@pytest.fixture
def base_time() -> datetime:
    return datetime(2020, 12, 31, 18, tzinfo=UTC)


@pytest.fixture(scope="session")
def real_file() -> Callable[[str], Path]:
    """Find a file made elsewhere: in data/ here, in $ALIGNDA_TEST_DATA, or in shared/data beside the repository."""

    def find(name: str) -> Path:
        folders = [Path(__file__).parent / "data", Path(__file__).resolve().parents[4] / "shared" / "data"]
        if "ALIGNDA_TEST_DATA" in os.environ:
            folders.insert(0, Path(os.environ["ALIGNDA_TEST_DATA"]))
        for folder in folders:
            if (folder / name).exists():
                return folder / name
        pytest.skip(f"{name} is not shipped with this repository; name its folder in ALIGNDA_TEST_DATA")

    return find
