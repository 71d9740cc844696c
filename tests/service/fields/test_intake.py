"""Real files through the check of posted fields: accepted with notes, or refused by the name of what is missing."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cfgrib
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from service.fields.contract import from_array
from service.fields.errors import FieldError
from service.fields.grib import read_fields, summarise, validate_and_regrid
from service.fields.grid import BundleDescription

Find = Callable[[str], Path]
MakeDescription = Callable[..., BundleDescription]
ALL = (925.0, 850.0, 700.0, 500.0, 300.0, 200.0, 100.0)
SURFACE_MISSING = {name: (None,) for name in ("u10", "v10", "t2m", "sp")}


def weighted_mean(field: NDArray[np.float32], description: BundleDescription) -> float:
    weights = np.cos(np.radians(description.grid.latitudes))
    return float((field.mean(axis=-1) * weights).sum() / weights.sum())


def test_two_levels_of_era5_members_are_refused_with_all_that_is_missing(
    real_file: Find, description: BundleDescription
) -> None:
    path = real_file("era5_levels_members.grib")
    dataset = read_fields(path)
    with pytest.raises(FieldError) as refusal:
        validate_and_regrid(dataset, description)
    assert refusal.value.missing == {
        "z": (925.0, 300.0, 200.0, 100.0),
        "q": ALL,
        "u": ALL,
        "v": ALL,
        "t": (925.0, 300.0, 200.0, 100.0),
        **SURFACE_MISSING,
    }
    assert "z at 925 300 200 100 hPa; q at 925 850 700" in str(refusal.value)
    assert "it has z at 850 500 hPa; t at 850 500 hPa" in str(refusal.value)


def test_era5_members_are_read_as_cfgrib_reads_them(real_file: Find) -> None:
    path = real_file("era5_levels_members.grib")
    ours = read_fields(path)
    theirs = cfgrib.open_dataset(str(path), indexpath="")
    for name in ("z", "t"):
        expected = theirs[name].transpose("time", "number", "isobaricInhPa", "latitude", "longitude")
        np.testing.assert_array_equal(ours[name], expected.sel(isobaricInhPa=[850, 500]))
    np.testing.assert_array_equal(ours["time"], theirs["valid_time"])
    np.testing.assert_array_equal(ours["latitude"], theirs["latitude"])
    summary = summarise(path)
    assert (summary.format, summary.members, summary.fields) == ("GRIB1", tuple(range(10)), 160)
    assert summary.levels == {"z": (850.0, 500.0), "t": (850.0, 500.0)}
    assert [f"{time:%Y%m%d%H}" for time in summary.valid_times] == [
        "2017010100",
        "2017010112",
        "2017010200",
        "2017010212",
    ]


def test_era5_members_make_an_ensemble_of_a_bundle_that_needs_no_more(
    real_file: Find, description: BundleDescription
) -> None:
    wanted = tuple(c for c in description.channels if c.variable in "zt" and c.level in (850, 700, 500))
    small = description.model_copy(update={"channels": wanted})
    dataset = read_fields(real_file("era5_levels_members.grib"))
    with pytest.raises(FieldError, match="4 valid times"):
        validate_and_regrid(dataset, small)
    with pytest.raises(FieldError, match="no fields valid at 2017-01-03"):
        validate_and_regrid(dataset, small, datetime(2017, 1, 3, tzinfo=UTC))
    states, valid, notes = validate_and_regrid(dataset, small, datetime(2017, 1, 1, 12, tzinfo=UTC))
    assert states.shape == (10, 6, 48, 96)
    assert valid == datetime(2017, 1, 1, 12, tzinfo=UTC)
    assert len({state.tobytes() for state in states}) == 10
    assert "z700 interpolated linearly in ln p with the hydrostatic correction between 500 and 850 hPa" in notes
    # xarray's own interpolation is an independent bilinear one, away from the seam and the poles
    source = dataset["z"].isel(time=1, number=4).sel(level=500)
    latitudes, longitudes = small.grid.latitudes[2:-2], small.grid.longitudes[1:-2]
    expected = source.interp(latitude=list(latitudes), longitude=list(longitudes))
    np.testing.assert_allclose(states[4, small.index("z", 500), 2:-2, 1:-2], expected, rtol=1e-6)


def test_an_ecmwf_forecast_without_the_upper_levels_and_the_surface_is_refused(
    real_file: Find, description: BundleDescription
) -> None:
    with pytest.raises(FieldError) as refusal:
        validate_and_regrid(read_fields(real_file("ecmwf_pl_regular_ll.grib")), description)
    # 925 lies between 1000 and 850, q comes from r: neither is missing
    assert refusal.value.missing == {variable: (200.0, 100.0) for variable in "zquvt"} | SURFACE_MISSING


def test_an_ecmwf_forecast_serves_a_bundle_of_its_troposphere(
    real_file: Find, make_description: MakeDescription
) -> None:
    description = make_description(levels=(925.0, 850.0, 600.0, 500.0, 300.0), surface=())
    dataset = read_fields(real_file("ecmwf_pl_regular_ll.grib"))
    states, _, notes = validate_and_regrid(dataset, description, datetime(2024, 6, 3, 18, tzinfo=UTC))
    assert "a forecast of 6 h from 2024-06-03T12:00Z" in notes
    assert any(note.startswith("q computed from relative humidity") for note in notes)
    q850 = weighted_mean(states[0, description.index("q", 850)], description)
    assert 0.0060 < q850 < 0.0090  # ERA5's global mean is 7 g kg-1
    z = {
        level: weighted_mean(states[0, description.index("z", level)], description) / 9.80665
        for level in (925, 600, 500)
    }
    # hypsometric thickness from its own mean temperature
    t = [weighted_mean(states[0, description.index("t", level)], description) for level in (600, 500)]
    assert z[500] - z[600] == pytest.approx(287.06 / 9.80665 * np.mean(t) * np.log(600 / 500), rel=0.005)
    assert 700 < z[925] < 830


def test_a_full_era5_state_lacks_only_the_surface(
    real_file: Find, description: BundleDescription, make_description: MakeDescription
) -> None:
    path = real_file("era5_tl31_19590102T00.nc")
    dataset = read_fields(path)
    with pytest.raises(FieldError) as refusal:
        validate_and_regrid(dataset, description)
    assert refusal.value.missing == SURFACE_MISSING

    upper_air = make_description(surface=())
    state, valid, notes = validate_and_regrid(dataset, upper_air)
    assert valid == datetime(1959, 1, 2, tzinfo=UTC)
    assert notes == ["regridded bilinearly from 32 x 64 points to N24 regular_gg 48 x 96"]
    with xr.open_dataset(path) as original:
        source = original.transpose("level", "latitude", "longitude").sortby("latitude", ascending=False)
        inner = {"latitude": list(upper_air.grid.latitudes[1:-1]), "longitude": list(upper_air.grid.longitudes[:-2])}
        for name, variable, level in (("temperature", "t", 500), ("u_component_of_wind", "u", 200)):
            expected = source[name].sel(level=level).interp(inner)
            np.testing.assert_allclose(
                state[0, upper_air.index(variable, level), 1:-1, :-2], expected, rtol=1e-4, atol=1e-4
            )
    assert 7000 < state[0, upper_air.index("t", 500)].mean() * 28 < 7500
    assert summarise(path).levels["z"][:4] == (1000.0, 975.0, 950.0, 925.0)
    assert "sea_surface_temperature" in summarise(path).skipped


def test_units_are_converted_and_told_or_refused(description: BundleDescription, ensemble: NDArray[np.float32]) -> None:
    dataset = from_array(ensemble, description, datetime(2021, 1, 1, tzinfo=UTC))
    dataset["sp"] = (dataset["sp"] / 100).assign_attrs(units="hPa")
    dataset["t2m"] = (dataset["t2m"] - 273.15).assign_attrs(units="degC")
    dataset["u"].attrs["units"] = "m s**-1"
    state, _, notes = validate_and_regrid(dataset, description)
    np.testing.assert_allclose(state, ensemble, rtol=1e-6, atol=1e-4)
    assert sorted(notes) == ["sp converted from hPa to Pa", "t2m converted from degC to K"]
    with pytest.raises(FieldError, match="v is in 'knots'"):
        dataset["v"].attrs["units"] = "knots"
        validate_and_regrid(dataset, description)


def test_implausible_values_are_refused(description: BundleDescription, ensemble: NDArray[np.float32]) -> None:
    dataset = from_array(ensemble, description, datetime(2021, 1, 1, tzinfo=UTC))
    dataset["t2m"] = (dataset["t2m"] - 273.15).assign_attrs(units="K")
    with pytest.raises(FieldError, match="t2m ranges from"):
        validate_and_regrid(dataset, description)


def test_relative_humidity_without_temperature_is_refused(
    description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    dataset = from_array(ensemble, description, datetime(2021, 1, 1, tzinfo=UTC))
    dataset = dataset.rename(q="r").drop_vars("t")
    dataset["r"].attrs["units"] = "%"
    with pytest.raises(FieldError, match="no temperature"):
        validate_and_regrid(dataset, description)


def test_a_missing_surface_pressure_is_never_made_up(
    description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    dataset = from_array(ensemble, description, datetime(2021, 1, 1, tzinfo=UTC)).drop_vars("sp")
    with pytest.raises(FieldError) as refusal:
        validate_and_regrid(dataset, description)
    assert refusal.value.missing == {"sp": (None,)}


def test_a_level_that_only_another_time_has_is_missing(
    description: BundleDescription, ensemble: NDArray[np.float32]
) -> None:
    times = (datetime(2021, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, 6, tzinfo=UTC))
    whole, partial = (from_array(ensemble, description, time) for time in times)
    partial["z"].loc[{"level": 100.0}] = np.nan
    both = xr.concat([whole, partial], dim="time")
    assert validate_and_regrid(both, description, times[0])[1] == times[0]
    with pytest.raises(FieldError) as refusal:
        validate_and_regrid(both, description, times[1])
    assert refusal.value.missing == {"z": (100.0,)}
