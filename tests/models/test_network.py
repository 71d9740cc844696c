"""The simulated network: its errors are what it says, its faults are as frequent as it says, its truth is exact."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pdbufr
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import xarray as xr

from models.constants import EARTH_RADIUS, GAS_CONSTANT
from models.nature import network as net
from models.nature.network import Network
from models.nature.stations import load_stations
from models.nature.truth import Truth, TruthError, great_circle, great_circle_distance
from service.observations.decoders import decode
from service.observations.encode_bufr import write_soundings
from service.observations.table import SCHEMA, columns_to_table, default_error
from service.observations.window import duplicates, in_window

NOON = datetime(2001, 3, 5, 12)
LEVELS = np.array([925.0, 850.0, 700.0, 500.0, 300.0, 200.0, 100.0])


@cache
def states() -> xr.Dataset:
    """A smooth atmosphere on the N24 grid, linear in time, ln p and latitude, so that interpolation is exact.

    Longitude enters by the wind's first harmonic and by the land-sea mask only.
    """
    sines = np.polynomial.legendre.leggauss(48)[0]
    latitude = np.rad2deg(np.arcsin(sines))[::-1]
    longitude = np.arange(96) * 3.75
    times = np.datetime64("2001-03-05T06", "ns") + np.arange(4) * np.timedelta64(6, "h")
    t, ln_p, y, x = np.meshgrid(np.arange(4) * 0.25, np.log(LEVELS / 1000), latitude, longitude, indexing="ij")
    upper = {
        "z": 30 * y + 400 * t - GAS_CONSTANT * ((285 - 0.3 * y + 2 * t) * ln_p + 16 * ln_p**2),  # hydrostatic with t
        "t": 285 + 32 * ln_p - 0.3 * y + 2 * t,
        "u": 8 - 14 * ln_p + 5 * np.cos(np.deg2rad(x)) + 3 * t,
        "v": 3 + 2 * ln_p + 0.05 * y - 2 * t,
        "q": np.maximum(0.016 + 0.009 * ln_p, 1e-6),
    }
    ground = {
        "sp": 98_000 + 40 * y + 500 * t, "t2m": 288 - 0.4 * y, "u10": 5 + 0.02 * y, "v10": -2 + 0.01 * y + t,
    }  # fmt: skip
    sea = np.where((longitude > 20) & (longitude < 140), 1.0, 0.0)
    variables: dict[str, Any] = {
        name: (("time", "level", "latitude", "longitude"), field.astype(np.float32)) for name, field in upper.items()
    }
    for name, field in ground.items():
        variables[name] = (("time", "latitude", "longitude"), field[:, 0].astype(np.float32))
    variables["orography"] = (("latitude", "longitude"), np.full((48, 96), 200.0, dtype=np.float32))
    variables["lsm"] = (("latitude", "longitude"), np.broadcast_to(sea, (48, 96)).astype(np.float32))
    return xr.Dataset(variables, coords={"time": times, "level": LEVELS, "latitude": latitude, "longitude": longitude})


@cache
def observed(seed: int = 3, centre: datetime = NOON) -> tuple[dict[str, Any], dict[str, Any]]:
    return Network(seed, load_stations(), default_error).observe_with_flags(states(), centre)


@cache
def sample() -> tuple[dict[str, Any], dict[str, Any]]:
    """Twelve networks over the same truth: enough values to count rare faults and to pin standard deviations."""
    parts = [observed(seed) for seed in range(12)]
    columns, flags = ({k: np.concatenate([p[i][k] for p in parts]) for k in parts[0][i]} for i in (0, 1))
    return columns, flags


def test_the_columns_are_those_of_the_observation_table() -> None:
    columns, _ = observed()
    assert set(columns) == set(SCHEMA.names) - {"id", "pressure_top"}  # no layers
    table = columns_to_table(columns)
    assert table.schema == SCHEMA and 10_000 <= table.num_rows <= 40_000


def test_at_other_hours_few_radiosondes_fly() -> None:
    noon, evening = observed()[0], observed(centre=datetime(2001, 3, 5, 18))[0]
    launches = [len(set(c["station"][c["type"] == "temp"])) for c in (noon, evening)]
    assert launches[0] > 90 and 5 <= launches[1] <= net.SONDES_OFF_HOURS


PAIRS = [(k, v) for k, vs in {
    "temp": "ztuvq", "amdar": "tuv", "satwind": "uv", "synop": net._SURFACE, "ship": net._SURFACE, "buoy": ("sp",),
    "sounder": ("tb",),
}.items() for v in vs]  # fmt: skip


@pytest.mark.parametrize(("kind", "variable"), PAIRS)
def test_errors_have_no_bias_and_the_sigma_of_the_error_table(kind: str, variable: str) -> None:
    columns, flags = sample()
    rows = (columns["type"] == kind) & (columns["variable"] == variable) & ~flags["gross"] & ~flags["duplicate"]
    sigma = default_error(kind, variable, columns["pressure"][rows])
    scaled = (columns["value"][rows] - flags["truth"][rows]) / sigma
    n = int(rows.sum())
    assert n > 400
    assert abs(scaled.mean()) < 4 / np.sqrt(n)
    assert abs(scaled.std() - 1) < 4 / np.sqrt(2 * n)


def test_the_truth_of_each_value_is_the_atmosphere_at_its_own_place_level_and_time() -> None:
    columns, flags = observed()
    days = (columns["time"] - np.datetime64("2001-03-05T06")) / np.timedelta64(1, "D")
    ln_p, y, truth = np.log(columns["pressure"] / 1e5), columns["latitude"], flags["truth"]
    expected = {
        "z": 30 * y + 400 * days - GAS_CONSTANT * ((285 - 0.3 * y + 2 * days) * ln_p + 16 * ln_p**2),
        "t": 285 + 32 * ln_p - 0.3 * y + 2 * days,
        "v": 3 + 2 * ln_p + 0.05 * y - 2 * days,
        "sp": 98_000 + 40 * y + 500 * days,
        "v10": -2 + 0.01 * y + days,
    }
    inner = np.abs(y) < 87.0
    for variable, exact in expected.items():
        rows = (columns["variable"] == variable) & inner
        np.testing.assert_allclose(truth[rows], exact[rows], rtol=1e-5, atol=2e-5 * np.abs(exact[rows]).max())


def test_interpolation_is_periodic_in_longitude_and_linear_in_time() -> None:
    truth = Truth(states())
    time = np.array([np.datetime64("2001-03-05T09")] * 3)
    u = truth.upper_air("u", time, [10.0] * 3, [358.125, -1.875, 1.875], [50_000.0] * 3)
    np.testing.assert_allclose(u[0], u[1], rtol=1e-12)
    np.testing.assert_allclose(u[0], u[2], rtol=1e-6)  # the cosine is symmetric about Greenwich
    ends = [
        truth.surface("v10", np.array([np.datetime64(t)]), [10.0], [0.0]) for t in ("2001-03-05T06", "2001-03-05T12")
    ]
    middle = truth.surface("v10", np.array([np.datetime64("2001-03-05T09")]), [10.0], [0.0])
    np.testing.assert_allclose(middle, (ends[0] + ends[1]) / 2, rtol=1e-6)


def test_beyond_the_levels_or_the_times_nothing_is_invented() -> None:
    truth, time = Truth(states()), np.array([np.datetime64("2001-03-05T09")] * 2)
    assert np.isnan(truth.upper_air("t", time, [0.0] * 2, [0.0] * 2, [95_000.0, 9_000.0])).all()
    with pytest.raises(TruthError, match="do not reach"):
        Network(1, load_stations(), default_error).observe(states(), datetime(2001, 3, 5, 6))
    with pytest.raises(TruthError, match="lack q"):
        Truth(states().drop_vars("q"))


@pytest.mark.parametrize(
    ("flag", "share"), [("gross", net.GROSS_SHARE), ("late", net.LATE_SHARE), ("duplicate", net.DUPLICATE_SHARE)]
)
def test_faults_are_as_frequent_as_documented(flag: str, share: float) -> None:
    _, flags = sample()
    assert 0.6 * share < flags[flag].mean() < 1.5 * share


def test_gross_errors_are_gross_and_others_are_not() -> None:
    columns, flags = sample()
    sigmas = np.abs(columns["value"] - flags["truth"]) / flags["sigma"]
    assert sigmas[flags["gross"]].min() > net.GROSS_SIGMAS[0] - 0.5
    assert sigmas[~flags["gross"]].max() < 6


def test_late_reports_come_after_the_window_and_only_they() -> None:
    columns, flags = observed()
    end = np.datetime64("2001-03-05T15")
    np.testing.assert_array_equal(columns["receipt_time"] >= end, flags["late"])
    assert (columns["receipt_time"] >= columns["time"]).all()
    assert in_window(columns_to_table(columns), NOON.replace(tzinfo=UTC), 6).all()


def test_late_reports_are_unknown_at_the_cut_off() -> None:
    columns, flags = observed()
    known = in_window(
        columns_to_table(columns), NOON.replace(tzinfo=UTC), 6, as_of=datetime(2001, 3, 5, 15, tzinfo=UTC)
    )
    np.testing.assert_array_equal(known, ~flags["late"])


def test_duplicates_repeat_a_report_exactly_and_are_found() -> None:
    columns, flags = observed()
    table = columns_to_table(columns)
    ids = np.array(table.column("id").to_pylist())
    assert set(ids[flags["duplicate"]]) <= set(ids[~flags["duplicate"]])
    found = duplicates(table)
    assert found.sum() == flags["duplicate"].sum() > 0
    assert set(ids[found]) == set(ids[flags["duplicate"]])


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    again = Network(3, load_stations(), default_error).observe(states(), NOON)
    for name, column in observed()[0].items():
        np.testing.assert_array_equal(column, again[name])
    assert not np.array_equal(observed(4)[0]["value"][:100], again["value"][:100])


def test_places_are_off_the_grid_and_times_are_spread() -> None:
    columns, _ = observed()
    on_grid = np.isin(np.round(columns["longitude"] % 3.75, 2), [0.0, 3.75])
    assert on_grid.mean() < 0.02
    for kind in ("synop", "ship", "amdar", "satwind", "sounder"):
        hours = (columns["time"][columns["type"] == kind] - np.datetime64("2001-03-05T09")) / np.timedelta64(1, "h")
        assert hours.min() < 0.7 and hours.max() > 5.3


def test_nothing_is_reported_from_below_the_ground() -> None:
    columns, _ = observed()
    truth, upper = Truth(states()), ~np.isnan(columns["pressure"])
    surface = truth.surface("sp", columns["time"][upper], columns["latitude"][upper], columns["longitude"][upper])
    assert (columns["pressure"][upper] < surface).all()


def test_aircraft_cruise_between_300_and_200_hpa_and_climb_through_the_levels_below() -> None:
    columns, _ = sample()
    pressure = columns["pressure"][columns["type"] == "amdar"]
    cruising = pressure <= 30_000
    assert pressure.min() >= 20_000 and 0.5 < cruising.mean() < 0.97
    assert set(pressure[~cruising]) == {40_000.0, 50_000.0, 70_000.0, 85_000.0}


def test_satellite_winds_lie_over_the_sea_or_the_tropics_at_two_heights() -> None:
    columns, _ = sample()
    rows = columns["type"] == "satwind"
    sea = Truth(states()).static("lsm", columns["latitude"][rows], columns["longitude"][rows]) < 0.5
    pressure = columns["pressure"][rows]
    assert (sea | ((pressure < 40_000) & (np.abs(columns["latitude"][rows]) < 30))).all()
    assert (((pressure > 24_000) & (pressure < 36_000)) | ((pressure > 79_000) & (pressure < 91_000))).all()


def test_great_circles_have_the_right_length_and_ends() -> None:
    quarter = great_circle_distance((0.0, 0.0), (0.0, 90.0))
    np.testing.assert_allclose(quarter, np.pi / 2 * EARTH_RADIUS, rtol=1e-9)
    latitude, longitude = great_circle((10.0, 20.0), (60.0, -100.0), np.array([0.0, 1.0]))
    np.testing.assert_allclose(latitude, [10.0, 60.0], atol=1e-9)
    np.testing.assert_allclose(longitude, [20.0, -100.0], atol=1e-9)


@cache
def soundings() -> pa.Table:
    table = columns_to_table(observed()[0])
    return table.filter(pc.equal(table.column("type").cast(pa.string()), "temp"))


def keyed(table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    frame["key"] = list(zip(frame.station.astype(str), frame.pressure.round(), frame.variable.astype(str), strict=True))
    return frame.drop_duplicates("key").set_index("key").sort_index()


def test_soundings_survive_bufr_within_its_precision(tmp_path: Path) -> None:
    write_soundings(tmp_path / "x.bufr", soundings())
    batch = decode(tmp_path / "x.bufr", "application/bufr", "simulated", datetime(2001, 3, 5, 15, tzinfo=UTC))
    assert batch.counts == {} and batch.table.num_rows == soundings().num_rows  # duplicates too
    sent, got = keyed(soundings()), keyed(batch.table)
    assert sent.index.equals(got.index)
    assert (sent.time == got.time).all()
    np.testing.assert_allclose(got.latitude, sent.latitude, atol=1.1e-5)
    np.testing.assert_allclose((got.longitude - sent.longitude + 180) % 360 - 180, 0, atol=1.1e-5)
    difference = (got.value - sent.value).abs()
    assert difference[sent.variable == "z"].max() <= 0.5 * 9.80665 + 0.02
    assert difference[sent.variable == "t"].max() <= 0.0051
    humid = sent.variable == "q"
    assert (difference[humid] / sent.value[humid]).max() < 1e-3  # half of 0.01 K of dewpoint
    speed = np.hypot(sent[sent.variable == "u"].value.to_numpy(), sent[sent.variable == "v"].value.to_numpy())
    vector = np.hypot(difference[sent.variable == "u"].to_numpy(), difference[sent.variable == "v"].to_numpy())
    assert (vector <= 0.051 + speed * np.deg2rad(0.51)).all()


def test_pdbufr_reads_our_soundings_as_we_do(tmp_path: Path) -> None:
    write_soundings(tmp_path / "x.bufr", soundings())
    ours = decode(tmp_path / "x.bufr", None, "simulated", datetime(2001, 3, 5, 15, tzinfo=UTC)).table.to_pandas()
    columns = (
        "WMO_station_id", "pressure", "nonCoordinateGeopotentialHeight", "airTemperature", "windDirection", "windSpeed",
    )  # fmt: skip
    theirs = pdbufr.read_bufr(tmp_path / "x.bufr", columns=columns, required_columns=False)
    assert theirs.WMO_station_id.nunique() == ours.station.nunique() > 90
    for variable, values in {
        "t": theirs.airTemperature,
        "z": theirs.nonCoordinateGeopotentialHeight * 9.80665,
        "u": -theirs.windSpeed * np.sin(np.deg2rad(theirs.windDirection.astype(float))),
        "v": -theirs.windSpeed * np.cos(np.deg2rad(theirs.windDirection.astype(float))),
    }.items():
        mine = ours[ours.variable == variable]
        a = sorted(zip(mine.station.astype(int), mine.pressure.astype(float), mine.value.astype(float), strict=True))
        given = values.notna()
        b = sorted(
            zip(
                theirs.WMO_station_id[given].astype(int),
                theirs.pressure[given],
                values[given].astype(float),
                strict=True,
            )
        )
        np.testing.assert_allclose(np.array(a), np.array(b), rtol=1e-6, atol=1e-5)
