"""H against analytic fields, its own adjoint and finite differences."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.constants import GAS_CONSTANT
from models.observation_operator import ObservationOperator, ObservationSet, channel_values, supported
from models.specification import ChannelSpec, GridSpec

LEVELS = (925.0, 850.0, 700.0, 500.0, 300.0)


def gaussian_grid(rows: int = 48) -> GridSpec:
    latitudes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(rows)[0]))[::-1]
    return GridSpec(N=rows // 2, latitudes=tuple(latitudes), longitudes=tuple(np.arange(2 * rows) * 180.0 / rows))


CHANNELS = (
    *tuple(ChannelSpec(variable=v, level=p) for v in "ztu" for p in LEVELS),
    ChannelSpec(variable="u10", level=None),
    ChannelSpec(variable="sp", level=None),
)


def places(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return np.rad2deg(np.arcsin(generator.uniform(-1, 1, count))), generator.uniform(-180, 180, count)


def observations(variable: str, pressure: float, count: int = 400) -> ObservationSet:
    latitude, longitude = places(count)
    names = np.full(count, variable)
    return ObservationSet(names, np.full(count, pressure), latitude, longitude, np.zeros(count), np.ones(count))


def smooth(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """A smooth function on the sphere: a polynomial of the Cartesian coordinates."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    x, y, z = np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)
    return 10 * x * z + 5 * y - 3 * z**2 + x * y


def state_of(function, grid: GridSpec) -> torch.Tensor:
    lat, lon = np.meshgrid(grid.latitudes, grid.longitudes, indexing="ij")
    field = torch.tensor(function(lat, lon), dtype=torch.float32)
    return field.expand(1, len(CHANNELS), *field.shape).clone()


def test_scalars_are_interpolated_to_second_order_all_over_the_sphere_poles_included() -> None:
    given = observations("t", 50000.0, 2000)
    errors = []
    for rows in (24, 48, 96):
        grid = gaussian_grid(rows)
        value = ObservationOperator(given, grid, CHANNELS)(state_of(smooth, grid))[0].numpy()
        errors.append(np.abs(value - smooth(given.latitude, given.longitude)).max())
    orders = [np.log2(a / b) for a, b in pairwise(errors)]
    assert errors[-1] < 0.02 and all(order > 1.7 for order in orders), (errors, orders)


def test_wind_across_the_pole_keeps_its_direction() -> None:
    """A uniform flow over the pole: u = cos(lon), v = -sin(lon) there; the components turn, the wind does not."""
    grid = gaussian_grid()
    given = ObservationSet(
        np.array(["u", "u10"]), np.array([50000.0, np.nan]), np.array([89.5, -89.9]), np.array([30.0, 200.0]),
        np.zeros(2), np.ones(2),
    )  # fmt: skip
    state = state_of(lambda lat, lon: -np.sin(np.deg2rad(lon)), grid)
    value = ObservationOperator(given, grid, CHANNELS)(state)[0].numpy()
    np.testing.assert_allclose(value, -np.sin(np.deg2rad(given.longitude)), atol=2e-3)


def test_temperature_is_linear_and_geopotential_hydrostatic_in_ln_p() -> None:
    """With T linear in ln p, z between levels must be the exact integral of -R T."""
    grid = gaussian_grid()
    t0, slope, p0 = 280.0, 40.0, 92500.0

    def t(p: float) -> float:
        return t0 + slope * np.log(p / p0)

    def z(p: float) -> float:
        x = np.log(p / p0)
        return 5000.0 - GAS_CONSTANT * (t0 * x + 0.5 * slope * x**2)

    state = torch.zeros(1, len(CHANNELS), len(grid.latitudes), len(grid.longitudes))
    for index, channel in enumerate(CHANNELS):
        if channel.level is not None:
            state[:, index] = {"t": t, "z": z}.get(channel.variable, lambda _: 0.0)(100 * channel.level)
    for pressure in (92500.0, 88000.0, 60000.0, 41000.0, 30000.0):
        for name, function, unit in (("t", t, 0.001), ("z", z, 0.1)):
            value = ObservationOperator(observations(name, pressure, 5), grid, CHANNELS)(state)[0].numpy()
            np.testing.assert_allclose(value, function(pressure), atol=unit)


def mixed(count: int = 60) -> ObservationSet:
    latitude, longitude = places(count, seed=3)
    generator = np.random.default_rng(4)
    variable = generator.choice(["z", "t", "u", "u10", "sp"], count)
    pressure = np.where(np.isin(variable, ["u10", "sp"]), np.nan, generator.uniform(30000, 92500, count))
    return ObservationSet(variable, pressure, latitude, longitude, np.zeros(count), np.ones(count))


def test_the_adjoint_is_exact_and_is_what_autograd_uses() -> None:
    grid = gaussian_grid(24)
    operator = ObservationOperator(mixed(), grid, CHANNELS)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, *operator.shape, generator=generator).requires_grad_(True)
    v = torch.randn(2, 60, generator=generator)
    left = (operator(x) * v).sum()
    torch.testing.assert_close(left, (x * operator.adjoint(v)).sum(), rtol=1e-4, atol=1e-2)
    (gradient,) = torch.autograd.grad(left, x)
    torch.testing.assert_close(gradient, operator.adjoint(v))


def test_the_operator_agrees_with_finite_differences() -> None:
    grid = gaussian_grid(24)
    operator = ObservationOperator(mixed(), grid, CHANNELS)
    generator = torch.Generator().manual_seed(1)
    x, dx = (torch.randn(1, *operator.shape, generator=generator) for _ in range(2))
    difference = (operator(x + 0.5 * dx) - operator(x - 0.5 * dx)) / 1.0
    torch.testing.assert_close(difference, operator(dx), rtol=1e-3, atol=1e-1)


def test_what_cannot_be_computed_is_named_and_refused() -> None:
    given = ObservationSet(
        np.array(["t", "t", "rain", "sp", "t"]), np.array([50000.0, 5000.0, 50000.0, np.nan, 50000.0]),
        np.array([0.0, 0.0, 0.0, 10.0, np.nan]), np.zeros(5), np.zeros(5), np.ones(5),
    )  # fmt: skip
    assert supported(given, CHANNELS).tolist() == [True, False, False, True, False]
    with pytest.raises(ValueError, match="3 observations cannot be computed"):
        ObservationOperator(given, gaussian_grid(24), CHANNELS)


def test_channel_scales_are_interpolated_in_ln_p() -> None:
    scale = np.arange(len(CHANNELS), dtype=float)
    given = observations("t", float(np.sqrt(92500.0 * 85000.0)), 1)
    assert channel_values(scale, given, gaussian_grid(24), CHANNELS)[0] == pytest.approx(5.5)
    assert channel_values(scale, observations("sp", np.nan, 1), gaussian_grid(24), CHANNELS)[0] == 16
