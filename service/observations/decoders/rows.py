"""From rows of named cells (JSON objects, CSV lines) to `RawRows`: numbers, times and units read cell by cell.

A cell that cannot be read rejects its own row only.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from service.observations.checks import RawRows
from service.observations.conversions import STANDARD_GRAVITY
from service.observations.decoders.errors import DecodeError
from service.observations.reasons import Reason

REQUIRED = ("time", "latitude", "longitude", "variable", "value", "type")
OPTIONAL = ("receipt_time", "pressure", "height", "error", "station", "source", "preqc", "unit", "pressure_top")

# unit -> (factor, offset) to the SI unit of the variables that may have it
_KELVIN = {"K": (1.0, 0.0), "degC": (1.0, 273.15)}
_SPEED = {"m s-1": (1.0, 0.0), "m/s": (1.0, 0.0), "kt": (1852.0 / 3600.0, 0.0), "km/h": (1 / 3.6, 0.0)}
_PRESSURE = {"Pa": (1.0, 0.0), "hPa": (100.0, 0.0), "mbar": (100.0, 0.0)}
_HUMIDITY = {"kg kg-1": (1.0, 0.0), "kg/kg": (1.0, 0.0), "g kg-1": (1e-3, 0.0), "g/kg": (1e-3, 0.0)}
_GEOPOTENTIAL = {"m2 s-2": (1.0, 0.0), "m2/s2": (1.0, 0.0), "gpm": (STANDARD_GRAVITY, 0.0)}
_FRACTION = {"1": (1.0, 0.0), "%": (0.01, 0.0)}
_DEGREES = {"degree": (1.0, 0.0), "deg": (1.0, 0.0)}
UNITS: dict[str, dict[str, tuple[float, float]]] = {
    "z": _GEOPOTENTIAL, "t": _KELVIN, "t2m": _KELVIN, "q": _HUMIDITY, "sp": _PRESSURE,
    "u": _SPEED, "v": _SPEED, "u10": _SPEED, "v10": _SPEED,
    "ws": _SPEED, "ws10": _SPEED, "wdir": _DEGREES, "wdir10": _DEGREES, "rh": _FRACTION, "rh2m": _FRACTION,
    "td": _KELVIN, "td2m": _KELVIN, "tlayer": _KELVIN, "tb": _KELVIN, "msl": _PRESSURE, "gh": {"gpm": (1.0, 0.0), "m": (1.0, 0.0)},
    "h": {"m": (1.0, 0.0)}, "refractivity": {"1": (1.0, 0.0)},
}  # fmt: skip

_PLACES = ("latitude", "longitude", "pressure", "height", "pressure_top")
_UNREADABLE = {**dict.fromkeys(_PLACES, Reason.POSITION_INVALID), "value": Reason.MISSING_VALUE,
               "error": Reason.RANGE, "preqc": Reason.RANGE}  # fmt: skip
_LONGEST_FRACTION = re.compile(r"(\.\d{6})\d+")


def rows_from_cells(cells: Sequence[object], fields: Sequence[str] | None = None) -> tuple[RawRows, list[str]]:
    """Read rows of cells.

    Args:
        cells: one mapping per row from column name to text, number or None. Times are ISO 8601, UTC where they
            name no offset. `unit` (optional) names the unit of value and error, else they are SI.
        fields: the columns that the file as a whole declares (CSV); else each row is looked at.

    Returns:
        The rows, and notes on columns that were ignored.

    Raises:
        DecodeError: the file as a whole lacks required columns.
    """
    if fields is not None:
        missing = [name for name in REQUIRED if name not in fields]
        if missing:
            raise DecodeError(f"column(s) {', '.join(missing)} missing: required are {', '.join(REQUIRED)}")
    rows = RawRows.empty(len(cells))
    ignored: set[str] = set(fields or ()) - set(REQUIRED + OPTIONAL)
    for i, row in enumerate(cells):
        if not isinstance(row, Mapping):
            _refuse(rows, i, Reason.MISSING_VALUE, f"row {i} is no object with named columns: {str(row)[:60]!r}")
            continue
        ignored.update(str(name) for name in row if name not in REQUIRED and name not in OPTIONAL)
        _read_row(rows, i, row)
    notes = [f"column {name[:60]!r} is not in the observation table and was ignored" for name in sorted(ignored)[:20]]
    return rows, notes


def _refuse(rows: RawRows, i: int, reason: Reason, detail: str) -> None:
    if rows.reason[i] == 0:
        rows.reason[i] = int(reason)
        rows.detail[i] = detail


def _read_row(rows: RawRows, i: int, row: Mapping[str, object]) -> None:
    columns = rows.columns
    for name in ("variable", "type", "station", "source"):
        cell = row.get(name)
        if cell is not None and cell != "":
            columns[name][i] = str(cell)[:64]
    for name in ("time", "receipt_time"):
        cell = row.get(name)
        if cell is None or cell == "":
            continue
        try:
            columns[name][i] = parse_time(str(cell))
        except (ValueError, OverflowError):
            _refuse(rows, i, Reason.TIME_INVALID, f"{name} {str(cell)[:40]!r} is not ISO 8601")
    for name, reason in _UNREADABLE.items():
        cell = row.get(name)
        if cell is None or cell == "":
            continue
        read = number(cell)
        if read is None:
            _refuse(rows, i, reason, f"{name} {str(cell)[:40]!r} is not a number")
        else:
            columns[name][i] = read
    unit = row.get("unit")
    if unit is not None and unit != "":
        _to_si(rows, i, str(unit))


def number(cell: object) -> float | None:
    """A cell as a number; None where it is none."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        return float(cell)
    except (ValueError, OverflowError):
        return None


def _to_si(rows: RawRows, i: int, unit: str) -> None:
    variable = str(rows.columns["variable"][i])
    known = UNITS.get(variable)
    if known is None:
        return  # the variable itself is unknown: the checks say so
    if unit not in known:
        _refuse(rows, i, Reason.UNIT_INVALID, f"{variable} cannot be in {unit[:20]!r}: use one of {', '.join(known)}")
        return
    factor, offset = known[unit]
    rows.columns["value"][i] = rows.columns["value"][i] * factor + offset
    rows.columns["error"][i] *= factor


def parse_time(text: str) -> np.datetime64:
    """An ISO 8601 time as datetime64[us] in UTC (UTC where it names no offset; parts of microseconds are cut).

    Raises:
        ValueError: not ISO 8601.
    """
    time = datetime.fromisoformat(_LONGEST_FRACTION.sub(r"\1", text.strip()))
    if time.tzinfo is not None:
        time = time.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(time, "us")
