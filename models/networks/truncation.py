"""Projection of states onto the spherical harmonics of a triangular truncation.

A spectral model holds nothing beyond its truncation; a network on its grid makes noise there at every step, which no
observation network takes off and which grows from cycle to cycle. Scalars are projected on Y_nm, winds on vector
harmonics (`models.helmholtz`), n <= truncation: for each zonal wavenumber a matrix between latitudes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import sph_legendre_p_all
from torch import Tensor, nn

from models.helmholtz import WIND_PAIRS, Helmholtz, product, to_field, to_waves, turned
from models.specification import ChannelSpec


class SphericalTruncation(nn.Module):
    """Fields [batch, channel, latitude, longitude] in units of `std` [channel] on a Gaussian grid, north to south."""

    scalar: Tensor
    diagonal: Tensor
    cross: Tensor
    u_scale: Tensor
    v_scale: Tensor

    def __init__(
        self, channels: Sequence[ChannelSpec], std: Tensor, latitudes: Tensor, longitudes: int, truncation: int
    ) -> None:
        super().__init__()
        index = {(c.variable, c.level): i for i, c in enumerate(channels)}
        pairs = [(i, index[WIND_PAIRS[v], p]) for (v, p), i in index.items() if v in WIND_PAIRS]
        self.u, self.v = [u for u, _ in pairs], [v for _, v in pairs]
        self.scalars = [i for i in range(len(channels)) if i not in {*self.u, *self.v}]
        self.longitudes, self.truncation = longitudes, truncation
        h = Helmholtz(latitudes.double().numpy(), longitudes, truncation)
        # wind(potentials(u, v)), written out
        self.register_buffer("diagonal", h.across @ h.inverse_across + h.along @ h.inverse_along, persistent=False)
        self.register_buffer("cross", h.across @ h.inverse_along + h.along @ h.inverse_across, persistent=False)
        self.register_buffer("scalar", _projection(latitudes, truncation), persistent=False)
        self.register_buffer("u_scale", std[self.u][:, None, None].clone(), persistent=False)
        self.register_buffer("v_scale", std[self.v][:, None, None].clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The projection, same shape."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            out = torch.empty_like(x)
            out[:, self.scalars] = self._field(product(self.scalar, self._waves(x[:, self.scalars])))
            u, v = self._waves(x[:, self.u] * self.u_scale), self._waves(x[:, self.v] * self.v_scale)
            out[:, self.u] = self._field(product(self.diagonal, u) + turned(product(self.cross, v))) / self.u_scale
            out[:, self.v] = self._field(product(self.diagonal, v) - turned(product(self.cross, u))) / self.v_scale
        return out

    def _waves(self, x: Tensor) -> Tensor:
        return to_waves(x, self.truncation)

    def _field(self, waves: Tensor) -> Tensor:
        return to_field(waves, self.longitudes)


def _projection(latitudes: Tensor, truncation: int) -> Tensor:
    """Synthesis times analysis of scalars: [wavenumber, latitude, latitude]."""
    nodes, quadrature = np.polynomial.legendre.leggauss(len(latitudes))
    p = sph_legendre_p_all(truncation, truncation, np.arccos(nodes[::-1]))[0]  # [n, m, row], integral 1 / (2 pi)
    p = p[:, : truncation + 1] * np.sqrt(2 * np.pi)
    return torch.from_numpy(np.einsum("nmi,nmj,j->mij", p, p, quadrature)).float()
