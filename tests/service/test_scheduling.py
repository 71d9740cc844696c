"""The periodic duties: due cycles by the clock, announcements that are not lost, one leader."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from service.catalogue import Catalogue
from service.catalogue.tables import ExperimentState
from service.experiments import ExperimentConfig, Schedule
from service.scheduling import Pace, PublishError, Scheduler

MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)


class Broker:
    """Takes messages while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.messages: list[int] = []

    def __call__(self, cycle_id: int) -> None:
        if not self.up:
            raise PublishError("connection refused")
        self.messages.append(cycle_id)


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def scheduler(catalogue, broker):
    return Scheduler(catalogue, broker)


@pytest.fixture
def scheduled(catalogue):
    """An experiment with a cycle every six hours since MIDNIGHT, 30 minutes of cut-off."""
    schedule = Schedule(start=MIDNIGHT, every_hours=6)
    config = ExperimentConfig(schedule=schedule, cutoff_minutes=30)
    return catalogue.experiments.create("scheduled", config.model_dump(mode="json"), "small")


def valid_hours(catalogue, experiment):
    return [cycle.valid_time.hour for cycle in catalogue.cycles.page(experiment.id, 1000, 0).rows]


def test_a_schedule_counts_its_valid_times_exactly():
    schedule = Schedule(start=MIDNIGHT, every_hours=6, until=MIDNIGHT + timedelta(hours=13))
    hour = timedelta(hours=1)
    assert schedule.valid_times(None, MIDNIGHT - hour, 9) == []
    assert schedule.valid_times(None, MIDNIGHT, 9) == [MIDNIGHT]
    assert schedule.valid_times(MIDNIGHT, MIDNIGHT + 11 * hour, 9) == [MIDNIGHT + 6 * hour]
    assert schedule.valid_times(MIDNIGHT + hour, MIDNIGHT + 999 * hour, 9) == [MIDNIGHT + n * hour for n in (6, 12)]
    assert schedule.valid_times(None, MIDNIGHT + 999 * hour, 2) == [MIDNIGHT, MIDNIGHT + 6 * hour]
    assert schedule.valid_times(MIDNIGHT + 12 * hour, MIDNIGHT + 999 * hour, 9) == []


def test_cycles_are_made_when_their_valid_time_comes_and_missed_ones_are_caught_up(
    catalogue, scheduled, scheduler, clock
):
    assert scheduler.make_due_cycles() == 3  # the clock says noon: 00, 06, 12
    assert valid_hours(catalogue, scheduled) == [0, 6, 12]
    assert scheduler.make_due_cycles() == 0
    clock.advance(hours=13)  # an outage
    assert scheduler.make_due_cycles() == 2
    assert valid_hours(catalogue, scheduled) == [0, 6, 12, 18, 0]


def test_a_long_outage_is_caught_up_in_rounds(catalogue, scheduled, broker, clock):
    clock.advance(hours=600)
    scheduler = Scheduler(catalogue, broker, pace=Pace(catch_up=60))
    assert [scheduler.make_due_cycles() for _ in range(3)] == [60, 43, 0]


def test_a_suspended_experiment_makes_no_cycles(catalogue, scheduled, scheduler):
    catalogue.experiments.set_state("scheduled", ExperimentState.SUSPENDED)
    assert scheduler.make_due_cycles() == 0


def test_a_cycle_asked_for_by_hand_does_not_hide_scheduled_ones(catalogue, scheduled, scheduler):
    catalogue.cycles.accept(scheduled.id, MIDNIGHT + timedelta(hours=12), seed=0)
    assert scheduler.make_due_cycles() == 2
    assert valid_hours(catalogue, scheduled) == [0, 6, 12]


def test_a_scheduled_cycle_is_announced_after_its_cutoff_and_not_before(catalogue, scheduled, scheduler, broker, clock):
    clock.now = MIDNIGHT
    scheduler.make_due_cycles()
    clock.now = MIDNIGHT + timedelta(hours=3, minutes=29)
    scheduler.reconcile()
    assert scheduler.relay() == 0
    clock.now = MIDNIGHT + timedelta(hours=3, minutes=30)
    scheduler.reconcile()
    assert scheduler.relay() == 1
    assert broker.messages == [catalogue.cycles.at(scheduled.id, MIDNIGHT).id]


def test_an_accepted_cycle_is_announced_once(accept, scheduler, broker):
    cycle = accept()
    assert (scheduler.relay(), scheduler.relay()) == (1, 0)
    assert scheduler.reconcile() == []
    assert broker.messages == [cycle.id]


