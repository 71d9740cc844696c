"""H: from gridded states to observed values, linear in the state, with an exact adjoint.

Horizontally bilinear on the sphere (periodic; beyond the last row the neighbour lies across the pole, where the
wind components change sign). Vertically linear in ln p; geopotential is the cubic Hermite interpolant whose
slopes are dz/dlnp = -R T, so it uses temperature too.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.constants import GAS_CONSTANT
from models.specification import ChannelSpec, GridSpec

LEVEL_TOLERANCE = 1.01  # a report at 930 hPa counts as 925 hPa
WIND = ("u", "v", "u10", "v10")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ObservationSet:
    """Observed values, one entry each: arrays of equal length n.

    `pressure` in Pa, NaN for surface variables; `error` the 1-sigma error in the unit of `value` (SI);
    `time_offset` in hours from the valid time of the analysis.
    """

    variable: NDArray[np.str_]
    pressure: Floats
    latitude: Floats
    longitude: Floats
    value: Floats
    error: Floats
    time_offset: Floats | None = field(default=None)

    def __len__(self) -> int:
        return len(self.value)

    def select(self, keep: NDArray[np.bool_]) -> "ObservationSet":
        """The entries where `keep` is true."""
        offset = None if self.time_offset is None else self.time_offset[keep]
        return ObservationSet(
            self.variable[keep],
            self.pressure[keep],
            self.latitude[keep],
            self.longitude[keep],
            self.value[keep],
            self.error[keep],
            offset,
        )


def supported(observations: ObservationSet, channels: tuple[ChannelSpec, ...]) -> NDArray[np.bool_]:
    """Which observations H can compute: a known variable, between the top and the lowest level. Shape [n]."""
    known = np.zeros(len(observations), dtype=bool)
    for variable in {c.variable for c in channels}:
        chosen = observations.variable == variable
        levels = [c.level for c in channels if c.variable == variable and c.level is not None]
        if levels:
            top, bottom = 100.0 * min(levels) / LEVEL_TOLERANCE, 100.0 * max(levels) * LEVEL_TOLERANCE
            with np.errstate(invalid="ignore"):
                chosen &= (observations.pressure >= top) & (observations.pressure <= bottom)
        known |= chosen
    placed = np.isfinite(observations.latitude) & np.isfinite(observations.longitude)
    return known & placed & np.isfinite(observations.value) & (np.abs(observations.latitude) <= 90)


def _horizontal(observations: ObservationSet, grid: GridSpec) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Four corner cells [n, 4], their weights [n, 4] and whether a corner lies across the pole [n, 4]."""
    latitudes, columns = np.array(grid.latitudes), len(grid.longitudes)
    spacing = 360.0 / columns
    x = ((observations.longitude - grid.longitudes[0]) % 360.0) / spacing
    west = np.floor(x).astype(np.int64) % columns
    east_weight = x - np.floor(x)
    extended = np.concatenate([[180.0 - latitudes[0]], latitudes, [-180.0 - latitudes[-1]]])
    north = np.clip(np.searchsorted(-extended, -observations.latitude, side="right") - 1, 0, len(extended) - 2)
    south_weight = (extended[north] - observations.latitude) / (extended[north] - extended[north + 1])
    cells, weights, crossed = [], [], []
    for step, row_weight in ((0, 1 - south_weight), (1, south_weight)):
        row = north + step - 1
        beyond = (row < 0) | (row >= len(latitudes))
        row = np.clip(row, 0, len(latitudes) - 1)
        for east, column_weight in ((0, 1 - east_weight), (1, east_weight)):
            column = (west + east + np.where(beyond, columns // 2, 0)) % columns
            cells.append(row * columns + column)
            weights.append(row_weight * column_weight)
            crossed.append(beyond)
    return np.stack(cells, 1), np.stack(weights, 1), np.stack(crossed, 1)


def _vertical(
    variable: str, pressure: Floats, channels: tuple[ChannelSpec, ...]
) -> list[tuple[NDArray[np.int64], Floats]]:
    """Channel indices [k] and weights [k] whose sum gives `variable` at `pressure` [k]."""
    index = {(c.variable, c.level): i for i, c in enumerate(channels)}
    levels = sorted(c.level for c in channels if c.variable == variable and c.level is not None)
    if not levels:
        return [(np.full(len(pressure), index[variable, None]), np.ones(len(pressure)))]
    ln_levels = np.log(100.0 * np.array(levels))
    ln_p = np.clip(np.log(pressure), ln_levels[0], ln_levels[-1])
    upper = np.clip(np.searchsorted(ln_levels, ln_p, side="right") - 1, 0, len(levels) - 2)
    width = ln_levels[upper + 1] - ln_levels[upper]
    s = (ln_p - ln_levels[upper]) / width
    of = np.array([index[variable, level] for level in levels])
    if variable != "z":
        return [(of[upper], 1 - s), (of[upper + 1], s)]
    temperature = np.array([index["t", level] for level in levels])
    slope = -GAS_CONSTANT * width
    return [
        (of[upper], 2 * s**3 - 3 * s**2 + 1),
        (of[upper + 1], 3 * s**2 - 2 * s**3),
        (temperature[upper], (s**3 - 2 * s**2 + s) * slope),
        (temperature[upper + 1], (s**3 - s**2) * slope),
    ]


class _SparseProduct(torch.autograd.Function):
    """matrix @ x with the transpose as its derivative (sparse matrices have no autograd of their own on all devices)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose  # type: ignore[attr-defined]
        return (matrix @ x.T).T

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.transpose @ gradient.T).T, None, None  # type: ignore[attr-defined]


class ObservationOperator:
    """The linear map H for one set of observations, as a sparse matrix [n, channel * latitude * longitude].

    Raises ValueError when an observation is not `supported`.
    """

    def __init__(
        self,
        observations: ObservationSet,
        grid: GridSpec,
        channels: tuple[ChannelSpec, ...],
        device: torch.device | str = "cpu",
    ) -> None:
        unsupported = ~supported(observations, channels)
        if unsupported.any():
            first = int(np.argmax(unsupported))
            raise ValueError(
                f"{int(unsupported.sum())} observations cannot be computed from the state, the first is "
                f"{observations.variable[first]} at {observations.pressure[first]} Pa; filter with supported()"
            )
        self.shape = (len(channels), len(grid.latitudes), len(grid.longitudes))
        cells_per_channel = self.shape[1] * self.shape[2]
        cells, horizontal, crossed = _horizontal(observations, grid)
        rows, columns, values, own = [], [], [], []
        for variable in np.unique(observations.variable):
            chosen = np.flatnonzero(observations.variable == variable)
            flip = np.where(crossed[chosen] & (variable in WIND), -1.0, 1.0)
            for channel, weight in _vertical(str(variable), observations.pressure[chosen], channels):
                columns.append((channel[:, None] * cells_per_channel + cells[chosen]).ravel())
                values.append((weight[:, None] * horizontal[chosen] * flip).ravel())
                rows.append(np.repeat(chosen, 4))
                own.append(np.repeat([channels[index].variable == variable for index in channel], 4))
        size = (len(observations), cells_per_channel * len(channels))
        indices = torch.from_numpy(
            np.stack([np.concatenate([*rows, []]), np.concatenate([*columns, []])]).astype(np.int64)
        )
        weights = torch.from_numpy(np.concatenate([*values, []]).astype(np.float32))
        matrix = torch.sparse_coo_tensor(indices, weights, size, device=device, check_invariants=False).coalesce()
        self.matrix, self.transpose = matrix.to_sparse_csr(), matrix.t().coalesce().to_sparse_csr()
        kept = torch.from_numpy(np.concatenate([*own, []]).astype(bool))
        direct = torch.sparse_coo_tensor(
            indices[:, kept].flip(0), weights[kept], size[::-1], device=device, check_invariants=False
        )
        self.footprint = direct.coalesce().to_sparse_csr()

    def __call__(self, state: Tensor) -> Tensor:
        """H x: [member, channel, latitude, longitude] -> [member, n], differentiable."""
        result: Tensor = _SparseProduct.apply(  # type: ignore[no-untyped-call]
            state.flatten(1), self.matrix, self.transpose
        )
        return result

    def adjoint(self, values: Tensor) -> Tensor:
        """H^T v: [member, n] -> [member, channel, latitude, longitude]."""
        return (self.transpose @ values.T).T.reshape(-1, *self.shape)

    def spread(self, values: Tensor) -> Tensor:
        """`adjoint`, but only onto the cells of the observed variable itself: its unit stays (z leaves T alone)."""
        return (self.footprint @ values.T).T.reshape(-1, *self.shape)


def channel_values(
    per_channel: Floats, observations: ObservationSet, grid: GridSpec, channels: tuple[ChannelSpec, ...]
) -> Floats:
    """A per-channel scale (a standard deviation, say) at each observation, linear in ln p: [n]."""
    out = np.empty(len(observations))
    for variable in np.unique(observations.variable):
        chosen = observations.variable == variable
        parts = _vertical(str(variable), observations.pressure[chosen], channels)[:2]
        if len(parts) == 2:  # z: the two Hermite weights of z itself sum to one
            out[chosen] = sum(per_channel[channel] * weight for channel, weight in parts)
        else:
            out[chosen] = per_channel[parts[0][0]]
    return out
