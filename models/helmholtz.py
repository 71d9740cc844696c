"""Streamfunction and velocity potential on a Gaussian grid, by vector spherical harmonics.

(u, v) = (-dpsi/dlat, dpsi/dlon / cos lat) + (dchi/dlon / cos lat, dchi/dlat) on the unit sphere. Both potentials are
multiplied by sqrt(n (n + 1)) at total wavenumber n: then their variance is that of the wind, scale by scale.
For each zonal wavenumber the map is a matrix between latitudes; the harmonics are orthogonal
under Gaussian quadrature, so the inverse is a projection, exact for fields of triangular truncation `truncation`.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import sph_legendre_p_all
from torch import Tensor

from models.constants import EARTH_RADIUS, OMEGA

WIND_PAIRS = {"u": "v", "u10": "v10"}  # components of one vector field


class Helmholtz:
    """Wind from potentials and back, fields [..., latitude, longitude] (latitudes Gaussian, north to south)."""

    def __init__(self, latitudes: NDArray[np.float64], longitudes: int, truncation: int) -> None:
        rows = len(latitudes)
        if not 1 <= truncation < min(rows, longitudes // 2):
            raise ValueError(f"{rows} x {longitudes} points do not carry truncation {truncation}")
        nodes, quadrature = np.polynomial.legendre.leggauss(rows)
        if not np.allclose(np.sin(np.deg2rad(latitudes)), nodes[::-1], atol=1e-6):
            raise ValueError("the latitudes are not Gaussian, north to south")
        self.longitudes, self.truncation = longitudes, truncation
        colatitude = np.deg2rad(90.0 - latitudes)
        p, dp = sph_legendre_p_all(truncation, truncation, colatitude, diff_n=1)  # [n, m, row], integral 1 / (2 pi)
        # towards the north, not away from it
        p, dp = p * np.sqrt(2 * np.pi), -dp * np.sqrt(2 * np.pi)
        degrees = np.arange(truncation + 1)
        over_cosine = p / np.sin(colatitude)
        shape = (truncation + 1, rows, rows)
        along, across = np.zeros(shape), np.zeros(shape)
        inverse_along, inverse_across, smoother = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for m in range(truncation + 1):
            n = degrees[max(m, 1) :]
            norm = np.sqrt(n * (n + 1.0))
            legendre, slope, parallel = p[n, m].T, dp[n, m].T / norm, m * over_cosine[n, m].T / norm  # [row, n]
            to_spectral = legendre.T * quadrature
            along[m], across[m] = slope @ to_spectral, parallel @ to_spectral
            inverse_along[m], inverse_across[m] = (
                legendre @ (slope.T * quadrature),
                legendre @ (parallel.T * quadrature),
            )
            smoother[m] = legendre @ (to_spectral / norm[:, None])
        coriolis = 2 * OMEGA * np.sin(np.deg2rad(latitudes))[:, None]
        balanced = inverse_along @ (coriolis * along) + inverse_across @ (coriolis * across)
        balanced = EARTH_RADIUS * smoother @ balanced
        self.along, self.across, self.inverse_along, self.inverse_across, self.balanced = (
            torch.from_numpy(x).float() for x in (along, across, inverse_along, inverse_across, balanced)
        )

    def _waves(self, field: Tensor) -> Tensor:
        return to_waves(field, self.truncation)

    def _field(self, waves: Tensor) -> Tensor:
        return to_field(waves, self.longitudes)

    def wind(self, psi: Tensor, chi: Tensor) -> tuple[Tensor, Tensor]:
        """(psi, chi) -> (u, v)."""
        psi, chi = self._waves(psi), self._waves(chi)
        u = turned(product(self.across, chi)) - product(self.along, psi)
        v = turned(product(self.across, psi)) + product(self.along, chi)
        return self._field(u), self._field(v)

    def wind_adjoint(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The adjoint of `wind` under the plain sum over grid points."""
        u, v = self._waves(u), self._waves(v)
        along, across = self.along.mT, self.across.mT
        psi = -product(along, u) - turned(product(across, v))
        chi = product(along, v) - turned(product(across, u))
        return self._field(psi), self._field(chi)

    def potentials(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v) -> (psi, chi), the inverse of `wind` for truncated fields."""
        u, v = self._waves(u), self._waves(v)
        psi = -product(self.inverse_along, u) - turned(product(self.inverse_across, v))
        chi = product(self.inverse_along, v) - turned(product(self.inverse_across, u))
        return self._field(psi), self._field(chi)

    def balanced_geopotential(self, psi: Tensor) -> Tensor:
        """The linear balance equation: laplacian(phi) = div(f grad(psi)), phi in m2 s-2 without its global mean."""
        return self._field(product(self.balanced, self._waves(psi)))

    def balanced_geopotential_adjoint(self, phi: Tensor) -> Tensor:
        """The adjoint of `balanced_geopotential` under the plain sum over grid points."""
        return self._field(product(self.balanced.mT, self._waves(phi)))


def to_waves(field: Tensor, truncation: int) -> Tensor:
    """[..., latitude, longitude] -> zonal wavenumbers up to `truncation` [wavenumber, latitude, part, ...].

    Real and imaginary part lie apart: maps between latitudes are real, so that all fields are columns of one real
    product for each wavenumber.
    """
    waves = torch.fft.rfft(field, dim=-1, norm="ortho")[..., : truncation + 1]
    return torch.view_as_real(waves).movedim((-2, -3, -1), (0, 1, 2))


def to_field(waves: Tensor, longitudes: int) -> Tensor:
    """The inverse of `to_waves`."""
    parts = waves.movedim((0, 1, 2), (-2, -3, -1)).contiguous()
    field: Tensor = torch.fft.irfft(torch.view_as_complex(parts), n=longitudes, dim=-1, norm="ortho")
    return field


def product(matrix: Tensor, waves: Tensor) -> Tensor:
    """A matrix [wavenumber, latitude, latitude] of each wavenumber times [wavenumber, latitude, ...]."""
    return (matrix @ waves.flatten(2)).view_as(waves)


def turned(waves: Tensor) -> Tensor:
    """i times [wavenumber, latitude, part, ...]."""
    return torch.stack([-waves[:, :, 1], waves[:, :, 0]], dim=2)
