"""Keeping a lease alive while a cycle is worked on, and letting go of it when the worker is told to stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sqlalchemy.exc import OperationalError

from service.catalogue import Lease, StaleLease
from service.catalogue.leases import Leases

# what Celery sends to a child whose task it cancels: SIGQUIT where SIGTERM is remapped to it, as in worker.app
STOPPING = (signal.SIGTERM, signal.SIGQUIT)


class Interrupted(BaseException):
    """Told to stop: end here and hand the cycle back. Not an Exception, so that no stage swallows it."""


@contextmanager
def held(leases: Leases, lease: Lease, seconds: float) -> Iterator[None]:
    """Renew the lease four times in its `seconds` for as long as the block runs; a signal to stop raises Interrupted.

    A lost lease is noticed here early and by the next write at the latest, which raises StaleLease.
    """
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(seconds / 4):
            try:
                leases.heartbeat(lease, seconds)
            except StaleLease:
                return  # the stage's own next write will say so where it can be acted upon
            except OperationalError:
                continue  # a busy or briefly absent database: three more chances before the lease runs out

    thread = threading.Thread(target=beat, name=f"heartbeat-{lease.cycle_id}", daemon=True)
    thread.start()
    try:
        with _terminations_raised():
            yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _terminations_raised() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers; Celery's prefork children run tasks there
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
