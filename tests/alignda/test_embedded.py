"""`alignda serve`: children are restarted when they die, and end when the supervisor ends, however it ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from alignda.children import Child
from alignda.embedded import Stack, StackError, environment_of, local_url
from service.settings import Settings
from tests.ports import free_port
from tests.worker.toy import write_bundle


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)


def answers(settings: Settings) -> bool:
    try:
        return httpx.get(f"{local_url(settings)}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def serving(settings: Settings) -> Iterator[psutil.Process]:
    """`alignda serve` from outside, ready; whatever is left of it at the end is killed."""
    environment = {**os.environ, **environment_of(settings)}
    process = subprocess.Popen([sys.executable, "-m", "alignda", "serve"], env=environment, stderr=subprocess.DEVNULL)
    watched = psutil.Process(process.pid)
    try:
        until(lambda: answers(settings))
        yield watched
    finally:
        family = [watched, *watched.children(recursive=True)] if process.poll() is None else []
        for member in family:
            member.kill()
        process.wait()


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder / "data", port=free_port(), bundle=write_bundle(folder / "toy"))


def family_of(serve: psutil.Process) -> list[psutil.Process]:
    """Broker, gateway, worker and the worker's pool, once all are there."""
    until(lambda: len(serve.children(recursive=True)) >= 4)
    return serve.children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def named(serve: psutil.Process, word: str, but: int = 0) -> psutil.Process | None:
    """The child with this word in its command line, zombies and the process `but` apart."""
    for child in serve.children():
        try:
            if child.pid != but and word in " ".join(child.cmdline()):
                return child
        except psutil.NoSuchProcess:  # a zombie has no command line any more
            continue
    return None


def came_back(serve: psutil.Process, word: str, before: int) -> bool:
    return named(serve, word, but=before) is not None


@pytest.mark.e2e
def test_ctrl_c_leaves_no_process_behind(short_folder: Path) -> None:
    with serving(settings_in(short_folder)) as serve:
        family = family_of(serve)
        assert len(family) >= 4
        serve.send_signal(signal.SIGINT)
        assert serve.wait(timeout=25) == 0
        assert gone(family)


@pytest.mark.e2e
def test_kill_9_of_the_supervisor_leaves_no_process_behind(short_folder: Path) -> None:
    with serving(settings_in(short_folder)) as serve:
        family = family_of(serve)
        serve.kill()
        until(lambda: gone(family), 20)


@pytest.mark.e2e
def test_every_child_that_is_killed_comes_back(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    with serving(settings) as serve:
        family_of(serve)
        for word in ("valkey-server", "uvicorn", "worker"):
            old = named(serve, word)
            assert old is not None
            old.kill()
            until(partial(came_back, serve, word, old.pid))
        until(lambda: answers(settings))
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(timeout=25) == 0


def test_two_stacks_do_not_share_a_data_folder(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    with Stack(settings, worker=False) as stack:
        stack.wait_until_ready()
        other = Settings(data_dir=settings.data_dir, port=free_port(), bundle=settings.bundle)
        with pytest.raises(StackError, match="Another `alignda serve` is running"), Stack(other, worker=False):
            pass
        assert answers(settings)


def test_a_taken_port_is_named(short_folder: Path) -> None:
    import socket

    settings = settings_in(short_folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.port))
        taken.listen()
        with pytest.raises(StackError, match=f"127.0.0.1:{settings.port}"), Stack(settings, worker=False):
            pass


def test_a_socket_path_that_is_too_long_is_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="shorter ALIGNDA_DATA_DIR"):
        Stack(Settings(data_dir=tmp_path / ("x" * 100), bundle=tmp_path))


def test_a_child_that_fails_to_start_is_told_with_its_log(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    (settings.data_dir).mkdir()
    (settings.data_dir / "catalogue.sqlite").write_text("this is no database, and it is long enough to be refused" * 9)
    with Stack(settings, worker=False) as stack, pytest.raises(StackError, match="not a database"):
        stack.wait_until_ready(seconds=60)


def test_the_broker_keeps_its_messages_on_disk(short_folder: Path) -> None:
    import redis

    settings = settings_in(short_folder)
    with Stack(settings, worker=False):
        broker = redis.Redis(unix_socket_path=str(settings.broker_socket))
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
        assert {name: broker.config_get(name)[name] for name in wanted} == wanted
        broker.lpush("kept", "message")
    with Stack(settings, worker=False):
        assert redis.Redis(unix_socket_path=str(settings.broker_socket)).lrange("kept", 0, -1) == [b"message"]


def test_a_child_that_dies_again_and_again_is_restarted_more_and_more_slowly(tmp_path: Path) -> None:
    child = Child("short-lived", [sys.executable, "-c", "pass"], tmp_path / "log")
    child.start()
    told: list[str] = []
    deadline = time.monotonic() + 4.0
    while time.monotonic() < deadline:
        if line := child.poll():
            told.append(line)
        time.sleep(0.02)
    child.stop()
    pauses = [line.split(" again in ")[1].split(" s")[0] for line in told if "starting again in" in line]
    assert pauses[:3] == ["0.5", "1.0", "2.0"]
    assert 2 <= child.restarts <= 3


def test_stopping_a_child_ends_what_it_started(tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    child = Child("parent", [sys.executable, "-c", program], tmp_path / "log", patience=3)
    child.start()
    until(lambda: (tmp_path / "log").read_text().strip() != "", 10)
    grandchild = psutil.Process(int((tmp_path / "log").read_text()))
    child.stop()
    until(lambda: gone([grandchild]), 5)
