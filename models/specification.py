"""The typed specification of a model bundle (`bundle.json`): grid, channels, architecture, error levels."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Unknown keys are refused, so that a typing error in a bundle or a recipe is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelSpec(Frozen):
    """One two-dimensional field of the state; `level` in hPa, None at the surface."""

    variable: str
    level: float | None


class GridSpec(Frozen):
    """A regular Gaussian grid: `N` latitude rows per hemisphere, north to south, longitudes from 0 eastward."""

    kind: Literal["regular_gg"] = "regular_gg"
    N: int
    latitudes: tuple[float, ...]
    longitudes: tuple[float, ...]

    def is_at(self, latitudes: Sequence[float], longitudes: Sequence[float]) -> bool:
        """Whether these are its rows and columns, but for what the processor rounded (and netCDF in single precision)."""
        pairs = ((self.latitudes, latitudes), (self.longitudes, longitudes))
        return all(
            len(mine) == len(theirs) and all(abs(a - b) < 1e-4 for a, b in zip(mine, theirs, strict=True))
            for mine, theirs in pairs
        )


class AutoencoderSpec(Frozen):
    """`patch` x `patch` grid points become one latent column of `latent` numbers."""

    patch: int = 4
    latent: int = 192
    width: int = 160
    blocks: int = 2


class UNetSpec(Frozen):
    """Two-level U-Net: `blocks` residual blocks before and after `deep_blocks` at half resolution."""

    width: int
    deep_width: int
    blocks: int
    deep_blocks: int
    patch: int = 1


class NetworksSpec(Frozen):
    """`truncation`: triangular truncation of the states, to which a forecast step is cut; None: none."""

    autoencoder: AutoencoderSpec
    denoiser: UNetSpec
    forecast: UNetSpec
    truncation: int | None = None


class ErrorLevels(Frozen):
    """Background-error level of a forecast by its lead time: RMS error over all channels in units of each
    channel's anomaly standard deviation. The last entry (lead None) is the climatology: no background at all."""

    lead_hours: tuple[float | None, ...]
    level: tuple[float, ...]


class BalanceReference(Frozen):
    """Imbalance of the bundle's own atmosphere (models.rewards), against which states are scored."""

    geostrophic: float
    hydrostatic: float


class BundleSpec(Frozen):
    """What `bundle.json` holds. Weights lie beside it; `files` gives the sha256 of each."""

    format_version: Literal[1] = 1
    name: str
    description: str
    step_hours: int
    grid: GridSpec
    channels: tuple[ChannelSpec, ...]
    networks: NetworksSpec
    error_levels: ErrorLevels
    balance: BalanceReference
    provenance: dict[str, str]
    files: dict[str, str]
