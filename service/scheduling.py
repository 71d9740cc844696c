"""The periodic duties of a gateway: make cycles that are due by the clock, announce them to the workers, find those
that were forgotten. One gateway of several leads; announcing twice is harmless, not announcing is repaired.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from service.catalogue import Catalogue
from service.catalogue.tables import Experiment
from service.experiments import ExperimentConfig, Shadow

Publish = Callable[[int], None]
DUTY = "scheduling"

log = logging.getLogger(__name__)


class PublishError(Exception):
    """The broker did not take a message; it stays in the outbox."""


@dataclass(frozen=True)
class Pace:
    """How often each duty is done, in seconds, and how patient it is."""

    relay: float = 0.5
    reconcile: float = 5.0
    prune: float = 3600.0
    leader_lease: float = 15.0
    republish_after: float = 60.0
    max_attempts: int = 5
    catch_up: int = 200
    """At most so many missed cycles of an experiment are made in one round; the rest follow in the next."""


def owner_name() -> str:
    """A name for this process that no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Scheduler:
    """Runs the duties in a thread of its own; each can also be called on its own (tests, tools)."""

    def __init__(
        self, catalogue: Catalogue, publish: Publish, *, pace: Pace | None = None, owner: str | None = None
    ) -> None:
        self._catalogue = catalogue
        self._publish = publish
        self._pace = pace or Pace()
        self._owner = owner or owner_name()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._next_lead = self._next_reconcile = self._next_prune = 0.0
        self._leading = False
        self.last_attempt: float | None = None  # time.monotonic() at the end of the last round
        self.last_error: str | None = None

    def start(self) -> None:
        """Begin the duties."""
        self._thread = threading.Thread(target=self._run, name="alignda-scheduler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the duties after the round in progress and let another gateway lead."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)
        try:
            self._catalogue.leaders.resign(DUTY, self._owner)
        except SQLAlchemyError as error:
            log.warning("could not resign as leader (another gateway leads when the lease ends): %s", error)

    def nudge(self) -> None:
        """Do the next round now; called after a cycle was accepted."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def round(self) -> None:
        """All duties that are due now, if this gateway leads."""
        now = time.monotonic()
        if now >= self._next_lead:
            self._leading = self._catalogue.leaders.lead(DUTY, self._owner, self._pace.leader_lease)
            self._next_lead = now + self._pace.leader_lease / 3
        if not self._leading:
            return
        if now >= self._next_reconcile:
            self._next_reconcile = now + self._pace.reconcile
            self.make_due_cycles()
            self.reconcile()
        if now >= self._next_prune:
            self._next_prune = now + self._pace.prune
            self._catalogue.outbox.prune()
        self.relay()

    def make_due_cycles(self) -> int:
        """Make the cycles of all schedules whose valid time has come, those missed included. Returns how many."""
        now = self._catalogue.clock()
        return sum(self._make_cycles_of(experiment, now) for experiment in self._catalogue.experiments.active())

    def reconcile(self) -> list[int]:
        """Fail cycles that keep losing their worker and announce the forgotten. Returns the ids announced."""
        for cycle_id in self._catalogue.cycles.give_up_lost(self._pace.max_attempts):
            log.error("cycle %d failed: its worker was lost %d times", cycle_id, self._pace.max_attempts)
        for cycle_id in self._catalogue.verifications.give_up_lost(self._pace.max_attempts):
            log.error("cycle %d not verified: its worker was lost %d times", cycle_id, self._pace.max_attempts)
        return self._catalogue.outbox.announce_forgotten(timedelta(seconds=self._pace.republish_after))

    def relay(self) -> int:
        """Publish what is in the outbox. Returns how many messages. Raises PublishError at the first refusal."""
        published = 0
        for message in self._catalogue.outbox.unpublished():
            try:
                self._publish(message.cycle_id)
            except PublishError:
                self._catalogue.outbox.mark(message.id, published=False)
                raise
            self._catalogue.outbox.mark(message.id, published=True)
            published += 1
        return published

    def _make_cycles_of(self, experiment: Experiment, now: datetime) -> int:
        config = ExperimentConfig.model_validate(experiment.config)
        if config.shadow is not None:
            return self._follow(experiment, config, config.shadow)
        if config.schedule is None:
            return 0
        newest = self._catalogue.cycles.newest_scheduled_time(experiment.id)
        made = 0
        for valid_time in config.schedule.valid_times(newest, now, self._pace.catch_up):
            _, created = self._catalogue.cycles.accept(
                experiment.id,
                valid_time,
                seed=config.cycle_seed(valid_time),
                cutoff_at=config.cutoff(valid_time),
            )
            made += created
        return made

    def _follow(self, experiment: Experiment, config: ExperimentConfig, shadow: Shadow) -> int:
        """The cycles that the leader has completed, each with what was received when the leader started its own."""
        leader = self._catalogue.experiments.named(shadow.of)
        made = 0
        for cycle in self._catalogue.cycles.to_follow(leader.id, experiment.id, shadow.start, self._pace.catch_up):
            _, created = self._catalogue.cycles.accept(
                experiment.id,
                cycle.valid_time,
                seed=config.cycle_seed(cycle.valid_time),
                as_of=cycle.as_of or cycle.started_at,
            )
            made += created
        return made

    def _run(self) -> None:
        while not self._stopping.is_set():
            pause = self._pace.relay
            self.last_attempt = time.monotonic()
            try:
                self.round()
                self.last_error = None
            except (PublishError, SQLAlchemyError) as error:
                if self.last_error is None:
                    log.warning("periodic duties interrupted, will go on: %s", error)
                self.last_error = str(error)
                pause = max(2.0, pause)
                self._stopping.wait(pause)
                continue
            self._wake.wait(pause)
            self._wake.clear()
