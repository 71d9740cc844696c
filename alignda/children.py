"""One supervised child process: started in its own process group, tied to our life, restarted with back-off.

A child is killed as a group, so that what it started itself (Celery's pool) goes with it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
FIRST_PAUSE = 0.5  # s, doubled with every death in a row
LONGEST_PAUSE = 30.0  # s
STEADY_AFTER = 60.0  # s alive: the next death counts as the first again


def tied_to_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a forked child runs before exec so that the kernel signals it when its parent dies, by kill -9 too.

    Linux only (elsewhere None: the parent's orderly stop is all there is). The parent is the THREAD that
    forks: start children from a thread that lives as long as they should.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def tie() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # died between fork and prctl: nobody is left to signal us
            os._exit(1)

    return tie


@dataclass
class Child:
    """A command that should be running. `poll()` notices its death and starts it again when its pause is over."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    death_signal: signal.Signals = signal.SIGTERM
    patience: float = 10.0  # s between the polite signal and SIGKILL
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0
    _pause: float = FIRST_PAUSE
    _next_start: float = 0.0

    def start(self) -> None:
        """Start the command with its output appended to the log. Raises OSError when it cannot be executed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
                preexec_fn=tied_to_parent(self.death_signal),  # noqa: PLW1509 - two system calls, no Python lock
            )
        self._started = time.monotonic()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def poll(self) -> str | None:
        """Look after the child once; returns a line for the log when something happened, else None."""
        now = time.monotonic()
        if self.alive:
            return None
        if self.process is not None:
            code = self.process.returncode
            self._kill_group()
            self.process = None
            if now - self._started > STEADY_AFTER:
                self._pause = FIRST_PAUSE
            self._next_start = now + self._pause
            pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
            return f"{self.name} ended with {code}; starting again in {pause:.1f} s (see {self.log})"
        if now >= self._next_start:
            self.restarts += 1
            self.start()
            return f"{self.name} started again ({self.restarts})"
        return None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself, if it lives."""
        if self.process is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """SIGTERM, wait for `patience` seconds (not at all once `hurry()` is true), then SIGKILL to the group."""
        if self.process is None:
            return
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + self.patience
        while self.alive and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        self._kill_group()
        self.process.wait()
        self.process = None

    def tail(self, lines: int = 20) -> str:
        """The last lines of the child's log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _kill_group(self) -> None:
        if self.process is not None:
            # the group outlives its leader: it still holds whatever the leader started
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
