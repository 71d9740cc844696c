"""Soundings made by hand: an isothermal or constant-lapse atmosphere with one thing wrong, and the check that finds it.

Heights are integrated here from closed formulas, not with the code under test.
"""

from typing import Any

import numpy as np
import pytest

from service.experiments import ExperimentConfig
from tests.worker.conftest import NOON, table
from worker.stages.filters import Comparison, Setting, Verdict
from worker.stages.filters.soundings import hydrostatic, lapse_rate
from worker.stages.filters.stuck import stuck
from worker.stages.observed import Observed

LEVELS = np.array([1000, 925, 850, 700, 500, 400, 300, 250, 200, 150, 100]) * 100.0
GRAVITY, GAS, LAPSE = 9.80665, 287.05, 0.0065
SETTING = Setting(ExperimentConfig(), ExperimentConfig().observation_configuration, NOON)


def sounding(station: str = "10410") -> dict[tuple[str, float], float]:
    """(variable, pressure) -> value of a dry atmosphere with 6.5 K/km up to 11 km and constant temperature above."""
    out = {}
    for p in LEVELS:
        exponent = GAS * LAPSE / GRAVITY
        height = 288.0 / LAPSE * (1 - (p / 1e5) ** exponent)
        if height > 11000.0:
            top = 1e5 * (1 - 11000.0 * LAPSE / 288.0) ** (1 / exponent)
            height = 11000.0 + GAS * 216.5 / GRAVITY * np.log(top / p)
        out["z", p] = GRAVITY * height
        out["t", p] = max(288.0 - LAPSE * height, 216.5)
    return out


def observed(values: dict[tuple[str, float], float], station: str = "10410") -> tuple[Observed, list[Any]]:
    keys = list(values)
    rows = [
        {"variable": name, "pressure": p, "value": values[name, p], "error": np.nan, "station": station}
        for name, p in keys
    ]
    return Observed(table(rows)), keys


def unknown(n: int) -> Comparison:
    return Comparison(*(np.full(n, np.nan) for _ in range(4)))


def around(values: Observed, truth: dict[tuple[str, float], float], keys: list[Any], sigma: float = 2.0) -> Comparison:
    """A background that has the truth, with an error of `sigma` observation errors."""
    exact, error = np.array([truth[key] for key in keys]), values.error
    return Comparison(exact, np.full(len(error), np.nan), sigma * error, error)


def rejected(check: Any, values: dict[tuple[str, float], float], background: bool) -> set[Any]:
    made, keys = observed(values)
    beside = around(made, sounding(), keys) if background else unknown(len(keys))
    return {key for key, bad in zip(keys, Verdict.of(check(made, beside, SETTING)).rejected, strict=True) if bad}


@pytest.mark.parametrize("check", [hydrostatic, lapse_rate, stuck])
def test_a_sound_ascent_passes(check: Any) -> None:
    assert rejected(check, sounding(), background=False) == set()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("pressure", "metres"), [(50000.0, 200.0), (85000.0, -150.0), (25000.0, 250.0)])
def test_one_wrong_height_is_found_and_nothing_else(pressure: float, metres: float, background: bool) -> None:
    values = sounding()
    values["z", pressure] += GRAVITY * metres
    assert rejected(hydrostatic, values, background) == {("z", pressure)}


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize(("pressure", "kelvin"), [(70000.0, 20.0), (50000.0, -20.0), (30000.0, 25.0)])
def test_one_wrong_temperature_is_found_and_nothing_else(pressure: float, kelvin: float, background: bool) -> None:
    values = sounding()
    values["t", pressure] += kelvin
    assert rejected(hydrostatic, values, background) == {("t", pressure)}


def test_two_wrong_heights_of_one_ascent_are_both_found() -> None:
    values = sounding()
    values["z", 70000.0] += GRAVITY * 200.0
    values["z", 25000.0] -= GRAVITY * 300.0
    assert rejected(hydrostatic, values, background=True) == {("z", 70000.0), ("z", 25000.0)}


def test_an_error_at_the_top_needs_the_background_to_be_told() -> None:
    values = sounding()
    values["z", 10000.0] += GRAVITY * 400.0
    assert rejected(hydrostatic, values, background=True) == {("z", 10000.0)}


def test_moist_air_is_warmer_for_the_hydrostatic_equation() -> None:
    # a saturated tropical boundary layer: its virtual temperature is 3 K above its temperature
    low, high, t, q = 100000.0, 70000.0, 300.0, 0.018
    thickness = GAS * t * (1 + 0.608 * q) * np.log(low / high)
    values = {("z", low): 0.0, ("z", high): thickness, ("t", low): t, ("t", high): t, ("q", low): q, ("q", high): q}
    assert rejected(hydrostatic, values, background=False) == set()


def test_a_superadiabatic_layer_is_found() -> None:
    values = sounding()
    # 700 hPa colder than the dry adiabat from 850 hPa by 10 K
    values["t", 70000.0] = values["t", 85000.0] * (700 / 850) ** (2 / 7) - 10.0
    assert rejected(lapse_rate, values, background=True) == {("t", 70000.0)}


def test_of_a_superadiabatic_layer_the_level_far_from_the_background_goes() -> None:
    values = sounding()
    values["t", 85000.0] += 20.0  # the lower level is the wrong one here
    assert rejected(lapse_rate, values, background=True) == {("t", 85000.0)}


def test_a_dry_adiabatic_layer_and_a_strong_inversion_pass() -> None:
    values = sounding()
    values["t", 92500.0] = values["t", 100000.0] * (925 / 1000) ** (2 / 7) - 0.5
    values["t", 85000.0] = values["t", 92500.0] + 5.0
    assert rejected(lapse_rate, values, background=False) == set()


def test_two_stations_are_two_ascents() -> None:
    values = sounding()
    rows = [
        {"variable": name, "pressure": p, "value": value - cold, "error": np.nan, "station": station}
        for station, cold in (("10410", 0.0), ("20000", 30.0))
        for (name, p), value in values.items()
        if name == "t"
    ]
    both = Observed(table(rows))
    assert not lapse_rate(both, unknown(len(both)), SETTING).rejected.any()


def test_a_thermometer_that_is_stuck_is_found_and_an_isothermal_layer_is_not() -> None:
    values = sounding()
    for p in (85000.0, 70000.0, 50000.0, 40000.0, 30000.0):
        values["t", p] = 270.0
    found = rejected(stuck, values, background=False)
    assert found == {("t", p) for p in (85000.0, 70000.0, 50000.0, 40000.0, 30000.0)}
