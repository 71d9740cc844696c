"""Hydrostatic balance of an analysis, as a weak constraint on each column.

In the atmosphere geopotential follows from the surface pressure, temperature and moisture of its column. A learned forecast
keeps that nearly, an analysis only as far as its covariance does, and what is missed adds up from
cycle to cycle. In anomaly units (models.climate), with p the predictors of a column:

    of the truth: z = M p + r, r ~ N(0, Sigma);   of the analysis: errors ~ N(0, S)

so z - M p = 0 is an observation of the column with the error Sigma, and the analysis becomes

    x - K (z - M p),   K = S C^T (C S C^T + Sigma)^-1,   C = (1, -M).

M (each grid point has its own: mountains), Sigma and S are fitted by `models.training.hydrostatic`. S is of geopotential,
temperature and surface pressure only, which alone are changed.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.specification import BundleSpec, ChannelSpec

HYDROSTATIC = "hydrostatic.safetensors"
MASS = ("z", "t", "t2m", "sp")
MOIST_BELOW = 400.0  # hPa; above, moisture weighs nothing


def constrained(channels: tuple[ChannelSpec, ...]) -> list[int]:
    """Indices of z, the targets."""
    return [i for i, c in enumerate(channels) if c.variable == "z"]


def predictors(channels: tuple[ChannelSpec, ...]) -> list[int]:
    """Indices of the predictors: sp, t2m, t at all levels, q below 400 hPa."""
    return [
        i
        for i, c in enumerate(channels)
        if c.variable in ("sp", "t2m", "t") or (c.variable == "q" and (c.level or 0.0) > MOIST_BELOW)
    ]


def adjusted(channels: tuple[ChannelSpec, ...]) -> list[int]:
    """Indices of the channels that the balance changes, and S speaks of."""
    return [i for i, c in enumerate(channels) if c.variable in MASS]


@dataclass(frozen=True)
class Fitted:
    """`regression` M [target, predictor, latitude, longitude], `residual` Sigma [latitude, target, target], `error` S
    [latitude, adjusted, adjusted]."""

    regression: Tensor
    residual: Tensor
    error: Tensor


class HydrostaticBalance:
    """The balance of one bundle on one device."""

    def __init__(
        self, channels: tuple[ChannelSpec, ...], fitted: Fitted, provenance: dict[str, str] | None = None
    ) -> None:
        self.channels, self.fitted, self.provenance = channels, fitted, provenance or {}
        self.targets, self.predictors, self.adjusted = constrained(channels), predictors(channels), adjusted(channels)
        self.gain = self._gain()

    def to(self, device: torch.device | str) -> "HydrostaticBalance":
        """The same on a device."""
        f = self.fitted
        moved = Fitted(f.regression.to(device), f.residual.to(device), f.error.to(device))
        return HydrostaticBalance(self.channels, moved, self.provenance)

    def imbalance(self, x: Tensor) -> Tensor:
        """z - M p of anomalies [member, channel, latitude, longitude]: [member, target, latitude, longitude]."""
        return x[:, self.targets] - torch.einsum("zpyx,mpyx->mzyx", self.fitted.regression, x[:, self.predictors])

    def _gain(self) -> Tensor:
        """K [latitude, longitude, adjusted, target]."""
        m, error = self.fitted.regression.double(), self.fitted.error.double()
        rows, columns = m.shape[2:]
        c = m.new_zeros(rows, columns, len(self.targets), len(self.adjusted))
        for row, channel in enumerate(self.targets):
            c[:, :, row, self.adjusted.index(channel)] = 1.0
        for column, channel in enumerate(self.predictors):
            if channel in self.adjusted:
                c[:, :, :, self.adjusted.index(channel)] = -m[:, column].permute(1, 2, 0)
        spread = torch.einsum("yab,yxzb->yxaz", error, c)
        seen = torch.einsum("yxza,yxaw->yxzw", c, spread) + self.fitted.residual.double()[:, None]
        gain: Tensor = torch.linalg.solve(seen, spread.mT).mT
        return gain.float()

    def balanced(self, x: Tensor) -> Tensor:
        """Anomalies [member, channel, latitude, longitude], each column drawn to its balance."""
        out = x.clone()
        out[:, self.adjusted] -= torch.einsum("yxaz,mzyx->mayx", self.gain, self.imbalance(x))
        return out

    def save(self, path: Path) -> None:
        """Write the fit, M in half precision."""
        tensors = {
            "regression": self.fitted.regression.half().contiguous().cpu(),
            "residual": self.fitted.residual.contiguous().cpu(),
            "error": self.fitted.error.contiguous().cpu(),
        }
        save_file(tensors, path, metadata={"provenance": json.dumps(self.provenance)})

    @classmethod
    def load(cls, path: Path, spec: BundleSpec) -> "HydrostaticBalance":
        """Read what `save` wrote. Raises ValueError when it is of another grid or other channels."""
        with safe_open(path, "pt") as file:
            provenance = json.loads(file.metadata()["provenance"])
            regression, residual, error = (
                file.get_tensor(name).float() for name in ("regression", "residual", "error")
            )
        z, p, a = (len(of(spec.channels)) for of in (constrained, predictors, adjusted))
        rows, columns = len(spec.grid.latitudes), len(spec.grid.longitudes)
        if regression.shape != (z, p, rows, columns) or error.shape != (rows, a, a):
            raise ValueError(f"{path} was fitted on another grid or other channels than those of {spec.name}")
        return cls(spec.channels, Fitted(regression, residual, error), provenance)
