"""The xarray contract of fields, and the way between it and the plain array that the models see.

A Dataset has dims (time, number, level, latitude, longitude), without `level` at the surface; ECMWF short names;
SI units; level in hPa; latitude north to south; longitude in [0, 360); time is the valid time, UTC.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from service.fields.errors import FieldError, Missing
from service.fields.grid import BundleDescription

VARIABLES: dict[str, dict[str, str]] = {
    "z": {"standard_name": "geopotential", "long_name": "Geopotential", "units": "m2 s-2"},
    "q": {"standard_name": "specific_humidity", "long_name": "Specific humidity", "units": "kg kg-1"},
    "u": {"standard_name": "eastward_wind", "long_name": "U component of wind", "units": "m s-1"},
    "v": {"standard_name": "northward_wind", "long_name": "V component of wind", "units": "m s-1"},
    "t": {"standard_name": "air_temperature", "long_name": "Temperature", "units": "K"},
    "u10": {"standard_name": "eastward_wind", "long_name": "10 metre U wind component", "units": "m s-1"},
    "v10": {"standard_name": "northward_wind", "long_name": "10 metre V wind component", "units": "m s-1"},
    "t2m": {"standard_name": "air_temperature", "long_name": "2 metre temperature", "units": "K"},
    "sp": {"standard_name": "surface_air_pressure", "long_name": "Surface pressure", "units": "Pa"},
}

COORDINATES: dict[str, dict[str, str]] = {
    "time": {"standard_name": "time", "long_name": "valid time (UTC)", "axis": "T"},
    "number": {"standard_name": "realization", "long_name": "ensemble member", "units": "1", "axis": "E"},
    "level": {
        "standard_name": "air_pressure", "long_name": "pressure", "units": "hPa", "positive": "down", "axis": "Z",
    },
    "latitude": {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
    "longitude": {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
    "forecast_reference_time": {
        "standard_name": "forecast_reference_time", "long_name": "time of the analysis that the forecast starts from",
    },
}  # fmt: skip


def from_array(
    array: NDArray[np.float32],
    description: BundleDescription,
    valid_time: datetime,
    base_time: datetime | None = None,
    step_hours: float = 0,
    *,
    numbers: Sequence[int] | None = None,
    attributes: dict[str, Any] | None = None,
) -> xr.Dataset:
    """Make a Dataset of the contract.

    Args:
        array: [number, channel, latitude, longitude], SI units, channels in the order of the bundle.
        description: grid and channels.
        valid_time: aware, or naive meaning UTC.
        base_time: start of the forecast; by default `valid_time - step_hours`.
        step_hours: age of the forecast, 0 for an analysis.
        numbers: the members' numbers, by default 1, 2, ...
        attributes: added to the global attributes.

    Raises:
        FieldError: the shape, or the times, do not fit together.
    """
    if array.ndim != 4 or array.shape[1:] != description.shape:
        raise FieldError(
            f"a state of bundle {description.name} has shape [number, {', '.join(map(str, description.shape))}], "
            f"this array has {list(array.shape)}"
        )
    valid, step = utc(valid_time), timedelta(hours=step_hours)
    base = valid - step if base_time is None else utc(base_time)
    if base + step != valid:
        raise FieldError(f"base time {base:%Y-%m-%dT%H:%M} plus {step_hours} h is not {valid:%Y-%m-%dT%H:%M}")
    labels = list(range(1, array.shape[0] + 1)) if numbers is None else list(numbers)
    if len(labels) != array.shape[0] or len(set(labels)) != len(labels):
        raise FieldError(f"{array.shape[0]} members cannot carry the numbers {labels}")

    levels = sorted({c.level for c in description.channels if c.level is not None}, reverse=True)
    data: dict[str, Any] = {}
    for variable in description.variables:
        own = description.levels(variable)
        index = [description.index(variable, level) for level in own]
        if own == (None,):
            data[variable] = (("time", "number", "latitude", "longitude"), array[None, :, index[0]])
            continue
        block = np.full((1, array.shape[0], len(levels), *description.grid.shape), np.nan, dtype=np.float32)
        block[0][:, [levels.index(level) for level in own if level is not None]] = array[:, index]
        data[variable] = (("time", "number", "level", "latitude", "longitude"), block)
    coordinates = {
        "time": np.array([naive(valid)], dtype="datetime64[ns]"),
        "number": np.array(labels, dtype=np.int32),
        "level": np.array(levels, dtype=np.float64),
        "latitude": np.array(description.grid.latitudes),
        "longitude": np.array(description.grid.longitudes),
        "forecast_reference_time": ("time", np.array([naive(base)], dtype="datetime64[ns]")),
    }
    if not levels:
        del coordinates["level"]
    dataset = xr.Dataset(data, coordinates, {"bundle": description.name, **(attributes or {})})
    return with_cf_attributes(dataset)


def to_array(dataset: xr.Dataset, description: BundleDescription) -> NDArray[np.float32]:
    """The state of a Dataset of one valid time, on the bundle's own grid: [number, channel, latitude, longitude].

    Raises:
        FieldError: several valid times, another grid, channels missing, or values missing. Fields from outside
            go through `service.fields.intake.validate_and_regrid` instead.
    """
    missing = missing_channels(dataset, description)
    if missing:
        raise FieldError(f"missing: {describe_missing(missing)}", missing)
    if dataset.sizes.get("time", 1) != 1:
        raise FieldError(f"one valid time is needed, the fields have {dataset.sizes['time']}")
    if not description.grid.matches(dataset["latitude"].to_numpy(), dataset["longitude"].to_numpy()):
        raise FieldError(f"the fields are not on the grid of bundle {description.name}, {description.grid.name}")
    out = np.empty((dataset.sizes.get("number", 1), *description.shape), dtype=np.float32)
    for index, channel in enumerate(description.channels):
        out[:, index] = slices(dataset, channel.variable, channel.level)
        if not np.isfinite(out[:, index]).all():
            raise FieldError(f"{channel.name} holds values that are missing or not finite")
    return out


def slices(dataset: xr.Dataset, variable: str, level: float | None) -> NDArray[Any]:
    """One variable at one of its levels and the only valid time: [number, latitude, longitude]."""
    field = dataset[variable]
    if "time" in field.dims:
        field = field.isel(time=0)
    if level is not None:
        field = field.isel(level=_position(dataset, level))
    if "number" not in field.dims:
        field = field.expand_dims("number")
    return field.transpose("number", "latitude", "longitude").to_numpy()


def missing_channels(dataset: xr.Dataset, description: BundleDescription) -> Missing:
    """By variable, the levels (hPa; None at the surface) that the bundle needs and the Dataset lacks."""
    missing: Missing = {}
    for variable in description.variables:
        present = available_levels(dataset, variable)
        lacking = tuple(level for level in description.levels(variable) if not _contains(present, level))
        if lacking:
            missing[variable] = lacking
    return missing


def available_levels(dataset: xr.Dataset, variable: str) -> tuple[float | None, ...]:
    """The levels (hPa) at which a variable has any value; (None,) for a surface variable; () if it is absent.

    Where variables stand on different levels, the Dataset holds the union and fills with NaN.
    """
    if variable not in dataset:
        return ()
    field = dataset[variable]
    if "level" not in field.dims:
        return (None,)
    others = [dim for dim in field.dims if dim != "level"]
    filled = field.notnull().any(others).to_numpy()
    return tuple(
        float(level) for level, any_value in zip(dataset["level"].to_numpy(), filled, strict=True) if any_value
    )


def describe_missing(missing: Missing) -> str:
    """Such as `q at 200 100 hPa; sp`."""
    parts = []
    for variable, levels in missing.items():
        pressures = [f"{level:g}" for level in levels if level is not None]
        parts.append(f"{variable} at {' '.join(pressures)} hPa" if pressures else variable)
    return "; ".join(parts)


def with_cf_attributes(dataset: xr.Dataset) -> xr.Dataset:
    """Set the CF attributes of every variable and coordinate that the contract knows, in place."""
    for name in dataset.variables:
        attributes = VARIABLES.get(str(name)) or COORDINATES.get(str(name))
        if attributes:
            dataset[name].attrs.update(attributes)
    return dataset


def utc(time: datetime) -> datetime:
    """The same instant, aware, in UTC; a naive time is taken as UTC."""
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def naive(time: datetime) -> datetime:
    """The same instant in UTC without its zone, as numpy wants it."""
    return utc(time).replace(tzinfo=None)


def times(dataset: xr.Dataset, coordinate: str = "time") -> tuple[datetime, ...]:
    """The valid times of a Dataset, or those of another coordinate of times, aware."""
    values = np.atleast_1d(dataset[coordinate].to_numpy()).astype("datetime64[us]")
    return tuple(value.replace(tzinfo=UTC) for value in values.tolist())


def _contains(levels: tuple[float | None, ...], level: float | None) -> bool:
    if level is None:
        return None in levels
    return any(other is not None and abs(other - level) < 1e-3 for other in levels)


def _position(dataset: xr.Dataset, level: float) -> int:
    return int(np.argmin(np.abs(dataset["level"].to_numpy() - level)))
