"""Upper-air values that bring a height and no pressure."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from service.observations.checks import DecodedBatch
from service.observations.conversions import standard_atmosphere_pressure
from service.observations.decoders import decode
from service.observations.error_table import default_error
from service.settings import shipped_bundle

NOON = datetime(2009, 1, 23, 12, tzinfo=UTC)


@pytest.fixture
def decoded(tmp_path: Path):
    def of(*rows: dict[str, object]) -> DecodedBatch:
        standard = {"time": NOON.isoformat(), "latitude": 50.0, "longitude": 10.0, "variable": "u", "value": 10.0}
        file = tmp_path / "rows.json"
        file.write_text(json.dumps([{**standard, "type": "amdar", "station": "A", **row} for row in rows]))
        return decode(file, "application/json", "test", NOON)

    return of


@pytest.mark.parametrize(
    # flight levels (hundreds of feet) and the pressures of the tables of ICAO Doc 7488
    ("feet", "hectopascal"), [(10_000, 696.82), (18_000, 505.99), (35_000, 238.42), (41_000, 178.74)]
)  # fmt: skip
@pytest.mark.parametrize(("variable", "value"), [("u", 10.0), ("v", 10.0), ("t", 250.0), ("q", 0.001)])
def test_an_aircrafts_pressure_altitude_becomes_the_pressure_it_was_made_from(
    decoded, variable, value, feet, hectopascal
):
    batch = decoded({"variable": variable, "value": value, "height": feet * 0.3048})
    (row,) = batch.table.to_pylist()
    assert row["pressure"] == pytest.approx(100 * hectopascal, rel=2e-4)
    assert row["height"] == pytest.approx(feet * 0.3048)
    assert batch.notes == [
        "1 values of aircraft without a pressure got that of the ICAO standard atmosphere at their height"
    ]


@pytest.mark.parametrize("kind", ["satwind", "pilot", "temp"])
def test_values_of_other_types_stay_at_their_height(decoded, kind):
    values = {"u": 10.0, "t": 255.0, "q": 0.001, "ws": 10.0, "wdir": 270.0, "rh": 0.5, "td": 250.0}
    batch = decoded(*({"variable": n, "value": v, "type": kind, "height": 5574.44} for n, v in values.items()))
    assert batch.table.num_rows == len(values) and batch.notes == []
    assert batch.table.column("pressure").null_count == len(values)
    assert batch.table.column("height").to_pylist() == pytest.approx([5574.44] * len(values))


def test_a_layer_has_two_pressures(decoded):
    layer = {"variable": "tlayer", "type": "sounder", "value": 250.0, "pressure": 85000.0}
    batch = decoded({**layer, "pressure_top": 50000.0}, {**layer, "pressure_top": 70000.0}, layer)
    assert batch.table.column("pressure_top").to_pylist() == [50000.0, 70000.0]
    assert len(set(batch.table.column("id").to_pylist())) == 2
    assert batch.rejected.to_pylist()[0]["detail"].startswith("tlayer needs pressure_top above its pressure")


def test_a_given_pressure_is_never_replaced(decoded):
    batch = decoded({"pressure": 70000.0, "height": 5574.44})
    assert batch.table.column("pressure").to_pylist() == [70000.0]
    assert batch.notes == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"variable": "z", "value": 55000.0, "height": 5574.0}, "z has a height and no pressure, give its pressure"),
        ({"variable": "gh", "type": "temp", "value": 5500.0, "height": 5574.0}, "gh has a height and no pressure"),
        ({"variable": "tb", "type": "sounder", "value": 250.0, "height": 5574.0}, "tb has a height and no pressure"),
        ({"height": 20001.0}, r"height 20001 is not within \[-690, 20000\] m, give the pressure instead"),
        ({"height": -691.0}, "height -691 is not within"),
        ({"height": 1e9}, "height 1e\\+09 is not within .*-1000"),
        ({}, "needs a pressure or a height"),
    ],
)
def test_what_no_pressure_can_be_told_for_is_refused_at_the_door_with_what_to_do(decoded, row, told):
    batch = decoded(row, {"pressure": 50000.0})
    assert batch.table.num_rows == 1
    (refused,) = batch.rejected.to_pylist()
    assert batch.counts == {"POSITION_INVALID": 1}
    import re

    assert re.search(told, refused["detail"]), refused["detail"]


def test_a_surface_value_needs_no_pressure_and_gets_none(decoded):
    batch = decoded({"variable": "t2m", "type": "synop", "value": 280.0, "height": 120.0})
    assert batch.table.to_pylist()[0]["pressure"] is None


def test_values_refused_for_another_reason_are_not_counted_as_placed(decoded):
    batch = decoded({"value": 900.0, "height": 5000.0}, {"height": 5000.0})
    assert batch.counts == {"RANGE": 1}
    assert batch.notes[0].startswith("1 values")


def test_the_standard_atmosphere_is_good_enough_for_winds_and_not_for_temperatures():
    """At true heights of the sample's pressure levels: what is read at the standard pressure, less what is there."""
    states = xr.open_dataset(shipped_bundle() / "sample.nc")
    levels = states["level"].to_numpy()[::-1]
    weight = np.cos(np.radians(states["latitude"].to_numpy()))[:, None]
    misplacement, change = {}, {}
    for level in levels:
        pressure = standard_atmosphere_pressure(states["z"].sel(level=level).to_numpy() / 9.80665) / 100.0
        misplacement[level] = rms(pressure - level, weight)
        for variable in "uvt":
            column = states[variable].to_numpy()[:, ::-1]
            change[variable, level] = rms(
                read_at(column, levels, pressure) - column[:, list(levels == level).index(True)], weight
            )
    assert 11.0 < min(misplacement.values()) < max(misplacement.values()) < 25.0
    for level in levels:
        for variable in "uv":
            assert change[variable, level] < 0.7 * default_error("pilot", variable, np.array([level * 100.0]))[0]
    assert change["u", 925.0] == pytest.approx(0.50, abs=0.02)
    assert change["u", 200.0] == pytest.approx(1.69, abs=0.02)
    assert change["t", 500.0] == pytest.approx(2.05, abs=0.05)


def rms(error: np.ndarray, weight: np.ndarray) -> float:
    return float(np.sqrt((weight * error**2).mean() / weight.mean()))


def read_at(column: np.ndarray, levels: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """`column` [time, level, ...] on ascending `levels`, linear in ln p, at `pressure` [time, ...]; held beyond them."""
    place = np.interp(np.log(pressure), np.log(levels), np.arange(len(levels)))
    below = np.minimum(place.astype(int), len(levels) - 2)
    lower, upper = (np.take_along_axis(column, (below + k)[:, None], 1)[:, 0] for k in (0, 1))
    return lower + (place - below) * (upper - lower)
