"""Earth2Studio's observation schema (`earth2studio.lexicon.base.E2STUDIO_SCHEMA`) as rows of ours: names, classes, quality.

Columns time, lat, lon, observation, variable; optional pres (Pa), elev (m), type, class, station, source, quality
(NCEP's marker, Table 7), error. Variables with a level in their name (`t500`, `z850`) get its pressure.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import Note, RawRows
from service.observations.table import SURFACE_VARIABLES

REQUIRED = ("time", "lat", "lon", "observation", "variable")
COLUMNS = (*REQUIRED, "pres", "elev", "type", "class", "station", "station_elev", "source", "quality")
TEXTS = ("variable", "class", "station", "source")
_SURFACE = {"u10m": "u10", "v10m": "v10", "t2m": "t2m", "sp": "sp", "u": "u", "v": "v", "t": "t", "q": "q", "z": "z",
            "pres": "sp", "msl": "msl", "ws10m": "ws10"}  # fmt: skip
_LEVEL = re.compile(r"([tuvqz])(\d{1,4})")
# class (message type of PrepBUFR) -> type
_CLASSES = {"ADPUPA": "temp", "AIRCFT": "amdar", "AIRCAR": "amdar", "SATWND": "satwind", "PROFLR": "pilot",
            "VADWND": "pilot", "ADPSFC": "synop", "SFCSHP": "ship", "ASCATW": "scatterometer", "GPSRO": "gnssro",
            "GPSIPW": "synop", "MSONET": "synop"}  # fmt: skip
_SURFACE_CLASSES = ("ADPSFC", "SFCSHP", "MSONET", "ASCATW")
_ON_GROUND = {"t": "t2m", "u": "u10", "v": "v10"}
_CONFIDENCE = {0: 100.0, 1: 100.0, 2: 70.0, 3: 30.0}


def recognises(names: list[str]) -> bool:
    """Whether columns are Earth2Studio's and not ours."""
    return all(name in names for name in REQUIRED)


def convert(columns: dict[str, NDArray[Any]]) -> tuple[RawRows, list[Note]]:
    """Columns under Earth2Studio's names (numbers NaN, texts None where absent) as rows. [n] each"""
    n = len(columns["time"])
    rows = RawRows.empty(n)
    ours = rows.columns
    ours["time"], ours["value"] = columns["time"], columns["observation"]
    ours["latitude"], ours["longitude"] = columns["lat"], columns["lon"]
    for name, theirs in (("pressure", "pres"), ("height", "elev")):
        if theirs in columns:
            ours[name] = columns[theirs]
    for name in ("station", "source"):
        if name in columns:
            ours[name] = columns[name]
    classes = columns.get("class", np.full(n, None, dtype=object)).astype(str)
    ours["type"][:] = [_CLASSES.get(c, "synop" if c == "None" else c) for c in classes]
    _name_variables(ours, columns["variable"].astype(str), classes)
    if "quality" in columns:
        marker = columns["quality"]
        ours["preqc"] = np.array([np.nan if np.isnan(m) else _CONFIDENCE.get(int(m), 0.0) for m in marker])
    untyped = int((classes == "None").sum())
    notes: list[Note] = [(untyped, "rows of Earth2Studio have no class and were taken as synop")] if untyped else []
    return rows, notes


def _name_variables(ours: dict[str, NDArray[Any]], names: NDArray[np.str_], classes: NDArray[np.str_]) -> None:
    on_ground = np.isin(classes, _SURFACE_CLASSES)
    for name in np.unique(names):
        which = names == name
        level = _LEVEL.fullmatch(str(name))
        if level and name not in _SURFACE:
            ours["variable"][which] = level[1]
            ours["pressure"] = np.where(which & np.isnan(ours["pressure"]), float(level[2]) * 100.0, ours["pressure"])
            continue
        variable = _SURFACE.get(str(name), str(name))
        ours["variable"][which] = variable
        if variable in _ON_GROUND:
            ours["variable"][which & on_ground] = _ON_GROUND[variable]
    surface = np.isin(ours["variable"].astype(str), SURFACE_VARIABLES)
    ours["pressure"] = np.where(surface, np.nan, ours["pressure"])
