"""Who may work on a cycle and write about it, on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from service.catalogue import Catalogue, Lease, NewProduct, NewScore, StageOutcome, StaleLease
from service.catalogue.tables import CycleState, ExperimentState

PRODUCT = NewProduct("analysis", "grib2", "experiments/demo/x/analysis.grib2", "0" * 64, 12)


def claimed(catalogue: Catalogue, cycle_id: int, owner: str = "worker", seconds: float = 60.0) -> Lease:
    lease = catalogue.leases.claim(cycle_id, owner, seconds)
    assert lease is not None
    return lease


def test_only_one_of_many_simultaneous_claimants_gets_the_lease(catalogue, accept):
    cycle = accept()
    leases, start = [], threading.Barrier(8)

    def claim(owner):
        start.wait()
        leases.append(catalogue.leases.claim(cycle.id, owner))

    threads = [threading.Thread(target=claim, args=(f"worker-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(leases) == 8
    (held,) = [lease for lease in leases if lease is not None]
    assert catalogue.cycles.get(cycle.id).lease_owner == held.owner
    assert catalogue.cycles.get(cycle.id).attempt == 1


def test_an_expired_lease_is_taken_over_with_a_higher_token(catalogue, accept, clock):
    cycle = accept()
    first = claimed(catalogue, cycle.id, "first")
    clock.advance(seconds=59)
    assert catalogue.leases.claim(cycle.id, "second") is None
    clock.advance(seconds=2)
    second = claimed(catalogue, cycle.id, "second")
    assert second.token > first.token
    assert catalogue.cycles.get(cycle.id).attempt == 2


def test_a_heartbeat_keeps_the_lease(catalogue, accept, clock):
    cycle = accept()
    lease = claimed(catalogue, cycle.id)
    for _ in range(5):
        clock.advance(seconds=50)
        catalogue.leases.heartbeat(lease)
    assert catalogue.leases.claim(cycle.id, "other") is None


@pytest.mark.parametrize(
    "write",
    [
        lambda leases, lease: leases.heartbeat(lease),
        lambda leases, lease: leases.begin_stage(lease, CycleState.ANALYSING),
        lambda leases, lease: leases.progress(lease, 0.5, "half"),
        lambda leases, lease: leases.put_products(lease, [PRODUCT]),
        lambda leases, lease: leases.start_over(lease),
        lambda leases, lease: leases.complete_stage(lease, StageOutcome("publish", 1.0, products=[PRODUCT])),
        lambda leases, lease: leases.finish(lease),
        lambda leases, lease: leases.fail(lease, "lost"),
        lambda leases, lease: leases.release(lease),
    ],
    ids=["heartbeat", "begin", "progress", "products", "start over", "complete", "finish", "fail", "release"],
)
def test_a_stale_token_writes_nothing(catalogue, accept, clock, write):
    cycle = accept()
    stale = claimed(catalogue, cycle.id, "paused")
    clock.advance(seconds=61)
    holder = claimed(catalogue, cycle.id, "successor")
    catalogue.leases.begin_stage(holder, CycleState.GATING)
    before = [(event.stage, event.message) for event in catalogue.cycles.events_after(cycle.id)]
    with pytest.raises(StaleLease, match="stop working on this cycle"):
        write(catalogue.leases, stale)
    after = catalogue.cycles.get(cycle.id)
    assert (after.state, after.lease_owner, after.stage) == ("gating", "successor", None)
    assert catalogue.products.page(cycle.id, 10, 0).total == 0
    assert [(event.stage, event.message) for event in catalogue.cycles.events_after(cycle.id)] == before


def test_a_cancelled_cycle_makes_its_workers_lease_stale(catalogue, accept):
    cycle = accept()
    lease = claimed(catalogue, cycle.id)
    assert catalogue.cycles.cancel(cycle.id).state == "cancelled"
    with pytest.raises(StaleLease):
        catalogue.leases.put_products(lease, [PRODUCT])
    assert catalogue.leases.claim(cycle.id, "other") is None


def test_a_finished_cycle_cannot_be_claimed_again(catalogue, accept):
    cycle = accept()
    assert catalogue.leases.finish(claimed(catalogue, cycle.id)) is CycleState.DONE
    assert catalogue.leases.claim(cycle.id, "late message") is None


def test_a_cycle_waits_for_the_earlier_ones_of_its_experiment(catalogue, accept):
    first, second = accept(0), accept(6)
    assert catalogue.leases.claim(second.id, "worker") is None
    catalogue.leases.finish(claimed(catalogue, first.id))
    assert catalogue.leases.claim(second.id, "worker") is not None


def test_a_failed_cycle_does_not_hold_up_the_next(catalogue, accept):
    first, second = accept(0), accept(6)
    assert catalogue.leases.fail(claimed(catalogue, first.id), "no observations") is CycleState.FAILED
    assert catalogue.leases.claim(second.id, "worker") is not None


def test_the_end_of_a_cycle_announces_the_next_in_the_same_transaction(catalogue, accept):
    first, second = accept(0), accept(6)
    assert [message.cycle_id for message in catalogue.outbox.unpublished()] == [first.id]
    catalogue.leases.finish(claimed(catalogue, first.id))
    assert [message.cycle_id for message in catalogue.outbox.unpublished()] == [first.id, second.id]


def test_a_suspended_experiment_starts_no_cycle(catalogue, accept):
    cycle = accept()
    catalogue.experiments.set_state("demo", ExperimentState.SUSPENDED)
    assert catalogue.leases.claim(cycle.id, "worker") is None
    catalogue.experiments.set_state("demo", ExperimentState.ACTIVE)
    assert catalogue.leases.claim(cycle.id, "worker") is not None


def test_a_cycle_does_not_start_before_its_cutoff(catalogue, experiment, clock):
    cutoff = clock() + timedelta(hours=1)
    cycle, _ = catalogue.cycles.accept(experiment.id, clock(), seed=1, cutoff_at=cutoff)
    assert catalogue.leases.claim(cycle.id, "eager") is None
    clock.advance(hours=1)
    assert catalogue.leases.claim(cycle.id, "punctual") is not None


def test_a_completed_stage_commits_all_it_made_and_survives_the_worker(catalogue, accept, clock):
    cycle = accept()
    lease = claimed(catalogue, cycle.id)
    catalogue.leases.begin_stage(lease, CycleState.ASSEMBLING)
    score = NewScore("departure_rms", "background", 1.5, "K", cycle.valid_time, variable="t", type="temp")
    outcome = StageOutcome(
        "assemble",
        2.5,
        counts={"received": 10},
        degraded=[{"reason": "cold_start", "detail": "no background"}],
        background={"kind": "climatology"},
        products=[PRODUCT],
        scores=[score],
    )
    catalogue.leases.complete_stage(lease, outcome)
    clock.advance(seconds=61)
    claimed(catalogue, cycle.id, "successor")
    found = catalogue.cycles.get(cycle.id)
    assert (found.stage, found.state, found.seconds, found.counts) == (
        "assemble",
        "assembling",
        {"assemble": 2.5},
        {"received": 10},
    )
    assert found.background == {"kind": "climatology"}
    assert found.degraded == [{"reason": "cold_start", "detail": "no background"}]
    assert [score.value for score in catalogue.scores.of_cycle(cycle.id)] == [1.5]
    assert catalogue.products.find(cycle.id, "analysis", "grib2").path == PRODUCT.path


def test_a_repeated_stage_replaces_its_products_and_scores(catalogue, accept):
    cycle = accept()
    lease = claimed(catalogue, cycle.id)
    for value in (1.0, 2.0):
        # A surface score has no level and no lead time: NULLs must not make it two rows.
        score = NewScore("rmse", "analysis", value, "K", cycle.valid_time, variable="t2m")
        product = NewProduct("analysis", "grib2", "experiments/demo/x/a.grib2", f"{value}", 1)
        catalogue.leases.complete_stage(lease, StageOutcome("verify", 1.0, products=[product], scores=[score]))
    assert [score.value for score in catalogue.scores.of_cycle(cycle.id)] == [2.0]
    page = catalogue.products.page(cycle.id, 10, 0)
    assert [product.sha256 for product in page.rows] == ["2.0"]


@pytest.mark.parametrize("again", ["retry", "start over"])
def test_a_new_attempt_leaves_nothing_that_an_earlier_one_published(catalogue, accept, again):
    cycle = accept()
    lease = claimed(catalogue, cycle.id)
    score = NewScore("rmse", "analysis", 1.0, "K", cycle.valid_time, variable="t2m")
    outcome = StageOutcome(
        "publish", 1.0, counts={"used": 3}, degraded=[{"reason": "x", "detail": ""}], products=[PRODUCT], scores=[score]
    )
    catalogue.leases.complete_stage(lease, outcome)
    if again == "retry":
        catalogue.leases.fail(lease, "no forecast")
        catalogue.cycles.retry(cycle.id)
    else:
        catalogue.leases.start_over(lease)
    found = catalogue.cycles.get(cycle.id)
    assert (found.stage, found.counts, found.degraded) == (None, {}, [])
    assert catalogue.products.page(cycle.id, 10, 0).rows == []
    assert catalogue.scores.of_cycle(cycle.id) == []


def test_a_cycle_with_a_fallback_ends_degraded(catalogue, accept):
    lease = claimed(catalogue, accept().id)
    catalogue.leases.complete_stage(lease, StageOutcome("gate", 1.0, degraded=[{"reason": "resampled", "detail": ""}]))
    assert catalogue.leases.finish(lease) is CycleState.DEGRADED


def test_a_retriable_failure_goes_back_to_the_queue_until_attempts_run_out(catalogue, accept):
    cycle = accept()
    for expected in (CycleState.WAITING, CycleState.WAITING, CycleState.FAILED):
        lease = claimed(catalogue, cycle.id)
        assert catalogue.leases.fail(lease, "disk full", retriable=True, max_attempts=3) is expected
    assert catalogue.cycles.get(cycle.id).error == "disk full"
    assert catalogue.leases.claim(cycle.id, "worker") is None


def test_a_release_is_no_attempt(catalogue, accept):
    cycle = accept()
    catalogue.leases.release(claimed(catalogue, cycle.id))
    released = catalogue.cycles.get(cycle.id)
    assert (released.attempt, released.state, released.lease_owner) == (0, "waiting", None)


def test_a_running_stage_cannot_be_shown_as_an_end(catalogue, accept):
    lease = claimed(catalogue, accept().id)
    with pytest.raises(ValueError, match="not a running stage"):
        catalogue.leases.begin_stage(lease, CycleState.DONE)
