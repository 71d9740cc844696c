"""Operators against published tables, on a state that is the US Standard Atmosphere everywhere.

US Standard Atmosphere 1976, tables I and II; saturation over water: Smithsonian Meteorological Tables (WMO-No. 188,
table 4.6); geometric and geopotential heights: US Standard Atmosphere, table I (at 45.5425 N).
"""

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from models.observation_operator import ObservationOperator, ObservationSet, supported, unsupported_reason
from models.operators import moist
from models.operators.earth import STANDARD_GRAVITY, geopotential_height
from models.operators.layers import channel_weights, layer_weights
from models.operators.support import NO_HUMIDITY_AT_2_M
from models.specification import ChannelSpec
from tests.models.synthetic import gaussian_grid

GRID = gaussian_grid()
# geopotential height (m): pressure (Pa), temperature (K)
TABLE = {
    0: (101325.0, 288.15), 500: (95461.0, 284.90), 1000: (89874.6, 281.65), 2000: (79495.2, 275.15),
    3000: (70108.5, 268.65), 5000: (54019.9, 255.65), 7000: (41060.7, 242.65), 10000: (26436.3, 223.15),
    11000: (22632.1, 216.65), 15000: (12044.6, 216.65),
}  # fmt: skip
LEVELS = (1000.0, 925.0, 850.0, 700.0, 500.0, 400.0, 300.0, 250.0, 200.0, 150.0, 100.0)
CHANNELS = (
    *(ChannelSpec(variable=v, level=p) for v in "zquvt" for p in LEVELS),
    *(ChannelSpec(variable=v, level=None) for v in ("u10", "v10", "t2m", "sp")),
)
LATITUDE = 45.5425


def standard_height(pressure: float) -> float:
    """By the definition of the standard atmosphere (troposphere, isothermal layer), gpm."""
    if pressure > 22632.06:
        return 288.15 / 0.0065 * (1 - (pressure / 101325.0) ** (287.05287 * 0.0065 / 9.80665))
    return 11000.0 + 287.05287 * 216.65 / 9.80665 * float(np.log(22632.06 / pressure))


def standard_state(ground: float = 500.0, humidity: float = 0.004) -> torch.Tensor:
    fields = {"q": humidity, "u": 3.0, "v": -4.0, "u10": 0.0, "v10": -5.0, "t2m": 288.15 - 0.0065 * ground}
    values = []
    for channel in CHANNELS:
        height = None if channel.level is None else standard_height(100 * channel.level)
        by_level = (
            {} if height is None else {"z": STANDARD_GRAVITY * height, "t": max(288.15 - 0.0065 * height, 216.65)}
        )
        values.append(
            {**fields, **by_level, "sp": 101325.0 * (1 - 0.0065 * ground / 288.15) ** 5.25588}[channel.variable]
        )
    state = torch.tensor(values, dtype=torch.float64)[None, :, None, None]
    return state.expand(1, len(CHANNELS), len(GRID.latitudes), len(GRID.longitudes)).clone()


def given(variable: str, count: int = 1, value: float = 0.0, **columns: np.ndarray) -> ObservationSet:
    none = {name: np.full(count, np.nan) for name in ("pressure", "height", "pressure_top")}
    return ObservationSet(
        variable=np.full(count, variable), latitude=np.full(count, LATITUDE), longitude=np.full(count, 10.0),
        value=np.full(count, value), error=np.ones(count), **{**none, **columns},
    )  # fmt: skip


def equivalents(observations: ObservationSet, state: torch.Tensor, ground: float | None = None) -> np.ndarray:
    field = None if ground is None else np.full((len(GRID.latitudes), len(GRID.longitudes)), ground)
    operator = ObservationOperator(observations, GRID, CHANNELS, ground=field, dtype=torch.float64)
    return operator(state)[0].numpy()


def at_heights(variable: str, geopotential: list[float], state: torch.Tensor, value: float = 0.0) -> np.ndarray:
    """At geopotential heights, reported as the geometric heights that they are at LATITUDE (US Standard, table I)."""
    wanted = np.array(geopotential, dtype=np.float64)
    metres = wanted.copy()
    for _ in range(5):
        metres += wanted - geopotential_height(metres, np.full(len(wanted), LATITUDE))
    return equivalents(given(variable, len(wanted), value, height=metres), state)


def test_geopotential_and_geometric_heights_are_those_of_the_table() -> None:
    # Z = 10000, 20000, 30000 m: H = 9984, 19937, 29859 m'
    metres = np.array([10_000.0, 20_000.0, 30_000.0])
    found = geopotential_height(metres, np.full(3, LATITUDE))
    np.testing.assert_allclose(found, [9984.0, 19937.0, 29859.0], atol=1.0)
    # gravity is weaker at the equator: the same geopotential lies higher there
    assert geopotential_height(np.array([10_000.0]), np.array([0.0])) < found[0] - 15.0


