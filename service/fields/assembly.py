"""From single fields, in whatever order they came, to one Dataset of the contract."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from service.fields.contract import naive, with_cf_attributes


@dataclass(frozen=True)
class Key:
    """Where a field belongs: level in hPa (None at the surface), number None without an ensemble."""

    variable: str
    level: float | None
    number: int | None
    valid_time: datetime

    def __str__(self) -> str:
        level = "" if self.level is None else f"{self.level:g}"
        member = "" if self.number is None else f" of member {self.number}"
        return f"{self.variable}{level}{member} at {self.valid_time:%Y-%m-%dT%H:%M}"


def assemble(
    fields: dict[Key, NDArray[np.float32]],
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
    *,
    units: dict[str, str],
    bases: dict[datetime, set[datetime]],
    attributes: dict[str, Any],
) -> xr.Dataset:
    """Stack fields [latitude, longitude] to (time, number, level, latitude, longitude), NaN where there is none.

    Args:
        fields: at least one.
        units: of each variable, as its file says.
        bases: the start times of the forecasts for each valid time; kept where there is only one.
        attributes: global attributes.
    """
    times = sorted({key.valid_time for key in fields})
    numbers = sorted({key.number if key.number is not None else 0 for key in fields})
    levels = sorted({key.level for key in fields if key.level is not None}, reverse=True)
    shape = (len(latitudes), len(longitudes))
    data: dict[str, NDArray[np.float32]] = {}
    for key, values in fields.items():
        outer = (len(times), len(numbers)) if key.level is None else (len(times), len(numbers), len(levels))
        if key.variable not in data:
            data[key.variable] = np.full((*outer, *shape), np.nan, dtype=np.float32)
        place: tuple[int, ...] = (times.index(key.valid_time), numbers.index(key.number or 0))
        if key.level is not None:
            place += (levels.index(key.level),)
        data[key.variable][place] = values
    dims = {
        4: ("time", "number", "latitude", "longitude"),
        5: ("time", "number", "level", "latitude", "longitude"),
    }
    dataset = xr.Dataset(
        {name: (dims[values.ndim], values) for name, values in data.items()},
        {
            "time": np.array([naive(time) for time in times], dtype="datetime64[ns]"),
            "number": np.array(numbers, dtype=np.int32),
            "latitude": latitudes,
            "longitude": longitudes,
        },
        attributes,
    )
    if levels:
        dataset = dataset.assign_coords(level=np.array(levels))
    if all(len(bases[time]) == 1 for time in times):
        starts = np.array([naive(next(iter(bases[time]))) for time in times], dtype="datetime64[ns]")
        dataset = dataset.assign_coords(forecast_reference_time=("time", starts))
    with_cf_attributes(dataset)
    for name in data:
        dataset[name].attrs["units"] = units[name]
    return dataset
