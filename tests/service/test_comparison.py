"""Paired differences of two experiments: intervals that cover as often as they say, and the API of data denial."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from service.catalogue import NewScore, StageOutcome
from service.catalogue.tables import Score
from service.comparison import block_resamples, compare
from tests.service.conftest import until

NOON = datetime(2009, 1, 23, 12, tzinfo=UTC)


def series(values, name="rmse", variable="t", unit="K"):
    return [
        Score(name=name, field="analysis", variable=variable, type="", level=500.0, lead_hours=0, unit=unit,
              value=float(value), valid_time=NOON + timedelta(hours=6 * number))
        for number, value in enumerate(values)
    ]  # fmt: skip


def test_blocks_are_neighbours_and_go_round():
    rows = block_resamples(27, 50)
    assert rows.shape == (50, 27) and rows.min() >= 0 and rows.max() < 27
    within = np.diff(rows.reshape(50, 9, 3), axis=2) % 27
    assert (within == 1).all()


def test_the_interval_covers_the_true_difference():
    """300 pairs of series of 60 cycles whose difference persists (AR(1), 0.3): 95 % intervals cover at least 85 %."""
    generator, covered, draws = np.random.default_rng(2), 0, 300
    for _ in range(draws):
        noise = generator.normal(size=70) * 0.1
        for step in range(1, 70):
            noise[step] += 0.3 * noise[step - 1]
        common = 2.0 + generator.normal(size=60) * 0.5
        (row,) = compare(series(common + 0.2 + noise[10:]), series(common))
        square = 2.0**2 + 0.5**2  # of the control; of the other 2 0.2 2 + 0.2^2 more, and the noise
        true = np.sqrt(square + 0.84 + 0.01 / (1 - 0.3**2)) - np.sqrt(square)
        covered += row.low <= true <= row.high
    assert covered / draws > 0.85


def test_only_common_times_count_and_few_have_no_interval():
    (row,) = compare(series([1.0, 2.0, 3.0, 4.0]), series([1.0, 1.0, 1.0]))
    assert (row.pairs, row.low, row.high) == (3, None, None)
    assert row.value == pytest.approx(np.sqrt(14 / 3)) and row.control == 1.0
    assert compare(series([1.0]), series([1.0], variable="u")) == []


def test_equal_experiments_differ_by_nothing():
    (row,) = compare(series(np.arange(1.0, 20.0)), series(np.arange(1.0, 20.0)))
    assert (row.difference, row.low, row.high) == (0.0, 0.0, 0.0)


def complete(served, cycle, value, received=10):
    lease = served.leases.claim(cycle["id"], "worker")
    valid = datetime.fromisoformat(cycle["valid_time"])
    scores = [NewScore("rmse", "analysis", value, "K", valid, variable="t", level=500.0)]
    served.leases.complete_stage(lease, StageOutcome("verify", 1.0, counts={"received": received}, scores=scores))
    served.leases.finish(lease)


def ask(client, name, hours):
    valid = (NOON + timedelta(hours=hours)).isoformat()
    return client.post(f"/v1/experiments/{name}/cycles", json={"valid_time": valid}).json()


def test_a_shadow_is_made_compared_and_follows(client, served):
    client.post("/v1/experiments", json={"name": "demo", "config": {"seed": 5, "observations": {"denylist": []}}})
    refused = client.post("/v1/experiments/demo/shadow", json={"name": "s", "denied": {"types": ["temp"]}})
    assert refused.status_code == 422 and "completed no cycle" in refused.json()["detail"]
    complete(served, ask(client, "demo", 0), 1.0)
    made = client.post("/v1/experiments/demo/shadow", json={"name": "s", "denied": {"types": ["temp"]}})
    assert made.status_code == 201, made.text
    config = made.json()["config"]
    assert config["shadow"] == {"of": "demo", "start": "2009-01-23T18:00:00Z"} and config["seed"] == 5
    for number in range(1, 7):
        complete(served, ask(client, "demo", 6 * number), 1.0 + 0.1 * number)
        complete(served, ask(client, "s", 6 * number), 1.5 + 0.1 * number, received=10 + (number == 3))
    found = client.get("/v1/experiments/s/comparison", params={"name": "rmse", "variable": "t"}).json()
    assert (found["control"], found["cycles"], found["unequal"]) == ("demo", 6, 1)
    (row,) = found["scores"]
    assert row["pairs"] == 6 and row["low"] <= row["difference"] <= row["high"] and 0.4 < row["difference"] < 0.6
    other = client.get("/v1/experiments/demo/comparison")
    assert other.status_code == 422 and "no shadow" in other.json()["detail"]
    assert client.get("/v1/experiments/demo/comparison?against=s").json()["scores"][0]["difference"] < 0
    assert client.get("/v1/experiments/s/comparison?name=balance").status_code == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/experiments/demo/shadow", {"name": "s", "denied": {}}),
        ("/v1/experiments/demo/shadow", {"name": "s", "denied": {"types": ["amdr"]}, "start": "2009-01-23T12:00:00Z"}),
        ("/v1/experiments", {"name": "s", "config": {"shadow": {"of": "nobody", "start": "2009-01-23T12:00:00Z"}}}),
    ],
)
def test_what_cannot_be_a_shadow_is_refused(client, path, body):
    client.post("/v1/experiments", json={"name": "demo"})
    assert client.post(path, json=body).status_code == 422


def test_completed_cycles_of_the_parent_are_made_by_the_gateway_itself(client, served):
    client.post("/v1/experiments", json={"name": "demo"})
    complete(served, ask(client, "demo", 0), 1.0)
    start = NOON.isoformat()
    client.post("/v1/experiments/demo/shadow", json={"name": "s", "denied": {"types": ["temp"]}, "start": start})
    until(lambda: client.get("/v1/experiments/s/cycles").json()["total"] == 1)
    (cycle,) = client.get("/v1/experiments/s/cycles").json()["items"]
    parent = client.get("/v1/experiments/demo/cycles").json()["items"][0]
    assert cycle["valid_time"] == parent["valid_time"] and cycle["as_of"] == parent["started_at"]