def test_heights_of_pressure_levels() -> None:
    pressure = np.array([TABLE[h][0] for h in (3000, 5000, 10000)])
    state = standard_state()
    np.testing.assert_allclose(equivalents(given("gh", 3, pressure=pressure), state), [3000, 5000, 10000], atol=3.0)
    metres = equivalents(given("h", 3, pressure=pressure), state)
    np.testing.assert_allclose(metres, [3001.4, 5003.9, 10015.8], atol=3.0)  # Z = r H / (r - H), r = 6356766 m


@pytest.mark.parametrize("height", [1000, 2000, 3000, 5000, 7000, 10000, 15000])
def test_values_at_a_height_are_those_of_the_table(height: int) -> None:
    pressure, temperature = TABLE[height]
    state = standard_state(humidity=0.0)
    assert at_heights("t", [height], state)[0] == pytest.approx(temperature, abs=0.5)
    # N = 77.6 p / T of dry air, p in hPa: 0.3 % is 20 m of height
    assert at_heights("refractivity", [height], state)[0] == pytest.approx(
        77.6 * pressure / 100 / temperature, rel=3e-3
    )
    assert at_heights("ws", [height], state)[0] == pytest.approx(5.0, abs=1e-4)


def test_beneath_the_lowest_level_temperature_follows_the_standard_lapse() -> None:
    state = standard_state()
    lowest = standard_height(1e5)
    assert at_heights("t", [lowest - 50.0], state)[0] == pytest.approx(288.15 - 0.0065 * (lowest - 50.0), abs=0.01)


def test_refractivity_of_moist_air_by_hand() -> None:
    # 1000 hPa, 290 K, e = 15 hPa: 77.6 * 1000 / 290 + 3.73e5 * 15 / 290^2 = 267.586 + 66.528
    e, p = 1500.0, 1e5
    q = moist.EPSILON * e / (p - (1 - moist.EPSILON) * e)
    found = moist.refractivity(*(torch.tensor(x, dtype=torch.float64) for x in (290.0, q, p)))
    assert float(found) == pytest.approx(334.114, abs=0.002)


def test_saturation_is_that_of_the_smithsonian_tables() -> None:
    celsius = torch.tensor([-20.0, 0.0, 10.0, 20.0, 30.0], dtype=torch.float64)
    hectopascal = [1.2540, 6.1078, 12.272, 23.373, 42.430]
    np.testing.assert_allclose(moist.saturation_pressure(celsius + 273.15) / 100, hectopascal, rtol=4e-3)


def test_relative_humidity_and_dewpoint_belong_to_each_other() -> None:
    # 20 degC and a dewpoint of 10 degC are 52.5 % (12.272 / 23.373)
    e, p = 1227.2, 90000.0
    q = moist.EPSILON * e / (p - (1 - moist.EPSILON) * e)
    state = standard_state(humidity=q)
    state[:, [i for i, c in enumerate(CHANNELS) if c.variable == "t"]] = 293.15
    place = np.array([p])
    assert equivalents(given("rh", pressure=place), state)[0] == pytest.approx(0.525, abs=0.002)
    assert equivalents(given("td", pressure=place), state)[0] == pytest.approx(283.15, abs=0.05)


@pytest.mark.parametrize(
    ("u", "v", "direction"), [(0.0, -5.0, 0.0), (-5.0, 0.0, 90.0), (0.0, 5.0, 180.0), (5.0, 0.0, 270.0), (3.0, 3.0, 225.0)]
)  # fmt: skip
def test_direction_is_where_the_wind_comes_from(u: float, v: float, direction: float) -> None:
    state = standard_state()
    for name, value in (("u", u), ("v", v)):
        state[:, [i for i, c in enumerate(CHANNELS) if c.variable == name]] = value
    found = equivalents(given("wdir", value=direction, pressure=np.array([5e4])), state)[0]
    assert found == pytest.approx(direction, abs=1e-9)


def test_departures_of_direction_are_taken_on_the_circle() -> None:
    state = standard_state()  # 10 m wind from the north
    for observed, departure in ((350.0, -10.0), (10.0, 10.0), (179.0, 179.0), (181.0, -179.0), (360.0, 0.0)):
        assert observed - equivalents(given("wdir10", value=observed), state)[0] == pytest.approx(departure)


