"""BUFR (WMO-No. 306, FM 94) radiosondes, pilot balloons and aircraft by plain ecCodes keys, read as whole arrays.

Categories 2 (soundings) and 4 (single level, aircraft). What a message cannot give is one rejected row that names
the message; an element that is simply absent from a level was not observed and is no row.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eccodes as ec
import numpy as np
from numpy.typing import NDArray

from service.observations.checks import RawRows
from service.observations.conversions import (
    STANDARD_GRAVITY,
    saturation_vapour_pressure,
    specific_humidity_from_dewpoint,
    specific_humidity_from_vapour_pressure,
    standard_atmosphere_pressure,
    wind_components,
)
from service.observations.decoders.bufr_message import Message, Unreadable, split_messages
from service.observations.decoders.errors import DecodeError
from service.observations.reasons import Reason

Floats = NDArray[np.float64]

SOUNDINGS, AIRCRAFT = 2, 4
_MAX_SUBSETS = 20_000


def read(path: Path) -> tuple[RawRows, list[str]]:
    """Read every message of a BUFR file.

    Raises:
        DecodeError: not one message can be read.
    """
    parts: list[RawRows] = []
    readable = 0
    first_problem = "no message found"
    for number, (data, problem) in enumerate(split_messages(path.read_bytes()), start=1):
        try:
            if problem:
                raise Unreadable(problem)
            parts.extend(_decode(data))
            readable += 1
        except (Unreadable, ec.CodesInternalError) as error:
            text = f"BUFR message {number}: {error}"
            first_problem = text if first_problem == "no message found" else first_problem
            parts.append(_refused(Reason.MISSING_VALUE, text))
    if not readable:
        raise DecodeError(f"no BUFR message can be read; {first_problem}: send the file again, complete")
    return RawRows.join(parts), []


def _decode(data: bytes) -> Iterator[RawRows]:
    handle = ec.codes_new_from_message(data)
    try:
        category = ec.codes_get(handle, "dataCategory")
        if category not in (SOUNDINGS, AIRCRAFT):
            yield _refused(
                Reason.UNKNOWN_VARIABLE,
                f"BUFR data category {category} has no decoder here: send categories 2 (soundings) and 4 (aircraft)",
            )
            return
        subsets = ec.codes_get(handle, "numberOfSubsets")
        if subsets > _MAX_SUBSETS:
            raise Unreadable(f"{subsets} subsets are more than {_MAX_SUBSETS}")
        ec.codes_set(handle, "unpack", 1)
        if subsets == 1:
            yield _report(Message(handle), category)
            return
        for subset in range(1, subsets + 1):
            ec.codes_set(handle, "extractSubset", subset)
            ec.codes_set(handle, "doExtractSubsets", 1)
            single = ec.codes_clone(handle)
            try:
                ec.codes_set(single, "unpack", 1)
                yield _report(Message(single), category)
            finally:
                ec.codes_release(single)
    finally:
        ec.codes_release(handle)


def _report(message: Message, category: int) -> RawRows:
    return _sounding(message) if category == SOUNDINGS else _aircraft(message)


def _sounding(message: Message) -> RawRows:
    """One ascent: every level's z, t, q, u, v with its own pressure, and time and place where levels have them."""
    temperature = message.array("airTemperature")
    kind = "pilot" if temperature is None else "temp"
    levels = len(temperature) if temperature is not None else message.size("windDirection")
    if levels == 0:
        raise Unreadable("a sounding without levels")

    def at(key: str) -> Floats:
        # elements after the levels (wind shear groups) repeat some keys: the levels come first
        values = message.array(key)
        if values is None:
            return np.full(levels, np.nan)
        if len(values) < levels:
            raise Unreadable(f"{levels} levels but only {len(values)} of {key}")
        return values[:levels]

    pressure = at("pressure")
    height = at("geopotentialHeight") if message.array("pressure") is None else np.full(levels, np.nan)
    station, time, latitude, longitude = (
        message.station(),
        message.time(),
        message.one("latitude"),
        message.one("longitude"),
    )
    time_offset = (
        np.nan_to_num(at("timePeriod")) if message.array("latitudeDisplacement") is not None else np.zeros(levels)
    )
    shared = {
        "type": kind, "station": station, "pressure": pressure, "height": height,
        "time": time + (time_offset * 1e6).astype("timedelta64[us]"),
        "latitude": _degrees(latitude + np.nan_to_num(at("latitudeDisplacement"))),
        "longitude": _degrees(longitude + np.nan_to_num(at("longitudeDisplacement"))),
    }  # fmt: skip
    geopotential_key, factor = "nonCoordinateGeopotential", 1.0
    if message.array(geopotential_key) is None:
        geopotential_key, factor = "nonCoordinateGeopotentialHeight", STANDARD_GRAVITY
    dewpoint = at("dewpointTemperature")
    parts = [_rows("z", at(geopotential_key) * factor, message.confidence(geopotential_key, levels), shared)]
    if temperature is not None:
        parts.append(_rows("t", temperature, message.confidence("airTemperature", levels), shared))
        humidity = specific_humidity_from_dewpoint(dewpoint, pressure)
        quality = message.confidence("dewpointTemperature", levels)
        parts.append(_rows("q", humidity, quality, shared, observed=~np.isnan(dewpoint)))
    parts += _wind(at("windDirection"), at("windSpeed"), _wind_confidence(message, levels), shared)
    return RawRows.join(parts)


