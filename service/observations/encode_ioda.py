"""Observations and departures as an IODA file (HDF5): ObsValue, ObsError, PreQC, EffectiveQC, HofX, ombg, oman.

Layout and names: JCSDA IODA, version 3 (ObsGroup layout 0). Missing: `_FillValue`. Beyond IODA's own groups there are
PercentConfidence (our `preqc`) and Reason (our reason code), so that nothing of the table is lost but the part of a second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.observations.reasons import Reason

if TYPE_CHECKING:
    import h5py

NAMES = {
    "z": "geopotential", "t": "airTemperature", "u": "windEastward", "v": "windNorthward", "q": "specificHumidity",
    "sp": "stationPressure", "t2m": "airTemperatureAt2M", "u10": "windEastwardAt10M", "v10": "windNorthwardAt10M",
    "refractivity": "atmosphericRefractivity", "ws": "windSpeed", "wdir": "windDirection", "rh": "relativeHumidity",
    "td": "dewPointTemperature", "gh": "geopotentialHeight", "h": "geometricHeight", "tlayer": "layerMeanTemperature",
    "tb": "brightnessTemperature", "msl": "pressureReducedToMeanSeaLevel", "td2m": "dewPointTemperatureAt2M",
    "rh2m": "relativeHumidityAt2M", "ws10": "windSpeedAt10M", "wdir10": "windDirectionAt10M",
}  # fmt: skip
UNITS = {
    "z": "m2 s-2", "t": "K", "u": "m s-1", "v": "m s-1", "q": "kg kg-1", "sp": "Pa", "t2m": "K", "u10": "m s-1",
    "v10": "m s-1", "refractivity": "1", "ws": "m s-1", "wdir": "degree", "rh": "1", "td": "K", "gh": "m", "h": "m",
    "tlayer": "K", "tb": "K", "msl": "Pa", "td2m": "K", "rh2m": "1", "ws10": "m s-1", "wdir10": "degree",
}  # fmt: skip
_FILL_FLOAT, _FILL_INT = np.float32(-3.4028235e38), np.int32(-2147483643)
# JCSDA/ufo QCflags.h
_PASS, _PASSIVE, _MISSING, _PRE_QC, _BOUNDS, _DOMAIN, _EXCLUDED, _THINNED, _FIRST_GUESS = (
    0,
    1,
    10,
    11,
    12,
    13,
    14,
    16,
    19,
)
EFFECTIVE_QC = {
    Reason.ASSIMILATED: _PASS, Reason.PASSIVE: _PASSIVE, Reason.WITHHELD: _PASSIVE, Reason.DENIED: _PASSIVE,
    Reason.MISSING_VALUE: _MISSING,
    Reason.SENDER_REJECTED: _PRE_QC, Reason.RANGE: _BOUNDS, Reason.POSITION_INVALID: _DOMAIN,
    Reason.TIME_INVALID: _DOMAIN, Reason.OUTSIDE_WINDOW: _DOMAIN, Reason.OUTSIDE_DOMAIN: _DOMAIN,
    Reason.THINNED: _THINNED, Reason.FIRST_GUESS: _FIRST_GUESS,
}  # fmt: skip
_PLACE = ("time", "latitude", "longitude", "pressure", "height", "station", "type")
_LAYER = "pressure_top"


def write_ioda(table: pa.Table, path: str | Path) -> None:
    """Write a table of observations, or of departures, as IODA.

    Args:
        table: columns of `table.SCHEMA`; with `qc`, `background` and `analysis` also EffectiveQC, HofX, ombg, oman.

    Raises:
        ValueError: the table is empty, which IODA's tools cannot read.
    """
    import h5py

    if not table.num_rows:
        raise ValueError("an IODA file without locations cannot be read by its tools")
    columns = _columns(table)
    columns.setdefault(_LAYER, np.full(table.num_rows, np.nan))
    location, count = _locations(columns)
    with h5py.File(path, "w") as file:
        file.attrs["_ioda_layout"], file.attrs["_ioda_layout_version"] = "ObsGroup", np.int32(0)
        file.create_dataset("Location", data=np.arange(count, dtype=np.int64)).make_scale("Location")
        first = np.full(count, -1)
        first[location[::-1]] = np.arange(len(location))[::-1]
        _write_metadata(file, {name: columns[name][first] for name in (*_PLACE, _LAYER, "source")})
        for variable in dict.fromkeys(columns["variable"].tolist()):
            rows = np.flatnonzero(columns["variable"] == variable)
            _write_variable(file, variable, {k: v[rows] for k, v in columns.items()}, location[rows], count)


def _columns(table: pa.Table) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        if name in ("time", "receipt_time"):
            micro = column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(zero_copy_only=False)
            columns[name] = np.round(micro / 1e6).astype(np.int64)
        elif pa.types.is_dictionary(column.type) or pa.types.is_string(column.type):
            columns[name] = column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False).astype(object)
        else:
            wide = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            columns[name] = np.asarray(wide, dtype=np.float64)
    return columns


def _locations(columns: dict[str, NDArray[Any]]) -> tuple[NDArray[np.int64], int]:
    """The location of each row: rows of one report and level share one, unless they hold the same variable."""
    location = np.zeros(len(columns["time"]), dtype=np.int64)
    places: dict[tuple[Any, ...], int] = {}
    seen: dict[tuple[Any, ...], int] = {}
    keys = zip(*(np.nan_to_num(columns[n], nan=-9e9).tolist() if columns[n].dtype.kind == "f"
                 else columns[n].tolist() for n in (*_PLACE, _LAYER)), strict=True)  # fmt: skip
    for i, (place, variable) in enumerate(zip(keys, columns["variable"].tolist(), strict=True)):
        repeat = seen.get((place, variable), 0)
        seen[place, variable] = repeat + 1
        location[i] = places.setdefault((place, repeat), len(places))
    return location, len(places)


def _write_metadata(file: "h5py.File", columns: dict[str, NDArray[Any]]) -> None:
    meta = file.create_group("MetaData")
    for name, theirs, units in (
        ("latitude", "latitude", "degrees_north"), ("longitude", "longitude", "degrees_east"),
        ("pressure", "pressure", "Pa"), ("height", "height", "m"), (_LAYER, "pressureTop", "Pa"),
    ):  # fmt: skip
        fill = np.float64(_FILL_FLOAT)
        _put(meta, theirs, np.where(np.isnan(columns[name]), fill, columns[name]), fill, units)
    _put(meta, "dateTime", columns["time"], np.int64(-9223372036854775806), "seconds since 1970-01-01T00:00:00Z")
    for name, theirs in (
        ("station", "stationIdentification"),
        ("type", "reportType"),
        ("source", "dataProviderOrigin"),
    ):
        import h5py

        data = meta.create_dataset(theirs, data=columns[name], dtype=h5py.string_dtype())
        data.dims[0].attach_scale(file["Location"])


def _write_variable(
    file: "h5py.File", variable: str, columns: dict[str, NDArray[Any]], location: NDArray[np.int64], count: int
) -> None:
    name, units = NAMES[variable], UNITS[variable]

    def put(group: str, values: NDArray[Any], kind: Any = np.float32, unit: str | None = units) -> None:
        fill = _FILL_FLOAT if kind is np.float32 else _FILL_INT
        full = np.full(count, fill, dtype=kind)
        full[location] = np.where(np.isnan(values), fill, values).astype(kind)
        _put(file.require_group(group), name, full, fill, unit)

    confidence = columns["preqc"]
    corrected = columns["value"] - np.nan_to_num(columns["bias"]) if "bias" in columns else columns["value"]
    if "bias" in columns:
        put("ObsBias", columns["bias"])
    put("ObsValue", columns["value"])
    put("ObsError", columns["error"])
    put("PercentConfidence", confidence, np.int32, "%")
    put("PreQC", _marker(confidence), np.int32, None)
    if "qc" in columns:
        codes = columns["qc"].astype(np.int64).tolist()
        put("Reason", columns["qc"], np.int32, None)
        known = {int(reason): flag for reason, flag in EFFECTIVE_QC.items()}
        put("EffectiveQC", np.array([known.get(code, _EXCLUDED) for code in codes], dtype=float), np.int32, None)
    if "background" in columns:
        put("HofX", columns["background"])
        put("ombg", corrected - columns["background"])
    if "analysis" in columns:
        put("oman", corrected - columns["analysis"])


def _marker(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """NCEP's quality marker: 1 good, 2 neutral, 3 suspect, 13 rejected before; NaN: the sender said nothing."""
    return np.select(
        [confidence >= 85, confidence >= 50, confidence >= 1, confidence >= 0], [1.0, 2.0, 3.0, 13.0], np.nan
    )


def _put(group: "h5py.Group", name: str, values: NDArray[Any], fill: Any, units: str | None) -> None:
    data = group.create_dataset(name, data=values, fillvalue=fill, compression="gzip", shuffle=True)
    data.attrs["_FillValue"] = np.array([fill])
    if units:
        data.attrs["units"] = units
    data.dims[0].attach_scale(group.file["Location"])