def test_a_calm_moves_nothing_without_bounds() -> None:
    state = torch.zeros_like(standard_state())
    for name in ("ws10", "wdir10"):
        tangent = ObservationOperator(given(name), GRID, CHANNELS, dtype=torch.float64).linearised(state)
        assert torch.isfinite(tangent.adjoint(torch.ones(1, 1, dtype=torch.float64))).all()
        assert float(tangent(torch.ones_like(state)).abs()) <= 57.3 / 2.0


@pytest.mark.parametrize("station", [0, 500, 1000, 2000])
def test_pressure_is_reduced_from_the_ground_to_the_station(station: int) -> None:
    height = np.array([float(station)])
    found = equivalents(given("sp", height=height), standard_state(500.0), ground=500.0)[0]
    assert found == pytest.approx(TABLE[station][0], rel=4e-4)
    expected = 288.15 - 0.0065 * station
    assert equivalents(given("t2m", height=height), standard_state(500.0), 500.0)[0] == pytest.approx(
        expected, abs=0.05
    )


def test_sea_level_pressure_of_high_ground() -> None:
    found = equivalents(given("msl"), standard_state(1000.0), ground=1000.0)[0]
    assert found == pytest.approx(101325.0, rel=4e-4)


def test_stations_without_a_height_or_on_the_ground_are_taken_as_they_are() -> None:
    state, expected = standard_state(500.0), TABLE[500][0]
    for height in (np.nan, 502.0):
        observations = given("sp", height=np.array([height]))
        assert equivalents(observations, state, 500.0)[0] == pytest.approx(expected, rel=1e-4)
        ground = np.full((len(GRID.latitudes), len(GRID.longitudes)), 500.0)
        assert ObservationOperator(observations, GRID, CHANNELS, ground=ground).linear


def test_layer_mean_temperature_is_the_one_of_the_hypsometric_equation() -> None:
    """Thickness = R / g T_mean ln(p1 / p2): from heights and pressures of the table alone."""
    low, high = 3000, 10000
    mean = (high - low) * 9.80665 / (287.05287 * np.log(TABLE[low][0] / TABLE[high][0]))
    bounds = {"pressure": np.array([TABLE[low][0]]), "pressure_top": np.array([TABLE[high][0]])}
    assert equivalents(given("tlayer", **bounds), standard_state())[0] == pytest.approx(mean, abs=0.3)


def test_weights_are_integrals_of_the_weighting_function_and_sum_to_one() -> None:
    levels = np.log(100 * np.array(sorted(LEVELS)))
    peak = 40_000.0

    def density(x: float) -> float:
        u = np.exp(2 * (x - np.log(peak)))
        return float(2 * u * np.exp(-u))

    weights = channel_weights(levels, np.array([peak]))[0]
    whole = quad(density, levels[0], levels[-1])[0]
    for k in (3, 5):
        hat = [
            quad(lambda x, k=k: density(x) * np.interp(x, levels, np.eye(len(levels))[k]), a, b)[0]
            for a, b in ((levels[k - 1], levels[k]), (levels[k], levels[k + 1]))
        ]
        assert weights[k] == pytest.approx(sum(hat) / whole, rel=1e-6)
    assert weights.sum() == pytest.approx(1.0) and (weights > 0).all()
    box = layer_weights(levels, np.array([85_000.0]), np.array([30_000.0]))[0]
    assert box.sum() == pytest.approx(1.0) and box[0] == 0.0
    x = np.linspace(np.log(30_000.0), np.log(85_000.0), 5)
    assert box @ levels == pytest.approx(x.mean())  # of T = ln p the mean is that of the ends


def test_what_has_no_operator_says_why() -> None:
    observations = ObservationSet(
        np.array(["td2m", "gh", "tlayer", "rain", "t", "refractivity", "t", "msl"]),
        np.array([np.nan, np.nan, 8e4, 5e4, 1e3, np.nan, np.nan, np.nan]),
        *(np.zeros(8) for _ in range(3)), np.ones(8),
        height=np.array([2.0, 5000.0, np.nan, np.nan, np.nan, 40_000.0, np.nan, np.nan]),
        pressure_top=np.full(8, np.nan),
    )  # fmt: skip
    reasons = unsupported_reason(observations, CHANNELS, ground=False)
    assert not supported(observations, CHANNELS, ground=False).any()
    assert reasons[0] == NO_HUMIDITY_AT_2_M and "height" in reasons[1] and "no operator" in reasons[3]
    assert "neither" in reasons[6] and "ground" in reasons[7]
    assert {reasons[2], reasons[4], reasons[5]} == {"not between the top and the lowest level of the state"}