def _aircraft(message: Message) -> RawRows:
    """Aircraft reports: one point, or the points of an ascent or descent; flight levels become pressure (ICAO)."""
    points = max(message.size("airTemperature"), message.size("windDirection"))
    if points == 0:
        raise Unreadable("an aircraft report without temperature and wind")

    def at(key: str) -> Floats:
        values = message.array(key)
        if values is None:
            return np.full(points, np.nan)
        if len(values) not in (1, points):
            raise Unreadable(f"{points} points but {len(values)} of {key}")
        return np.broadcast_to(values, (points,)).copy()

    pressure = at("pressure")
    for altitude in ("flightLevel", "height"):
        pressure = np.where(np.isnan(pressure), standard_atmosphere_pressure(at(altitude)), pressure)
    shared = {
        "type": "amdar", "station": message.station(), "pressure": pressure, "height": np.full(points, np.nan),
        "time": np.full(points, message.time()),
        "latitude": _degrees(at("latitude")), "longitude": _degrees(at("longitude")),
    }  # fmt: skip
    temperature, dewpoint, relative = at("airTemperature"), at("dewpointTemperature"), at("relativeHumidity")
    mixing_ratio = at("mixingRatio")
    humidity = specific_humidity_from_dewpoint(dewpoint, pressure)
    vapour = relative / 100.0 * saturation_vapour_pressure(temperature)
    humidity = np.where(np.isnan(humidity), specific_humidity_from_vapour_pressure(vapour, pressure), humidity)
    humidity = np.where(np.isnan(humidity), mixing_ratio / (1.0 + mixing_ratio), humidity)
    observed = ~(np.isnan(dewpoint) & np.isnan(relative) & np.isnan(mixing_ratio))
    return RawRows.join(
        [
            _rows("t", temperature, message.confidence("airTemperature", points), shared),
            _rows("q", humidity, np.full(points, np.nan), shared, observed=observed),
            *_wind(at("windDirection"), at("windSpeed"), _wind_confidence(message, points), shared),
        ]
    )


def _degrees(angle: Floats) -> Floats:
    """To BUFR's finest step: ecCodes unpacks the South Pole as -90.00000000000001."""
    return np.round(angle, 5)


def _rows(
    variable: str, values: Floats, confidence: Floats, shared: dict[str, Any], observed: NDArray[np.bool_] | None = None
) -> RawRows:
    """One row per observed value; a value that was observed but could not be derived is kept as missing."""
    present = ~np.isnan(values) if observed is None else observed
    rows = RawRows.empty(int(present.sum()))
    for name, column in shared.items():
        rows.columns[name][:] = column[present] if isinstance(column, np.ndarray) else column
    rows.columns["variable"][:] = variable
    rows.columns["value"] = values[present]
    rows.columns["preqc"] = confidence[present]
    if observed is not None:
        underivable = np.isnan(rows.columns["value"])
        rows.refuse(underivable, Reason.MISSING_VALUE, f"{variable} cannot be derived from what was reported")
    return rows


def _wind(direction: Floats, speed: Floats, confidence: Floats, shared: dict[str, Any]) -> list[RawRows]:
    observed = ~(np.isnan(direction) & np.isnan(speed))
    possible = ~((direction < 0) | (direction > 360) | (speed < 0))
    components = wind_components(direction, np.where(possible, speed, np.nan))
    parts = []
    for variable, values in zip(("u", "v"), components, strict=True):
        rows = _rows(variable, np.where(possible, values, np.inf), confidence, shared, observed=observed)
        parts.append(rows)
    return parts


def _wind_confidence(message: Message, count: int) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.fmin(message.confidence("windDirection", count), message.confidence("windSpeed", count))


def _refused(reason: Reason, detail: str) -> RawRows:
    rows = RawRows.empty(1)
    rows.refuse(np.ones(1, dtype=np.bool_), reason, detail[:300])
    return rows
