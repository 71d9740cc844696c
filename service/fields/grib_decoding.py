"""GRIB editions 1 and 2, read with plain ecCodes: headers of every field, and the Dataset of the contract.

cfgrib is not used here because it drops fields that do not fit its hypercubes with no more than a log line,
and leaves index files beside its input; every field that this reader leaves out is named in `skipped`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from service.fields.assembly import Key, assemble
from service.fields.errors import FieldError
from service.fields.framing import check_framing
from service.fields.grid import gaussian_latitudes

VARIABLES = {"z": "z", "gh": "gh", "q": "q", "r": "r", "u": "u", "v": "v", "t": "t"}
SURFACE = {
    ("10u", "heightAboveGround", 10): "u10",
    ("10v", "heightAboveGround", 10): "v10",
    ("2t", "heightAboveGround", 2): "t2m",
    ("sp", "surface", 0): "sp",
    # GRIB edition 1 of ECMWF has these on the surface
    ("10u", "surface", 0): "u10",
    ("10v", "surface", 0): "v10",
    ("2t", "surface", 0): "t2m",
}
MISSING = 1e35
MOST_ROWS = 5120  # N2560: finding more Gaussian latitudes takes too long
INCREMENTS = (18, 20, 21)  # code table 4.3: differences of states
MEANS, SPREADS = (0, 1, 6), (2, 3, 4)  # code table 4.7


@dataclass(frozen=True)
class Header:
    """One GRIB field without its values; `variable` is None, and `skipped` says what it is, if it is not for us."""

    edition: int
    variable: str | None
    level: float | None
    number: int | None
    valid_time: datetime
    base_time: datetime
    product: str
    units: str
    grid: str
    points: int
    skipped: str


def headers(path: str | Path) -> Iterator[Header]:
    """The headers of every field of a file, in order.

    Raises:
        FieldError: a message is broken.
    """
    for handle in _messages(path):
        yield _header(handle)


def read_grib(path: str | Path, *, maximum_values: int) -> xr.Dataset:
    """Read every field that the contract knows; geopotential height `gh` and relative humidity `r` as they are.

    Raises:
        FieldError: a broken message; no known field; two fields for the same place; several grids; several kinds
            of product; more than `maximum_values` values.
    """
    grids: dict[str, _GridAxes] = {}
    fields: dict[Key, NDArray[np.float32]] = {}
    first: Header | None = None
    products: set[str] = set()
    units: dict[str, str] = {}
    bases: dict[datetime, set[datetime]] = {}
    skipped: set[str] = set()
    total = 0
    for count, handle in enumerate(_messages(path), start=1):
        header = _header(handle)
        if header.variable is None:
            skipped.add(header.skipped)
            continue
        total += header.points
        if total > maximum_values:
            raise FieldError(f"the file holds more than {maximum_values} values; send the needed fields only")
        key = Key(header.variable, header.level, header.number, header.valid_time)
        if key in fields:
            raise FieldError(
                f"message {count} is a second field of {key}; send each field once, and one forecast per valid time"
            )
        axes = _axes(handle, grids)
        if first is not None and len(grids) > 1:
            raise FieldError(f"the file mixes grids ({first.grid}; {header.grid}); send all fields on one grid")
        first = first or header
        fields[key] = axes.values(handle)
        products.add(header.product)
        units[header.variable] = header.units
        bases.setdefault(header.valid_time, set()).add(header.base_time)
    if first is None:
        left_out = f" It holds {', '.join(sorted(skipped))}." if skipped else ""
        raise FieldError(f"no field that this service knows is in the file.{left_out}")
    if len(products) > 1 and not products <= {"analysis", "forecast"}:
        raise FieldError(f"the file mixes {' and '.join(sorted(products))} fields; send one kind per file")
    (axes,) = grids.values()
    return assemble(
        fields,
        axes.latitudes,
        axes.longitudes,
        units=units,
        bases=bases,
        attributes={
            "product": "+".join(sorted(products)),
            "source_grid": first.grid,
            "skipped": ", ".join(sorted(skipped)),
        },
    )


def _messages(path: str | Path) -> Iterator[int]:
    """Every field of the file as an open handle; also those that share a message, as NCEP packs u with v."""
    check_framing(path)
    with open(path, "rb") as file, _multi_support(), _eccodes_errors("cannot be read"):
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            try:
                yield handle
            finally:
                eccodes.codes_release(handle)


@contextmanager
def _multi_support() -> Iterator[None]:
    eccodes.codes_grib_multi_support_on()
    try:
        yield
    finally:
        eccodes.codes_grib_multi_support_off()


@contextmanager
def _eccodes_errors(what: str) -> Iterator[None]:
    try:
        yield
    except eccodes.CodesInternalError as error:
        raise FieldError(f"a GRIB message {what}: {error}") from error


def _get(handle: int, key: str, kind: type | None = None) -> Any:
    """A key's value, None where the message does not have the key."""
    return eccodes.codes_get(handle, key, ktype=kind) if eccodes.codes_is_defined(handle, key) else None


