"""ODB-2 (ECMWF's observation data base, as exchanged): one row is one datum, under ECMWF's column names and codes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import RawRows
from service.observations.decoders.errors import DecodeError
from service.observations.odb_codes import AT_10_M, HEIGHT, PRESSURE, SHIP_CODETYPES, TYPE_OF_OBSTYPE, VARIABLE_OF
from service.observations.table import SURFACE_VARIABLES

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MAX_ROWS = 20_000_000
_REQUIRED = ("lat", "lon", "date", "time", "varno", "obsvalue")
_WANTED = (
    *_REQUIRED,
    "obstype",
    "codetype",
    "statid",
    "vertco_type",
    "vertco_reference_1",
    "obs_error",
    "stalt",
    "source",
)


def read(path: Path) -> tuple[RawRows, list[str]]:
    """Read an ODB-2 file with ECMWF's columns; the tables behind "@" do not matter.

    Raises:
        DecodeError: not readable, or without the columns that say what was observed where and when.
    """
    import pyodc

    frames: list[pd.DataFrame] = []
    notes: list[str] = []
    try:
        with path.open("rb") as file:
            for frame in pyodc.read_odb(file):
                frames.append(_known(frame))
                if sum(map(len, frames)) > MAX_ROWS:
                    raise DecodeError(f"more than {MAX_ROWS} rows: split the file")
    except DecodeError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        if not frames:
            raise DecodeError(f"not readable as ODB-2: {type(error).__name__}: {str(error)[:160]}") from error
        notes.append(f"damaged after {sum(map(len, frames))} rows, which were kept: {str(error)[:160]}")
    parts = [_rows(frame) for frame in frames if len(frame)]
    if not parts:
        raise DecodeError("the file has no rows: send at least one observation")
    return RawRows.join(parts), notes


def _known(frame: "pd.DataFrame") -> "pd.DataFrame":
    found: dict[str, str] = {}
    for name in frame.columns:
        found.setdefault(str(name).partition("@")[0].lower(), name)
    missing = [name for name in _REQUIRED if name not in found]
    if missing:
        raise DecodeError(f"column(s) {', '.join(missing)} missing: required are {', '.join(_REQUIRED)}")
    chosen = frame[[found[name] for name in _WANTED if name in found]]
    return chosen.set_axis([name for name in _WANTED if name in found], axis=1)


def _rows(frame: "pd.DataFrame") -> RawRows:
    made = RawRows.empty(len(frame))

    def numbers(name: str) -> Floats:
        if name not in frame:
            return np.full(len(frame), np.nan)
        return np.asarray(frame[name].astype(np.float64).to_numpy(), dtype=np.float64)

    columns = made.columns
    columns["latitude"], columns["longitude"] = numbers("lat"), numbers("lon")
    columns["value"], columns["error"] = numbers("obsvalue"), numbers("obs_error")
    columns["time"] = _times(numbers("date"), numbers("time"))
    varno = np.nan_to_num(numbers("varno"), nan=0).astype(np.int64)
    columns["variable"][:] = [VARIABLE_OF.get(int(n), f"varno {n}") for n in varno]
    columns["type"][:] = _kinds(numbers("obstype"), numbers("codetype"))
    ground = np.isin(columns["type"].astype(str), ("synop", "ship", "buoy", "scatterometer"))
    for aloft, at_10_m in AT_10_M.items():
        columns["variable"][ground & (columns["variable"] == aloft)] = at_10_m
    for ours, theirs in (("station", "statid"), ("source", "source")):
        if theirs in frame:
            columns[ours][:] = [_text(cell) for cell in frame[theirs]]
    coordinate, level = numbers("vertco_type"), numbers("vertco_reference_1")
    upper = ~np.isin(columns["variable"].astype(str), SURFACE_VARIABLES)
    columns["pressure"] = np.where((coordinate == PRESSURE) & upper, level, np.nan)
    ground = np.where(upper, np.nan, numbers("stalt"))
    columns["height"] = np.where(coordinate == HEIGHT, level, ground)
    return made


def _text(cell: Any) -> str | None:
    text = cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)
    return text.strip(" \x00")[:64] or None if cell is not None else None


def _times(date: Floats, time: Floats) -> NDArray[np.datetime64]:
    """From YYYYMMDD and HHMMSS; NaT where that is no time. [n]"""
    good = (date >= 10101) & (date <= 99991231) & (time >= 0) & (time < 240000)
    d, t = (np.where(good, x, 10101).astype(np.int64) for x in (date, time))
    year, month, day = d // 10000, d // 100 % 100, d % 100
    hour, minute, second = t // 10000, t // 100 % 100, t % 100
    good &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31) & (minute < 60) & (second < 60)
    months = ((year - 1970) * 12 + np.where(good, month, 1) - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (np.where(good, day, 1) - 1)
    good &= days.astype("datetime64[M]") == months
    seconds = hour * 3600 + minute * 60 + second
    return np.where(good, days.astype("datetime64[us]") + seconds.astype("timedelta64[s]"), np.datetime64("NaT", "us"))


def _kinds(obstype: Floats, codetype: Floats) -> list[str]:
    numbers = np.nan_to_num(obstype, nan=0).astype(np.int64)
    ship = (numbers == 1) & np.isin(codetype, SHIP_CODETYPES)
    return [
        "ship" if afloat else TYPE_OF_OBSTYPE.get(int(n), f"obstype {n}")
        for n, afloat in zip(numbers, ship, strict=True)
    ]
