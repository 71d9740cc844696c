"""Duplicates, denylist, tracks, winds, neighbours, thinning and superobs on reports made by hand."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from service.experiments import ExperimentConfig
from service.observations.reasons import Reason
from tests.worker.conftest import NOON, table
from worker.stages.control_quality import judge
from worker.stages.filters import Comparison, Setting, Unchanged, Verdict
from worker.stages.filters.background import huber_weight, ratio
from worker.stages.filters.duplicates import duplicate
from worker.stages.filters.neighbours import against_neighbours
from worker.stages.filters.reports import denied
from worker.stages.filters.stuck import stuck
from worker.stages.filters.thinning import Superobs, averaged, thinned
from worker.stages.filters.tracks import off_track
from worker.stages.filters.values import impossible_time, level_inconsistent, outside_window
from worker.stages.filters.winds import inconsistent_wind
from worker.stages.observed import Observed


def setting(changes: dict[str, Any] | None = None, **known: Any) -> Setting:
    config = ExperimentConfig(observations=changes or {})
    return Setting(config, config.observation_configuration, NOON, **known)


def beside(observed: Observed, background: float = 255.0, sigma_b: float = 1.0) -> Comparison:
    n = len(observed)
    return Comparison(np.full(n, background), np.full(n, np.nan), np.full(n, sigma_b), observed.error)


def found(check: Callable[..., Any], rows: list[dict[str, Any]], changes: Any = None, **known: Any) -> list[bool]:
    observed = Observed(table(rows))
    return Verdict.of(check(observed, beside(observed), setting(changes, **known))).rejected.tolist()


def test_between_feeds_a_rounded_copy_is_a_duplicate_and_the_preferred_feed_stays() -> None:
    exact = {"source": "bufr", "latitude": 50.0312, "longitude": 10.0123, "time": NOON + timedelta(seconds=20)}
    rounded = {"source": "tac", "latitude": 50.0, "longitude": 10.0, "receipt_time": NOON - timedelta(minutes=5)}
    assert found(duplicate, [exact, rounded]) == [True, False]  # the first received
    preferred = {"checks": {"duplicates": {"sources": ["bufr"]}}}
    assert found(duplicate, [exact, rounded], preferred) == [False, True]


def test_within_a_feed_near_levels_are_no_duplicates() -> None:
    rows = [{"pressure": 50000.0 + 2.0 * i, "time": NOON + timedelta(seconds=2 * i)} for i in range(20)]
    assert not any(found(duplicate, rows))


def test_the_value_in_which_the_sender_trusts_more_is_preferred() -> None:
    assert found(duplicate, [{"preqc": 40, "value": 250.0}, {"preqc": 90, "value": 251.0}]) == [True, False]


def test_a_correction_of_the_same_feed_is_taken_and_the_old_value_again_is_not() -> None:
    rows = [
        {"value": value, "receipt_time": NOON + timedelta(minutes=m)}
        for value, m in ((250.0, 0), (251.0, 5), (250.0, 9))
    ]
    assert found(duplicate, rows) == [True, False, True]
    assert found(duplicate, rows[::-1]) == [True, False, True]


def test_between_feeds_the_value_with_an_error_of_its_own_is_preferred() -> None:
    rows = [{"source": "a", "error": np.nan}, {"source": "b", "receipt_time": NOON + timedelta(minutes=1)}]
    assert found(duplicate, rows) == [True, False]


def ascent(source: str, levels: int, top: float = 10000.0, **other: Any) -> list[dict[str, Any]]:
    pressures = np.linspace(95000.0, top, levels)
    return [{"source": source, "pressure": float(pressure), **other} for pressure in pressures]


def test_of_an_ascent_through_two_feeds_the_report_with_more_levels_is_taken() -> None:
    fine = [
        row | {"time": NOON - timedelta(minutes=40 - i), "latitude": 50.0 + 0.01 * i}
        for i, row in enumerate(ascent("bufr", 90, 20000.0))
    ]
    # nominal time, received first, and higher up than the other
    coarse = ascent("tac", 20, 1000.0, receipt_time=NOON - timedelta(minutes=30))
    other_station = ascent("tac", 3, station="10384")
    rejected = np.array(found(duplicate, [*fine, *coarse, *other_station]))
    assert not rejected[:90].any() and not rejected[110:].any()
    within = np.array([row["pressure"] >= 20000.0 * 0.98 for row in coarse])
    assert 0 < within.sum() < 20 and (rejected[90:110] == within).all()
    preferred = {"checks": {"duplicates": {"sources": ["tac"]}}}
    rejected = np.array(found(duplicate, [*fine, *coarse], preferred))
    assert rejected[:90].all() and not rejected[90:].any()


def test_the_next_ascent_of_a_station_is_no_duplicate() -> None:
    later = ascent("tac", 20, time=NOON + timedelta(hours=3))
    assert not any(found(duplicate, [*ascent("bufr", 90), *later]))


def test_the_denylist_names_station_variable_and_span() -> None:
    entry = {"station": "104*", "variables": ["t"], "start": "2001-01-01T11:00:00Z", "end": "2001-01-01T13:00:00Z"}
    rows = [{}, {"variable": "u"}, {"station": "20000"}, {"time": NOON + timedelta(hours=1)}]
    assert found(denied, rows, {"denylist": [entry]}) == [True, False, False, False]


def test_a_type_is_monitored_or_rejected_by_its_configuration() -> None:
    observed = Observed(
        table(
            [{}, {"type": "amdar"}, {"type": "pilot", "variable": "u", "value": 9.0}, {"variable": "q", "value": 1e-3}]
        )
    )
    changes = {"types": {"amdar": {"usage": "monitor"}, "pilot": {"usage": "reject"},
                         "temp": {"variables": {"q": {"usage": "monitor"}}}}}  # fmt: skip
    near = Comparison(observed.value, np.full(4, np.nan), observed.error, observed.error)
    reasons, *_ = judge(observed, near, setting(changes))
    assert reasons.tolist() == [Reason.ASSIMILATED, Reason.PASSIVE, Reason.NOT_USED_BY_EXPERIMENT, Reason.PASSIVE]


def test_a_monitored_value_that_fails_a_check_says_so() -> None:
    observed = Observed(table([{"value": 290.0}]))
    reasons, *_ = judge(observed, beside(observed), setting({"types": {"temp": {"usage": "monitor"}}}))
    assert reasons.tolist() == [Reason.FIRST_GUESS]


def flight(n: int = 6, **wrong: Any) -> list[dict[str, Any]]:
    """An aircraft at 240 m/s along 50 N, a report every 10 minutes; the third one differs."""
    step = 240.0 * 600 / 111_195 / np.cos(np.deg2rad(50.0))
    rows = [
        {"type": "amdar", "station": "KL0042", "longitude": i * step, "time": NOON + timedelta(minutes=10 * i)}
        for i in range(n)
    ]
    return [{**row, **(wrong if i == 2 else {})} for i, row in enumerate(rows)]


def test_an_aircraft_that_jumps_was_not_there() -> None:
    assert found(off_track, flight()) == [False] * 6
    assert found(off_track, flight(latitude=45.0)) == [False, False, True, False, False, False]
    assert found(off_track, flight(longitude=-170.0)) == [False, False, True, False, False, False]


def test_a_ship_that_crosses_greenwich_moves_on() -> None:
    rows = [
        {"type": "ship", "station": "SHIP1", "longitude": lon, "time": NOON + timedelta(hours=i), "variable": "sp",
         "value": 101000.0}
        for i, lon in enumerate([-0.3, 0.1, 359.9])
    ]  # fmt: skip
    assert found(off_track, rows) == [False] * 3
    rows[2] = {**rows[2], "latitude": 51.0, "longitude": 3.0}
    assert found(off_track, rows)[2]


def test_two_reports_that_accuse_each_other_both_go_and_nameless_ones_are_left_alone() -> None:
    two = flight(2)
    two[1] = {**two[1], "latitude": 20.0}
    assert found(off_track, two) == [True, True]
    for name in ("unknown", "SHIP"):
        assert found(off_track, [{**row, "station": name} for row in two]) == [False, False]


def test_a_land_station_that_reports_from_elsewhere() -> None:
    rows = [{"type": "synop", "variable": "sp", "value": 1e5, "time": NOON + timedelta(minutes=i)} for i in range(4)]
    rows[1] = {**rows[1], "latitude": 52.0}
    assert found(off_track, rows) == [False, True, False, False]


def test_a_barometer_that_does_not_move_for_a_day_is_stuck() -> None:
    row = {"type": "synop", "variable": "sp", "value": 100000.0}
    since = round((NOON - timedelta(hours=36)).timestamp() * 1e6)
    known = {("synop", "10410", "sp"): Unchanged(100000.0, since, 6)}
    assert found(stuck, [row, {**row, "station": "B"}], unchanged=known) == [True, False]
    assert found(stuck, [{**row, "value": 100010.0}], unchanged=known) == [False]
    young = {("synop", "10410", "sp"): Unchanged(100000.0, since + 30 * 3_600_000_000, 6)}
    assert found(stuck, [row], unchanged=young) == [False]


def test_a_report_from_the_future_and_one_outside_the_window_of_its_type() -> None:
    ahead = {"receipt_time": NOON - timedelta(hours=4)}
    assert found(impossible_time, [ahead, {}]) == [True, False]
    narrow = {"types": {"temp": {"window_hours": [-1, 1]}}}
    rows = [{"time": NOON + timedelta(hours=h)} for h in (-1.5, -1, 0, 1)]
    assert found(outside_window, rows, narrow) == [True, False, False, True]


def test_a_height_that_does_not_belong_to_its_pressure() -> None:
    assert found(level_inconsistent, [{"height": 5600.0}, {"height": 560.0}, {}]) == [False, True, False]


def test_a_wind_turned_round_and_one_that_is_too_fast() -> None:
    def wind(u: float, v: float, station: str) -> list[dict[str, Any]]:
        return [{"variable": name, "value": x, "station": station} for name, x in (("u", u), ("v", v))]

    observed = Observed(table([*wind(20, 0, "A"), *wind(-20, 0, "B"), *wind(-5, 0, "C"), *wind(170, 150, "D")]))
    west = Comparison(np.tile([25.0, 0.0], 4), np.full(8, np.nan), np.full(8, 3.0), observed.error)
    assert (
        inconsistent_wind(observed, west, setting()).rejected.tolist()
        == [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2
    )
    climatology = Comparison(west.background, west.spread, np.full(8, 10.0), observed.error)
    assert inconsistent_wind(observed, climatology, setting()).rejected.tolist() == [False] * 6 + [True] * 2


def neighbourhood(odd: float) -> tuple[Observed, Comparison]:
    """Nine stations within 100 km whose departures are 3 K, the one in the middle `odd`."""
    rows = [
        {
            "station": f"S{i}",
            "latitude": 50.0 + 0.5 * (i // 3 - 1),
            "longitude": 10.0 + 0.5 * (i % 3 - 1),
            "value": 258.0,
        }
        for i in range(9)
    ]
    rows[4]["value"] = 255.0 + odd
    observed = Observed(table(rows))
    return observed, beside(observed, sigma_b=3.0)


def test_what_all_neighbours_say_too_is_kept_and_what_they_contradict_is_not() -> None:
    assert not against_neighbours(*neighbourhood(odd=7.0), setting()).rejected.any()
    found = against_neighbours(*neighbourhood(odd=-7.0), setting()).rejected
    assert found.tolist() == [False] * 4 + [True] + [False] * 4


def test_the_buddy_check_is_the_textbook_interpolation() -> None:
    # two buddies at the same place: d = B (B + R)^-1 d, by hand; sigma_b 3, sigma_o 1, correlation 1
    observed = Observed(table([{"station": s, "latitude": 50.0 + lat, "value": 255.0 + d}
                               for s, lat, d in (("A", 0.0, -6.5), ("B", 0.05, 3.0), ("C", 0.1, 3.0))]))  # fmt: skip
    predicted, variance = 9 * 2 * 3.0 / (9 * 2 + 1), 1 + 9 - 9 * 2 * 9 / (9 * 2 + 1)
    off = (6.5 + predicted) / np.sqrt(variance)
    for sigmas, expected in ((off * 0.98, True), (off * 1.02, False)):
        changed = setting({"checks": {"buddy": {"sigmas": sigmas}}})
        assert bool(against_neighbours(observed, beside(observed, sigma_b=3.0), changed).rejected[0]) is expected


def test_levels_of_one_ascent_are_no_neighbours() -> None:
    rows = [{"pressure": 50000.0 - 500 * i, "value": 258.0 if i else 247.0} for i in range(8)]
    observed = Observed(table(rows))
    assert not against_neighbours(observed, beside(observed, sigma_b=3.0), setting()).rejected.any()


def test_limits_follow_what_was_seen_but_one_bad_cycle_does_not_open_them() -> None:
    generator = np.random.default_rng(1)
    observed = Observed(table([{"station": f"S{i}", "value": 255.0 + 10.0 * generator.normal()} for i in range(200)]))
    scaled = (observed.value - 255.0) / np.sqrt(2.0)
    group = ("temp", "t", -2)
    assert ratio(observed, scaled, setting())[0] == pytest.approx(10 / np.sqrt(2), rel=0.15)
    assert ratio(observed, scaled, setting(ratios={group: 1.1}))[0] == pytest.approx(2.2)
    calm = Observed(table([{"value": 255.5}]))
    assert ratio(calm, np.array([0.5]), setting(ratios={group: 1.4}))[0] == pytest.approx(1.4)
    assert ratio(calm, np.array([0.5]), setting(ratios={group: 0.1}))[0] == pytest.approx(0.7)


def test_a_suspicious_value_loses_weight_as_huber_says() -> None:
    observed = Observed(table([{"value": 255.0 + d, "station": str(d)} for d in (1.0, 2.5, 5.0)]))
    weight = huber_weight(observed, beside(observed, sigma_b=0.0), setting())
    np.testing.assert_allclose(weight, [1.0, 1.0, 0.5])


def crowd(n: int = 40) -> list[dict[str, Any]]:
    generator = np.random.default_rng(2)
    return [
        {"type": "satwind", "variable": variable, "station": "GOES", "latitude": 10.0 + place[0],
         "longitude": 20.0 + place[1], "pressure": 30000.0, "value": 12.0 + place[0]}
        for place in generator.uniform(0, 1.0, (n, 2)) for variable in ("u", "v")
    ]  # fmt: skip


def test_thinning_leaves_whole_winds_one_in_a_box() -> None:
    out = np.array(found(thinned, crowd()))
    assert (out[::2] == out[1::2]).all()
    assert 1 <= (~out[::2]).sum() <= 4  # 110 km cannot touch more than four boxes of 200 km
    assert not any(found(thinned, crowd(), {"types": {"satwind": {"thinning": {"method": "none"}}}}))


def test_thinning_keeps_the_report_nearest_to_the_analysis_time() -> None:
    rows = [{**row, "time": NOON + timedelta(minutes=10 - i % 5)} for i, row in enumerate(crowd(30)[::2])]
    for row in rows:
        row |= {"latitude": 10.4, "longitude": 20.4 + 0.001 * rows.index(row)}
    out = np.array(found(thinned, rows))
    minutes = np.array([row["time"].minute for row in rows])
    assert (~out).sum() == 1 and minutes[~out][0] == minutes.min()


def test_a_superob_is_the_mean_of_its_box_with_the_error_of_a_mean() -> None:
    changes = {"types": {"satwind": {"thinning": {"method": "superob", "distance_km": 5000.0, "correlation": 0.2}}}}
    observed = Observed(table([{**row, "error": 4.0} for row in crowd(10)]))
    taken = averaged(observed, beside(observed), setting(changes)).rejected
    assert taken.all()
    means = Superobs(observed, beside(observed), setting(changes))
    assert means.count.tolist() == [10, 10]
    np.testing.assert_allclose(means.value, observed.value.reshape(10, 2).mean(axis=0))
    np.testing.assert_allclose(means.error, 4.0 * np.sqrt(0.1 + 0.2 * 0.9))
    np.testing.assert_allclose(means.latitude, observed.number("latitude")[::2].mean(), atol=1e-3)
