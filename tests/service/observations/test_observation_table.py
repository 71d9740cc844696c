"""The table itself: names of values, default errors, the window, duplicates, reasons."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.observations.encode_bufr import EncodeError, encode_soundings
from service.observations.reasons import DESCRIPTIONS, Reason
from service.observations.table import (
    SCHEMA,
    TYPES,
    VARIABLES,
    columns_to_table,
    default_error,
    default_errors,
    empty_table,
)
from service.observations.window import duplicates, in_window, select_window, window_bounds

NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def table(**columns: list[Any]) -> pa.Table:
    n = len(next(iter(columns.values())))
    base: dict[str, Any] = {
        "time": [np.datetime64("2020-01-01T12:00")] * n, "receipt_time": [np.datetime64("2020-01-01T13:00")] * n,
        "latitude": [52.0] * n, "longitude": [5.0] * n, "pressure": [50000.0] * n, "height": [np.nan] * n,
        "variable": ["t"] * n, "value": [250.0] * n, "error": [np.nan] * n, "type": ["temp"] * n,
        "station": ["06260"] * n, "source": ["feed"] * n, "preqc": [-1] * n,
    }  # fmt: skip
    return columns_to_table({name: np.array(values) for name, values in (base | columns).items()})


def test_every_reason_is_described() -> None:
    assert set(DESCRIPTIONS) == set(Reason) and all(DESCRIPTIONS.values())


def test_a_value_keeps_its_name_through_another_feed_and_gets_another_with_any_other_content() -> None:
    name = table(value=[250.0]).column("id")[0].as_py()
    same = table(source=["other"], receipt_time=[np.datetime64("2021-01-01")], error=[1.0])
    assert same.column("id")[0].as_py() == name
    changes: list[dict[str, list[Any]]] = [
        {"value": [250.01]}, {"latitude": [52.01]}, {"longitude": [5.01]}, {"pressure": [49990.0]}, {"height": [10.0]},
        {"variable": ["u"]}, {"type": ["amdar"]}, {"station": ["06261"]}, {"time": [np.datetime64("2020-01-01T12:01")]},
    ]  # fmt: skip
    names = {table(**change).column("id")[0].as_py() for change in changes}
    assert len(names) == len(changes) and name not in names


def test_nulls_are_nulls() -> None:
    row = table(value=[250.0]).to_pylist()[0]
    assert row["height"] is None and row["error"] is None and row["preqc"] is None
    assert empty_table().schema == SCHEMA and empty_table().num_rows == 0


def test_default_errors_meet_their_sources_at_table_levels_and_are_log_linear_between() -> None:
    # NCEP: radiosonde wind 2.1 m/s at 500 hPa, 2.6 at 400; ECMWF: radiosonde height 8.4 m at 500 hPa
    np.testing.assert_allclose(default_error("temp", "u", [50000.0, 40000.0]), [2.1, 2.6], rtol=1e-6)
    np.testing.assert_allclose(default_error("temp", "z", 50000.0), 8.4 * 9.80665, rtol=1e-6)
    np.testing.assert_allclose(default_error("temp", "u", np.sqrt(4e4 * 3.5e4)), 2.7, rtol=1e-6)
    np.testing.assert_allclose(default_error("synop", "sp", np.nan), 100.0)


def test_an_error_that_needs_a_pressure_is_not_invented_without_one() -> None:
    assert np.isnan(default_error("temp", "t", np.nan))
    assert np.isnan(default_error("satwind", "t", 50000.0))


SURFACE = ("sp", "t2m", "u10", "v10", "ws10")


def test_every_usual_pair_of_type_and_variable_has_a_positive_error() -> None:
    usual = {
        "temp": "ztuvq", "pilot": "uv", "amdar": "tuvq", "satwind": "uv",
        "synop": SURFACE, "ship": SURFACE, "buoy": SURFACE, "scatterometer": ("u10", "v10", "ws10"),
        "gnssro": ("refractivity",), "sounder": ("tlayer", "tb"),
    }  # fmt: skip
    assert set(usual) == set(TYPES)
    for kind, variables in usual.items():
        for variable in variables:
            assert variable in VARIABLES
            errors = default_error(kind, variable, np.array([100000.0, 50000.0, 10000.0]))
            assert (errors > 0).all()


def test_at_a_height_the_error_is_that_of_the_standard_atmospheres_pressure_there():
    rows = table(pressure=[np.nan, 50000.0], height=[5574.4, np.nan], variable=["t", "t"])
    np.testing.assert_allclose(*default_errors(rows), rtol=1e-4)


def test_a_row_uses_its_own_error_before_the_default() -> None:
    errors = default_errors(table(error=[np.nan, 3.0, np.nan], variable=["t", "t", "u"]))
    np.testing.assert_allclose(errors, [0.8, 3.0, 2.1], rtol=1e-6)


def test_the_window_contains_its_start_and_not_its_end() -> None:
    assert window_bounds(NOON, 6) == (NOON - timedelta(hours=3), NOON + timedelta(hours=3))
    edges = ["2020-01-01T08:59:59.999999", "2020-01-01T09:00", "2020-01-01T14:59:59.999999", "2020-01-01T15:00"]
    rows = table(time=[np.datetime64(edge, "us") for edge in edges])
    assert in_window(rows, NOON, 6).tolist() == [False, True, True, False]
    assert select_window(rows, NOON, 6).num_rows == 2


def test_neighbouring_windows_share_nothing_and_leave_nothing_out() -> None:
    times = [np.datetime64("2020-01-01T00:00", "us") + np.timedelta64(i * 7, "m") for i in range(250)]
    rows = table(time=times)
    hits = np.sum([in_window(rows, NOON + timedelta(hours=6 * k), 6) for k in range(-3, 5)], axis=0)
    assert (hits == 1).all()


def test_as_known_at_leaves_out_what_was_received_later() -> None:
    rows = table(receipt_time=[np.datetime64("2020-01-01T12:30"), np.datetime64("2020-01-01T12:31")])
    as_of = NOON + timedelta(minutes=30)
    assert in_window(rows, NOON, 6, as_of).tolist() == [True, False]


def test_a_window_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        window_bounds(datetime(2020, 1, 1), 6)


def test_of_duplicates_the_first_received_stays() -> None:
    early, late = np.datetime64("2020-01-01T12:10"), np.datetime64("2020-01-01T12:20")
    rows = table(
        receipt_time=[late, early, early, late], variable=["t", "t", "u", "t"], value=[250.0, 250.0, 5.0, 251.0]
    )
    assert duplicates(rows).tolist() == [True, False, False, True]
    assert duplicates(empty_table()).tolist() == []


def test_levels_of_one_station_are_no_duplicates() -> None:
    assert not duplicates(table(pressure=[50000.0, 40000.0, 30000.0])).any()
    assert not duplicates(table(pressure=[np.nan, np.nan], height=[10.0, 20.0], variable=["t2m", "t2m"])).any()


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"type": ["synop"]}, "synop"),
        ({"variable": ["sp"]}, "'sp'"),
        ({"pressure": [np.nan]}, "no pressure"),
        ({"variable": ["u"]}, "u without v"),
    ],
)
def test_rows_that_no_sounding_can_hold_are_refused(columns: dict[str, list[Any]], text: str) -> None:
    with pytest.raises(EncodeError, match=text):
        encode_soundings(table(**columns))
