"""Every filter rejects what it must, gives its own reason, and counts what came in and what it rejected."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from service.experiments import ExperimentConfig
from service.observations.reasons import Reason
from tests.worker.conftest import NOON, table
from worker.stages.control_quality import by_reason, judge
from worker.stages.filters import FILTERS, Comparison, Setting
from worker.stages.filters.values import standard_geopotential
from worker.stages.observed import Observed


def compared(observed: Observed, background: float, spread: float, expected: float = 0.0) -> Comparison:
    count = len(observed)
    return Comparison(np.full(count, background), np.full(count, spread), np.full(count, expected), observed.error)


def setting(**config: Any) -> Setting:
    wanted = ExperimentConfig(**config)
    return Setting(wanted, wanted.observation_configuration, NOON)


def reason_of(*rows: dict[str, Any], background: float = 255.0, spread: float = 1.0, **config: Any) -> list[Reason]:
    observed = Observed(table(list(rows)))
    comparison = compared(observed, background, spread)
    reasons, *_ = judge(observed, comparison, setting(**config))
    return [Reason(int(code)) for code in reasons]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"value": np.nan}, Reason.MISSING_VALUE),
        ({"latitude": 3.4e38}, Reason.POSITION_INVALID),
        ({"latitude": np.nan}, Reason.POSITION_INVALID),
        ({"pressure": np.nan}, Reason.POSITION_INVALID),
        ({"pressure": -5.0}, Reason.POSITION_INVALID),
        ({"value": 400.0}, Reason.RANGE),
        ({"variable": "q", "value": -0.001}, Reason.RANGE),
        ({"variable": "z", "value": 14500.0}, Reason.RANGE),  # the 850 hPa height, reported at 500 hPa
        ({"value": 275.0}, Reason.FIRST_GUESS),
        ({"value": 256.0}, Reason.ASSIMILATED),
        ({"preqc": 70}, Reason.ASSIMILATED),
    ],
)
def test_a_value_gets_the_reason_that_fits(row: dict[str, Any], reason: Reason) -> None:
    assert reason_of(row) == [reason]


def test_a_value_that_the_model_cannot_compare_is_outside_the_domain() -> None:
    assert reason_of({}, background=np.nan) == [Reason.OUTSIDE_DOMAIN]


def test_of_two_equal_reports_the_first_received_stays() -> None:
    late = {"receipt_time": NOON + timedelta(hours=1)}
    assert reason_of(late, {}) == [Reason.DUPLICATE, Reason.ASSIMILATED]


def test_a_repetition_of_a_rejected_value_is_judged_on_its_own() -> None:
    corrected = {"receipt_time": NOON + timedelta(hours=1), "value": 255.5}
    assert reason_of({"value": 999.0}, corrected) == [Reason.RANGE, Reason.ASSIMILATED]


def test_an_unwanted_type_is_not_used() -> None:
    assert reason_of({"type": "amdar"}, {}, use_types=["temp"]) == [Reason.NOT_USED_BY_EXPERIMENT, Reason.ASSIMILATED]


def test_the_gross_check_is_as_wide_as_error_and_spread_together() -> None:
    five_sigma = 5.0 * np.sqrt(1.0**2 + 3.0**2)
    inside, outside = {"value": 255.0 + five_sigma - 0.01}, {"value": 255.0 + five_sigma + 0.01, "station": "B"}
    assert reason_of(inside, outside, spread=3.0) == [Reason.ASSIMILATED, Reason.FIRST_GUESS]


def test_a_background_of_one_state_is_judged_by_the_error_of_its_age() -> None:
    observed = Observed(table([{"value": 265.0}, {"value": 275.0, "station": "B"}]))
    reasons, *_ = judge(observed, compared(observed, 255.0, np.nan, expected=2.0), setting())
    assert reasons.tolist() == [Reason.ASSIMILATED, Reason.FIRST_GUESS]


def test_a_poor_background_without_spread_does_not_throw_good_observations_away() -> None:
    generator = np.random.default_rng(0)
    rows = [{"value": 255.0 + 8.0 * generator.normal(), "station": f"S{i}"} for i in range(200)]
    rows += [{"value": 200.0, "station": "gross"}]
    reasons = reason_of(*rows, spread=0.0)
    assert reasons[-1] == Reason.FIRST_GUESS
    assert reasons[:-1].count(Reason.FIRST_GUESS) <= 2


def test_whole_stations_are_withheld_and_always_the_same() -> None:
    rows = [{"station": f"S{i // 2}", "pressure": 50000.0 + 10000 * (i % 2)} for i in range(200)]
    first = reason_of(*rows, withheld_fraction=0.2)
    assert first == reason_of(*rows, withheld_fraction=0.2)
    assert first[::2] == first[1::2]
    assert 10 <= first.count(Reason.WITHHELD) / 2 <= 35
    assert first != reason_of(*rows, withheld_fraction=0.2, seed=1)


def test_every_filter_reports_how_many_came_in_and_how_many_it_rejected() -> None:
    rows = [{"value": np.nan}, {"value": 400.0}, {}, {}, {"station": "B"}]
    observed = Observed(table(rows))
    comparison = compared(observed, 255.0, 1.0)
    reasons, report, *_ = judge(observed, comparison, setting())
    assert [entry["filter"] for entry in report] == [check.name for check in FILTERS]
    assert [entry["in"] for entry in report] == [5, 4, 4, 4, 4] + [3] * 4 + [2] * 13
    assert sum(entry["rejected"] for entry in report) == 3
    assert by_reason(reasons) == {"ASSIMILATED": 2, "MISSING_VALUE": 1, "RANGE": 1, "DUPLICATE": 1}


def test_an_empty_window_passes_all_filters() -> None:
    assert reason_of() == []


def test_the_standard_atmosphere_is_the_published_one() -> None:
    # ISO 2533: geopotential heights of 500 and 100 hPa are 5574 m and 16180 m
    heights = standard_geopotential(np.array([50000.0, 10000.0])) / 9.80665
    np.testing.assert_allclose(heights, [5574.0, 16180.0], atol=2.0)
