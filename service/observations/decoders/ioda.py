"""IODA observation files (netCDF-4 or HDF5; JCSDA): groups MetaData, ObsValue, ObsError, PreQC by variable and location.

Names and units: IODA naming conventions (https://github.com/JCSDA-internal/ioda, `ObsSpace.yaml`). Missing: `_FillValue`,
NaN, or beyond 1e9, as the fill values in use are -3.4e38, -2147483647, 2147483647 and 9.97e36.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import RawRows
from service.observations.conversions import (
    STANDARD_GRAVITY,
    saturation_vapour_pressure,
    specific_humidity_from_dewpoint,
    specific_humidity_from_vapour_pressure,
)
from service.observations.decoders.bufr_rows import rows, wind
from service.observations.decoders.errors import DecodeError

if TYPE_CHECKING:
    import h5py

Floats = NDArray[np.float64]

MAX_LOCATIONS = 5_000_000
_LARGEST_MISSING = 1e9
# IODA's name -> ours, factor to SI, offset
DIRECT: dict[str, tuple[str, float, float]] = {
    "airTemperature": ("t", 1.0, 0.0), "windEastward": ("u", 1.0, 0.0), "windNorthward": ("v", 1.0, 0.0),
    "specificHumidity": ("q", 1.0, 0.0), "geopotentialHeight": ("z", STANDARD_GRAVITY, 0.0),
    "height": ("z", STANDARD_GRAVITY, 0.0), "geopotential": ("z", 1.0, 0.0), "stationPressure": ("sp", 1.0, 0.0),
    "pressureAtSurface": ("sp", 1.0, 0.0), "surfacePressure": ("sp", 1.0, 0.0), "airTemperatureAt2M": ("t2m", 1.0, 0.0),
    "windEastwardAt10M": ("u10", 1.0, 0.0), "windNorthwardAt10M": ("v10", 1.0, 0.0),
    "atmosphericRefractivity": ("refractivity", 1.0, 0.0), "geometricHeight": ("h", 1.0, 0.0),
    "layerMeanTemperature": ("tlayer", 1.0, 0.0), "pressureReducedToMeanSeaLevel": ("msl", 1.0, 0.0),
    "dewPointTemperatureAt2M": ("td2m", 1.0, 0.0), "relativeHumidityAt2M": ("rh2m", 1.0, 0.0),
    "windSpeedAt10M": ("ws10", 1.0, 0.0), "windDirectionAt10M": ("wdir10", 1.0, 0.0),
}  # fmt: skip
_DERIVED = ("windDirection", "windSpeed", "dewpointTemperature", "dewPointTemperature", "relativeHumidity")
_KIND_NAMES = ("temp", "pilot", "amdar", "synop", "ship", "buoy", "satwind", "scatterometer", "gnssro",
               "sounder")  # fmt: skip


def read(path: Path) -> tuple[RawRows, list[str]]:
    """Read an IODA file.

    Raises:
        DecodeError: not readable as HDF5, or not laid out as IODA does.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _read(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DecodeError(f"not readable as an IODA file: {str(error)[:200]}") from error


def _read(file: "h5py.File") -> tuple[RawRows, list[str]]:
    if "MetaData" not in file or "ObsValue" not in file:
        raise DecodeError(f"not an IODA file: groups MetaData and ObsValue expected, found {', '.join(file)[:100]}")
    meta, values = file["MetaData"], file["ObsValue"]
    if "latitude" not in meta:
        raise DecodeError("MetaData/latitude is missing")
    n = _length(meta["latitude"])
    reader = _Reader(file, n)
    shared = _shared(reader, meta, n)
    parts: list[RawRows] = []
    for name, (variable, factor, offset) in DIRECT.items():
        if name not in values:
            continue
        observed = reader.numbers("ObsValue", name) * factor + offset
        error = reader.numbers("ObsError", name) * factor
        parts.append(rows(variable, observed, reader.confidence(name), shared | {"error": error}))
    parts += _derived(reader, set(values), shared)
    if not parts:
        raise DecodeError(f"no variable of ObsValue is in the observation table: {', '.join(values)[:100]}")
    unread = sorted(set(values) - set(DIRECT) - set(_DERIVED))
    notes = [f"ObsValue/{name[:60]} is not in the observation table and was not read" for name in unread[:20]]
    return RawRows.join(parts), notes


def _derived(reader: "_Reader", present: set[str], shared: dict[str, Any]) -> list[RawRows]:
    """Wind from direction and speed, q from dewpoint or relative humidity, at locations without components or q.

    Speed without direction, and humidity without what makes q of it, stay what they are.
    """
    parts: list[RawRows] = []
    if "windSpeed" in present:
        sure = np.fmin(reader.confidence("windDirection"), reader.confidence("windSpeed"))
        given = ~np.isnan(reader.numbers("ObsValue", "windEastward"))
        direction, speed = (
            np.where(given, np.nan, reader.numbers("ObsValue", name)) for name in ("windDirection", "windSpeed")
        )
        parts += wind(direction, speed, sure, shared)
    name = next((n for n in ("dewPointTemperature", "dewpointTemperature", "relativeHumidity") if n in present), None)
    if name is None:
        return parts
    given = np.where(np.isnan(reader.numbers("ObsValue", "specificHumidity")), reader.numbers("ObsValue", name), np.nan)
    if name == "relativeHumidity":
        # a fraction by IODA's conventions, per cent in many files
        fraction = given / (100.0 if np.nanmax(given, initial=0.0) > 2.0 else 1.0)
        temperature = reader.numbers("ObsValue", "airTemperature")
        vapour = fraction * saturation_vapour_pressure(temperature)
        humidity = specific_humidity_from_vapour_pressure(vapour, shared["pressure"])
        lacking, variable, kept = np.isnan(temperature) | np.isnan(shared["pressure"]), "rh", fraction
    else:
        humidity = specific_humidity_from_dewpoint(given, shared["pressure"])
        lacking, variable, kept = np.isnan(shared["pressure"]), "td", given
    sure = reader.confidence(name)
    own = shared | {"error": reader.numbers("ObsError", name)}
    parts.append(rows("q", humidity, sure, shared, observed=~np.isnan(given) & ~lacking))
    parts.append(rows(variable, np.where(lacking, kept, np.nan), sure, own))
    return parts


class _Reader:
    def __init__(self, file: "h5py.File", n: int) -> None:
        self._file = file
        self._n = n

    def numbers(self, group: str, name: str) -> Floats:
        """Values [n], NaN where missing or where there is no such variable."""
        if group not in self._file or name not in self._file[group]:
            return np.full(self._n, np.nan)
        data = self._file[group][name]
        if _length(data) != self._n or data.dtype.kind not in "iuf":
            raise DecodeError(
                f"{group}/{name} has shape {data.shape} and type {data.dtype}: expected {self._n} numbers"
            )
        stored = data[:]
        missing = ~(np.abs(stored.astype(np.float64)) < _LARGEST_MISSING)
        fill = data.attrs.get("_FillValue")
        if fill is not None:
            missing |= stored == np.asarray(fill).ravel()[0]
        return np.where(missing, np.nan, stored.astype(np.float64))

    def confidence(self, name: str) -> Floats:
        """From PreQC or QualityMarker, NCEP's markers: 0, 1: 100 %, 2: 70 %, 3: 30 %, above: 0 %. [n]"""
        marker = np.full(self._n, np.nan)
        for group in ("PreQC", "QualityMarker"):
            marker = np.where(np.isnan(marker), self.numbers(group, name), marker)
        steps: list[tuple[Callable[[Floats], Any], float]] = [
            (lambda m: (m >= 0) & (m <= 1), 100.0), (lambda m: m == 2, 70.0), (lambda m: m == 3, 30.0),
            (lambda m: m > 3, 0.0),
        ]  # fmt: skip
        by_marker = np.select([test(marker) for test, _ in steps], [percent for _, percent in steps], np.nan)
        own = self.numbers("PercentConfidence", name)  # what alignda itself writes beside the markers
        return np.where(np.isnan(own), by_marker, own)

    def texts(self, name: str) -> NDArray[np.object_] | None:
        """A text variable of MetaData [n]; None if there is none."""
        meta = self._file["MetaData"]
        if name not in meta or meta[name].dtype.kind not in "OS" or _length(meta[name]) != self._n:
            return None
        decoded = [t.decode("utf-8", "replace") if isinstance(t, bytes) else str(t) for t in meta[name][:]]
        return np.array([t.strip(" \x00") or None for t in decoded], dtype=object)

    def times(self) -> NDArray[np.datetime64]:
        """MetaData/dateTime (or time) by its `units` since an epoch. [n]"""
        import cftime

        meta = self._file["MetaData"]
        if "dateTime" not in meta:
            raise DecodeError("MetaData/dateTime is missing")
        data = meta["dateTime"]
        units = data.attrs.get("units", "")
        units = units if isinstance(units, str) else np.asarray(units).ravel()[0]
        units = units.decode() if isinstance(units, bytes) else str(units)
        step, _, epoch = units.partition(" since ")
        if step not in ("seconds", "minutes", "hours", "days") or _length(data) != self._n:
            raise DecodeError(f"MetaData/dateTime has units {units!r}: expected seconds since a date")
        first = np.datetime64(cftime.num2date(0, f"{step} since {epoch.rstrip('Z')}").isoformat(), "us")
        stored = data[:].astype(np.int64)
        seconds = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}[step]
        good = np.abs(stored) < 2**40 // seconds
        times = first + (np.where(good, stored, 0) * seconds * 1_000_000).astype("timedelta64[us]")
        return np.where(good, times, np.datetime64("NaT", "us"))


