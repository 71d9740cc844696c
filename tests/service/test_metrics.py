"""What Prometheus sees, parsed by Prometheus' own parser."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.catalogue import NewScore, StageOutcome

NOON = datetime(2009, 1, 23, 12, tzinfo=UTC)


def samples(client):
    """{(name, labels): value} of one scrape."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def of(found, name, **labels):
    return found[name, frozenset((key, value) for key, value in labels.items())]


@pytest.fixture
def scored(client, served):
    """Two cycles: an older one with other numbers, and the newest."""
    client.post("/v1/experiments", json={"name": "demo"})
    for hour, rmse in ((6, 999.0), (12, 61.5)):
        valid = NOON.replace(hour=hour)
        cycle = client.post("/v1/experiments/demo/cycles", json={"valid_time": valid.isoformat()}).json()
        lease = served.leases.claim(cycle["id"], "worker")
        scores = [
            NewScore("rmse", "analysis", rmse, "m2 s-2", valid, variable="z", level=500.0),
            NewScore("rmse", "forecast", 1.5, "K", valid, variable="t2m", lead_hours=48),
            NewScore("departure_rms", "background", 2.5, "K", valid, variable="t", type="temp"),
            NewScore("departure_rms", "background", 9.9, "K", valid, variable="t", type="temp", level=500.0),
            NewScore("departure_bias", "analysis", -0.25, "K", valid, variable="t", type=""),
            NewScore("withheld_rmse", "analysis", 1.25, "K", valid, variable="t"),
            NewScore("withheld_rmse", "analysis", 7.0, "K", valid, variable="t", level=500.0),
            NewScore("departure_count", "background", 120.0, "1", valid, variable="t", type="temp"),
            NewScore("chi_square", "background", 1.1, "1", valid),
            NewScore("sigma_o_ratio", "observation", 0.9, "1", valid, variable="t"),
            NewScore("sigma_b_ratio", "background", 1.2, "1", valid, variable="t"),
            NewScore("dfs", "analysis", 31.5, "1", valid, type="temp"),
            NewScore("dfs_departures", "analysis", 29.5, "1", valid),
            NewScore("balance_geostrophic", "analysis", 0.9, "1", valid),
            NewScore("balance_hydrostatic", "background", 0.8, "1", valid),
            NewScore("spread_skill_ratio", "analysis", 0.95, "1", valid, variable="u", level=850.0),
            NewScore("rmse", "background", float("inf"), "K", valid, variable="t", level=850.0),
        ]
        counts = {"received": 12, "reasons": {"ASSIMILATED": 10, "DUPLICATE": 2}}
        served.leases.complete_stage(lease, StageOutcome("analyse", 3.25, counts=counts, scores=scores))
        served.leases.finish(lease)
    return client


def test_skill_is_that_of_the_newest_completed_cycle(scored):
    found = samples(scored)
    demo = {"experiment": "demo"}
    rmse = {**demo, "field": "analysis", "variable": "z", "level": "500", "lead_hours": "0", "unit": "m2 s-2"}
    assert of(found, "alignda_rmse", **rmse) == 61.5
    lead = {**demo, "field": "forecast", "variable": "t2m", "level": "", "lead_hours": "48", "unit": "K"}
    assert of(found, "alignda_rmse", **lead) == 1.5
    departure = {**demo, "variable": "t", "unit": "K"}
    assert of(found, "alignda_departure_rms", **departure, field="background", type="temp") == 2.5
    assert of(found, "alignda_departure_bias", **departure, field="analysis", type="") == -0.25
    assert of(found, "alignda_withheld_rms", **demo, field="analysis", variable="t", unit="K") == 1.25
    assert of(found, "alignda_departure_values", **demo, variable="t", type="temp") == 120
    assert of(found, "alignda_chi_square", **demo, variable="", type="") == 1.1
    assert of(found, "alignda_error_ratio", **demo, of="observation", variable="t", type="") == 0.9
    assert of(found, "alignda_error_ratio", **demo, of="background", variable="t", type="") == 1.2
    assert of(found, "alignda_dfs", **demo, type="temp", estimate="members") == 31.5
    assert of(found, "alignda_dfs", **demo, type="", estimate="departures") == 29.5
    assert of(found, "alignda_balance_score", **demo, field="analysis", kind="geostrophic") == 0.9
    assert of(found, "alignda_balance_score", **demo, field="background", kind="hydrostatic") == 0.8
    assert of(found, "alignda_spread_skill_ratio", **demo, variable="u", level="850") == 0.95
    assert of(found, "alignda_observations", **demo, reason="DUPLICATE") == 2
    assert of(found, "alignda_stage_seconds", **demo, stage="analyse") == 3.25
    assert of(found, "alignda_cycle_valid_timestamp_seconds", **demo) == NOON.timestamp()
    assert [name for name, labels in found if name == "alignda_rmse"].__len__() == 2  # an infinite score is no skill


def test_work_in_hand_and_requests_are_counted(scored):
    scored.post("/v1/experiments/demo/cycles", json={"valid_time": "2009-01-23T18:00:00Z"})
    row = b"time,latitude,longitude,pressure,variable,value,type,station\n2009-01-23T12:00:00Z,1,2,85000,t,280,temp,x\n"
    posted = scored.post("/v1/observations", content=row, headers={"X-Source": "gts", "Content-Type": "text/csv"})
    assert posted.status_code == 201, posted.text
    scored.get("/v1/cycles/12345")
    scored.get("/v1/cycles/54321")
    scored.get("/no/such/page")
    found = samples(scored)
    assert of(found, "alignda_cycles", experiment="demo", state="done") == 2
    assert of(found, "alignda_cycles", experiment="demo", state="waiting") == 1
    assert of(found, "alignda_queue_depth") == 1
    assert 0 < of(found, "alignda_oldest_waiting_cycle_seconds") < 60
    assert of(found, "alignda_batches_total", source="gts", status="accepted") == 1
    seconds = "alignda_http_request_seconds_count"
    assert of(found, seconds, route="/v1/cycles/{cycle_id}", method="GET", status="404") == 2
    assert of(found, seconds, route="/v1/observations", method="POST", status="201") == 1
    assert of(found, seconds, route="unmatched", method="GET", status="404") == 1


def test_an_empty_catalogue_can_be_scraped(client):
    found = samples(client)
    assert of(found, "alignda_queue_depth") == 0
    assert of(found, "alignda_oldest_waiting_cycle_seconds") == 0
