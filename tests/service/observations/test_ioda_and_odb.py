"""IODA and ODB-2: what we write, h5py and pyodc read back; what others wrote, we read value by value as they do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyodc
import pytest

from service.observations.decoders import DecodeError, decode
from service.observations.encode_ioda import EFFECTIVE_QC, write_ioda
from service.observations.reasons import Reason
from service.observations.table import SCHEMA, columns_to_table

DATA = Path(__file__).parents[2] / "data"
RECEIVED = datetime(2020, 1, 2, tzinfo=UTC)


def observations() -> pa.Table:
    rng = np.random.default_rng(3)
    n = 400
    variables = np.array(["z", "t", "u", "v", "q", "sp", "t2m", "u10", "v10", "refractivity"])[np.arange(n) % 10]
    surface = np.isin(variables, ["sp", "t2m", "u10", "v10"])
    scale = {"z": 5e4, "t": 250, "u": 20, "v": -20, "q": 1e-3, "sp": 1e5, "t2m": 280, "u10": 5, "v10": -5,
             "refractivity": 200}  # fmt: skip
    columns: dict[str, Any] = {
        "time": np.datetime64("2020-01-01T12:00", "us") + (np.arange(n) // 10).astype("timedelta64[m]"),
        "receipt_time": np.full(n, np.datetime64(RECEIVED.replace(tzinfo=None), "us")),
        "latitude": np.round(rng.uniform(-90, 90, n), 5), "longitude": np.round(rng.uniform(-180, 180, n), 5),
        "pressure": np.where(surface | (variables == "refractivity"), np.nan, rng.uniform(1e3, 1e5, n)),
        "height": np.where(variables == "refractivity", 12_345.5, np.where(surface, 100.0, np.nan)),
        "variable": variables.astype(object), "value": np.array([scale[v] for v in variables]) * rng.uniform(0.9, 1.1, n),
        "error": np.where(np.arange(n) % 3 == 0, np.nan, rng.uniform(0.1, 2.0, n)),
        "type": np.array(["temp", "synop", "gnssro", "ship"], dtype=object)[np.arange(n) // 10 % 4],
        "station": np.array([f"S{i // 10}é" for i in range(n)], dtype=object), "source": np.full(n, "feed", dtype=object),
        "preqc": np.where(np.arange(n) % 4 == 0, -1, np.arange(n) % 100 + 1),
    }  # fmt: skip
    for name in ("latitude", "longitude"):  # the values of a report are at one place
        columns[name] = columns[name][np.arange(n) // 10 * 10]
    return columns_to_table(columns)


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table.to_pylist()}


def test_every_value_survives_ioda_unchanged(tmp_path: Path) -> None:
    table = observations()
    write_ioda(table, tmp_path / "x.nc")
    again = decode(tmp_path / "x.nc", None, "other", RECEIVED)
    assert again.rejected.num_rows == 0 and again.notes == []
    assert by_id(again.table) == by_id(table)


def departures() -> pa.Table:
    table = observations()
    n = table.num_rows
    codes = np.array([int(r) for r in Reason], np.int16)[np.arange(n) % len(Reason)]
    value = table.column("value").to_numpy()
    background = np.where(np.arange(n) % 7 == 0, np.nan, value - 0.5).astype(np.float32)
    added = {"background": background, "analysis": (value - 0.25).astype(np.float32), "qc": codes}
    for name, values in added.items():
        table = table.append_column(name, pa.array(values, from_pandas=True))
    return table


def test_departures_follow_the_conventions_of_ioda(tmp_path: Path) -> None:
    table = departures()
    write_ioda(table, tmp_path / "x.nc")
    rows = table.to_pylist()
    with h5py.File(tmp_path / "x.nc") as file:
        assert {"MetaData", "ObsValue", "ObsError", "PreQC", "EffectiveQC", "HofX", "ombg", "oman"} <= set(file)
        size = file["Location"].shape[0]
        assert all(file["ObsValue"][name].shape == (size,) for name in file["ObsValue"])
        stations = [s.decode() for s in file["MetaData/stationIdentification"][:]]
        assert file["MetaData/dateTime"].attrs["units"] == "seconds since 1970-01-01T00:00:00Z"
        assert file["ObsValue/airTemperature"].dims[0][0].name == "/Location"
        for row in (r for r in rows if r["variable"] == "t"):
            at = next(
                i for i in range(size)
                if stations[i] == row["station"] and file["ObsValue/airTemperature"][i] == np.float32(row["value"])
            )  # fmt: skip
            assert file["EffectiveQC/airTemperature"][at] == EFFECTIVE_QC.get(Reason(row["qc"]), 14)
            assert file["Reason/airTemperature"][at] == row["qc"]
            fill = file["HofX/airTemperature"].attrs["_FillValue"][0]
            if row["background"] is None:
                assert file["HofX/airTemperature"][at] == file["ombg/airTemperature"][at] == fill
            else:
                assert file["HofX/airTemperature"][at] == np.float32(row["background"])
                np.testing.assert_allclose(file["ombg/airTemperature"][at], 0.5, atol=1e-4)
            np.testing.assert_allclose(file["oman/airTemperature"][at], 0.25, atol=1e-4)


def test_netcdf4_reads_it_too(tmp_path: Path) -> None:
    import netCDF4

    table = observations()
    write_ioda(table, tmp_path / "x.nc")
    with netCDF4.Dataset(tmp_path / "x.nc") as file:
        values = file["ObsValue"]["airTemperature"]
        assert values.dimensions == ("Location",)
        assert values[:].count() == sum(v == "t" for v in table.column("variable").to_pylist())


def test_the_fill_values_that_are_in_use_are_missing(tmp_path: Path) -> None:
    fills = np.array([250.0, -3.4e38, -2147483648.0, 2147483647.0, 9.96921e36, np.nan], np.float32)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, values in {"latitude": 50.0, "longitude": 5.0, "pressure": 5e4}.items():
            file[f"MetaData/{name}"] = np.full(6, values, np.float32)
        file["MetaData/dateTime"] = np.full(6, 86400, np.int64)
        file["MetaData/dateTime"].attrs["units"] = "seconds since 1970-01-01T00:00:00Z"
        file["ObsValue/airTemperature"] = fills
    batch = decode(tmp_path / "x.h5", "application/x-hdf5", "feed", RECEIVED)
    assert batch.table.column("value").to_pylist() == [250.0] and batch.rejected.num_rows == 0
    assert batch.table.column("time").to_pylist() == [datetime(1970, 1, 2, tzinfo=UTC)]


def test_hdf5_that_is_not_ioda_says_so(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = [1, 2]
    with pytest.raises(DecodeError, match="not an IODA file"):
        decode(tmp_path / "x.h5", None, "feed", RECEIVED)


def test_ecmwf_feedback_is_read_value_by_value_as_pyodc_reads_it() -> None:
    batch = decode(DATA / "ecmwf_feedback.odb", None, "feed", RECEIVED)
    theirs = pyodc.read_odb(str(DATA / "ecmwf_feedback.odb"), single=True)
    assert batch.received == len(theirs) == 13
    pressures = theirs[theirs["varno@body"] == 110].sort_values(["statid@hdr", "time@hdr"])
    rows = sorted(batch.table.to_pylist(), key=lambda row: (row["station"], row["time"]))
    humid = theirs[theirs["varno@body"] == 58].sort_values(["statid@hdr", "time@hdr"])
    found = [row["value"] for row in rows if row["variable"] == "rh2m"]
    assert found == humid["obsvalue@body"].astype(np.float32).tolist() and len(found) == 2
    ours = [row for row in rows if row["variable"] == "sp"]
    assert [row["value"] for row in ours] == pressures["obsvalue@body"].astype(np.float32).tolist()
    np.testing.assert_array_equal([row["error"] for row in ours], pressures["obs_error@errstat"].astype(np.float32))
    np.testing.assert_array_equal([row["latitude"] for row in ours], pressures["lat@hdr"])
    np.testing.assert_array_equal(
        np.array([row["height"] for row in ours], np.float32), pressures["vertco_reference_1@body"].astype(np.float32)
    )
    assert [f"{row['time']:%H%M%S}" for row in ours] == [f"{int(t):06d}" for t in pressures["time@hdr"]]
    assert {row["type"] for row in rows} == {"synop"} and batch.counts == {}


def test_departures_in_odb2_come_back_as_the_observations_that_they_were(tmp_path: Path) -> None:
    from worker.stages.departures import write_odb2
    from worker.stages.observed import with_columns

    table = departures().filter(pa.array([v != "refractivity" for v in departures().column("variable").to_pylist()]))
    n = table.num_rows
    table = with_columns(table, {"background_spread": np.ones(n), "analysis_spread": np.ones(n)})
    stations = pa.array([name.rstrip("é") for name in table.column("station").to_pylist()])
    table = table.set_column(table.column_names.index("station"), "station", stations)
    write_odb2(table, tmp_path / "x.odb", RECEIVED)
    again = decode(tmp_path / "x.odb", "application/x-odb", "other", RECEIVED)
    assert again.rejected.num_rows == 0 and again.table.num_rows == n
    for name in ("time", "latitude", "longitude", "pressure", "height", "value", "variable", "station", "source"):
        assert again.table.column(name).to_pylist() == table.column(name).to_pylist(), name
    frame = pyodc.read_odb(str(tmp_path / "x.odb"), single=True)
    used = frame["reason@alignda"] == Reason.ASSIMILATED
    assert set(frame.loc[used, "datum_status@body"]) == {1} and frame["seqno@hdr"].nunique() == 40
    assert (frame.groupby("seqno@hdr")["entryno@body"].max() == frame.groupby("seqno@hdr").size()).all()


def test_the_schema_is_the_tables(tmp_path: Path) -> None:
    write_ioda(observations(), tmp_path / "x.nc")
    assert decode(tmp_path / "x.nc", None, "other", RECEIVED).table.schema == SCHEMA
