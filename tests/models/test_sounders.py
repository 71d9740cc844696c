"""Where polar orbiters look, and that their channels see what the observation operator says."""

from functools import cache

import numpy as np
from torch import from_numpy

from models.constants import EARTH_RADIUS
from models.nature import sounders
from models.nature.network import Network
from models.nature.sounders import Spots, brightness, spots, usable
from models.nature.stations import load_stations
from models.nature.truth import Truth, great_circle_distance
from models.observation_operator import ObservationOperator, ObservationSet
from models.specification import ChannelSpec, GridSpec
from service.observations.table import default_error
from tests.models.test_network import NOON, states

START, END = np.datetime64("2001-03-05T09"), np.datetime64("2001-03-05T15")


@cache
def looked() -> Spots:
    return spots(START, END)


def of(name: str) -> np.ndarray:
    return np.flatnonzero(looked().station == name)


def test_each_satellite_crosses_the_equator_at_its_own_solar_hour() -> None:
    where = looked()
    for name, crossing in sounders.EQUATOR_CROSSINGS.items():
        rows = of(name)
        low = rows[np.abs(where.latitude[rows]) < 5.0]
        hours = (where.time[low] - np.datetime64("2001-03-05")) / np.timedelta64(1, "h")
        solar = (hours + where.longitude[low] / 15.0) % 24.0
        away = np.abs((solar - crossing + 6.0) % 12.0 - 6.0)  # going north, or south half a day later
        assert away.max() < 1.0  # the swath is 15 degrees wide
        assert len(low) > 40


def test_the_orbit_reaches_the_polar_circles_and_its_scans_follow_each_other() -> None:
    where = looked()
    middle = of("SAT-AM")[1::4]  # the second of four spots of a scan
    assert 75 < np.abs(where.latitude[middle]).max() < 87
    times = where.time[of("SAT-AM")]
    assert set(np.diff(np.unique(times)) / np.timedelta64(1, "s")) <= {90.0, 180.0}
    pairs = [i for i in middle[:-4] if where.time[i + 4] - where.time[i] == np.timedelta64(90, "s")]
    places = np.stack([where.latitude, where.longitude], axis=1)
    steps = [great_circle_distance(tuple(places[i]), tuple(places[i + 4])) for i in pairs if abs(places[i, 0]) < 60]
    assert min(steps) > 450e3 and max(steps) < 700e3
    across = np.diff(sounders.ACROSS_TRACK) / EARTH_RADIUS
    first = [i for i in of("SAT-PM")[:-1] if where.time[i] == where.time[i + 1]]
    angles = [great_circle_distance(tuple(places[i]), tuple(places[i + 1])) / EARTH_RADIUS for i in first]
    np.testing.assert_allclose(np.median(angles), across[0], rtol=1e-3)


def test_windows_join_without_gap_or_repetition() -> None:
    middle = np.datetime64("2001-03-05T12:00:30")
    parts = [spots(START, middle), spots(middle, END)]
    for name in ("station", "time", "latitude", "longitude"):
        halves = np.concatenate([getattr(part, name) for part in parts])
        order = np.lexsort(
            (halves, np.concatenate([p.time for p in parts]), np.concatenate([p.station for p in parts]))
        )
        whole = getattr(looked(), name)
        again = np.lexsort((whole, looked().time, looked().station))
        np.testing.assert_array_equal(halves[order], whole[again])


def test_what_a_channel_sees_is_what_the_observation_operator_makes_of_the_state() -> None:
    atmosphere = states()
    truth, now = Truth(atmosphere), np.datetime64("2001-03-05T12", "us")
    rows = np.arange(0, len(looked().time), 7)
    where = Spots(looked().station[rows], np.full(len(rows), now), looked().latitude[rows], looked().longitude[rows])
    levels = [float(p) for p in atmosphere.level.values]
    channels = tuple(ChannelSpec(variable="t", level=p) for p in levels)
    grid = GridSpec(
        N=24, latitudes=atmosphere.latitude.values.tolist(), longitudes=atmosphere.longitude.values.tolist()
    )
    state = atmosphere["t"].sel(time=now.astype("datetime64[ns]")).transpose("level", "latitude", "longitude").values
    for peak in sounders.PEAKS:
        n = len(rows)
        given = ObservationSet(
            variable=np.full(n, "tb"), pressure=np.full(n, peak), latitude=where.latitude, longitude=where.longitude,
            value=np.zeros(n), error=np.ones(n),
        )  # fmt: skip
        seen = ObservationOperator(given, grid, channels)(from_numpy(state.astype(np.float32))[None])[0].numpy()
        np.testing.assert_allclose(brightness(truth, where, peak), seen, atol=2e-3)


def test_a_channel_that_sees_the_ground_is_used_over_the_sea_only_others_above_low_ground() -> None:
    truth, where = Truth(states()), looked()
    sea = truth.static("lsm", where.latitude, where.longitude) < 0.5
    np.testing.assert_array_equal(usable(truth, where, 85_000.0), sea)
    ground = truth.surface("sp", where.time, where.latitude, where.longitude)
    np.testing.assert_array_equal(usable(truth, where, 70_000.0), ground > 84_000.0)
    assert usable(truth, where, 15_000.0).all()


def test_the_network_reports_them_by_spot() -> None:
    columns, flags = Network(3, load_stations(), default_error).observe_with_flags(states(), NOON)
    rows = (columns["type"] == "sounder") & ~flags["duplicate"]
    assert 5_000 < rows.sum() < 12_000
    assert set(columns["variable"][rows]) == {"tb"} and set(columns["pressure"][rows]) == set(sounders.PEAKS)
    assert set(columns["station"][rows]) == set(sounders.EQUATOR_CROSSINGS)
