"""The static background covariance B of the baselines, as a square root: x = U v with v ~ N(0, I), B = U U^T.

U = W (C + K L P) G. G: the square root of a covariance for each of the control variables, homogeneous in longitude,
free in latitude and zonal wavenumber (models.diffusion.gaussian), so length scales and variances depend on latitude
and control variable. C: at each latitude the column of control variables -> psi, chi, mass (z, t, t2m, sp) and q, by
vertical EOFs of each group and its regression on the groups before it. L: the linear balance equation, psi -> balanced
geopotential, and K its regression by latitude and level onto mass and moisture (Derber & Bouttier 1999; the
regressions by latitude as in Wu, Purser & Parrish 2002). W: psi, chi -> u, v (Helmholtz).

Fields are [member, channel, latitude, longitude] in anomaly units (models.climate).
"""

from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from models.diffusion.gaussian import ZonalGaussian, fit_zonal_covariance
from models.helmholtz import WIND_PAIRS, Helmholtz
from models.specification import ChannelSpec, GridSpec

RIDGE = 1e-4  # of the predictors' variance, in the balance regressions


@dataclass(frozen=True)
class Columns:
    """Which channels form the groups: `pairs` (u, v), then `mass`, then `moisture` channel indices."""

    pairs: tuple[tuple[int, int], ...]
    mass: tuple[int, ...]
    moisture: tuple[int, ...]

    @classmethod
    def of(cls, channels: tuple[ChannelSpec, ...]) -> "Columns":
        index = {(c.variable, c.level): i for i, c in enumerate(channels)}
        pairs = tuple((i, index[WIND_PAIRS[v], p]) for (v, p), i in index.items() if v in WIND_PAIRS)
        winds = {i for pair in pairs for i in pair}
        moisture = tuple(i for (v, _), i in index.items() if v == "q")
        mass = tuple(i for i in range(len(channels)) if i not in winds and i not in moisture)
        return cls(pairs, mass, moisture)

    @property
    def groups(self) -> tuple[int, ...]:
        """Sizes of psi, chi, mass, moisture."""
        return len(self.pairs), len(self.pairs), len(self.mass), len(self.moisture)


class ParameterTransform:
    """W and its inverse: columns (psi, chi, mass, moisture) <-> channels; `std` [channel] are the channels' scales."""

    def __init__(self, channels: tuple[ChannelSpec, ...], grid: GridSpec, std: Tensor, truncation: int) -> None:
        self.columns, self.truncation = Columns.of(channels), truncation
        self.helmholtz = Helmholtz(np.array(grid.latitudes), len(grid.longitudes), truncation)
        self.u, self.v = (list(side) for side in zip(*self.columns.pairs, strict=True))
        self.rest = [*self.columns.mass, *self.columns.moisture]
        self.u_std, self.v_std = std[self.u][:, None, None], std[self.v][:, None, None]

    def to_channels(self, x: Tensor) -> Tensor:
        """W x: [member, parameter, ...] -> [member, channel, ...]."""
        count = len(self.u)
        u, v = self.helmholtz.wind(x[:, :count], x[:, count : 2 * count])
        out = torch.empty_like(x)
        out[:, self.u], out[:, self.v], out[:, self.rest] = u / self.u_std, v / self.v_std, x[:, 2 * count :]
        return out

    def adjoint(self, y: Tensor) -> Tensor:
        """W^T y."""
        psi, chi = self.helmholtz.wind_adjoint(y[:, self.u] / self.u_std, y[:, self.v] / self.v_std)
        return torch.cat([psi, chi, y[:, self.rest]], dim=1)

    def balanced(self, x: Tensor) -> Tensor:
        """L P x: balanced geopotential [member, pair, ...] of the psi of parameters."""
        return self.helmholtz.balanced_geopotential(x[:, : len(self.u)])

    def balanced_adjoint(self, phi: Tensor, size: int) -> Tensor:
        """The adjoint of `balanced`: [member, `size`, ...], zero beyond psi."""
        psi = self.helmholtz.balanced_geopotential_adjoint(phi)
        return torch.cat([psi, psi.new_zeros(len(psi), size - psi.shape[1], *psi.shape[2:])], dim=1)

    def to_parameters(self, y: Tensor) -> Tensor:
        """The inverse of `to_channels` for winds of the truncation."""
        psi, chi = self.helmholtz.potentials(y[:, self.u] * self.u_std, y[:, self.v] * self.v_std)
        return torch.cat([psi, chi, y[:, self.rest]], dim=1)


@dataclass(frozen=True)
class Fitted:
    """What defines B besides the geometry: `column` C [latitude, parameter, control], `balance` K [latitude, parameter,
    pair], `horizontal` G G^T [control, wavenumber, latitude, latitude]."""

    column: Tensor
    balance: Tensor
    horizontal: Tensor


