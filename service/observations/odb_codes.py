"""ECMWF's numbers in ODB-2: variables, report types, vertical coordinates (codes.ecmwf.int/odb)."""

from collections.abc import Mapping

VARNO: Mapping[str, int] = {
    "z": 1, "t": 2, "u": 3, "v": 4, "q": 7, "rh": 29, "t2m": 39, "td2m": 40, "u10": 41, "v10": 42, "rh2m": 58, "td": 59,
    "msl": 108, "sp": 110, "wdir": 111, "wdir10": 111, "ws": 112, "ws10": 112, "tb": 119,
}  # fmt: skip
VARIABLE_OF: Mapping[int, str] = {number: name for name, number in reversed(list(VARNO.items()))}
AT_10_M: Mapping[str, str] = {"wdir": "wdir10", "ws": "ws10"}
"""One number for two: what they are in reports from the surface."""

# type -> (obstype, codetype)
OBSTYPE_CODETYPE: Mapping[str, tuple[int, int]] = {
    "synop": (1, 11),
    "ship": (1, 21),
    "amdar": (2, 144),
    "satwind": (3, 88),
    "buoy": (4, 165),
    "temp": (5, 35),
    "pilot": (6, 32),
    "scatterometer": (9, 139),
    "gnssro": (10, 250),
    "sounder": (7, 210),
}
TYPE_OF_OBSTYPE: Mapping[int, str] = {number: name for name, (number, _) in OBSTYPE_CODETYPE.items() if name != "ship"}
SHIP_CODETYPES = (21, 22, 23, 24, 170, 180, 182)

PRESSURE, HEIGHT = 1, 2  # vertco_type
ACTIVE, PASSIVE, REJECTED = 1, 2, 4  # bits of datum_status