def _header(handle: int) -> Header:
    with _eccodes_errors("has a broken header"):
        short_name, level_type = str(_get(handle, "shortName")), str(_get(handle, "typeOfLevel"))
        level = _get(handle, "level", int)
        variable: str | None = None
        pressure: float | None = None
        if level_type in ("isobaricInhPa", "isobaricInPa") and short_name in VARIABLES:
            variable = VARIABLES[short_name]
            pressure = float(level) if level_type == "isobaricInhPa" else level / 100.0
        elif (short_name, level_type, level) in SURFACE:
            variable = SURFACE[short_name, level_type, level]
        if _get(handle, "stepType", str) not in (None, "instant"):
            variable = None
        grid = str(_get(handle, "gridType"))
        return Header(
            edition=_get(handle, "edition", int),
            variable=variable,
            level=pressure if variable else None,
            number=_get(handle, "perturbationNumber", int) if _edition_2(handle) else _get(handle, "number", int),
            valid_time=_time(_get(handle, "validityDate", int), _get(handle, "validityTime", int)),
            base_time=_time(_get(handle, "dataDate", int), _get(handle, "dataTime", int)),
            product=_product(handle),
            units=str(_get(handle, "units")),
            grid=f"{grid} {_get(handle, 'Nj', int) or '?'} rows, {_get(handle, 'numberOfDataPoints', int)} points",
            points=int(_get(handle, "numberOfDataPoints", int) or 0),
            skipped="" if variable else f"{short_name} on {level_type} {level}",
        )


def _edition_2(handle: int) -> bool:
    return bool(_get(handle, "edition", int) == 2)


def _product(handle: int) -> str:
    """analysis, forecast, increment, mean, spread, or `derived` for other statistics of an ensemble."""
    kind = _get(handle, "dataType", str)
    if _get(handle, "typeOfGeneratingProcess", int) in INCREMENTS or kind in ("4i", "me"):
        return "increment"
    derived = _get(handle, "derivedForecast", int)
    if derived is not None or kind in ("em", "es"):
        if derived in MEANS or kind == "em":
            return "mean"
        return "spread" if derived in SPREADS or kind == "es" else "derived"
    return "analysis" if kind == "an" else "forecast"


