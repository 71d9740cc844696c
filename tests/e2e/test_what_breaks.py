"""Whatever is killed or emptied, the cycle completes, exactly once."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import redis

from alignda.client import Client
from service.archive import Archive
from tests.e2e.conftest import START, Served, until

pytestmark = pytest.mark.slow
LONG = {"members": 2, "sampler_steps": 16}  # seconds of sampling: time to break something


@pytest.fixture(scope="module", autouse=True)
def observed(served: Served) -> None:
    """Something to analyse: without observations the stage is over at once."""
    served.observe(START, seed=11)


def analysing(client: Client, cycle_id: int) -> Callable[[], bool]:
    return lambda: client.cycle(cycle_id)["state"] == "analysing"


def pool_of(served: Served) -> list[psutil.Process]:
    return served.child("worker").children()


def assert_completed_exactly_once(served: Served, client: Client, cycle: dict[str, Any]) -> None:
    assert cycle["state"] in ("done", "degraded"), cycle
    products = client.products(cycle["id"])
    identities = Counter((row["kind"], row["format"], row["lead_hours"]) for row in products)
    assert identities["analysis", "grib2", 0] == 1
    assert set(identities.values()) == {1}
    archive = Archive(served.settings.archive_dir)
    assert all(archive.existing(row["path"]).stat().st_size == row["size"] for row in products)
    ends = [event for event in client.events(cycle["id"]) if event.get("stage") in ("done", "degraded")]
    assert len(ends) == 1, ends


def test_kill_9_of_the_working_child_in_mid_analysis(served: Served) -> None:
    name = served.experiment("killed-child", **LONG)
    with served.client as client:
        cycle = client.run_cycle(name, START)
        until(analysing(client, cycle["id"]))
        for child in pool_of(served):
            child.kill()
        cycle = client.wait(cycle["id"], 240)
        assert cycle["attempt"] == 2
        assert_completed_exactly_once(served, client, cycle)


def test_kill_9_of_the_whole_worker_in_mid_analysis(served: Served) -> None:
    name = served.experiment("killed-worker", **LONG)
    with served.client as client:
        cycle = client.run_cycle(name, START)
        until(analysing(client, cycle["id"]))
        worker = served.child("worker")
        pool = worker.children()
        worker.kill()
        until(lambda: not any(child.is_running() and child.status() != "zombie" for child in pool), 10)
        cycle = client.wait(cycle["id"], 240)
        assert cycle["attempt"] == 2
        assert_completed_exactly_once(served, client, cycle)


def test_the_broker_is_killed_while_a_cycle_runs_and_another_is_asked_for(served: Served) -> None:
    name, other = served.experiment("broker", **LONG), served.experiment("broker-other")
    with served.client as client:
        cycle = client.run_cycle(name, START)
        until(analysing(client, cycle["id"]))
        served.child("valkey-server").kill()
        second = client.run_cycle(other, START)
        assert_completed_exactly_once(served, client, client.wait(cycle["id"], 240))
        second = client.wait(second["id"], 240)
        assert_completed_exactly_once(served, client, second)
        assert client.cycle(cycle["id"])["attempt"] == 1


def test_an_emptied_broker_costs_minutes_and_no_cycle(served: Served) -> None:
    name = served.experiment("flushed")
    broker = redis.Redis(unix_socket_path=str(served.settings.broker_socket))
    worker = served.child("worker")
    stopped = [worker, *worker.children()]
    with served.client as client:
        for process in stopped:
            process.suspend()
        try:
            time.sleep(3)  # the worker's last blocking pop has run out: the message must stay in the broker
            cycle = client.run_cycle(name, START)
            until(lambda: broker.llen("celery") == 1, 20)
            broker.flushall()
        finally:
            for process in stopped:
                process.resume()
        assert_completed_exactly_once(served, client, client.wait(cycle["id"], 280))


def test_ctrl_c_in_mid_analysis_leaves_no_process_and_the_next_start_goes_on(served: Served) -> None:
    name = served.experiment("interrupted", **LONG)
    with served.client as client:
        cycle = client.run_cycle(name, START)
        until(analysing(client, cycle["id"]))
        assert served.process is not None
        family = served.process.children(recursive=True)
        asked = time.monotonic()
        assert served.stop(signal.SIGINT) == 0
        assert time.monotonic() - asked < 25
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
    served.start()
    with served.client as client:
        assert client.wait(cycle["id"], 240)["attempt"] == 1, "the cycle was not handed back"
        assert_completed_exactly_once(served, client, client.wait(cycle["id"], 240))
