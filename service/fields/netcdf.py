"""CF netCDF (1.11) of the contract's Datasets, and the reading of other people's netCDF into the contract.

Names and layouts understood: those of this service, of the Copernicus data stores, of CF standard names.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from service.fields.atomic import written_whole
from service.fields.contract import VARIABLES, with_cf_attributes
from service.fields.errors import FieldError

AXES = {
    "time": ("time", "valid_time"),
    "number": ("number", "realization", "member", "ensemble", "ensemble_member"),
    "level": ("level", "pressure_level", "isobaricInhPa", "plev", "lev", "pressure"),
    "latitude": ("latitude", "lat"),
    "longitude": ("longitude", "lon"),
}
UPPER_AIR_NAMES = {
    "geopotential": "z",
    "geopotential_height": "gh",
    "specific_humidity": "q",
    "relative_humidity": "r",
    "eastward_wind": "u",
    "northward_wind": "v",
    "air_temperature": "t",
    "u_component_of_wind": "u",
    "v_component_of_wind": "v",
    "temperature": "t",
    "hgt": "gh",
}
SURFACE_NAMES = {
    "10u": "u10",
    "10v": "v10",
    "2t": "t2m",
    "10m_u_component_of_wind": "u10",
    "10m_v_component_of_wind": "v10",
    "2m_temperature": "t2m",
    "surface_pressure": "sp",
    "surface_air_pressure": "sp",
    "ps": "sp",
}
UPPER_AIR = ("z", "gh", "q", "r", "u", "v", "t")
SURFACE = ("u10", "v10", "t2m", "sp")
HEIGHTS = {"u10": "height_10m", "v10": "height_10m", "t2m": "height_2m"}


def write_netcdf(path: str | Path, dataset: xr.Dataset, *, product: str, title: str = "") -> None:
    """Write a Dataset of the contract as compressed CF netCDF-4; the file appears whole or not at all.

    Args:
        product: kept as global attribute, so that an increment is never read as an analysis.
        title: for people.

    Raises:
        FieldError: a variable that the contract does not know.
    """
    strange = [str(name) for name in dataset.data_vars if name not in VARIABLES]
    if strange:
        raise FieldError(f"the contract of fields has no variable {', '.join(strange)}")
    out = with_cf_attributes(dataset.copy()).assign_attrs(
        Conventions="CF-1.11",
        title=title or f"{product} of {dataset.attrs.get('bundle', 'an atmospheric state')}",
        product=product,
        history=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} written by alignda",
    )
    for name, height in (("height_10m", 10.0), ("height_2m", 2.0)):
        if name in {HEIGHTS.get(str(variable)) for variable in out.data_vars}:
            attributes = {"standard_name": "height", "units": "m", "positive": "up", "axis": "Z"}
            out = out.assign_coords({name: ((), height, attributes)})
    encoding: dict[str, dict[str, Any]] = {}
    for name in map(str, out.data_vars):
        auxiliary = [c for c in ("forecast_reference_time", HEIGHTS.get(name)) if c in out.coords]
        encoding[name] = {"dtype": "float32", "zlib": True, "complevel": 1, "shuffle": True, "_FillValue": np.nan}
        out[name].encoding = {}
        if product == "increment":
            # CF 1.11, 3.3: a difference of temperatures is not a temperature to convert
            out[name].attrs["long_name"] = f"{out[name].attrs['long_name']}, analysis increment"
            if out[name].attrs["units"] == "K":
                out[name].attrs["units_metadata"] = "temperature: difference"
        if auxiliary:
            out[name].attrs["coordinates"] = " ".join(str(c) for c in auxiliary)
    for name in ("time", "forecast_reference_time"):
        if name in out.coords:
            out[name].encoding = {}
            encoding[name] = {"units": "hours since 1970-01-01", "dtype": "float64", "_FillValue": None}
    for name in ("latitude", "longitude", "level"):
        if name in out.coords:
            encoding[name] = {"_FillValue": None}
    with written_whole(path) as partial:
        out.to_netcdf(partial, engine="netcdf4", format="NETCDF4", encoding=encoding)


def read_netcdf(path: str | Path, *, maximum_values: int) -> xr.Dataset:
    """Read the known variables of a netCDF file into the contract's names and order; units stay the sender's.

    Raises:
        FieldError: not readable; no known variable; unnamed axes; several forecast steps; more than
            `maximum_values` values, counted before any is read.
    """
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_timedelta=False) as file:
            return _standardised(file, maximum_values)
    except FieldError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise FieldError(f"the netCDF file cannot be read: {error}") from error


def _standardised(file: xr.Dataset, maximum_values: int) -> xr.Dataset:
    names: dict[str, str] = {}
    skipped: list[str] = []
    level_dims = {dim for dim in file.dims if _axis(str(dim)) == "level"}
    for name, field in file.data_vars.items():
        known = _variable(str(name), field.attrs, bool(level_dims & set(field.dims)))
        if known is None or known in names.values():
            skipped.append(str(name))
        else:
            names[str(name)] = known
    if not names:
        raise FieldError(f"no variable that this service knows is in the file; it holds {', '.join(skipped) or 'none'}")
    values = sum(int(file[name].size) for name in names)
    if values > maximum_values:
        raise FieldError(f"the file holds {values} values, more than {maximum_values}; send what is needed")
    dataset = file[list(names)].load().rename(names)
    dataset = _with_named_axes(dataset)
    dataset = _with_time(dataset)
    dataset = _in_order(dataset)
    dataset.attrs = {
        "product": str(file.attrs.get("product", "")),
        "source_grid": f"{dataset.sizes['latitude']} x {dataset.sizes['longitude']} points",
        "skipped": ", ".join(skipped),
    } | ({"bundle": str(file.attrs["bundle"])} if "bundle" in file.attrs else {})
    return dataset


def _variable(name: str, attributes: dict[str, Any], upper_air: bool) -> str | None:
    known, aliases = (UPPER_AIR, UPPER_AIR_NAMES) if upper_air else (SURFACE, SURFACE_NAMES)
    spoken: Iterable[Any] = (name, attributes.get("short_name"), attributes.get("GRIB_shortName"))
    for word in (*spoken, attributes.get("standard_name")):
        found = aliases.get(str(word), str(word))
        # at the surface the standard names of CF do not tell 2 m from the ground
        if found in known:
            return found
    return None


def _axis(name: str) -> str | None:
    return next((axis for axis, names in AXES.items() if name in names), None)


def _with_named_axes(dataset: xr.Dataset) -> xr.Dataset:
    strange = [str(dim) for dim in dataset.dims if _axis(str(dim)) is None and dataset.sizes[dim] > 1]
    if strange:
        raise FieldError(f"the file has dimensions that the contract does not know: {', '.join(strange)}")
    dataset = dataset.squeeze([dim for dim in dataset.dims if _axis(str(dim)) is None])
    renamed = {str(dim): axis for dim in dataset.dims if (axis := _axis(str(dim))) not in (None, dim)}
    if "time" in renamed.values():
        # the dimension valid_time: another `time` beside it is the start of the forecast
        dataset = dataset.drop_vars("time", errors="ignore")
    dataset = dataset.rename({old: new for old, new in renamed.items() if new not in dataset.variables})
    for axis in ("latitude", "longitude"):
        if axis not in dataset.dims or axis not in dataset.coords:
            raise FieldError(f"the file has no one-dimensional coordinate {axis}")
    return dataset


def _with_time(dataset: xr.Dataset) -> xr.Dataset:
    """`time` becomes the valid time; the start of the forecast is kept as forecast_reference_time."""
    valid = dataset.coords.get("valid_time")
    if valid is not None and valid.ndim <= 1:
        if "time" in dataset.coords:
            start = dataset["time"].to_numpy()
            dataset = dataset.drop_vars("time").assign_coords(time=(valid.dims, valid.to_numpy()))
            dataset = dataset.assign_coords(forecast_reference_time=(valid.dims, start))
        else:
            dataset = dataset.rename(valid_time="time")
    elif "step" in dataset.coords and np.any(dataset["step"].to_numpy() != 0):
        raise FieldError("the file gives forecast steps without a valid_time along time; send one valid time per file")
    if "time" not in dataset.coords:
        return dataset
    if not np.issubdtype(dataset["time"].dtype, np.datetime64):
        raise FieldError(f"the times of the file are not of the standard calendar: {dataset['time'].dtype}")
    if "time" not in dataset.dims:
        start_time = dataset.coords.get("forecast_reference_time")
        dataset = dataset.expand_dims("time")
        if start_time is not None and start_time.ndim == 0:
            dataset = dataset.assign_coords(forecast_reference_time=("time", np.atleast_1d(start_time.to_numpy())))
    return dataset


def _in_order(dataset: xr.Dataset) -> xr.Dataset:
    """Dimensions in the contract's order, north to south, longitudes ascending in [0, 360) and each once."""
    if "number" not in dataset.dims:
        label = int(dataset["number"]) if "number" in dataset.coords else 0
        dataset = dataset.drop_vars("number", errors="ignore").expand_dims(number=np.array([label], dtype=np.int32))
    if "level" in dataset.coords:
        unit = str(dataset["level"].attrs.get("units", "hPa")).strip()
        scale = {"Pa": 0.01, "hPa": 1.0, "mbar": 1.0, "millibars": 1.0, "mb": 1.0}.get(unit)
        if scale is None:
            raise FieldError(f"the levels of the file are in {unit!r}; pressure levels in hPa or Pa are needed")
        dataset = dataset.assign_coords(level=dataset["level"].to_numpy().astype(np.float64) * scale)
    longitudes = np.round(dataset["longitude"].to_numpy().astype(np.float64), 6) % 360.0
    dataset = dataset.assign_coords(
        longitude=longitudes, latitude=dataset["latitude"].to_numpy().astype(np.float64)
    ).isel(longitude=np.unique(longitudes, return_index=True)[1])
    dataset = dataset.sortby("latitude", ascending=False)
    if "level" in dataset.dims:
        dataset = dataset.sortby("level", ascending=False)
    extra = [name for name in dataset.coords if name not in (*AXES, "forecast_reference_time")]
    dataset = dataset.drop_vars(extra)
    order = [dim for dim in AXES if dim in dataset.dims]
    dataset = dataset.transpose(*order)
    units = {name: field.attrs.get("units", "") for name, field in dataset.data_vars.items()}
    for name, field in dataset.data_vars.items():
        field.encoding, field.attrs = {}, {"units": str(units[name])}
    return _with_coordinate_attributes(dataset)


def _with_coordinate_attributes(dataset: xr.Dataset) -> xr.Dataset:
    """CF attributes for the axes; the variables keep the units of their sender."""
    units = {name: field.attrs["units"] for name, field in dataset.data_vars.items()}
    with_cf_attributes(dataset)
    for name, unit in units.items():
        dataset[name].attrs["units"] = unit
    return dataset
