"""The simulated observing network: reports from radiosondes, stations, ships, aircraft and satellites of a known truth.

Every value = truth (at its own place, level and time) + Gaussian error of the 1-sigma that the caller's error table
gives its type; some reports come late, some twice, some values are grossly wrong. All from one seed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.constants import EARTH_RADIUS
from models.nature.routes import HUBS, SEA_LANES
from models.nature.sounders import PEAKS, brightness, spots, usable
from models.nature.stations import Stations, spread_out
from models.nature.truth import HIGHEST_LATITUDE, Floats, Truth, great_circle, great_circle_distance, to_datetime64

ErrorTable = Callable[[str, str, Floats], NDArray[np.floating]]
"""(type, variable, pressure in Pa [n], NaN for surface variables) -> 1-sigma error in SI units [n]."""

SONDES, SONDES_OFF_HOURS = 220, 40  # launches at 00 and 12 UTC, at other hours
LAND_STATIONS, SHIPS, FLIGHTS, SATELLITE_WINDS = 240, 100, 200, 2500  # per window
SONDE_LEVELS = np.array([925, 850, 700, 500, 400, 300, 250, 200, 150, 100]) * 100.0  # Pa
HUMIDITY_TOP = 30_000.0  # Pa; sondes' humidity is not used above (ECMWF, NCEP)
LATE_SHARE, DUPLICATE_SHARE, GROSS_SHARE = 0.03, 0.02, 0.01  # of reports, of reports, of values
GROSS_SIGMAS = (12.0, 30.0)  # size of a gross error
BUOYS = 500  # drifting buoys with a barometer; those that come to lie on land report nothing
_SURFACE = ("sp", "t2m", "u10", "v10")
_ASCENT_SPEED = 5.5  # m s-1, of a balloon
_CRUISE_SPEED, _CLIMB_SECONDS, _SHORTEST_FLIGHT = 240.0, 1500.0, 1.5e6  # m s-1, s, m
_SHIP_SPEED = 8.0  # m s-1
_DELAY_MINUTES = {
    "temp": (60, 120),
    "synop": (5, 30),
    "ship": (10, 45),
    "buoy": (10, 60),
    "amdar": (5, 30),
    "satwind": (60, 120),
    "sounder": (30, 120),
}


@dataclass
class _Reports:
    """Rows of one type before errors: place, time, level, variable and truth; `report` numbers the reports."""

    kind: str
    report: NDArray[np.intp]
    columns: dict[str, NDArray[Any]]

    @classmethod
    def of(
        cls, kind: str, report: NDArray[np.intp], variable: str, station: NDArray[Any], time: NDArray[np.datetime64],
        latitude: Floats, longitude: Floats, pressure: Floats, height: Floats, truth: Floats,
    ) -> "_Reports":  # fmt: skip
        n = len(report)
        columns = {
            "time": time, "latitude": latitude, "longitude": longitude, "pressure": pressure, "height": height,
            "variable": np.full(n, variable, dtype=object), "station": station.astype(object), "truth": truth,
        }  # fmt: skip
        return cls(kind, report, columns)

    def only(self, keep: NDArray[np.bool_]) -> "_Reports":
        return _Reports(self.kind, self.report[keep], {name: column[keep] for name, column in self.columns.items()})


class Network:
    """A network whose stations, routes and errors all follow from `seed`.

    Args:
        seed: any integer >= 0.
        stations: where radiosondes are launched and land stations stand.
        errors: the error table, e.g. `service.observations.table.default_error`.
    """

    def __init__(self, seed: int, stations: Stations, errors: ErrorTable) -> None:
        self.seed, self.errors = seed, errors
        usable = stations.take(np.flatnonzero(np.abs(stations.latitude) < HIGHEST_LATITUDE))
        rng = np.random.default_rng([seed, 0])
        spread = spread_out(usable, SONDES, int(rng.integers(len(usable))))
        self.sonde_stations = usable.take(spread)
        self.off_hour_stations = usable.take(spread[:SONDES_OFF_HOURS])
        count = min(LAND_STATIONS, len(usable))
        self.land_stations = usable.take(np.sort(rng.choice(len(usable), count, replace=False)))
        self._land_minute = rng.integers(0, 60, count)
        self._ship_phase = rng.uniform(0.0, 2.0, SHIPS)
        self._buoy_latitude = np.round(np.rad2deg(np.arcsin(rng.uniform(-1, 1, BUOYS) * np.sin(np.deg2rad(70.0)))), 2)
        self._buoy_longitude = np.round(rng.uniform(-180.0, 180.0, BUOYS), 2)

    def observe(self, states: xr.Dataset, centre: datetime, window_hours: float = 6.0) -> dict[str, NDArray[Any]]:
        """All values of the window [centre - w/2, centre + w/2).

        Args:
            states: truth that covers the window (see `Truth`).
            centre: valid time of the cycle (naive: UTC).
            window_hours: length of the window.

        Returns:
            Columns [n] named as in the service's observation table, without id: time and receipt_time datetime64
            (UTC); latitude, longitude, pressure, height, value, error (NaN: the type's default); variable, type,
            station, source text; preqc (-1: none).

        Raises:
            TruthError: the states do not cover the window.
        """
        return self.observe_with_flags(states, centre, window_hours)[0]

    def observe_with_flags(
        self, states: xr.Dataset, centre: datetime, window_hours: float = 6.0
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """`observe`, and what only the simulation knows: truth (SI), sigma, gross, duplicate, late; all [n]."""
        truth, middle = Truth(states), to_datetime64(centre)
        half = np.timedelta64(round(window_hours * 1800), "s")
        start, end = middle - half, middle + half
        hours = int((middle - np.datetime64("1900-01-01")) / np.timedelta64(1, "h"))
        rng = np.random.default_rng([self.seed, 1, hours])
        parts = [
            *self._sondes(truth, middle, rng),
            *self._land(truth, start, end, rng),
            *self._ships(truth, start, end, rng),
            *self._buoys(truth, start, end, rng),
            *self._aircraft(truth, start, end, rng),
            *self._satellite_winds(truth, start, end, rng),
            *self._sounders(truth, start, end),
        ]
        inside = [p.only((p.columns["time"] >= start) & (p.columns["time"] < end)) for p in parts]
        return self._report(inside, end, rng)

    def _sondes(self, truth: Truth, middle: np.datetime64, rng: np.random.Generator) -> list[_Reports]:
        main = int(middle.astype("datetime64[h]").astype(np.int64)) % 24 in (0, 12)
        stations = self.sonde_stations if main else self.off_hour_stations
        n, reports = len(stations), np.arange(len(stations))
        # balloons rise so that the nominal hour lies in mid-ascent
        time = middle - rng.integers(35 * 60, 60 * 60, n).astype("timedelta64[s]")
        latitude, longitude = stations.latitude.copy(), stations.longitude.copy()
        surface_pressure = truth.surface("sp", time, latitude, longitude)
        altitude: Floats = truth.static("orography", latitude, longitude)
        parts: list[_Reports] = []
        for pressure in SONDE_LEVELS:
            level = np.full(n, pressure)
            aloft = surface_pressure > pressure + 500.0
            values = {v: truth.upper_air(v, time, latitude, longitude, level) for v in ("z", "t", "u", "v", "q")}
            height = values["z"] / 9.80665
            seconds = np.where(aloft, np.maximum(height - altitude, 0.0) / _ASCENT_SPEED, 0.0)
            time = time + np.round(seconds).astype("timedelta64[s]")
            angle = seconds * (180.0 / np.pi / EARTH_RADIUS)  # degrees of a great circle per m s-1
            drifted: Floats = np.clip(latitude + values["v"] * angle, -HIGHEST_LATITUDE, HIGHEST_LATITUDE)
            latitude = drifted.round(5)
            parallel: Floats = np.cos(latitude * (np.pi / 180.0))
            longitude = longitude + values["u"] * angle / parallel
            longitude = np.round((longitude + 180.0) % 360.0 - 180.0, 5)
            altitude = np.where(aloft, np.maximum(height, altitude), altitude)
            for variable in values:
                exact = truth.upper_air(variable, time, latitude, longitude, level)
                keep = aloft
                if variable == "q":
                    # in dry air the sensor reports nothing; so no error can make a reported value negative
                    keep = aloft & (pressure >= HUMIDITY_TOP) & (exact > 3.0 * self.errors("temp", "q", level))
                none = np.full(n, np.nan)
                part = _Reports.of(
                    "temp", reports, variable, stations.id, time, latitude, longitude, level, none, exact
                )
                parts.append(part.only(keep))
        return parts

    def _land(self, truth: Truth, start: np.datetime64, end: np.datetime64, rng: np.random.Generator) -> list[_Reports]:
        stations = self.land_stations
        hours = rng.integers(0, max(1, int((end - start) / np.timedelta64(1, "h"))), len(stations))
        time = start + (hours * 60 + self._land_minute).astype("timedelta64[m]")
        return self._surface(truth, "synop", stations.id, time, stations.latitude, stations.longitude)

    def _ships(
        self, truth: Truth, start: np.datetime64, end: np.datetime64, rng: np.random.Generator
    ) -> list[_Reports]:
        seconds = rng.integers(0, int((end - start) / np.timedelta64(1, "s")) // 60, SHIPS) * 60
        time = start + seconds.astype("timedelta64[s]")
        elapsed = (time - np.datetime64("1900-01-01")) / np.timedelta64(1, "s")
        latitude, longitude = np.zeros(SHIPS), np.zeros(SHIPS)
        for ship in range(SHIPS):
            lane = SEA_LANES[ship % len(SEA_LANES)]
            crossings = elapsed[ship] * _SHIP_SPEED / great_circle_distance(*lane) + self._ship_phase[ship]
            fraction = 1.0 - abs(crossings % 2.0 - 1.0)  # there and back
            latitude[ship : ship + 1], longitude[ship : ship + 1] = great_circle(*lane, np.array([fraction]))
        names = np.array([f"SHIP{ship:03d}" for ship in range(SHIPS)])
        at_sea = truth.static("lsm", latitude, longitude) < 0.5
        parts = self._surface(truth, "ship", names, time, np.round(latitude, 2), np.round(longitude, 2))
        return [part.only(at_sea) for part in parts]

    def _buoys(
        self, truth: Truth, start: np.datetime64, end: np.datetime64, rng: np.random.Generator
    ) -> list[_Reports]:
        """Drifting buoys; they move too little in a window for their drift to matter."""
        latitude, longitude = self._buoy_latitude, self._buoy_longitude
        time = start + (rng.integers(0, int((end - start) / np.timedelta64(1, "s")) // 60, BUOYS) * 60).astype(
            "timedelta64[s]"
        )
        names = np.array([f"BUOY{buoy:04d}" for buoy in range(BUOYS)])
        at_sea = truth.static("lsm", latitude, longitude) < 0.5
        parts = self._surface(truth, "buoy", names, time, latitude, longitude, variables=("sp",))
        return [part.only(at_sea) for part in parts]

    def _surface(
        self,
        truth: Truth,
        kind: str,
        names: NDArray[Any],
        time: NDArray[np.datetime64],
        latitude: Floats,
        longitude: Floats,
        variables: tuple[str, ...] = _SURFACE,
    ) -> list[_Reports]:
        # stations stand on the model's own ground, whose height is not that of `orography` (spectrally cut): they name none
        none, reports = np.full(len(names), np.nan), np.arange(len(names))
        return [
            _Reports.of(
                kind, reports, variable, names, time, latitude, longitude, none, none,
                truth.surface(variable, time, latitude, longitude),
            )
            for variable in variables
        ]  # fmt: skip

    def _aircraft(
        self, truth: Truth, start: np.datetime64, end: np.datetime64, rng: np.random.Generator
    ) -> list[_Reports]:
        hubs, window = list(HUBS.values()), float((end - start) / np.timedelta64(1, "s"))
        tracks: list[tuple[NDArray[np.intp], Floats, Floats, Floats, Floats]] = []
        for flight in range(FLIGHTS):
            while True:
                a, b = rng.choice(len(hubs), 2, replace=False)
                length = great_circle_distance(hubs[a], hubs[b])
                if length > _SHORTEST_FLIGHT:
                    break
            duration = length / _CRUISE_SPEED
            departure = rng.uniform(-duration, window)
            cruise = rng.choice([30_000.0, 28_700.0, 26_200.0, 23_800.0, 21_600.0, 20_000.0])
            climb = np.array([85_000.0, 70_000.0, 50_000.0, 40_000.0])
            climb_time = _CLIMB_SECONDS * np.log(92_500.0 / climb) / np.log(92_500.0 / cruise)
            cruise_time = np.arange(_CLIMB_SECONDS, duration, 1800.0)
            elapsed = np.concatenate([climb_time, cruise_time])
            latitude, longitude = great_circle(hubs[a], hubs[b], elapsed / duration)
            pressure = np.concatenate([climb, np.full(len(cruise_time), cruise)])
            tracks.append((np.full(len(elapsed), flight), departure + elapsed, latitude, longitude, pressure))
        flights, seconds, latitude, longitude, pressure = (np.concatenate(c) for c in zip(*tracks, strict=True))
        inside = (seconds >= 0) & (seconds < window - 60) & (np.abs(latitude) < HIGHEST_LATITUDE)
        flights, seconds, pressure = flights[inside], seconds[inside], pressure[inside]
        latitude, longitude = np.round(latitude[inside], 2), np.round(longitude[inside], 2)
        time = start + np.round(seconds / 60).astype("timedelta64[m]")
        names = np.array([f"SIM{flight:03d}" for flight in range(FLIGHTS)])[flights]
        above_ground = truth.surface("sp", time, latitude, longitude) > pressure + 500.0
        none = np.full(len(time), np.nan)
        reports = np.arange(len(time))  # each point is its own report
        return [
            _Reports.of(
                "amdar", reports, variable, names, time, latitude, longitude, pressure, none,
                truth.upper_air(variable, time, latitude, longitude, pressure),
            ).only(above_ground)
            for variable in ("t", "u", "v")
        ]  # fmt: skip

    def _satellite_winds(
        self, truth: Truth, start: np.datetime64, end: np.datetime64, rng: np.random.Generator
    ) -> list[_Reports]:
        n = SATELLITE_WINDS
        latitude = np.round(np.rad2deg(np.arcsin(rng.uniform(-1, 1, n) * np.sin(np.deg2rad(60.0)))), 2)
        longitude = np.round(rng.uniform(-180.0, 180.0, n), 2)
        high = rng.random(n) < 0.5
        pressure = np.where(high, rng.uniform(25_000, 35_000, n), rng.uniform(80_000, 90_000, n)).round(-1)
        seconds = rng.integers(0, int((end - start) / np.timedelta64(1, "s")) // 60, n) * 60
        time = start + seconds.astype("timedelta64[s]")
        # geostationary satellites by their longitude; low clouds are tracked over the sea, high ones in the tropics too
        names = np.array(["GOES-W", "GOES-E", "METEOSAT", "INSAT", "HIMAWARI"])[
            np.searchsorted([-105.0, -35.0, 40.0, 100.0], longitude)
        ]
        ocean = truth.static("lsm", latitude, longitude) < 0.5
        seen = (ocean | (high & (np.abs(latitude) < 30.0))) & (
            truth.surface("sp", time, latitude, longitude) > pressure + 500.0
        )
        none = np.full(n, np.nan)
        return [
            _Reports.of(
                "satwind", np.arange(n), variable, names, time, latitude, longitude, pressure, none,
                truth.upper_air(variable, time, latitude, longitude, pressure),
            ).only(seen)
            for variable in ("u", "v")
        ]  # fmt: skip

    def _sounders(self, truth: Truth, start: np.datetime64, end: np.datetime64) -> list[_Reports]:
        where = spots(start, end)
        none, reports = np.full(len(where.time), np.nan), np.arange(len(where.time))
        return [
            _Reports.of(
                "sounder", reports, "tb", where.station, where.time, where.latitude, where.longitude,
                np.full(len(reports), peak), none, brightness(truth, where, peak),
            ).only(usable(truth, where, peak))
            for peak in PEAKS
        ]  # fmt: skip

    def _report(
        self, parts: list[_Reports], end: np.datetime64, rng: np.random.Generator
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Add errors, delays, duplicates and gross errors to the exact rows."""
        columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        kinds = np.concatenate([np.full(len(p.report), p.kind, dtype=object) for p in parts])
        sigma = np.concatenate(
            [self.errors(p.kind, str(p.columns["variable"][0]), p.columns["pressure"]) for p in parts if len(p.report)]
        ).astype(np.float64)
        codes = {kind: code for code, kind in enumerate(_DELAY_MINUTES)}
        keys = np.concatenate([codes[p.kind] * 1_000_000 + p.report for p in parts])
        _, report = np.unique(keys, return_inverse=True)
        reports, n = int(report.max()) + 1, len(report)

        truth = columns.pop("truth")
        gross = rng.random(n) < GROSS_SHARE
        wrong = rng.choice([-1.0, 1.0], n) * rng.uniform(*GROSS_SIGMAS, n)
        wrong = np.where(columns["variable"] == "q", np.abs(wrong), wrong)  # no sensor reports negative humidity
        errors = sigma * np.where(gross, wrong, rng.standard_normal(n))
        value = truth + errors
        value = np.where(columns["variable"] == "q", np.maximum(value, 1e-7), value)

        bounds = np.array([_DELAY_MINUTES[kind] for kind in kinds])
        delay = bounds[:, 0] + rng.random(reports)[report] * (bounds[:, 1] - bounds[:, 0])
        received = columns["time"] + (delay * 60).astype("timedelta64[s]")
        # what is not late arrives before the window closes, as if every feed were fast at its end
        received = np.minimum(received, end - np.timedelta64(1, "s"))
        late = (rng.random(reports) < LATE_SHARE)[report]
        lateness = rng.integers(60, 360, reports)[report].astype("timedelta64[m]")
        received = np.where(late, end + lateness, received).astype("datetime64[us]")

        columns |= {
            "receipt_time": received, "value": value.astype(np.float32), "type": kinds,
            "error": np.full(n, np.nan), "source": np.full(n, "simulated", dtype=object), "preqc": np.full(n, -1),
        }  # fmt: skip
        flags: dict[str, NDArray[Any]] = {
            "truth": truth, "sigma": sigma, "gross": gross, "late": late, "duplicate": np.zeros(n, dtype=np.bool_),
        }  # fmt: skip
        again = np.flatnonzero((rng.random(reports) < DUPLICATE_SHARE)[report] & ~late)
        twice = {name: np.concatenate([column, column[again]]) for name, column in columns.items()}
        twice["receipt_time"][n:] = end - np.timedelta64(1, "s")
        flags = {name: np.concatenate([column, column[again]]) for name, column in flags.items()}
        flags["duplicate"][n:] = True
        return twice, flags
