"""The Gaussian reference prior N(0, B) of whitened latent increments, with exact formulas for every noise level.

B is homogeneous in longitude: for each latent component k and zonal wavenumber m a covariance between latitudes,
B = F^H diag_{k,m}(G_km) F with F the orthonormal real-input Fourier transform. Its eigenvectors make the Wiener
denoiser E[x_0 | x_t] and the posterior covariance V_t = Cov[x_0 | x_t] diagonal:
    E[x_0 | x_t] = alpha B (alpha^2 B + sigma^2)^-1 x_t,    V_t = sigma^2 B (alpha^2 B + sigma^2)^-1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from models.diffusion.schedule import Level


class ZonalGaussian:
    """N(0, B) for fields [member, component, latitude, longitude].

    `covariance` [component, wavenumber, latitude, latitude], real symmetric: of the orthonormal Fourier
    coefficients of each zonal wavenumber 0 .. longitudes / 2, or of the first of them, where `longitudes` is given: the
    others have no variance.
    """

    def __init__(self, covariance: Tensor, longitudes: int | None = None) -> None:
        values, vectors = torch.linalg.eigh(covariance.double())
        self.values = values.clamp_min(1e-8).float()  # [component, wavenumber, mode]
        self.vectors = vectors.float()  # [component, wavenumber, latitude, mode]
        self.longitudes = longitudes or 2 * (covariance.shape[1] - 1)
        self._matrices: dict[str, tuple[str, Tensor]] = {}

    def to(self, device: torch.device) -> "ZonalGaussian":
        self.values, self.vectors = self.values.to(device), self.vectors.to(device)
        self.forget()
        return self

    def forget(self) -> None:
        """Drop the matrices that were kept for the eigenvalues as they were."""
        self._matrices = {}

    def _filter(self, x: Tensor, name: str, gains: Callable[[], Tensor]) -> Tensor:
        """Multiply the eigen-coefficients of x by `gains()` [component, wavenumber, mode].

        The matrices U diag(gains) U^T of the last filter of each name are kept: conjugate gradients ask for the
        same one again and again.
        """
        known = self._matrices.get(name.partition(":")[0])
        if known is None or known[0] != name:
            known = (name, (self.vectors * gains()[..., None, :]) @ self.vectors.transpose(-1, -2))
            self._matrices[name.partition(":")[0]] = known
        waves = torch.fft.rfft(x.float(), dim=-1, norm="ortho")[..., : self.values.shape[1]]
        pair = torch.view_as_real(waves).permute(1, 3, 2, 0, 4)  # k m latitude member part
        done = (known[1] @ pair.flatten(-2)).view(pair.shape).permute(3, 0, 2, 1, 4).contiguous()
        filtered: Tensor = torch.fft.irfft(torch.view_as_complex(done), n=self.longitudes, dim=-1, norm="ortho")
        return filtered

    def _reduced(self, level: Level) -> Tensor:
        """(alpha^2 B + sigma^2)^-1 B by mode."""
        reduced: Tensor = self.values / (level.alpha**2 * self.values + level.sigma**2)
        return reduced

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """The Wiener filter E[x_0 | x_t], same shape."""
        return self._filter(x, f"wiener:{level.t}", lambda: level.alpha * self._reduced(level))

    def covariance_times(self, x: Tensor, level: Level) -> Tensor:
        """V_t x, with V_t = Cov[x_0 | x_t]."""
        return self._filter(x, f"covariance:{level.t}", lambda: level.sigma**2 * self._reduced(level))

    def narrowed(self, x: Tensor, level: Level) -> Tensor:
        """S_t x with S_t = sigma (alpha^2 B + sigma^2)^-1/2, so that V_t = S_t B S_t."""
        return self._filter(
            x, f"narrow:{level.t}", lambda: level.sigma * (level.alpha**2 * self.values + level.sigma**2).rsqrt()
        )

    def times(self, x: Tensor) -> Tensor:
        """B x."""
        return self._filter(x, "prior", lambda: self.values)

    def sample(self, x: Tensor) -> Tensor:
        """White noise x [member, ...] -> a sample of N(0, B), by its symmetric square root."""
        return self._filter(x, "root", lambda: self.values.sqrt())


def fit_zonal_covariance(samples: Tensor, shrinkage: float = 0.02) -> Tensor:
    """[sample, component, latitude, longitude] -> [component, wavenumber, latitude, latitude].

    Averages the outer products of real and imaginary parts, shrunk by `shrinkage` towards their diagonal.
    """
    waves = torch.fft.rfft(samples, dim=-1, norm="ortho")
    outer = torch.einsum("skim,skjm->kmij", waves, waves.conj()).real / len(samples)
    diagonal = torch.diag_embed(torch.diagonal(outer, dim1=-2, dim2=-1))
    return (1 - shrinkage) * outer + shrinkage * diagonal
