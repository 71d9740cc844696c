"""BUFR data category 2: radiosondes, dropsondes, pilot balloons, wind profilers; levels with their own time and place.

Templates 3 09 007, 3 09 050 to 3 09 057 and others whose levels are a delayed replication. Wind shear groups (0 11 061)
are no levels.
"""

import numpy as np

from service.observations.checks import RawRows
from service.observations.conversions import (
    STANDARD_GRAVITY,
    geometric_height,
    saturation_vapour_pressure,
    specific_humidity_from_dewpoint,
    specific_humidity_from_vapour_pressure,
)
from service.observations.decoders.bufr_reports import Floats, Reports
from service.observations.decoders.bufr_rows import refused, rows, wind
from service.observations.reasons import Reason

_VERTICAL = (7004, 7009, 7007, 7002, 7006, 10009)
_OBSERVED = (11001, 11003, 12101, 12001, 12103, 12003, 10009, 10003)
_SHEAR = (11061, 11062)


def read_soundings(reports: Reports) -> list[RawRows]:
    """Every level's z, t, q, u, v with its own pressure or height, time and place."""
    levels = reports.levels_with(*_VERTICAL) & reports.levels_with(*_OBSERVED) & ~reports.levels_with(*_SHEAR)
    of = reports.level_report
    counted = np.bincount(of[levels], minlength=len(reports))
    empty = [
        refused(Reason.MISSING_VALUE, f"BUFR message {number}: a sounding without levels")
        for number in reports.messages[counted == 0]
    ]
    pressure = reports.at_levels(7004)
    latitude, longitude = reports.level_positions()
    temperature = reports.at_levels(12101, 12001)
    # a sounding is a pilot balloon's or a profiler's if its levels have no place for a temperature
    warm = np.zeros(len(reports), dtype=np.bool_)
    warm[of[reports.levels_with(12101, 12001) & levels]] = True
    shared = {
        "type": np.where(warm, "temp", "pilot").astype(object)[of],
        "station": reports.stations((1011, 1008))[of],
        "pressure": pressure,
        "height": np.where(np.isnan(pressure), _height(reports, latitude), np.nan),
        "time": reports.level_times(),
        "latitude": latitude,
        "longitude": longitude,
    }
    geopotential = np.where(np.isnan(pressure), np.nan, _geopotential(reports))
    dewpoint, relative = reports.at_levels(12103, 12003), reports.at_levels(13003)
    humidity = specific_humidity_from_dewpoint(dewpoint, pressure)
    by_relative = specific_humidity_from_vapour_pressure(
        relative / 100.0 * saturation_vapour_pressure(temperature), pressure
    )
    humidity = np.where(np.isnan(dewpoint), by_relative, humidity)
    by_height = np.isnan(pressure)  # no q can be made of humidity there
    moist = levels & ~(np.isnan(dewpoint) & np.isnan(relative)) & ~by_height
    sure = reports.confidence_at_levels
    chosen = {name: column[levels] for name, column in shared.items()}
    parts = [
        rows("z", geopotential[levels], sure(10003, 10009)[levels], chosen),
        rows("t", temperature[levels], sure(12101, 12001)[levels], chosen),
        rows("q", humidity[levels], sure(12103, 12003, 13003)[levels], chosen, observed=moist[levels]),
        rows("td", np.where(by_height, dewpoint, np.nan)[levels], sure(12103, 12003)[levels], chosen),
        rows("rh", np.where(by_height, relative / 100.0, np.nan)[levels], sure(13003)[levels], chosen),
    ]
    with np.errstate(invalid="ignore"):
        confidence = np.fmin(sure(11001), sure(11002))
    parts += wind(reports.at_levels(11001)[levels], reports.at_levels(11002)[levels], confidence[levels], chosen)
    for name, code in (("u", 11003), ("v", 11004)):
        parts.append(rows(name, reports.at_levels(code)[levels], sure(code)[levels], chosen))
    return [*parts, *empty]


def _geopotential(reports: Reports) -> Floats:
    """m2 s-2; from 0 10 003, 0 10 008 or from 0 10 009 in gpm. [levels]"""
    direct = reports.at_levels(10003, 10008)
    return np.where(np.isnan(direct), reports.at_levels(10009) * STANDARD_GRAVITY, direct)


def _height(reports: Reports, latitude: Floats) -> Floats:
    """Height above sea level, m, of levels: geometric, or from a geopotential height, or above the station. [levels]"""
    height = reports.at_levels(7007, 7002)
    geopotential = reports.at_levels(7009, 10009)
    height = np.where(np.isnan(height), geometric_height(geopotential, latitude), height)
    above_station = reports.at_levels(7006) + reports.first(7030, 7001, anywhere=False)[reports.level_report]
    return np.where(np.isnan(height), above_station, height)
