"""Radiosonde soundings as WMO BUFR edition 4, template 3 09 052 (TEMP with the drift of the balloon).

What the format can hold: 10 Pa, 1 gpm, 0.01 K (temperature, dewpoint), 1 degree and 0.1 m s-1 (wind), 1 s, 1e-5 degrees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.observations.conversions import (
    STANDARD_GRAVITY,
    dewpoint_from_specific_humidity,
    wind_direction_speed,
)

_TEMPLATE = 309052
_MASTER_TABLE = 37
_UPPER_AIR_SOUNDINGS, _LAND_TEMP = 2, 4
_CENTRE_MISSING = 255
_GAP = np.timedelta64(3, "h")  # two ascents of one station are further apart, the levels of one are not
_VARIABLES = ("z", "t", "q", "u", "v")
_MISSING_DOUBLE, _MISSING_LONG = -1e100, 2147483647
_STANDARD_LEVELS = frozenset(
    p * 100.0 for p in (1000, 925, 850, 700, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10)
)
_STANDARD_LEVEL, _SIGNIFICANT_LEVEL = 1 << 16, 1 << 13  # flag table 0 08 042, bit 2 and bit 5 of 18


class EncodeError(Exception):
    """These rows cannot be written as soundings; the text says which and why."""


@dataclass(frozen=True)
class _Sounding:
    station: str
    launch: np.datetime64
    latitude: float
    longitude: float
    levels: list[tuple[float, np.datetime64, float, float]]  # pressure, time, latitude, longitude
    values: dict[str, NDArray[np.float64]]  # by variable, [level], NaN: none


def encode_soundings(table: pa.Table) -> bytes:
    """Write soundings, one BUFR message each.

    Args:
        table: rows of `table.SCHEMA` of type temp with variables z, t, q, u, v on pressures. Rows of one station
            less than three hours apart are one ascent. A row that repeats another's level and variable goes to a
            second message, as a relayed bulletin would. Receipt time, error and preqc have no place in BUFR.

    Raises:
        EncodeError: another type or variable, no pressure, or u without v.
    """
    return b"".join(_encode(sounding) for sounding in _soundings(table))


def write_soundings(path: str | Path, table: pa.Table) -> int:
    """`encode_soundings` into a file; returns the number of bytes."""
    return Path(path).write_bytes(encode_soundings(table))


def _text(table: pa.Table, name: str) -> NDArray[np.str_]:
    return np.asarray(table.column(name).cast(pa.string()).to_numpy(zero_copy_only=False), dtype=str)


def _soundings(table: pa.Table) -> Iterator[_Sounding]:
    kinds, variables, stations = _text(table, "type"), _text(table, "variable"), _text(table, "station")
    for name, found, allowed in (("type", kinds, ("temp",)), ("variable", variables, _VARIABLES)):
        strange = ~np.isin(found, allowed)
        if strange.any():
            raise EncodeError(f"{int(strange.sum())} rows have {name} {found[strange][0]!r}: only {allowed} fit here")
    pressure = table.column("pressure").to_numpy().astype(np.float64)
    if np.isnan(pressure).any():
        raise EncodeError(f"{int(np.isnan(pressure).sum())} rows have no pressure")
    times = table.column("time").cast(pa.timestamp("us")).to_numpy()
    columns = {
        "variable": variables, "station": stations, "pressure": pressure, "time": times,
        "latitude": table.column("latitude").to_numpy(), "longitude": table.column("longitude").to_numpy(),
        "value": table.column("value").to_numpy().astype(np.float64),
    }  # fmt: skip
    order = np.lexsort((times, stations))
    new = (stations[order][1:] != stations[order][:-1]) | (np.diff(times[order]) > _GAP)
    for rows in np.split(order, np.flatnonzero(new) + 1):
        if len(rows):
            yield from _ascent({name: values[np.sort(rows)] for name, values in columns.items()})


def _ascent(rows: dict[str, NDArray[Any]]) -> Iterator[_Sounding]:
    """The sounding of one ascent, and a further one for what repeats."""
    level_of: dict[tuple[Any, ...], int] = {}
    taken: set[tuple[int, str]] = set()
    repeated: list[int] = []
    cells: list[tuple[int, str, float]] = []
    for i, variable in enumerate(rows["variable"]):
        key = (rows["pressure"][i], rows["time"][i], rows["latitude"][i], rows["longitude"][i])
        level = level_of.setdefault(key, len(level_of))
        if (level, variable) in taken:
            repeated.append(i)
            continue
        taken.add((level, variable))
        cells.append((level, str(variable), rows["value"][i]))
    values = {variable: np.full(len(level_of), np.nan) for variable in _VARIABLES}
    for level, variable, value in cells:
        values[variable][level] = value
    levels = list(level_of)
    by_height = sorted(range(len(levels)), key=lambda k: (-levels[k][0], levels[k][1]))
    if (np.isnan(values["u"]) != np.isnan(values["v"])).any():
        raise EncodeError(f"station {rows['station'][0]} has u without v (or v without u): BUFR holds wind as a vector")
    first = min(range(len(levels)), key=lambda k: levels[k][1])
    yield _Sounding(
        station=str(rows["station"][0]),
        launch=levels[first][1].astype("datetime64[s]"),
        latitude=levels[first][2],
        longitude=levels[first][3],
        levels=[levels[k] for k in by_height],
        values={name: column[by_height] for name, column in values.items()},
    )
    if repeated:
        yield from _ascent({name: column[repeated] for name, column in rows.items()})


def _encode(sounding: _Sounding) -> bytes:
    import eccodes as ec

    handle = ec.codes_bufr_new_from_samples("BUFR4")
    try:
        _set_header(ec, handle, sounding)
        _set_levels(ec, handle, sounding)
        ec.codes_set(handle, "pack", 1)
        return bytes(ec.codes_get_message(handle))
    finally:
        ec.codes_release(handle)


def _set_header(ec: Any, handle: int, sounding: _Sounding) -> None:
    launch = sounding.launch.astype(object)
    header = {
        "edition": 4, "masterTableNumber": 0, "masterTablesVersionNumber": _MASTER_TABLE, "localTablesVersionNumber": 0,
        "bufrHeaderCentre": _CENTRE_MISSING, "bufrHeaderSubCentre": 0, "updateSequenceNumber": 0,
        "dataCategory": _UPPER_AIR_SOUNDINGS, "internationalDataSubCategory": _LAND_TEMP, "dataSubCategory": 0,
        "typicalYear": launch.year, "typicalMonth": launch.month, "typicalDay": launch.day,
        "typicalHour": launch.hour, "typicalMinute": launch.minute, "typicalSecond": launch.second,
        "numberOfSubsets": 1, "observedData": 1, "compressedData": 0,
    }  # fmt: skip
    for key, value in header.items():
        ec.codes_set(handle, key, value)
    ec.codes_set_array(handle, "inputExtendedDelayedDescriptorReplicationFactor", [len(sounding.levels)])
    ec.codes_set_array(handle, "inputDelayedDescriptorReplicationFactor", [0])  # no wind shear groups
    ec.codes_set(handle, "unexpandedDescriptors", _TEMPLATE)
    if len(sounding.station) == 5 and sounding.station.isdigit():
        ec.codes_set(handle, "blockNumber", int(sounding.station[:2]))
        ec.codes_set(handle, "stationNumber", int(sounding.station[2:]))
    else:
        ec.codes_set(handle, "shipOrMobileLandStationIdentifier", sounding.station[:9])
    for key in ("year", "month", "day", "hour", "minute", "second"):
        ec.codes_set(handle, f"#1#{key}", getattr(launch, key))
    ec.codes_set(handle, "#1#latitude", sounding.latitude)
    ec.codes_set(handle, "#1#longitude", sounding.longitude)


def _set_levels(ec: Any, handle: int, sounding: _Sounding) -> None:
    pressure = np.array([level[0] for level in sounding.levels])
    seconds = np.array([(level[1] - sounding.launch) / np.timedelta64(1, "s") for level in sounding.levels])
    values = sounding.values
    direction, speed = wind_direction_speed(values["u"], values["v"])
    # rounded to BUFR's steps here: a speed that rounds to calm must have the direction of calm
    speed = np.round(speed, 1)
    direction = np.where(speed == 0.0, 0.0, np.where(np.round(direction) == 0.0, 360.0, np.round(direction)))
    significance = [_STANDARD_LEVEL if p in _STANDARD_LEVELS else _SIGNIFICANT_LEVEL for p in pressure]
    integers = {
        "timePeriod": seconds,
        "extendedVerticalSoundingSignificance": np.array(significance, dtype=np.float64),
        "nonCoordinateGeopotentialHeight": np.round(values["z"] / STANDARD_GRAVITY),
        "windDirection": direction,
    }
    reals = {
        "pressure": pressure,
        "latitudeDisplacement": np.array([level[2] for level in sounding.levels]) - sounding.latitude,
        "longitudeDisplacement": (np.array([level[3] for level in sounding.levels]) - sounding.longitude + 180) % 360
        - 180,
        "airTemperature": values["t"],
        "dewpointTemperature": dewpoint_from_specific_humidity(values["q"], pressure),
        "windSpeed": speed,
    }
    for key, column in integers.items():
        whole = [_MISSING_LONG if np.isnan(x) else round(float(x)) for x in column]
        ec.codes_set_array(handle, key, whole)
    for key, column in reals.items():
        ec.codes_set_array(handle, key, np.where(np.isnan(column), _MISSING_DOUBLE, column))
