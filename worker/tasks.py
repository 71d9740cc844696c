"""The Celery task: an id comes in, `worker.cycle` does the rest. Safe to run twice, at any time, anywhere."""

from functools import cached_property
from typing import TYPE_CHECKING

from celery import Celery, Task

from service.settings import Settings

if TYPE_CHECKING:
    from worker.runtime import Runtime

    BaseTask = Task[[int], str | None]
else:
    BaseTask = Task  # generic for the type checker only

RUN_CYCLE = "alignda.run_cycle"


class CycleTask(BaseTask):
    """A task that keeps a Runtime in each process that runs it; the parent, which only forks, never makes one."""

    abstract = True
    settings: Settings

    @cached_property
    def runtime(self) -> "Runtime":
        from worker.runtime import Runtime

        return Runtime.open(self.settings)


def register(app: Celery, settings: Settings) -> None:
    """Teach `app` the task `alignda.run_cycle(cycle_id)`."""

    @app.task(name=RUN_CYCLE, base=CycleTask, bind=True, settings=settings)
    def run_cycle(self: CycleTask, cycle_id: int) -> str | None:
        from worker.cycle import run_cycle as run

        return run(cycle_id, self.runtime)
