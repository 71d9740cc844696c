"""Announcing cycles to the workers through Celery's broker, by the task's name: the gateway never imports a worker."""

from __future__ import annotations

from service.scheduling import PublishError

TASK = "alignda.run_cycle"


class CeleryPublisher:
    """Callable for the scheduler's relay. Messages carry a cycle id and nothing else."""

    def __init__(self, broker_url: str) -> None:
        from celery import Celery

        self._app = Celery("alignda-gateway", broker=broker_url, set_as_current=False)
        # A dead broker must be noticed within seconds: the relay tries again by itself.
        self._app.conf.update(
            task_ignore_result=True,
            broker_connection_timeout=2,
            broker_connection_retry=False,
            broker_transport_options={"socket_connect_timeout": 2, "socket_timeout": 5, "max_retries": 0},
        )

    def __call__(self, cycle_id: int) -> None:
        """Send the message. Raises PublishError when the broker does not take it."""
        from kombu.exceptions import OperationalError

        try:
            self._app.send_task(TASK, args=[cycle_id], ignore_result=True, retry=False)
        except (OperationalError, OSError) as error:
            raise PublishError(f"the broker does not take messages: {error}") from error

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
