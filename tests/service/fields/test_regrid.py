"""Interpolation proved on fields whose values are known everywhere."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import sph_harm_y

from service.fields.errors import FieldError
from service.fields.grid import Grid, gaussian_latitudes
from service.fields.intake import standard_geopotential
from service.fields.regrid import Regridder, hydrostatic_curvature, vertical_weights

TARGET = Grid("regular_gg", tuple(gaussian_latitudes(48)), tuple(np.arange(96) * 3.75))
Axis = NDArray[np.float64]


def axes(kind: str, rows: int) -> tuple[Axis, Axis]:
    """With rows on the poles, half a row away from them, or at Gaussian latitudes."""
    latitudes = {
        "poles": lambda: np.linspace(90, -90, rows + 1),
        "shifted": lambda: 90 - (np.arange(rows) + 0.5) * 180 / rows,
        "gaussian": lambda: gaussian_latitudes(rows),
    }[kind]()
    return latitudes, np.arange(2 * rows) * 180.0 / rows


def harmonic(latitudes: Axis, longitudes: Axis) -> Axis:
    """Real spherical harmonics, with parts that do not vanish at the poles."""
    theta, lam = np.radians(90 - latitudes)[:, None], np.radians(longitudes)[None, :]
    return sum(
        weight * sph_harm_y(degree, order, theta, lam).real
        for degree, order, weight in ((5, 3, 1.0), (4, 1, 0.8), (3, 0, 0.6), (6, 6, 0.5))
    )


def wind_over_the_pole(latitudes: Axis, longitudes: Axis) -> tuple[Axis, Axis]:
    """Rotation of the whole sphere about an axis through the equator: blows straight across both poles."""
    phi, lam = np.radians(latitudes)[:, None], np.radians(longitudes - 20.0)[None, :]
    return np.sin(phi) * np.cos(lam), -np.sin(lam) * np.ones_like(phi)


def rms_and_max(error: Axis) -> tuple[float, float]:
    return float(np.sqrt(np.mean(error**2))), float(np.abs(error).max())


@pytest.mark.parametrize("kind", ["poles", "shifted", "gaussian"])
def test_a_spherical_harmonic_is_interpolated_with_second_order(kind: str) -> None:
    truth = harmonic(np.array(TARGET.latitudes), np.array(TARGET.longitudes))
    rows = np.array([20, 40, 80, 160])
    errors = np.array([rms_and_max(Regridder(*axes(kind, n), TARGET)(harmonic(*axes(kind, n))) - truth) for n in rows])
    order_of_rms = -np.polyfit(np.log(rows), np.log(errors[:, 0]), 1)[0]
    assert 1.8 < order_of_rms < 2.3
    assert errors[-1, 1] < 1e-3
    assert errors[0, 1] > 1e-2  # the coarse grids do make errors: the test can tell


@pytest.mark.parametrize("kind", ["poles", "shifted", "gaussian"])
def test_wind_across_the_pole_is_interpolated_with_second_order_and_needs_its_sign_turned(kind: str) -> None:
    truth = wind_over_the_pole(np.array(TARGET.latitudes), np.array(TARGET.longitudes))
    for component in (0, 1):
        rows = np.array([20, 40, 80, 160])
        worst = []
        for n in rows:
            regridder = Regridder(*axes(kind, n), TARGET)
            field = wind_over_the_pole(*axes(kind, n))[component]
            worst.append(np.abs(regridder(field, vector=True) - truth[component]).max())
            beyond = axes(kind, n)[0][0] < TARGET.latitudes[0] - 0.5
            if beyond:
                assert np.abs(regridder(field) - truth[component]).max() > 5 * worst[-1]
        assert 1.8 < -np.polyfit(np.log(rows), np.log(worst), 1)[0] < 2.4


def test_a_constant_stays_constant_and_nothing_overshoots() -> None:
    generator = np.random.default_rng(3)
    for kind in ("poles", "shifted", "gaussian"):
        regridder = Regridder(*axes(kind, 30), TARGET)
        latitudes, longitudes = axes(kind, 30)
        shape = (2, latitudes.size, longitudes.size)
        np.testing.assert_allclose(regridder(np.full(shape, 7.5)), 7.5, rtol=1e-13)
        noise = generator.normal(size=shape)
        assert noise.min() <= regridder(noise).min() <= regridder(noise).max() <= noise.max()


def test_the_seam_at_greenwich_is_like_any_other_meridian() -> None:
    latitudes, longitudes = axes("shifted", 24)
    field = harmonic(latitudes, longitudes)
    shift = 9  # source columns of 7.5 degrees are 18 target columns
    moved = Regridder(latitudes, longitudes, TARGET)(np.roll(field, shift, axis=1))
    np.testing.assert_allclose(moved, np.roll(Regridder(latitudes, longitudes, TARGET)(field), 2 * shift, axis=1))


def test_the_same_grid_is_left_untouched() -> None:
    field = np.random.default_rng(0).normal(size=(2, *TARGET.shape)).astype(np.float32)
    regridder = Regridder(np.round(np.array(TARGET.latitudes), 3), np.array(TARGET.longitudes), TARGET)
    assert regridder.identity
    np.testing.assert_array_equal(regridder(field), field)


@pytest.mark.parametrize(
    ("latitudes", "longitudes", "what"),
    [
        (np.linspace(90, -90, 37), np.arange(0, 180, 5.0), "longitudes 0 to 175"),
        (np.linspace(70, 30, 21), np.arange(0, 360, 5.0), "latitudes 30 to 70"),
        (np.linspace(90, 0, 21), np.arange(0, 360, 5.0), "latitudes 0 to 90"),
    ],
)
def test_a_region_is_refused(latitudes: Axis, longitudes: Axis, what: str) -> None:
    with pytest.raises(FieldError, match=what):
        Regridder(latitudes, longitudes, TARGET)


def test_levels_are_weighted_linearly_in_ln_p_and_only_between_given_ones() -> None:
    levels = np.array([1000.0, 300.0, 850.0, 500.0])
    i, j, weight = vertical_weights(levels, 700.0) or (0, 0, 0.0)
    assert (levels[i], levels[j]) == (500.0, 850.0)
    assert (1 - weight) * np.log(500) + weight * np.log(850) == pytest.approx(np.log(700))
    assert vertical_weights(levels, 850.0) == (2, 2, 0.0)
    assert vertical_weights(levels, 200.0) is None
    assert vertical_weights(levels, 1013.0) is None


def test_geopotential_between_levels_is_that_of_the_standard_atmosphere() -> None:
    def temperature(level: float) -> NDArray[np.float64]:
        return np.array(288.15 * (level / 1013.25) ** (287.05287 * 0.0065 / 9.80665))

    levels = np.array([500.0, 850.0])
    where = vertical_weights(levels, 700.0)
    assert where is not None
    linear = (1 - where[2]) * standard_geopotential(500.0) + where[2] * standard_geopotential(850.0)
    corrected = linear + hydrostatic_curvature(levels, where, temperature(500.0), temperature(850.0))
    truth = standard_geopotential(700.0)
    assert abs(linear - truth) > 300.0
    assert abs(float(corrected) - truth) < 12.0  # T is not quite linear in ln p there


def test_the_standard_atmosphere_has_the_heights_of_its_tables() -> None:
    # ISO 2533: geopotential metres
    for level, height in ((925.0, 762.0), (500.0, 5574.0), (200.0, 11784.0), (100.0, 16180.0)):
        assert standard_geopotential(level) / 9.80665 == pytest.approx(height, abs=2.0)
