"""Convolutions on the sphere and the blocks that all networks share.

Fields are [batch, channel, latitude, longitude]; longitude is periodic, and one row beyond a pole is the row
before it on the other side of the globe (half a turn away).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def pad_sphere(x: Tensor) -> Tensor:
    """One row and one column of neighbours on every side."""
    half = x.shape[-1] // 2
    x = torch.cat([x[..., :1, :].roll(half, -1), x, x[..., -1:, :].roll(half, -1)], dim=-2)
    return torch.cat([x[..., -1:], x, x[..., :1]], dim=-1)


class SphereConv(nn.Conv2d):
    """3 x 3 convolution that knows its neighbours across the date line and across the poles."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(pad_sphere(x))
        return out


class ResidualBlock(nn.Module):
    """Two convolutions; `condition` [batch, k] shifts and scales the features between them (FiLM)."""

    def __init__(self, width: int, condition: int = 0) -> None:
        super().__init__()
        groups = math.gcd(width, 8)
        self.norm1, self.conv1 = nn.GroupNorm(groups, width), SphereConv(width, width)
        self.norm2, self.conv2 = nn.GroupNorm(groups, width), SphereConv(width, width)
        self.film = nn.Linear(condition, 2 * width) if condition else None
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # type: ignore[arg-type]
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(functional.silu(self.norm1(x))))
        if self.film is not None and condition is not None:
            scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        change: Tensor = self.conv2(functional.silu(h))
        return x + change


class ScalarEmbedding(nn.Module):
    """Scalars [batch, n] -> features [batch, width] through sines and cosines of several frequencies."""

    def __init__(self, scalars: int, width: int, frequencies: int = 8) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.layers = nn.Sequential(
            nn.Linear(scalars * (2 * frequencies + 1), width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, scalars: Tensor) -> Tensor:
        octaves = 2.0 ** torch.arange(self.frequencies, device=scalars.device) * (math.pi / 16)
        angles = (scalars[..., None] * octaves).flatten(-2)
        features: Tensor = self.layers(torch.cat([scalars, torch.sin(angles), torch.cos(angles)], dim=-1))
        return features


class UNet(nn.Module):
    """Two-level U-Net on [batch, inputs, rows, columns] with a learned bias of the place on the globe."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        width: int,
        deep_width: int,
        blocks: int,
        deep_blocks: int,
        rows: int,
        columns: int,
        scalars: int,
        condition: int = 128,
    ) -> None:
        super().__init__()
        self.embedding = ScalarEmbedding(scalars, condition)
        self.enter = nn.Conv2d(inputs, width, 1)
        self.place = nn.Parameter(torch.zeros(1, width, rows, columns))
        self.before = nn.ModuleList(ResidualBlock(width, condition) for _ in range(blocks))
        self.down = nn.Conv2d(4 * width, deep_width, 1)
        self.deep = nn.ModuleList(ResidualBlock(deep_width, condition) for _ in range(deep_blocks))
        self.up = nn.Conv2d(deep_width, 4 * width, 1)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.after = nn.ModuleList(ResidualBlock(width, condition) for _ in range(blocks))
        last = nn.Conv2d(width, outputs, 1)
        self.leave = nn.Sequential(nn.GroupNorm(math.gcd(width, 8), width), nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, scalars: Tensor) -> Tensor:
        condition = self.embedding(scalars)
        x = self.enter(x) + self.place
        for block in self.before:
            x = block(x, condition)
        deep = self.down(functional.pixel_unshuffle(x, 2))
        for block in self.deep:
            deep = block(deep, condition)
        x = self.merge(torch.cat([x, functional.pixel_shuffle(self.up(deep), 2)], dim=1))
        for block in self.after:
            x = block(x, condition)
        out: Tensor = self.leave(x)
        return out


def geography(static: Tensor, latitudes: Tensor, longitudes: Tensor) -> Tensor:
    """Static inputs [6, latitude, longitude]: orography (km), land, sin and cos latitude, sin and cos longitude."""
    latitude, longitude = torch.meshgrid(torch.deg2rad(latitudes), torch.deg2rad(longitudes), indexing="ij")
    place = torch.stack([latitude.sin(), latitude.cos(), longitude.sin(), longitude.cos()])
    return torch.cat([static, place.to(static)])
