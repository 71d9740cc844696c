"""A held lease stays alive while work goes on, and is let go when the worker is told to stop."""

import os
import signal
import threading
import time

import pytest

from tests.worker.conftest import House
from worker.desk import Desk
from worker.lease import Interrupted, held


def test_a_lease_outlives_its_seconds_while_it_is_held(house: House) -> None:
    cycle = house.cycle(house.experiment())
    lease = house.catalogue.leases.claim(cycle.id, "us", 0.6)
    assert lease is not None
    with held(house.catalogue.leases, lease, 0.6):
        time.sleep(1.5)
        assert house.catalogue.leases.claim(cycle.id, "them", 0.6) is None
    time.sleep(0.8)
    assert house.catalogue.leases.claim(cycle.id, "them", 0.6) is not None


def test_no_heartbeat_thread_is_left_behind(house: House) -> None:
    lease = house.catalogue.leases.claim(house.cycle(house.experiment()).id, "us", 60)
    assert lease is not None
    with held(house.catalogue.leases, lease, 60):
        assert any(thread.name.startswith("heartbeat-") for thread in threading.enumerate())
    assert not any(thread.name.startswith("heartbeat-") for thread in threading.enumerate())


def test_a_termination_interrupts_the_work_and_the_old_handler_returns(house: House) -> None:
    before = signal.getsignal(signal.SIGTERM)
    lease = house.catalogue.leases.claim(house.cycle(house.experiment()).id, "us", 60)
    assert lease is not None
    with pytest.raises(Interrupted), held(house.catalogue.leases, lease, 60):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_attempt_inherits_what_an_earlier_one_finished_and_cannot_be_spoilt_by_it(house: House) -> None:
    import numpy as np

    old = Desk(house.runtime.desks, 1, 1)
    old.put_array("background", np.zeros((1, 2, 2, 2), np.float32))
    old.finished("assemble")
    new = Desk(house.runtime.desks, 1, 2)
    assert new.inherit(["assemble"]) and not Desk(house.runtime.desks, 1, 3).inherit(["assemble", "analyse"])
    old.put_array("background", np.ones((1, 2, 2, 2), np.float32))
    assert new.array("background").sum() == 0
