"""The seasonal climate of a nature run, and the units the networks see.

A state x (SI) becomes the anomaly (x - m(day)) / s: m is the grid-point mean with two annual harmonics, s the
area-weighted standard deviation of the anomaly of each channel.
"""

import math
from datetime import datetime

import torch
from torch import Tensor, nn

HARMONICS = 2


def year_fraction(valid_time: datetime) -> float:
    """Fraction of the year that has passed, in [0, 1)."""
    start = datetime(valid_time.year, 1, 1, tzinfo=valid_time.tzinfo)
    end = datetime(valid_time.year + 1, 1, 1, tzinfo=valid_time.tzinfo)
    return (valid_time - start) / (end - start)


def seasonal_basis(fraction: Tensor) -> Tensor:
    """[...] year fractions -> [..., 5]: 1, cos, sin of the annual cycle and of its first overtone."""
    phases = [2 * math.pi * k * fraction for k in range(1, HARMONICS + 1)]
    waves = [wave for phase in phases for wave in (torch.cos(phase), torch.sin(phase))]
    return torch.stack([torch.ones_like(fraction), *waves], dim=-1)


class Climate(nn.Module):
    """Seasonal mean, scales and static fields of one atmosphere on one grid.

    Buffers: `harmonics` [5, channel, latitude, longitude] (SI), `std` [channel] (SI, of the anomalies),
    `tendency_std` [channel] (SI per 6 h), `total_std` [channel] (SI, of the full field: the unit of nMSE),
    `static` [2, latitude, longitude]: orography in km, land-sea mask.
    """

    harmonics: Tensor
    std: Tensor
    tendency_std: Tensor
    total_std: Tensor
    static: Tensor

    def __init__(self, channels: int, latitudes: int, longitudes: int) -> None:
        super().__init__()
        self.register_buffer("harmonics", torch.zeros(2 * HARMONICS + 1, channels, latitudes, longitudes))
        for name in ("std", "tendency_std", "total_std"):
            self.register_buffer(name, torch.ones(channels))
        self.register_buffer("static", torch.zeros(2, latitudes, longitudes))

    def mean(self, valid_time: datetime) -> Tensor:
        """Climatological mean of the day: [channel, latitude, longitude], SI."""
        basis = seasonal_basis(torch.tensor(year_fraction(valid_time), device=self.harmonics.device))
        return torch.einsum("k,kchw->chw", basis.float(), self.harmonics)

    def normalise(self, state: Tensor, valid_time: datetime) -> Tensor:
        """SI [..., channel, latitude, longitude] -> anomaly in units of `std`, same shape."""
        return (state - self.mean(valid_time)) / self.std[:, None, None]

    def denormalise(self, anomaly: Tensor, valid_time: datetime) -> Tensor:
        """Inverse of `normalise`."""
        return anomaly * self.std[:, None, None] + self.mean(valid_time)
