"""BUFR data categories 0 (land), 1 (sea) and 31 (ocean): SYNOP, ships, drifting and moored buoys; surface values only.

Templates 3 07 005, 3 07 079 to 3 07 096, 3 08 004 to 3 08 009, 3 08 003, 3 15 008, 3 15 009. The first occurrence of an element counts: the
instantaneous value; extremes and accumulations come later in all of them.
"""

import numpy as np

from service.observations.checks import RawRows
from service.observations.conversions import STANDARD_GRAVITY
from service.observations.decoders.bufr_reports import Reports
from service.observations.decoders.bufr_rows import rows, wind

_LAND = 0
_SHIP_NAMES, _BUOY_NUMBERS = (1011,), (1087, 1005)


def read_surface(reports: Reports) -> list[RawRows]:
    """sp (on land else msl), t2m, u10, v10 of every report; z of the standard level that mountain stations reduce to."""
    land = reports.categories() == _LAND
    buoy = ~np.isnan(reports.first(*_BUOY_NUMBERS))
    kind = np.where(land, "synop", np.where(buoy, "buoy", "ship")).astype(object)
    latitude, longitude = reports.positions()
    station_height = reports.first(7030, 7001)
    barometer = reports.first(7031)
    pressure = reports.first(10004)
    # on the sea the pressure reduced to mean sea level is the pressure at height 0
    reduced = ~land & np.isnan(pressure)
    pressure = np.where(reduced, reports.first(10051), pressure)
    barometer = np.where(reduced, 0.0, np.where(np.isnan(barometer), station_height, barometer))
    shared = {
        "type": kind, "station": reports.stations(_SHIP_NAMES, _BUOY_NUMBERS), "time": reports.times(),
        "latitude": latitude, "longitude": longitude, "height": station_height,
    }  # fmt: skip
    sure = reports.confidence
    with np.errstate(invalid="ignore"):
        sure_of_wind = np.fmin(sure(11001, 11011), sure(11002, 11012))
    at_level = shared | {"pressure": reports.first(7004), "height": np.nan}
    standard = np.where(np.isnan(reports.first(7004)), np.nan, reports.first(10009) * STANDARD_GRAVITY)
    return [
        rows("sp", pressure, sure(10004, 10051), shared | {"height": barometer}),
        rows("msl", np.where(land & np.isnan(pressure), reports.first(10051), np.nan), sure(10051), shared),
        rows("t2m", reports.first(12101, 12104, 12004, 12001), sure(12101, 12104, 12004, 12001), shared),
        *wind(reports.first(11001, 11011), reports.first(11002, 11012), sure_of_wind, shared, ("u10", "v10")),
        rows("z", standard, sure(10009), at_level),
    ]
