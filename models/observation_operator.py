"""H: from gridded states to observed values, and its derivative with an exact adjoint.

Each value is a function f of K predictors, which are linear in the state: y = f(P x) (models/operators/). Where f is the
identity H is a sparse matrix; elsewhere its derivative at a state is the matrix P times the gradient of f, value by value.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.operators.interpolation import Horizontal, Vertical
from models.operators.observation_set import ObservationSet
from models.operators.recipes import Recipe, recipes
from models.operators.sparse import Interpolation, interpolation
from models.operators.support import supported, unsupported_reason
from models.operators.surface import climb
from models.specification import ChannelSpec, GridSpec

__all__ = [
    "ObservationOperator",
    "ObservationSet",
    "TangentLinear",
    "channel_values",
    "supported",
    "unsupported_reason",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """Values that are not linear in the state: y[rows] = f(P x), with P x [member, k, K]."""

    rows: Tensor
    predictors: Interpolation
    recipe: Recipe

    def columns(self, state: Tensor) -> Tensor:
        columns: Tensor = self.predictors(state).unflatten(1, (len(self.recipe.rows), -1))
        return columns

    def equivalents(self, columns: Tensor) -> Tensor:
        assert self.recipe.function is not None
        return self.recipe.function(columns)

    def gradient(self, columns: Tensor) -> Tensor:
        """df/d(predictors) of each value: [member, k, K]."""
        with torch.enable_grad():
            columns = columns.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.equivalents(columns).sum(), columns)
        return gradient

    def usual_gradient(self, columns: Tensor) -> Tensor:
        """The gradient where only the size of errors is asked for."""
        usual = self.recipe.usual_gradient
        return self.gradient(columns) if usual is None else usual(columns)


class ObservationOperator:
    """H for one set of observations.

    `ground` [latitude, longitude]: height of the model's ground, gpm; None: surface values are compared as they are.
    Raises ValueError when an observation is not `supported`.
    """

    def __init__(
        self,
        observations: ObservationSet,
        grid: GridSpec,
        channels: tuple[ChannelSpec, ...],
        device: torch.device | str = "cpu",
        ground: Floats | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        _refuse_unsupported(observations, channels, ground is not None)
        self.shape = (len(channels), len(grid.latitudes), len(grid.longitudes))
        horizontal, cells, n = Horizontal.of(observations, grid), self.shape[1] * self.shape[2], len(observations)
        made = list(recipes(observations, Vertical(channels), climb(observations, grid, ground)))
        direct = [(r.rows, r.rows, r.predictors[0]) for r in made if r.function is None]
        self._direct = interpolation(direct, n, horizontal, channels, cells, device, dtype)
        self.matrix, self.transpose, self.footprint = (
            self._direct.matrix, self._direct.transpose, self._direct.footprint,
        )  # fmt: skip
        self._offset: Tensor | None = None
        if any(r.offset is not None for r in made):
            offset = np.zeros(n)
            for r in made:
                offset[r.rows] = 0.0 if r.offset is None else r.offset
            self._offset = torch.from_numpy(offset).to(device=device, dtype=dtype)
        self._parts = []
        for r in made:
            if r.function is not None:
                count, k = len(r.rows), len(r.predictors)
                wanted = [(np.arange(count) * k + j, np.arange(count), p) for j, p in enumerate(r.predictors)]
                predictors = interpolation(wanted, count * k, horizontal.select(r.rows), channels, cells, device, dtype)
                self._parts.append(_Part(torch.from_numpy(r.rows).to(device), predictors, r))

    @property
    def linear(self) -> bool:
        """Whether H(x + dx) - H(x) is the same for every x."""
        return not self._parts

    def __call__(self, state: Tensor) -> Tensor:
        """H(x): [member, channel, latitude, longitude] SI -> [member, n], differentiable."""
        values = self._direct(state)
        if self._offset is not None:
            values = values + self._offset
        for part in self._parts:
            values = values.index_copy(1, part.rows, part.equivalents(part.columns(state)))
        return values

    def change(self, state: Tensor, increment: Tensor) -> Tensor:
        """H(x + dx) - H(x): [member, n], differentiable in dx; keeps the digits of a small dx in float32."""
        values = self._direct(increment)
        for part in self._parts:
            columns = part.columns(state)
            difference = part.equivalents(columns + part.columns(increment)) - part.equivalents(columns)
            values = values.index_copy(1, part.rows, difference)
        return values

    def linearised(self, state: Tensor | None) -> "TangentLinear":
        """The derivative of H at a state [member or 1, ...], which may be None where H is linear."""
        if state is None and self._parts:
            raise ValueError("these observations are not linear in the state: say where to linearise")
        gradients = [part.gradient(part.columns(state)) for part in self._parts if state is not None]
        return TangentLinear(self, gradients)

    def adjoint(self, values: Tensor) -> Tensor:
        """`TangentLinear.adjoint` of a set that is linear in the state. Raises ValueError for others."""
        return self.linearised(None).adjoint(values)

    def spread(self, values: Tensor) -> Tensor:
        """Onto the cells of the observed variable itself, by interpolation weights (z leaves T alone): its unit stays.

        Only of the values that are linear in the state.
        """
        return (self.footprint @ values.T).T.reshape(-1, *self.shape)

    def scale(self, per_channel: Tensor, state: Tensor) -> Tensor:
        """The size [n] of errors of `per_channel` [channel] (SI) in each value, of independent predictors; at `state` [1, ...]."""
        spread = (per_channel[:, None, None] * torch.ones(self.shape, device=per_channel.device)).flatten()
        variance = self._direct.sizes(spread).square()
        for part in self._parts:
            own = part.predictors.sizes(spread).unflatten(0, (len(part.rows), -1))
            gradient = part.usual_gradient(part.columns(state))[0]
            variance = variance.index_copy(0, part.rows, (gradient * own).square().sum(dim=-1))
        return variance.sqrt()


class TangentLinear:
    """The derivative of H at some states, and its adjoint: linear maps between increments and observed values."""

    def __init__(self, operator: ObservationOperator, gradients: list[Tensor]) -> None:
        self._operator, self._gradients = operator, gradients
        self._parts = list(zip(operator._parts, gradients, strict=True))

    def __call__(self, increment: Tensor) -> Tensor:
        """H' dx: [member, channel, latitude, longitude] SI -> [member, n]."""
        values = self._operator._direct(increment)
        for part, gradient in self._parts:
            values = values.index_copy(1, part.rows, (gradient * part.columns(increment)).sum(dim=-1))
        return values

    def adjoint(self, values: Tensor) -> Tensor:
        """H'^T v: [member, n] -> [member, channel, latitude, longitude]."""
        flat = (self._operator.transpose @ values.T).T
        for part, gradient in self._parts:
            weighted = (gradient * values[:, part.rows, None]).flatten(1)
            flat = flat + (part.predictors.transpose @ weighted.T).T
        return flat.reshape(-1, *self._operator.shape)

    def painted(self, values: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Innovations [member, n] on the cells that they speak of, and how much reaches each cell: both
        [member or 1, channel, latitude, longitude].

        A value that is a function of several predictors is shared among them as by the gain D g / (g D g) of errors
        `std` [channel] (SI): the smallest change, in units of `std`, that has this effect.
        """
        operator, shape = self._operator, self._operator.shape
        ones = torch.ones_like(values[:1])
        pull, reach = ((operator.footprint @ v.T).T for v in (values, ones))
        spread = (std[:, None, None] * torch.ones(shape, device=std.device)).flatten()
        for part, gradient in self._parts:
            back = part.predictors.footprint
            variance = part.predictors.sizes(spread).unflatten(0, (len(part.rows), -1)).square()
            gain = variance * gradient / (gradient.square() * variance).sum(dim=-1, keepdim=True).clamp_min(1e-20)
            pull = pull + (back @ (gain * values[:, part.rows, None]).flatten(1).T).T
            touched = (gain != 0).any(dim=0, keepdim=True).to(values)
            reach = reach + (back @ touched.flatten(1).T).T
        return pull.reshape(-1, *shape), reach.reshape(-1, *shape)


def _refuse_unsupported(observations: ObservationSet, channels: tuple[ChannelSpec, ...], ground: bool) -> None:
    reasons = unsupported_reason(observations, channels, ground)
    unsupported = reasons != ""
    if unsupported.any():
        first = int(np.argmax(unsupported))
        raise ValueError(
            f"{int(unsupported.sum())} observations cannot be computed from the state, the first is "
            f"{observations.variable[first]} at {observations.pressure[first]} Pa ({reasons[first]}); "
            "filter with supported()"
        )


def channel_values(
    per_channel: Floats,
    observations: ObservationSet,
    grid: GridSpec,
    channels: tuple[ChannelSpec, ...],
    reference: Tensor | None = None,
    ground: Floats | None = None,
) -> Floats:
    """A per-channel scale (a standard deviation, say) at each observation, linear in ln p: [n].

    What is no channel of the state is made of several: there it is the size of independent errors of this scale, at
    the state `reference` [1, channel, latitude, longitude] (SI).
    """
    out, vertical = np.full(len(observations), np.nan), Vertical(channels)
    by_height = observations.by_height()
    direct = {c.variable for c in channels}
    for variable in np.unique(observations.variable):
        rows = np.flatnonzero((observations.variable == variable) & ~by_height)
        if variable in direct:
            parts = vertical.at_pressure(str(variable), observations.pressure[rows])[:2]
            if len(parts) == 2:  # z: the two Hermite weights of z itself sum to one
                out[rows] = sum(per_channel[channel] * weight for channel, weight in parts)
            else:
                out[rows] = per_channel[parts[0][0]]
    derived = np.flatnonzero(np.isnan(out))
    if len(derived):
        if reference is None:
            raise ValueError("the size of errors of derived variables needs a reference state")
        some = observations.select(derived)
        operator = ObservationOperator(some, grid, channels, reference.device, ground)
        scale = operator.scale(torch.from_numpy(np.asarray(per_channel)).to(reference), reference)
        out[derived] = scale.double().cpu().numpy()
    return out