def _time(date: int, time: int) -> datetime:
    try:
        return datetime(date // 10000, date // 100 % 100, date % 100, time // 100, time % 100)
    except (ValueError, TypeError) as error:
        raise FieldError(f"a GRIB message has the impossible time {date} {time}") from error


@dataclass(frozen=True)
class _GridAxes:
    """The axes of a grid, and the way from the order of its values to [latitude, longitude]."""

    latitudes: NDArray[np.float64]
    longitudes: NDArray[np.float64]
    points: int
    order: NDArray[np.intp] | None  # [latitude, longitude], of a regular grid
    rows: NDArray[np.intp] | None  # points of each row, north to south, of a reduced grid

    def values(self, handle: int) -> NDArray[np.float32]:
        """The values of one field on these axes, NaN where missing."""
        with _eccodes_errors("has values that cannot be decoded"):
            eccodes.codes_set(handle, "missingValue", MISSING)
            values = eccodes.codes_get_values(handle)
        values = np.where(values == MISSING, np.nan, values)
        if values.size != self.points:
            raise FieldError(f"a GRIB message has {values.size} values for {self.points} points")
        if self.order is not None:
            return values[self.order].astype(np.float32)
        assert self.rows is not None
        return _full_rows(values, self.rows, len(self.longitudes))


def _axes(handle: int, known: dict[str, _GridAxes]) -> _GridAxes:
    """The axes of a field's grid, worked out once per grid."""
    with _eccodes_errors("has a broken grid"):
        name = str(_get(handle, "md5GridSection"))
        if name in known:
            return known[name]
        grid = _get(handle, "gridType")
        if grid == "reduced_gg":
            known[name] = _reduced_axes(handle)
        elif grid in ("regular_ll", "regular_gg"):
            known[name] = _regular_axes(handle)
        else:
            raise FieldError(
                f"fields on a {grid} grid cannot be used; send a regular or reduced Gaussian or a latitude-longitude grid"
            )
    return known[name]


def _regular_axes(handle: int) -> _GridAxes:
    """From the ends of the axes and the scanning mode (flag table 3.4).

    The coordinates that ecCodes computes are not used: on Gaussian grids it overlooks that points of a meridian
    are consecutive, on all grids that rows run in alternating directions.
    """
    columns, rows = int(_get(handle, "Ni", int) or 0), int(_get(handle, "Nj", int) or 0)
    points = int(_get(handle, "numberOfDataPoints", int) or 0)
    if min(columns, rows) < 2 or columns * rows != points:
        raise FieldError(f"{points} points are not a grid of {rows} x {columns}")
    north, south, west, east = (
        float(_get(handle, f"{end}GridPointInDegrees", float))
        for end in ("latitudeOfFirst", "latitudeOfLast", "longitudeOfFirst", "longitudeOfLast")
    )
    if _get(handle, "gridType") == "regular_gg":
        latitudes = _whole_gaussian(rows, _get(handle, "N", int), max(north, south))
        latitudes = latitudes if north > south else latitudes[::-1]
    else:
        latitudes = np.linspace(north, south, rows)
    eastward = -1.0 if _get(handle, "iScansNegatively", int) else 1.0
    extent = (eastward * (east - west)) % 360.0 or 360.0
    longitudes = np.round(west + eastward * np.linspace(0.0, extent, columns), 6) % 360.0

    along_meridians = bool(_get(handle, "jPointsAreConsecutive", int))
    lines = np.arange(points).reshape((columns, rows) if along_meridians else (rows, columns))
    if _get(handle, "alternativeRowScanning", int):
        lines[1::2] = lines[1::2, ::-1].copy()
    position = lines.T if along_meridians else lines
    ascending, columns_kept = np.unique(longitudes, return_index=True)
    rows_kept = np.argsort(-latitudes)
    return _GridAxes(latitudes[rows_kept], ascending, points, position[np.ix_(rows_kept, columns_kept)], None)


def _reduced_axes(handle: int) -> _GridAxes:
    rows = eccodes.codes_get_array(handle, "pl").astype(np.intp)
    points = int(_get(handle, "numberOfDataPoints", int) or 0)
    latitudes = _whole_gaussian(
        len(rows), _get(handle, "N", int), float(_get(handle, "latitudeOfFirstGridPointInDegrees", float))
    )
    unusual = [
        key for key in ("iScansNegatively", "jScansPositively", "alternativeRowScanning") if _get(handle, key, int)
    ]
    if unusual:
        raise FieldError(f"a reduced Gaussian grid with {unusual[0]} cannot be used")
    if rows.sum() != points or rows.min() < 4 or _get(handle, "longitudeOfFirstGridPointInDegrees", float) != 0:
        raise FieldError("a reduced Gaussian grid that does not cover the globe cannot be used")
    width = int(rows.max())
    return _GridAxes(latitudes, np.arange(width) * 360.0 / width, points, None, rows)


def _whole_gaussian(rows: int, number: int | None, northernmost: float) -> NDArray[np.float64]:
    """The Gaussian latitudes of a grid that has all its rows."""
    if number is None or rows != 2 * number or rows > MOST_ROWS:
        raise FieldError(
            f"{rows} rows are not the whole of the Gaussian grid N{number}; send fields of the whole globe"
        )
    latitudes = gaussian_latitudes(rows)
    if abs(latitudes[0] - northernmost) > 0.01:
        raise FieldError(f"the Gaussian grid N{number} begins at {latitudes[0]:.3f} N and not at {northernmost:g}")
    return latitudes


def _full_rows(values: NDArray[np.float64], rows: NDArray[np.intp], width: int) -> NDArray[np.float32]:
    """Bring every row of a reduced grid to the longest row's points, linearly and periodically."""
    full = np.empty((len(rows), width), dtype=np.float32)
    start = 0
    for index, length in enumerate(rows):
        row = values[start : start + length]
        full[index] = np.interp(np.arange(width) * (length / width), np.arange(length + 1), np.append(row, row[0]))
        start += length
    return full
