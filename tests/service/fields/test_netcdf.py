"""CF netCDF out, and everybody's netCDF in."""

from datetime import UTC, datetime
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from service.fields.contract import VARIABLES, from_array, to_array
from service.fields.errors import FieldError
from service.fields.grib import read_fields, summarise, validate_and_regrid
from service.fields.grid import BundleDescription
from service.fields.netcdf import write_netcdf

VALID = datetime(2021, 1, 1, tzinfo=UTC)


@pytest.fixture
def dataset(description: BundleDescription, ensemble: NDArray[np.float32]) -> xr.Dataset:
    return from_array(ensemble, description, VALID, step_hours=6)


def test_what_is_written_is_read_back_bit_for_bit(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    path = tmp_path / "members.nc"
    write_netcdf(path, dataset, product="forecast")
    restored = read_fields(path)
    np.testing.assert_array_equal(to_array(restored, description), ensemble)
    for name, coordinate in dataset.coords.items():
        xr.testing.assert_identical(restored.coords[name], coordinate)
    assert restored.attrs["product"] == "forecast"
    state, valid, notes = validate_and_regrid(restored, description)
    np.testing.assert_array_equal(state, ensemble)
    assert valid == VALID
    assert notes == ["a forecast of 6 h from 2020-12-31T18:00Z"]


def test_the_file_states_cf_names_units_heights_and_times_by_netcdf4_alone(
    tmp_path: Path, dataset: xr.Dataset, ensemble: NDArray[np.float32], description: BundleDescription
) -> None:
    path = tmp_path / "members.nc"
    write_netcdf(path, dataset, product="forecast", title="A title")
    with netCDF4.Dataset(path) as file:
        assert file.Conventions == "CF-1.11"
        assert (file.title, file.product) == ("A title", "forecast")
        for name, attributes in VARIABLES.items():
            assert file[name].standard_name == attributes["standard_name"]
            assert file[name].units == attributes["units"]
            assert file[name].dtype == np.float32
        assert (file["level"].units, file["level"].positive) == ("hPa", "down")
        assert netCDF4.num2date(file["time"][0], file["time"].units).isoformat() == "2021-01-01T00:00:00"
        assert "height_2m" in file["t2m"].coordinates.split()
        assert "height_10m" in file["u10"].coordinates.split()
        assert "height" not in file["z"].coordinates
        assert (float(file["height_2m"][()]), float(file["height_10m"][()])) == (2.0, 10.0)
        np.testing.assert_array_equal(
            file["t"][0, 2, list(file["level"][:]).index(850)], ensemble[2, description.index("t", 850)]
        )


def test_an_increment_says_so_and_is_refused_as_a_state(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription
) -> None:
    path = tmp_path / "increment.nc"
    write_netcdf(path, dataset - dataset.mean("number"), product="increment")
    with netCDF4.Dataset(path) as file:
        assert file["t2m"].long_name.endswith("analysis increment")
        assert file["t2m"].units_metadata == "temperature: difference"
    with pytest.raises(FieldError, match="increments, not a state"):
        validate_and_regrid(read_fields(path), description)


def test_a_copernicus_layout_south_to_north_and_from_minus_180_is_the_same_state(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    file = dataset.isel(number=[1], time=0, drop=True).isel(number=0, drop=True).drop_vars("level", errors="ignore")
    file = file.assign_coords(level=dataset["level"].to_numpy())
    file = file.assign_coords(longitude=(file["longitude"].to_numpy() + 180) % 360 - 180).sortby("longitude")
    file = (
        file.sortby("latitude")
        .sortby("level")
        .rename(level="pressure_level", t2m="surface_air", latitude="lat", longitude="lon")
    )
    file["surface_air"].attrs = {"short_name": "2t", "units": "K"}
    file["precipitation"] = file["sp"] * 0
    file = file.expand_dims(valid_time=[np.datetime64("2021-01-01", "ns")]).transpose("lon", "lat", ...)
    file.to_netcdf(tmp_path / "cds.nc")
    state, valid, _ = validate_and_regrid(read_fields(tmp_path / "cds.nc"), description)
    np.testing.assert_array_equal(state[0], ensemble[1])
    assert valid == VALID
    assert summarise(tmp_path / "cds.nc").skipped == ("precipitation",)


def test_a_cfgrib_export_with_time_step_and_valid_time_has_the_right_valid_time(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription
) -> None:
    file = (
        dataset.isel(time=0)
        .drop_vars(["time", "forecast_reference_time"])
        .assign_coords(
            time=np.datetime64("2020-12-31T18", "ns"),
            step=np.timedelta64(6 * 3600 * 10**9, "ns"),
            valid_time=np.datetime64("2021-01-01", "ns"),
        )
    )
    file.to_netcdf(tmp_path / "cfgrib.nc")
    _, valid, notes = validate_and_regrid(read_fields(tmp_path / "cfgrib.nc"), description)
    assert valid == VALID
    assert "a forecast of 6 h from 2020-12-31T18:00Z" in notes


def test_packed_integers_and_pascal_levels_are_understood(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    file = dataset.assign_coords(level=dataset["level"] * 100)
    file["level"].attrs["units"] = "Pa"
    encoding = {"t": {"dtype": "int16", "scale_factor": 0.005, "add_offset": 250.0, "_FillValue": -32767}}
    file.to_netcdf(tmp_path / "packed.nc", encoding=encoding)
    state, _, _ = validate_and_regrid(read_fields(tmp_path / "packed.nc"), description)
    chosen = [description.index("t", level) for level in description.levels("t")]
    np.testing.assert_allclose(state[:, chosen], ensemble[:, chosen], atol=0.003)


def test_a_missing_value_is_refused_by_name(
    tmp_path: Path, dataset: xr.Dataset, description: BundleDescription
) -> None:
    dataset["q"][0, 1, 3, 5, 6] = np.nan
    write_netcdf(tmp_path / "hole.nc", dataset, product="forecast")
    with pytest.raises(FieldError, match=r"q500 has missing values \(in 1 of 3 members\)"):
        validate_and_regrid(read_fields(tmp_path / "hole.nc"), description)


def test_a_file_that_promises_too_much_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "bomb.nc", "w") as file:
        for name, size in (("level", 1000), ("latitude", 20000), ("longitude", 40000)):
            file.createDimension(name, size)
            file.createVariable(name, "f8", (name,))[:] = np.arange(size)
        file.createVariable("t", "f4", ("level", "latitude", "longitude"), zlib=True, chunksizes=(1, 1000, 1000))
    assert (tmp_path / "bomb.nc").stat().st_size < 2_000_000
    with pytest.raises(FieldError, match="800000000000 values"):
        read_fields(tmp_path / "bomb.nc")


def test_broken_and_foreign_files_are_refused_with_a_reason(tmp_path: Path, dataset: xr.Dataset) -> None:
    write_netcdf(tmp_path / "good.nc", dataset, product="forecast")
    content = (tmp_path / "good.nc").read_bytes()
    (tmp_path / "cut.nc").write_bytes(content[: len(content) // 3])
    (tmp_path / "text.nc").write_text("time,latitude\n")
    xr.Dataset({"chlorophyll": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc")
    dataset[["t"]].rename(level="eta").drop_vars("eta").to_netcdf(tmp_path / "model_levels.nc")
    for name, reason in (
        ("cut.nc", "cannot be read"),
        ("text.nc", "neither GRIB nor netCDF"),
        ("other.nc", "chlorophyll"),
        ("model_levels.nc", "it holds t|eta"),
        ("absent.nc", "cannot be opened"),
    ):
        with pytest.raises(FieldError, match=reason):
            read_fields(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, dataset: xr.Dataset) -> None:
    path = tmp_path / "product.nc"
    path.write_bytes(b"the old file")
    with pytest.raises(FieldError, match="ozone"):
        write_netcdf(path, dataset.assign(ozone=dataset["t"]), product="forecast")
    dataset["t"] = dataset["t"].astype(object)
    dataset["t"][0, 0, 0, 0, 0] = {"not": "a number"}
    with pytest.raises((TypeError, ValueError)):
        write_netcdf(path, dataset, product="forecast")
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]