def test_a_dead_broker_loses_no_announcement(catalogue, accept, scheduler, broker):
    cycle = accept()
    broker.up = False
    with pytest.raises(PublishError):
        scheduler.relay()
    (waiting,) = catalogue.outbox.unpublished()
    assert (waiting.cycle_id, waiting.attempts) == (cycle.id, 1)
    broker.up = True
    assert scheduler.relay() == 1
    assert broker.messages == [cycle.id]


def test_a_message_that_the_broker_forgot_is_sent_again(accept, scheduler, broker, clock):
    cycle = accept()
    scheduler.relay()
    broker.messages.clear()  # FLUSHALL
    clock.advance(seconds=59)
    assert scheduler.reconcile() == []
    clock.advance(seconds=2)
    assert scheduler.reconcile() == [cycle.id]
    scheduler.relay()
    assert broker.messages == [cycle.id]


def test_a_held_cycle_is_left_alone_and_a_lost_one_announced_at_once(catalogue, accept, scheduler, broker, clock):
    cycle = accept()
    scheduler.relay()
    lease = catalogue.leases.claim(cycle.id, "worker", seconds=10)
    for _ in range(20):
        clock.advance(seconds=9)
        catalogue.leases.heartbeat(lease, seconds=10)
    assert scheduler.reconcile() == []
    clock.advance(seconds=11)  # kill -9
    assert scheduler.reconcile() == [cycle.id]
    assert scheduler.reconcile() == []
    assert scheduler.relay() == 1
    assert broker.messages == [cycle.id, cycle.id]


def test_a_cycle_that_keeps_killing_its_worker_fails_and_the_next_one_goes_on(catalogue, accept, broker, clock):
    deadly, following = accept(0), accept(6)
    scheduler = Scheduler(catalogue, broker, pace=Pace(max_attempts=2))
    for _ in range(2):
        assert catalogue.leases.claim(deadly.id, "worker") is not None
        clock.advance(seconds=61)
        scheduler.reconcile()
    failed = catalogue.cycles.get(deadly.id)
    assert failed.state == "failed"
    assert "lost in 2 attempts" in failed.error
    scheduler.relay()
    assert broker.messages[-1] == following.id


def test_only_the_leader_works_and_another_takes_over_when_it_is_gone(catalogue, accept, clock):
    first, second = Broker(), Broker()
    leader = Scheduler(catalogue, first, pace=Pace(leader_lease=0.0))
    other = Scheduler(catalogue, second, pace=Pace(leader_lease=0.0))
    assert catalogue.leaders.lead("scheduling", "elsewhere", 15)
    accept(0)
    leader.round()
    other.round()
    assert first.messages == second.messages == []
    clock.advance(seconds=16)
    leader.round()
    other.round()
    assert len(first.messages) == 1 and second.messages == []


def test_a_resigned_leader_is_replaced_at_once(catalogue):
    assert catalogue.leaders.lead("scheduling", "first", 15)
    assert not catalogue.leaders.lead("scheduling", "second", 15)
    catalogue.leaders.resign("scheduling", "first")
    assert catalogue.leaders.lead("scheduling", "second", 15)


def test_old_announcements_of_finished_cycles_are_forgotten(catalogue, accept, scheduler, clock):
    done, waiting = accept(0), accept(6)
    scheduler.relay()
    catalogue.leases.finish(catalogue.leases.claim(done.id, "worker"))
    scheduler.relay()
    clock.advance(hours=25)
    catalogue.outbox.prune()
    assert scheduler.reconcile() == [waiting.id]


def test_the_thread_relays_survives_a_dead_broker_and_stops(tmp_path):
    catalogue = Catalogue.open(f"sqlite:///{tmp_path / 'c.sqlite'}")
    broker = Broker()
    broker.up = False
    scheduler = Scheduler(catalogue, broker, pace=Pace(relay=0.02))
    scheduler.start()
    experiment = catalogue.experiments.create("demo", ExperimentConfig().model_dump(mode="json"), "small")
    cycle, _ = catalogue.cycles.accept(experiment.id, MIDNIGHT, seed=0)
    scheduler.nudge()
    wait_until(lambda: scheduler.last_error is not None)
    broker.up = True
    wait_until(lambda: broker.messages == [cycle.id])
    wait_until(lambda: scheduler.last_error is None)
    scheduler.stop()
    assert not scheduler.alive
    assert catalogue.leaders.lead("scheduling", "successor", 1)
    catalogue.close()


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
