"""From rows of named cells (JSON objects, CSV lines) to `RawRows`: numbers, times and units read cell by cell.

A cell that cannot be read rejects its own row only.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import Note, RawRows
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
_NAMES, _TIMES = ("variable", "type", "station", "source"), ("time", "receipt_time")
_READ = REQUIRED + OPTIONAL
_MOST_IGNORED = 20  # columns that are named
_LONGEST_FRACTION = re.compile(r"(\.\d{6})\d+")


class Cells:
    """Reads rows of cells, part after part of one file.

    Times are ISO 8601, UTC where they name no offset. `unit` (optional) names the unit of value and error, else they are SI.

    Attributes:
        count: how many rows were read so far.
    """

    def __init__(self, fields: Sequence[str] | None = None) -> None:
        """`fields`: the columns that the file as a whole declares (CSV); else each row is looked at.

        Raises DecodeError when the file as a whole lacks required columns.
        """
        if fields is not None:
            missing = [name for name in REQUIRED if name not in fields]
            if missing:
                raise DecodeError(f"column(s) {', '.join(missing)} missing: required are {', '.join(REQUIRED)}")
        self.count = 0
        self._ignored: set[str] = set()

    def rows(self, cells: Sequence[object]) -> tuple[RawRows, list[Note]]:
        """One mapping per row from column name to text, number or None, and notes on columns that were ignored."""
        strange = [i for i, row in enumerate(cells) if not isinstance(row, Mapping)]
        details = {i: f"row {self.count + i} is no object with named columns: {str(cells[i])[:60]!r}" for i in strange}
        named: list[Mapping[str, object]] = [row if isinstance(row, Mapping) else {} for row in cells]
        present = set[str]().union(*named)
        columns: dict[str, list[object]] = {name: [] for name in present - set(_READ)}
        columns |= {name: [row.get(name) for row in named] for name in _READ if name in present}
        return self.columns(columns, len(cells), details)

    def columns(
        self, columns: Mapping[str, list[object]], n: int, strange: Mapping[int, str] | None = None
    ) -> tuple[RawRows, list[Note]]:
        """The same by column; `strange` rows are none, with what to say of them. Columns not read may be empty."""
        rows = RawRows.empty(n)
        self.count += n
        for i, detail in (strange or {}).items():
            _refuse(rows, i, Reason.MISSING_VALUE, detail)
        for name in _NAMES:
            if name in columns:
                rows.columns[name][:] = [_text(cell) for cell in columns[name]]
        for name in _TIMES:
            if name in columns:
                rows.columns[name] = _times(rows, name, columns[name])
        for name in _UNREADABLE:
            if name in columns:
                rows.columns[name] = _numbers(rows, name, columns[name])
        for i, unit in enumerate(columns.get("unit", ())):
            if unit is not None and unit != "":
                _to_si(rows, i, str(unit))
        return rows, self._ignoring(set(columns) - set(_READ))

    def _ignoring(self, names: set[str]) -> list[Note]:
        new = sorted(names - self._ignored)[: max(_MOST_IGNORED - len(self._ignored), 0)]
        self._ignored |= set(new)
        return [f"column {name[:60]!r} is not in the observation table and was ignored" for name in new]


def _refuse(rows: RawRows, i: int, reason: Reason, detail: str) -> None:
    if rows.reason[i] == 0:
        rows.reason[i] = int(reason)
        rows.detail[i] = detail


def _text(cell: object) -> str | None:
    if cell is None or cell == "":
        return None
    text = cell if type(cell) is str else str(cell)
    # half of a surrogate pair, which JSON can spell, is no text that could be kept
    return text[:64] if text.isascii() else text[:64].encode(errors="replace").decode()


def _times(rows: RawRows, name: str, cells: list[object]) -> NDArray[Any]:
    out = np.full(len(cells), np.datetime64("NaT", "us"))
    moments = out.view(np.int64)
    stamps: dict[str, int] = {}
    for i, cell in enumerate(cells):
        if cell is None or cell == "":
            continue
        text = cell if type(cell) is str else str(cell)
        stamp = stamps.get(text)
        if stamp is None:
            try:
                stamps[text] = stamp = int(parse_time(text).astype(np.int64))
            except (ValueError, OverflowError):
                _refuse(rows, i, Reason.TIME_INVALID, f"{name} {text[:40]!r} is not ISO 8601")
                continue
        moments[i] = stamp
    return out


def _numbers(rows: RawRows, name: str, cells: list[object]) -> NDArray[np.float64]:
    kinds = set(map(type, cells))
    try:
        if kinds <= {float, int, type(None)}:
            return np.array(cells, dtype=np.float64)
        if kinds <= {str}:
            return np.array([float(cell) if cell else np.nan for cell in cells])  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        pass  # one of them is no number: which one?
    out = np.full(len(cells), np.nan)
    for i, cell in enumerate(cells):
        if cell is None or cell == "":
            continue
        read = number(cell)
        if read is None:
            _refuse(rows, i, _UNREADABLE[name], f"{name} {str(cell)[:40]!r} is not a number")
        else:
            out[i] = read
    return out


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
