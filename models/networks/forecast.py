"""The learned 6 h forecast model: x(t + 6 h) = x(t) + tendency scale * U-Net(x(t), place, season).

Works on anomalies in units of `Climate.std`; the tendency scale is the standard deviation of 6 h changes, so
that every channel's tendency has unit size (as in GraphCast, Lam et al. 2023).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.climate import Climate, seasonal_basis
from models.networks.layers import UNet, geography
from models.specification import UNetSpec


class ForecastModel(nn.Module):
    """One 6 h step for a batch of states, each with its own time of the year."""

    tendency_scale: Tensor
    geography: Tensor

    def __init__(self, spec: UNetSpec, climate: Climate, latitudes: Tensor, longitudes: Tensor) -> None:
        super().__init__()
        channels, rows, columns = climate.harmonics.shape[1:]
        self.patch = spec.patch
        area = spec.patch**2
        self.register_buffer("geography", geography(climate.static, latitudes, longitudes), persistent=False)
        self.register_buffer("tendency_scale", (climate.tendency_std / climate.std)[:, None, None], persistent=False)
        self.network = UNet(
            (channels + len(self.geography)) * area,
            channels * area,
            width=spec.width,
            deep_width=spec.deep_width,
            blocks=spec.blocks,
            deep_blocks=spec.deep_blocks,
            rows=rows // spec.patch,
            columns=columns // spec.patch,
            scalars=4,
        )

    def forward(self, x: Tensor, season: Tensor) -> Tensor:
        """x: [batch, channel, latitude, longitude] anomalies; season: [batch] year fractions -> x 6 h later."""
        return x + self.tendency_scale * self.tendency(x, season)

    def tendency(self, x: Tensor, season: Tensor) -> Tensor:
        """The 6 h change in units of its standard deviation, same shape as `x`."""
        place = self.geography.expand(len(x), *self.geography.shape)
        inputs = functional.pixel_unshuffle(torch.cat([x, place], dim=1), self.patch)
        scalars = seasonal_basis(season)[:, 1:].to(x)
        return functional.pixel_shuffle(self.network(inputs, scalars), self.patch).float()
