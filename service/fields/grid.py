"""What a model bundle says about its state: the grid, the channels in their order, the time step.

Only this part of a bundle's `bundle.json` is known to the service; the rest belongs to the models.
"""

import hashlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from service.fields.errors import FieldError

UPPER_AIR = ("z", "q", "u", "v", "t")
SURFACE = ("u10", "v10", "t2m", "sp")


@dataclass(frozen=True)
class Grid:
    """A global latitude-longitude grid.

    Attributes:
        kind: `regular_gg` (Gaussian latitudes) or `regular_ll` (equidistant latitudes).
        latitudes: degrees north, strictly north to south.
        longitudes: degrees east, equidistant from 0 to below 360.
    """

    kind: Literal["regular_gg", "regular_ll"]
    latitudes: tuple[float, ...]
    longitudes: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.latitudes) < 2 or len(self.longitudes) < 4 or len(self.longitudes) % 2:
            raise ValueError("a grid needs at least 2 latitudes and an even number of at least 4 longitudes")
        if np.any(np.diff(self.latitudes) >= 0) or abs(self.latitudes[0]) > 90 or abs(self.latitudes[-1]) > 90:
            raise ValueError("latitudes must run strictly from north to south, within [-90, 90]")
        even = np.arange(len(self.longitudes)) * 360.0 / len(self.longitudes)
        if not np.allclose(self.longitudes, even, atol=1e-3):
            raise ValueError("longitudes must be equidistant from 0 and cover the circle once")
        if self.kind == "regular_gg" and not np.allclose(
            self.latitudes, gaussian_latitudes(len(self.latitudes)), atol=1e-3
        ):
            raise ValueError(f"these are not the {len(self.latitudes)} Gaussian latitudes")

    @property
    def shape(self) -> tuple[int, int]:
        """(latitudes, longitudes)."""
        return len(self.latitudes), len(self.longitudes)

    @property
    def name(self) -> str:
        """Short name for messages, such as `N24 regular_gg 48 x 96`."""
        number = f"N{len(self.latitudes) // 2} " if self.kind == "regular_gg" else ""
        return f"{number}{self.kind} {len(self.latitudes)} x {len(self.longitudes)}"

    def matches(self, latitudes: NDArray[np.float64], longitudes: NDArray[np.float64]) -> bool:
        """True if both axes agree to 0.001 degrees (GRIB1 keeps millidegrees)."""
        return (
            latitudes.shape == (len(self.latitudes),)
            and longitudes.shape == (len(self.longitudes),)
            and np.allclose(latitudes, self.latitudes, rtol=0, atol=1e-3)
            and np.allclose(longitudes, self.longitudes, rtol=0, atol=1e-3)
        )


@dataclass(frozen=True)
class Channel:
    """One horizontal slice of the state: a variable (ECMWF short name) and its level (hPa, None at the surface)."""

    variable: str
    level: float | None = None

    @property
    def name(self) -> str:
        """Such as `z500` or `t2m`."""
        return self.variable if self.level is None else f"{self.variable}{self.level:g}"


class BundleDescription(BaseModel):
    """Grid, channels and step of a bundle; `digest` is the SHA-256 of its `bundle.json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    step_hours: int = Field(gt=0)
    grid: Grid
    channels: tuple[Channel, ...]
    digest: str = ""

    @model_validator(mode="after")
    def _channels_are_known_and_unique(self) -> Self:
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ValueError("channels must be present and each only once")
        for channel in self.channels:
            known = SURFACE if channel.level is None else UPPER_AIR
            if channel.variable not in known:
                raise ValueError(f"unknown channel {channel.name}: here the service knows {', '.join(known)}")
        return self

    @classmethod
    def load(cls, path: str | Path) -> "BundleDescription":
        """Read a bundle directory or its `bundle.json`.

        Raises:
            FieldError: the file is absent or does not describe a state.
        """
        file = Path(path)
        file = file / "bundle.json" if file.is_dir() else file
        try:
            content = file.read_bytes()
            description = cls.model_validate_json(content)
        except (OSError, ValidationError) as error:
            raise FieldError(f"{file} does not describe a model bundle: {error}") from error
        return description.model_copy(update={"digest": hashlib.sha256(content).hexdigest()})

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, latitudes, longitudes)."""
        return (len(self.channels), *self.grid.shape)

    def levels(self, variable: str) -> tuple[float | None, ...]:
        """The levels (hPa; None at the surface) of one variable, in the order of the channels."""
        return tuple(channel.level for channel in self.channels if channel.variable == variable)

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables in the order of their first channel."""
        return tuple(dict.fromkeys(channel.variable for channel in self.channels))

    def index(self, variable: str, level: float | None = None) -> int:
        """The position of a channel.

        Raises:
            FieldError: the bundle has no such channel.
        """
        try:
            return self.channels.index(Channel(variable, level))
        except ValueError as error:
            raise FieldError(f"bundle {self.name} has no channel {Channel(variable, level).name}") from error


def gaussian_latitudes(count: int) -> NDArray[np.float64]:
    """The `count` Gaussian latitudes, degrees, north to south: arcsines of the roots of the Legendre polynomial."""
    roots, _ = np.polynomial.legendre.leggauss(count)
    return np.degrees(np.arcsin(roots[::-1]))