def _length(data: Any) -> int:
    if not hasattr(data, "shape") or len(data.shape) != 1:
        raise DecodeError(f"{data.name} is no variable with one dimension")
    if data.shape[0] > MAX_LOCATIONS:
        raise DecodeError(f"{data.shape[0]} locations are more than {MAX_LOCATIONS}: split the file")
    return int(data.shape[0])


def _shared(reader: _Reader, meta: "h5py.Group", n: int) -> dict[str, Any]:
    station = reader.texts("stationIdentification")
    kinds, source = reader.texts("reportType"), reader.texts("dataProviderOrigin")
    known = kinds is not None and np.isin(kinds.astype(str), _KIND_NAMES).all()
    return {
        "time": reader.times(),
        "latitude": reader.numbers("MetaData", "latitude"),
        "longitude": reader.numbers("MetaData", "longitude"),
        "pressure": reader.numbers("MetaData", "pressure"),
        "height": reader.numbers("MetaData", "height"),
        "pressure_top": reader.numbers("MetaData", "pressureTop"),
        "station": station if station is not None else np.full(n, None, dtype=object),
        "type": kinds if known else _kind(meta),
        "source": source if source is not None else np.full(n, None, dtype=object),
    }


def _kind(meta: "h5py.Group") -> str:
    """What the metadata tell of the instrument, where the file does not name report types."""
    names = set(meta)
    if names & {"satelliteConstellationRO", "satelliteTransmitterId", "impactParameterRO"}:
        return "gnssro"
    if names & {"aircraftFlightPhase", "aircraftIdentifier", "aircraftFlightNumber"}:
        return "amdar"
    if names & {"satelliteIdentifier", "windComputationMethod"}:
        return "satwind"
    if names & {"sondeReportIdentifier", "sonde_tracking_system", "levelTimeDisplacement", "numberOfLevels"}:
        return "temp"
    return "synop"
