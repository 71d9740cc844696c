"""Specific from relative humidity, against formulas that were derived independently."""

import numpy as np
import pytest

from service.fields.humidity import saturation_vapour_pressure, specific_humidity


def murphy_koop_water(t: np.ndarray) -> np.ndarray:
    """Murphy and Koop 2005, equation 10: Pa, over liquid water, 123 to 332 K."""
    cold = 53.878 - 1331.22 / t - 9.44523 * np.log(t) + 0.014025 * t
    return np.exp(54.842763 - 6763.22 / t - 4.210 * np.log(t) + 0.000367 * t + np.tanh(0.0415 * (t - 218.8)) * cold)


def murphy_koop_ice(t: np.ndarray) -> np.ndarray:
    """Murphy and Koop 2005, equation 7: Pa, over ice, above 110 K."""
    return np.exp(9.550426 - 5723.265 / t + 3.53068 * np.log(t) - 0.00728332 * t)


def test_saturation_agrees_with_murphy_and_koop_over_water_and_over_ice() -> None:
    warm, cold = np.linspace(273.17, 310, 50), np.linspace(200, 250, 50)
    np.testing.assert_allclose(saturation_vapour_pressure(warm), murphy_koop_water(warm), rtol=3e-3)
    np.testing.assert_allclose(saturation_vapour_pressure(cold), murphy_koop_ice(cold), rtol=8e-3)


def test_between_them_it_is_mixed_and_continuous() -> None:
    between = np.linspace(250.17, 273.15, 200)
    saturation = saturation_vapour_pressure(between)
    assert np.all(saturation > 0.995 * murphy_koop_ice(between))
    assert np.all(saturation < 1.005 * murphy_koop_water(between))
    assert np.all(np.diff(saturation) > 0)


@pytest.mark.parametrize(
    ("celsius", "hectopascals"),
    [(20.0, 23.39), (0.01, 6.1166), (30.0, 42.47), (-40.0, 0.1284)],  # CRC Handbook of Chemistry and Physics
)
def test_saturation_has_the_tabulated_values(celsius: float, hectopascals: float) -> None:
    assert saturation_vapour_pressure(np.array(celsius + 273.15)) == pytest.approx(100 * hectopascals, rel=3e-3)


def test_specific_humidity_is_that_of_the_mixing_ratio_at_half_saturation() -> None:
    t = np.array([303.15, 293.15, 283.15])
    for pressure in (100000.0, 85000.0, 70000.0):
        vapour = 0.5 * murphy_koop_water(t)
        mixing_ratio = 18.015268 / 28.9647 * vapour / (pressure - vapour)
        expected = mixing_ratio / (1 + mixing_ratio)
        np.testing.assert_allclose(specific_humidity(np.full(3, 50.0), t, pressure), expected, rtol=4e-3)


def test_negative_relative_humidity_is_dry_and_high_air_stays_below_its_pressure() -> None:
    assert specific_humidity(np.array(-3.0), np.array(280.0), 85000.0) == 0
    assert 0 < specific_humidity(np.array(150.0), np.array(300.0), 1000.0) < 1
