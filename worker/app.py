"""The Celery application: ids over a Redis-protocol broker, one prefork child per GPU, the catalogue owns the work.

Each setting below keeps a task from being lost, doubled or wedged when a worker or the broker dies.
"""

import os

from celery import Celery

from service.settings import Settings
from worker.tasks import register

HARD_LIMIT = 3600  # s; a cycle that takes longer is wedged
VISIBILITY_TIMEOUT = 2 * HARD_LIMIT + 600  # s; shorter, and Redis hands a running task to a second worker


def create_app(settings: Settings) -> Celery:
    """A Celery application for these settings. Loads no torch and opens no database: its children do."""
    app = Celery("alignda", broker=settings.broker_url, backend=None, set_as_current=False)
    app.conf.update(
        worker_pool="prefork",
        worker_prefetch_multiplier=1,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        task_time_limit=HARD_LIMIT,
        task_serializer="json",
        accept_content=["json"],
        broker_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a broker may stay away for long: keep trying
        # True would drop the running task when the broker goes away
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=True,
        worker_send_task_events=False,
    )
    register(app, settings)
    return app


def run_worker(settings: Settings, concurrency: int = 1) -> None:
    """Run a worker in this process until SIGTERM. On SIGTERM the children hand their cycles back and end at once."""
    # must be set before Celery installs its handlers: a warm shutdown would wait for the whole cycle
    os.environ["REMAP_SIGTERM"] = "SIGQUIT"
    app = create_app(settings)
    app.worker_main(
        [
            *("worker", "--pool=prefork", f"--concurrency={concurrency}", "--loglevel=INFO"),
            # they would only tell each other about workers, which the catalogue knows better
            *("--without-gossip", "--without-mingle"),
        ]
    )
