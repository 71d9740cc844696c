"""From sigma to pressure against an atmosphere whose integrals are known."""

import numpy as np
import pytest

from models.nature.pressure_levels import GAS_CONSTANT, GRAVITY, LAPSE_RATE, to_pressure_levels

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
SURFACE = np.array([[101_000.0, 95_000.0, 60_000.0]])  # sea, hills, a plateau: [time, place], Pa
T0, SLOPE, P0 = 285.0, 32.0, 100_000.0


def temperature(p: np.ndarray) -> np.ndarray:
    return T0 + SLOPE * np.log(p / P0)


def geopotential(p: np.ndarray) -> np.ndarray:
    """The exact hydrostatic integral of `temperature` from P0 upwards."""
    x = np.log(p / P0)
    return -GAS_CONSTANT * (T0 * x + 0.5 * SLOPE * x**2)


def column() -> dict[str, np.ndarray]:
    p = SIGMA[None, :, None] * SURFACE[:, None]
    x = np.log(p / P0)
    fields = {"z": geopotential(p), "t": temperature(p), "u": 5 - 14 * x, "v": 2 + x, "q": 0.016 + 0.004 * x}
    return {name: values.astype(np.float32) for name, values in fields.items()}


LEVELS = (92_500.0, 85_000.0, 70_000.0, 50_000.0, 20_000.0, 10_000.0)


def test_an_atmosphere_linear_in_ln_p_is_found_exactly_above_the_ground() -> None:
    out = to_pressure_levels(column(), SURFACE, SIGMA, LEVELS)
    p = np.array(LEVELS)[None, :, None]
    above = np.broadcast_to(p < SIGMA[-1] * SURFACE[:, None], out["t"].shape)
    assert above.sum() == 14
    exact = {
        "z": geopotential(p),
        "t": temperature(p),
        "u": 5 - 14 * np.log(p / P0),
        "q": 0.016 + 0.004 * np.log(p / P0),
    }
    for name, atol in {"z": 0.05, "t": 1e-3, "u": 1e-4, "q": 1e-7}.items():
        np.testing.assert_allclose(out[name][above], np.broadcast_to(exact[name], above.shape)[above], atol=atol)


def test_below_the_ground_temperature_follows_the_lapse_rate_and_height_its_integral() -> None:
    out = to_pressure_levels(column(), SURFACE, SIGMA, (70_000.0, 85_000.0))
    lowest = SIGMA[-1] * SURFACE[0, 2]
    t_lowest, z_lowest = temperature(lowest), geopotential(lowest)
    for index, level in enumerate((70_000.0, 85_000.0)):
        t = t_lowest * (level / lowest) ** (GAS_CONSTANT * LAPSE_RATE / GRAVITY)
        assert out["t"][0, index, 2] == pytest.approx(t, abs=1e-3)
        # dz/dlnp = -R T integrated numerically
        x = np.linspace(np.log(lowest), np.log(level), 2001)
        profile = t_lowest * np.exp(GAS_CONSTANT * LAPSE_RATE / GRAVITY * (x - x[0]))
        assert out["z"][0, index, 2] == pytest.approx(z_lowest - GAS_CONSTANT * np.trapezoid(profile, x), abs=0.1)
    assert (out["u"][0, :, 2] == column()["u"][0, -1, 2]).all()


def test_fields_are_continuous_where_the_ground_begins() -> None:
    edge = SIGMA[-1] * SURFACE[0, 2]
    out = to_pressure_levels(column(), SURFACE, SIGMA, (edge * (1 - 1e-6), edge * (1 + 1e-6)))
    for values in out.values():
        np.testing.assert_allclose(values[0, 0, 2], values[0, 1, 2], rtol=1e-5)


def test_the_result_is_hydrostatic_between_levels() -> None:
    levels = tuple(np.geomspace(10_000, 90_000, 60))
    out = to_pressure_levels(column(), SURFACE, SIGMA, levels)
    thickness = np.diff(out["z"][0, :, 0]) / np.diff(np.log(levels))
    middle = 0.5 * (out["t"][0, 1:, 0] + out["t"][0, :-1, 0])
    np.testing.assert_allclose(-thickness / GAS_CONSTANT, middle, rtol=1e-3)


def test_sigma_must_ascend() -> None:
    with pytest.raises(ValueError, match="ascend"):
        to_pressure_levels(column(), SURFACE, SIGMA[::-1], LEVELS)