class BackgroundCovariance:
    """B = factor^2 U U^T. The control vector v has the shape of a state: [member, control, latitude, longitude]."""

    def __init__(self, transform: ParameterTransform, fitted: Fitted, factor: float = 1.0) -> None:
        self.transform, self.factor = transform, factor
        self.column, self.balance = fitted.column, fitted.balance
        helmholtz = transform.helmholtz
        self.gaussian = ZonalGaussian(fitted.horizontal[:, : helmholtz.truncation + 1], helmholtz.longitudes)

    def scaled(self, factor: float) -> "BackgroundCovariance":
        """factor^2 B."""
        other = copy(self)
        other.factor = self.factor * factor
        return other

    def steepened(self, exponent: float) -> "BackgroundCovariance":
        """Spectra of the control variables to this power, their variance kept: above 1 longer scales, below shorter."""
        other = copy(self)
        other.gaussian = copy(self.gaussian)
        values = self.gaussian.values**exponent
        twice = torch.ones(values.shape[1], 1)
        twice[1:] = 2  # wavenumbers that stand for a sine and a cosine
        kept = [(v * twice).sum(dim=(1, 2), keepdim=True) for v in (self.gaussian.values, values)]
        other.gaussian.values = values * kept[0] / kept[1]
        other.gaussian.forget()
        return other

    def root(self, v: Tensor) -> Tensor:
        """U v."""
        return self._from_controls(self.gaussian.sample(v))

    def root_adjoint(self, x: Tensor) -> Tensor:
        """U^T x (G is symmetric)."""
        return self.gaussian.sample(self._to_controls(x))

    def times(self, x: Tensor) -> Tensor:
        """B x; both G at once."""
        return self._from_controls(self.gaussian.times(self._to_controls(x)))

    def _from_controls(self, controls: Tensor) -> Tensor:
        """U G^-1."""
        parameters = torch.einsum("ypc,mcyx->mpyx", self.column, controls)
        phi = self.transform.balanced(parameters)
        parameters = parameters + torch.einsum("ypk,mkyx->mpyx", self.balance, phi)
        return self.transform.to_channels(parameters) * self.factor

    def _to_controls(self, x: Tensor) -> Tensor:
        """The adjoint of `_from_controls`."""
        parameters = self.transform.adjoint(x) * self.factor
        phi = torch.einsum("ypk,mpyx->mkyx", self.balance, parameters)
        parameters = parameters + self.transform.balanced_adjoint(phi, parameters.shape[1])
        return torch.einsum("ypc,mpyx->mcyx", self.column, parameters)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` samples of N(0, B)."""
        rows, controls = self.column.shape[0], self.column.shape[2]
        shape = (count, controls, rows, self.gaussian.longitudes)
        return self.root(torch.randn(shape, generator=generator))


def fit_columns(
    parameters: Tensor, phi: Tensor, groups: tuple[int, ...], area: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """C, K and the control variables of samples.

    psi stands alone; chi is regressed on psi, mass on phi and chi, moisture on phi, chi and mass.

    Args:
        parameters: [sample, parameter, latitude, longitude].
        phi: [sample, pair, latitude, longitude], balanced geopotential of psi.
        groups: sizes of the groups of parameters, in the order of the balance.
        area: [latitude], mean 1.

    Returns:
        C, K and the controls [sample, control, latitude, longitude], with parameters = C controls + K phi.
    """
    size, pairs = parameters.shape[1], phi.shape[1]
    everything = torch.cat([parameters, phi], dim=1)
    scale = (everything**2 * area[:, None]).mean(dim=(0, 2, 3)).sqrt()
    x = everything / scale[:, None, None]
    rows = x.shape[2]
    second = torch.einsum("spyx,sqyx->ypq", x, x).double() / (len(x) * x.shape[3])
    regression = torch.zeros(rows, size, size + pairs, dtype=torch.float64)
    ends = [int(end) for end in np.cumsum((0, *groups))]
    of_phi = list(range(size, size + pairs))
    for group, (start, end) in enumerate(pairwise(ends)):
        if group == 0:
            continue
        own = list(range(start, end))
        before = list(range(ends[1])) if group == 1 else [*of_phi, *range(ends[1], start)]
        predictors = second[:, before][:, :, before]
        ridge = RIDGE * torch.diagonal(predictors, dim1=1, dim2=2).mean(dim=1)[:, None, None]
        eye = torch.eye(len(before), dtype=torch.float64)
        solved = torch.linalg.solve(predictors + ridge * eye, second[:, before][:, :, own]).mT
        for column, name in enumerate(before):
            regression[:, start:end, name] = solved[:, :, column]
    residual = x[:, :size] - torch.einsum("ypq,sqyx->spyx", regression.float(), x)
    covariance = torch.einsum("spyx,sqyx,y->pq", residual, residual, area).double() / residual[:, 0].numel()
    rotation = torch.zeros(size, size, dtype=torch.float64)
    for start, end in pairwise(ends):
        values, vectors = torch.linalg.eigh(covariance[start:end, start:end])
        rotation[start:end, start:end] = vectors * values.clamp_min(1e-10).sqrt()
    controls = torch.einsum("cp,spyx->scyx", torch.linalg.inv(rotation).float(), residual)
    own_scale, phi_scale = scale[:size].double()[:, None], scale[size:].double()
    unbalance = torch.eye(size, dtype=torch.float64) - regression[:, :, :size]
    column = torch.linalg.solve(unbalance, rotation.expand(rows, -1, -1)) * own_scale
    balance = torch.linalg.solve(unbalance, regression[:, :, size:]) * own_scale / phi_scale
    return column.float(), balance.float(), controls


def fit_background_covariance(errors: Tensor, transform: ParameterTransform, area: Tensor) -> Fitted:
    """B of errors [sample, channel, latitude, longitude] of mean zero; `area` [latitude], mean 1."""
    parameters = transform.to_parameters(errors)
    phi = transform.balanced(parameters)
    column, balance, controls = fit_columns(parameters, phi, transform.columns.groups, area)
    return Fitted(column, balance, fit_zonal_covariance(controls, shrinkage=0.0))
