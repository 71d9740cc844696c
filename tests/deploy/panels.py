"""Run every query of the dashboard on a real Prometheus that scrapes a real /metrics.

`run_panel_queries("http://127.0.0.1:8750/metrics")` -> {"panel title (A)": number of series}.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.deploy.documented import ROOT, panels
from tests.ports import free_port

# What Grafana would put in for "All", and for its own variables.
VARIABLES = {
    "__rate_interval": "1m",
    "__interval": "1m",
    "__range": "1m",
    "experiment": ".+",
    "free": ".*free.*",
    "level": ".+",
}
SCRAPES_BEFORE_QUERIES = 3  # rate() needs two


class PrometheusMissing(Exception):
    """Neither on PATH nor to be had from Debian's archive; the text says why."""


def prometheus_programs() -> Path:
    """The folder with `prometheus` and `promtool`: from PATH, else Debian's package in build/prometheus."""
    found = shutil.which("prometheus")
    if found and shutil.which("promtool"):
        return Path(found).parent
    fetched = subprocess.run(
        [ROOT / "deploy/get-prometheus.sh"], capture_output=True, text=True, timeout=300, check=False
    )
    if fetched.returncode != 0:
        raise PrometheusMissing(fetched.stderr.strip() or f"get-prometheus.sh ended with {fetched.returncode}")
    return Path(fetched.stdout.strip())


def with_variables(expression: str) -> str:
    """The expression with Grafana's variables filled in. Raises KeyError for one that the dashboard lacks."""
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda match: VARIABLES[match[1] or match[2]], expression)


def panel_queries() -> Iterator[tuple[str, str]]:
    """("panel title (refId)", expression) of every query on the dashboard."""
    for panel in panels():
        for target in panel["targets"]:
            yield f"{panel['title']} ({target['refId']})", with_variables(target["expr"])


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10.0)

    def get(self, path: str, **parameters: str) -> Any:
        """`data` of an API answer. Raises RuntimeError with Prometheus' own words when it refuses."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{path} {parameters}: {answer['error']}")
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an instant query returns now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def wait_for_scrapes(self, number: int, seconds: float) -> None:
        """Raises TimeoutError with the target's last error when the metrics cannot be scraped."""
        deadline = time.monotonic() + seconds
        while not self.query(f'sum_over_time(up{{job="alignda-gateway"}}[5m]) >= {number}'):
            if time.monotonic() > deadline:
                errors = [target["lastError"] for target in self.get("targets")["activeTargets"]]
                raise TimeoutError(f"{number} scrapes did not succeed within {seconds:.0f} s: {errors}")
            time.sleep(0.2)


def configuration(metrics_url: str, api_key: str | None = None) -> dict[str, Any]:
    """deploy/prometheus/prometheus.yml, with only the gateway's job, pointed at `metrics_url`, every second."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    loaded["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    loaded["rule_files"] = [str(ROOT / "deploy/prometheus" / pattern) for pattern in loaded["rule_files"]]
    gateway = next(job for job in loaded["scrape_configs"] if job["job_name"] == "alignda-gateway")
    url = urlsplit(metrics_url)
    gateway |= {"scheme": url.scheme, "metrics_path": url.path, "static_configs": [{"targets": [url.netloc]}]}
    gateway.pop("authorization", None)
    if api_key is not None:
        gateway["authorization"] = {"credentials": api_key}
    loaded["scrape_configs"] = [gateway]
    return loaded


@contextmanager
def scraping(metrics_url: str, api_key: str | None = None) -> Iterator[Prometheus]:
    """A Prometheus on loopback that has scraped `metrics_url` a few times. Raises PrometheusMissing."""
    program = prometheus_programs() / "prometheus"
    with tempfile.TemporaryDirectory(prefix="alignda-prometheus-") as folder:
        settings = Path(folder) / "prometheus.yml"
        settings.write_text(yaml.safe_dump(configuration(metrics_url, api_key)))
        address = f"127.0.0.1:{free_port()}"
        log = Path(folder) / "log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                [
                    program,
                    f"--config.file={settings}",
                    f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={address}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        try:
            prometheus = Prometheus(f"http://{address}")
            deadline = time.monotonic() + 30
            while not prometheus.ready():
                if server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Prometheus did not start:\n{log.read_text()}")
                time.sleep(0.1)
            prometheus.wait_for_scrapes(SCRAPES_BEFORE_QUERIES, seconds=30)
            yield prometheus
        finally:
            server.terminate()
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def run_panel_queries(metrics_url: str, api_key: str | None = None) -> dict[str, int]:
    """How many series each query of the dashboard returns when Prometheus scrapes `metrics_url` (a full URL).

    Takes about five seconds. Raises PrometheusMissing, TimeoutError (cannot be scraped), RuntimeError (bad query).
    """
    with scraping(metrics_url, api_key) as prometheus:
        return {panel: len(prometheus.query(expression)) for panel, expression in panel_queries()}
