"""Every kind of report from WMO's own template: what ecCodes encodes, our decoder reads, with positions and units."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import eccodes as ec
import numpy as np
import pytest

from service.observations.conversions import geometric_height, geopotential_height, standard_atmosphere_pressure
from service.observations.decoders import DecodedBatch, decode
from tests.service.observations.encoded_bufr import WHEN, at_first, message

RECEIVED = datetime(2020, 1, 3, tzinfo=UTC)
TIME = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)


def decoded(folder: Path, *messages: bytes) -> DecodedBatch:
    (folder / "x").write_bytes(b"".join(messages))
    return decode(folder / "x", None, "feed", RECEIVED)


def rows(batch: DecodedBatch, variable: str | None = None) -> list[dict[str, Any]]:
    return [row for row in batch.table.to_pylist() if variable in (None, row["variable"])]


def values(batch: DecodedBatch, variable: str) -> list[float]:
    return [row["value"] for row in rows(batch, variable)]


LEVELS = 2000  # a sounding every second


def high_resolution(template: int = 309057) -> bytes:
    k = np.arange(LEVELS)
    head = {**WHEN, "second": 5, "latitude": 52.1, "longitude": 179.9995, "blockNumber": 6, "stationNumber": 260}
    return message(
        2,
        template,
        {
            **at_first(head),
            "timePeriod": (2 * k).tolist(),
            "pressure": 1e5 * np.exp(-k / 400.0),
            "nonCoordinateGeopotentialHeight": (100 + 15 * k).tolist(),
            "latitudeDisplacement": k * 1e-4,
            "longitudeDisplacement": k * 2e-4,
            "airTemperature": 290.0 - k * 0.03,
            "dewpointTemperature": 280.0 - k * 0.03,
            "windDirection": (k % 360 + 1).tolist(),
            "windSpeed": 5.0 + k % 40,
        },
        extended=[LEVELS],
        delayed=[0],
    )


@pytest.mark.parametrize("template", [309052, 309057])
def test_a_sounding_of_high_resolution_drifts_with_its_balloon(tmp_path: Path, template: int) -> None:
    batch = decoded(tmp_path, high_resolution(template))
    warm = rows(batch, "t")
    assert (
        len(warm) == LEVELS and {row["station"] for row in warm} == {"06260"} and {r["type"] for r in warm} == {"temp"}
    )
    last = warm[-1]
    assert last["time"] == datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC).replace(hour=4, minute=10, second=43)
    np.testing.assert_allclose(last["latitude"], 52.1 + (LEVELS - 1) * 1e-4, atol=1e-5)
    np.testing.assert_allclose(last["longitude"], 179.9995 + (LEVELS - 1) * 2e-4 - 360, atol=1e-5)
    np.testing.assert_allclose([r["value"] for r in warm], 290.0 - np.arange(LEVELS) * 0.03, atol=0.0051)
    np.testing.assert_allclose(values(batch, "z"), (100 + 15 * np.arange(LEVELS)) * 9.80665, rtol=1e-6)
    speed = np.hypot(values(batch, "u"), values(batch, "v"))
    np.testing.assert_allclose(speed, 5.0 + np.arange(LEVELS) % 40, atol=0.06)


def test_many_messages_of_one_template_are_read_as_eccodes_reads_them(tmp_path: Path) -> None:
    one = decoded(tmp_path, high_resolution())
    three = decoded(tmp_path, *[high_resolution()] * 3)  # the first by ecCodes, the others by our own bits
    for name in ("value", "latitude", "longitude", "pressure", "time"):
        first, all_three = one.table.column(name).to_pylist(), three.table.column(name).to_pylist()
        assert sorted(all_three) == sorted(first * 3) if name != "pressure" else len(all_three) == 3 * len(first)


def test_a_pilot_balloon_has_pressures_or_heights(tmp_path: Path) -> None:
    wind = {"windDirection": [90, 180], "windSpeed": [10.0, 20.0]}
    head = at_first({**WHEN, "latitude": 10.0, "longitude": 20.0, "shipOrMobileLandStationIdentifier": "SHIP1"})
    by_pressure = message(2, 309050, {**head, "pressure": [85000.0, 70000.0], **wind}, extended=[2], delayed=[0])
    by_height = message(2, 309051, {**head, "geopotentialHeight": [1500, 3000], **wind}, extended=[2], delayed=[0])
    first, second = decoded(tmp_path, by_pressure), decoded(tmp_path, by_height)
    for batch in (first, second):
        np.testing.assert_allclose(values(batch, "u"), [-10.0, 0.0], atol=1e-5)
        np.testing.assert_allclose(values(batch, "v"), [0.0, 20.0], atol=1e-5)
        assert {(r["type"], r["station"]) for r in rows(batch)} == {("pilot", "SHIP1")}
    assert [r["pressure"] for r in rows(first, "u")] == [85000.0, 70000.0]
    assert [r["pressure"] for r in rows(second, "u")] == [None, None]
    np.testing.assert_allclose(
        [r["height"] for r in rows(second, "u")], geometric_height([1500, 3000], 10.0), rtol=1e-6
    )


def test_geometric_and_geopotential_height_are_inverses_and_agree_with_tables() -> None:
    heights, latitudes = np.linspace(0, 60e3, 7), np.linspace(-90, 90, 7)
    np.testing.assert_allclose(
        geometric_height(geopotential_height(heights, latitudes), latitudes), heights, rtol=1e-12
    )
    # US Standard Atmosphere 1976 (45.5 degrees): 30 km are 29859 gpm
    np.testing.assert_allclose(geopotential_height(30_000.0, 45.5425), 29_859.0, atol=1.0)


def test_a_synop_on_land(tmp_path: Path) -> None:
    found = decoded(tmp_path, message(0, 307080, at_first({
        **WHEN, "blockNumber": 10, "stationNumber": 393, "latitude": 52.2, "longitude": 14.1,
        "heightOfStationGroundAboveMeanSeaLevel": 112.0, "heightOfBarometerAboveMeanSeaLevel": 115.0,
        "nonCoordinatePressure": 100_120.0, "pressureReducedToMeanSeaLevel": 101_500.0, "airTemperature": 271.3,
        "dewpointTemperature": 269.0, "windDirection": 270, "windSpeed": 6.0,
    }), delayed=[0, 0]))  # fmt: skip
    by_variable = {row["variable"]: row for row in rows(found)}
    assert set(by_variable) == {"sp", "t2m", "u10", "v10"} and found.rejected.num_rows == 0
    assert (by_variable["sp"]["value"], by_variable["sp"]["height"]) == (100_120.0, 115.0)
    np.testing.assert_allclose([by_variable["t2m"]["value"], by_variable["u10"]["value"]], [271.3, 6.0], atol=1e-3)
    assert {(r["type"], r["station"], r["time"]) for r in rows(found)} == {("synop", "10393", TIME)}


def test_a_ship_and_a_buoy(tmp_path: Path) -> None:
    ship = message(1, 308009, at_first({
        **WHEN, "shipOrMobileLandStationIdentifier": "DBLK", "latitude": -30.0, "longitude": -20.0,
        "pressureReducedToMeanSeaLevel": 101_800.0, "airTemperature": 288.0, "windDirection": 180, "windSpeed": 12.0,
    }), delayed=[0])  # fmt: skip
    buoy = message(1, 315009, at_first({
        **WHEN, "marineObservingPlatformIdentifier": 6301234, "latitude": 40.0, "longitude": -50.0,
        "nonCoordinatePressure": 99_950.0, "airTemperature": 285.5, "windDirection": 90, "windSpeed": 3.0,
    }), short=[1] * 8, delayed=[0] * 8)  # fmt: skip
    found = decoded(tmp_path, ship, buoy)
    assert {(r["type"], r["station"]) for r in rows(found)} == {("ship", "DBLK"), ("buoy", "6301234")}
    pressures = {row["type"]: row for row in rows(found, "sp")}
    assert (pressures["ship"]["value"], pressures["ship"]["height"]) == (101_800.0, 0.0)
    assert pressures["buoy"]["value"] == 99_950.0
    np.testing.assert_allclose(sorted(values(found, "t2m")), [285.5, 288.0], atol=1e-3)


def test_an_amdar_of_the_new_template(tmp_path: Path) -> None:
    found = decoded(tmp_path, message(4, 311010, at_first({
        **WHEN, "aircraftRegistrationNumberOrOtherIdentification": "EU1234", "latitude": 48.0, "longitude": 11.0,
        "flightLevel": 10_000.0, "airTemperature": 223.4, "windDirection": 300, "windSpeed": 40.0,
    }), short=[0] * 8, delayed=[0] * 4))  # fmt: skip
    warm = rows(found, "t")
    np.testing.assert_allclose([r["value"] for r in warm], [223.4], atol=0.051)
    np.testing.assert_allclose(warm[0]["pressure"], standard_atmosphere_pressure(10_000.0), rtol=1e-6)
    assert (warm[0]["type"], warm[0]["station"], warm[0]["time"]) == ("amdar", "EU1234", TIME)


def test_motion_vectors_have_the_assigned_pressure_and_the_quality_index(tmp_path: Path) -> None:
    n = 5
    old = message(5, 310014, {
        **at_first({**WHEN, "second": 0, "satelliteIdentifier": 57, "latitude": 5.0, "longitude": -60.0,
                    "pressure": 30_000.0, "windDirection": 270, "windSpeed": 33.0}),
    })  # fmt: skip
    new = message(5, 310077, {
        **at_first({**WHEN, "second": 0, "satelliteIdentifier": 70, "windDirection": 180, "windSpeed": 25.0}),
        "#1#latitude": 5.0 + np.arange(n), "#1#longitude": -60.0, "#1#pressure": 20_000.0 + 1000.0 * np.arange(n),
        "#1#percentConfidence": 85,
    }, delayed=[0] * 6, subsets=n, compressed=1)  # fmt: skip
    found = decoded(tmp_path, old, new)
    assert found.rejected.num_rows == 0
    by_station = {s: [r for r in rows(found, "v") if r["station"] == s] for s in ("sat057", "sat070")}
    np.testing.assert_allclose([r["pressure"] for r in by_station["sat070"]], 20_000.0 + 1000.0 * np.arange(n))
    np.testing.assert_allclose([r["value"] for r in by_station["sat070"]], 25.0, atol=1e-5)
    assert [r["preqc"] for r in by_station["sat070"]] == [85] * n
    assert [r["pressure"] for r in by_station["sat057"]] == [30_000.0]


def test_a_scatterometer_cell_gives_its_selected_solution_and_its_flag(tmp_path: Path) -> None:
    cells = 4
    found = decoded(tmp_path, message(12, 312061, {
        **at_first({**WHEN, "second": 0, "satelliteIdentifier": 4, "longitude": 100.0, "numberOfVectorAmbiguities": 2}),
        "#1#latitude": np.linspace(-10, 10, cells), "#1#indexOfSelectedWindVector": np.array([1, 2, 2, 1]),
        "#1#windVectorCellQuality": np.array([0, 0, 0, 1 << 17]),
        "#1#windSpeedAt10M": 7.0, "#1#windDirectionAt10M": 90.0, "#2#windSpeedAt10M": 8.0, "#2#windDirectionAt10M": 270.0,
    }, delayed=[2], subsets=cells, compressed=1))  # fmt: skip
    np.testing.assert_allclose(values(found, "u10"), [-7.0, 8.0, 8.0], atol=1e-4)
    assert found.counts == {"SENDER_REJECTED": 2}
    assert {(r["type"], r["station"]) for r in rows(found)} == {("scatterometer", "sat004")}


def test_an_occultation_gives_profile_and_refractivity(tmp_path: Path) -> None:
    n = 3
    heights = [5000.0, 10_000.0, 30_000.0]
    found = decoded(tmp_path, message(3, 310026, {
        **at_first({**WHEN, "second": 0, "satelliteIdentifier": 750, "platformTransmitterIdNumber": 12,
                    "latitude": 60.0, "longitude": -100.0}),
        # two of them in each level: the value and its error
        "height": heights, "atmosphericRefractivity": np.array([160.0, 1.0, 90.0, 0.5, 4.0, 0.1]),
        "geopotentialHeight": [4990, 9960, 29_800, -999],
        "#1#nonCoordinatePressure": 54_000.0, "#1#airTemperature": 255.0, "#1#specificHumidity": 0.001,
        "#2#nonCoordinatePressure": 10.0, "#2#airTemperature": 1.5,
    }, extended=[0, n, n]))  # fmt: skip
    refractivity = rows(found, "refractivity")
    np.testing.assert_allclose([r["value"] for r in refractivity], [160.0, 90.0, 4.0], rtol=1e-5)
    assert [r["height"] for r in refractivity] == heights and refractivity[0]["pressure"] is None
    assert {(r["type"], r["station"]) for r in refractivity} == {("gnssro", "sat750-12")}
    (warm,) = rows(found, "t")
    assert (warm["value"], warm["pressure"]) == (255.0, 54_000.0)
    np.testing.assert_allclose(values(found, "q"), [0.001], rtol=1e-4)
    np.testing.assert_allclose(values(found, "z"), [4990 * 9.80665], rtol=1e-6)


@pytest.mark.parametrize("compressed", [0, 1])
def test_our_own_reading_equals_eccodes_numbers_element_by_element(compressed: int) -> None:
    from service.observations.decoders.bufr_elements import Collector
    from service.observations.decoders.bufr_frame import Frame, split_messages

    # operators: another width, scale, a local descriptor's width
    template = [301023, 201133, 202129, 12101, 202000, 201000, 106000, 31001, 7004, 101000, 31001, 12101, 11001, 11002]
    data = b"".join(
        message(2, template, {"latitude": 5.0 + k, "windSpeed": [3.0, 4.0, 5.0]} if not compressed else {"latitude": 5.0},
                delayed=[3, 2, 0, 1] if not compressed else [3, 1, 1, 1], compressed=compressed, subsets=1 + compressed)
        for k in range(4)
    )  # fmt: skip
    collector = Collector(data)
    theirs = []
    for number, (start, one, problem) in enumerate(split_messages(data)):
        assert problem is None
        collector.add(number, start, one, Frame.of(one))
        handle = ec.codes_new_from_message(one)
        ec.codes_set(handle, "unpack", 1)
        theirs.append(ec.codes_get_array(handle, "numericValues"))
        ec.codes_release(handle)
    expected = np.concatenate(theirs)
    expected[expected == -1e100] = np.nan
    np.testing.assert_array_equal(collector.values_of(collector.reports), expected)
