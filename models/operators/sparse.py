"""Predictors of observations as sparse matrices on a state [channel * latitude * longitude]."""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.operators.interpolation import WIND, Horizontal, Predictor
from models.specification import ChannelSpec

Integers = NDArray[np.int64]


class Product(torch.autograd.Function):
    """matrix @ x with the transpose as its derivative (sparse matrices have no autograd of their own on all devices)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, matrix: Tensor, transpose: Tensor) -> Tensor:
        ctx.transpose = transpose  # type: ignore[attr-defined]
        return (matrix @ x.T).T

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.transpose @ gradient.T).T, None, None  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Interpolation:
    """`matrix` [row, state] and its transpose; `footprint` [state, row], the transpose with only the cells of each
    row's own variable (geopotential between levels uses temperature too, whose unit is another)."""

    matrix: Tensor
    transpose: Tensor
    footprint: Tensor

    def __call__(self, state: Tensor) -> Tensor:
        """[member, channel, latitude, longitude] -> [member, row], differentiable."""
        result: Tensor = Product.apply(state.flatten(1), self.matrix, self.transpose)  # type: ignore[no-untyped-call]
        return result

    def sizes(self, spread: Tensor) -> Tensor:
        """What a scale [state] of the state's own variables is in each row, by weights without their signs: [row]."""
        entries = self.footprint.to_sparse_coo().coalesce()
        cell, row = entries.indices()
        out = torch.zeros(self.footprint.shape[1], dtype=spread.dtype, device=spread.device)
        return out.index_add(0, row, entries.values().abs().to(spread) * spread[cell])


def interpolation(
    predictors: list[tuple[Integers, Integers, Predictor]],
    size: int,
    horizontal: Horizontal,
    channels: tuple[ChannelSpec, ...],
    cells_per_channel: int,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Interpolation:
    """From (row of the matrix [k], observation [k], predictor) for each predictor; `size` rows in all."""
    rows, columns, values, own = [], [], [], []
    turns = np.array([c.variable in WIND for c in channels])
    _names, name = np.unique([c.variable for c in channels], return_inverse=True)
    for row, observation, predictor in predictors:
        cells, weights = horizontal.cells[observation], horizontal.weights[observation]
        crossed, first = horizontal.crossed[observation], name[predictor[0][0]]
        for channel, weight in predictor:
            flip = np.where(crossed & turns[channel][:, None], -1.0, 1.0)
            columns.append((channel[:, None] * cells_per_channel + cells).ravel())
            values.append((weight[:, None] * weights * flip).ravel())
            rows.append(np.repeat(row, 4))
            own.append(np.repeat(name[channel] == first, 4))
    shape = (size, cells_per_channel * len(channels))
    place = np.stack([np.concatenate([*rows, []]), np.concatenate([*columns, []])]).astype(np.int64)
    weight, kept = np.concatenate([*values, []]), np.concatenate([*own, []]).astype(bool)
    indices, weights_ = torch.from_numpy(place), torch.from_numpy(weight).to(dtype)

    def csr(index: Tensor, value: Tensor, of: tuple[int, int]) -> Tensor:
        matrix = torch.sparse_coo_tensor(index, value, of, device=device, check_invariants=False)
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Sparse CSR tensor support is in beta"
            )  # products are all we need
            return matrix.coalesce().to_sparse_csr()

    mask = torch.from_numpy(kept)
    back = indices.flip(0)
    turned = (shape[1], shape[0])
    return Interpolation(
        csr(indices, weights_, shape), csr(back, weights_, turned), csr(back[:, mask], weights_[mask], turned)
    )
