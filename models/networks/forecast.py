"""The learned 6 h forecast model: x(t + 6 h) = x(t) + tendency scale * U-Net(x(t), place, season).

Works on anomalies in units of `Climate.std`; the tendency scale is the standard deviation of 6 h changes, so
that every channel's tendency has unit size (as in GraphCast, Lam et al. 2023). The mass of the atmosphere is
conserved exactly: the area mean of the surface pressure tendency is taken out.
Where the states have a triangular truncation, what a step makes beyond it is cut off (models.networks.truncation).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.climate import Climate, seasonal_basis
from models.grid import area_weights
from models.networks.layers import UNet, geography
from models.networks.truncation import SphericalTruncation
from models.specification import ChannelSpec, UNetSpec


class ForecastModel(nn.Module):
    """One 6 h step for a batch of states, each with its own time of the year."""

    tendency_scale: Tensor
    geography: Tensor
    area: Tensor

    def __init__(
        self,
        spec: UNetSpec,
        channels: Sequence[ChannelSpec],
        climate: Climate,
        latitudes: Tensor,
        longitudes: Tensor,
        truncation: int | None = None,
    ) -> None:
        super().__init__()
        rows, columns = climate.harmonics.shape[-2:]
        self.mass = [i for i, channel in enumerate(channels) if channel.variable == "sp"]
        self.patch = spec.patch
        self.register_buffer("area", area_weights(latitudes.double().numpy())[:, None], persistent=False)
        cells = spec.patch**2
        self.register_buffer("geography", geography(climate.static, latitudes, longitudes), persistent=False)
        self.register_buffer("tendency_scale", (climate.tendency_std / climate.std)[:, None, None], persistent=False)
        self.truncated = (
            None if truncation is None else SphericalTruncation(channels, climate.std, latitudes, columns, truncation)
        )
        self.network = UNet(
            (len(channels) + len(self.geography)) * cells,
            len(channels) * cells,
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
        x = x + self.tendency_scale * self.tendency(x, season)
        return self.cut(x)

    def cut(self, x: Tensor) -> Tensor:
        """x without what lies beyond the truncation, if there is one; the mass of the atmosphere stays."""
        if self.truncated is None:
            return x
        out: Tensor = self.truncated(x)
        lost = x[:, self.mass] - out[:, self.mass]
        out[:, self.mass] += (lost * self.area).mean(dim=(-2, -1), keepdim=True)
        return out

    def tendency(self, x: Tensor, season: Tensor) -> Tensor:
        """The 6 h change in units of its standard deviation, same shape as `x`."""
        place = self.geography.expand(len(x), *self.geography.shape)
        inputs = functional.pixel_unshuffle(torch.cat([x, place], dim=1), self.patch)
        scalars = seasonal_basis(season)[:, 1:].to(x)
        change = functional.pixel_shuffle(self.network(inputs, scalars), self.patch).float()
        gain = torch.zeros_like(change)
        gain[:, self.mass] = (change[:, self.mass] * self.area).mean(dim=(-2, -1), keepdim=True)
        return change - gain
