"""What Prometheus sees: skill of the newest completed cycle of every experiment, read from the catalogue at each
scrape, and the requests of this gateway. Every sample has a unit, in its name or as a label.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.catalogue import Catalogue
from service.catalogue.tables import Cycle, Score

ERROR_RATIOS = {"sigma_o_ratio": "observation", "sigma_b_ratio": "background"}
DFS_ESTIMATES = {"dfs": "members", "dfs_departures": "departures", "dfs_error": "error"}
BALANCE_KINDS = {"balance_geostrophic": "geostrophic", "balance_hydrostatic": "hydrostatic"}


class CatalogueCollector(Collector):
    """Reads the catalogue when scraped; holds no numbers itself."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def describe(self) -> Iterable[Metric]:
        """Nothing: the catalogue must not be read when the collector is registered."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families, each with every experiment's newest completed cycle."""
        skill = SkillFamilies()
        for experiment in self._catalogue.experiments.all():
            cycle = self._catalogue.cycles.newest_completed(experiment.id)
            if cycle is not None:
                skill.add(experiment.name, cycle, self._catalogue.scores.of_cycle(cycle.id))
        yield from skill.families()
        yield from self._work()

    def _work(self) -> Iterable[Metric]:
        cycles = GaugeMetricFamily("alignda_cycles", "Cycles by state.", labels=["experiment", "state"])
        for experiment, state, count in self._catalogue.cycles.counts_by_state():
            cycles.add_metric([experiment, state], count)
        yield cycles
        depth, oldest = self._catalogue.cycles.queue()
        yield GaugeMetricFamily("alignda_queue_depth", "Due cycles that no worker holds.", value=depth)
        yield GaugeMetricFamily(
            "alignda_oldest_waiting_cycle_seconds", "How long the oldest of them has been due.", value=oldest
        )
        batches = CounterMetricFamily("alignda_batches", "Batches of observations.", labels=["source", "status"])
        for source, status, count in self._catalogue.batches.totals():
            batches.add_metric([source, status], count)
        yield batches


class SkillFamilies:
    """The gauges about analyses and forecasts."""

    def __init__(self) -> None:
        self.rmse = GaugeMetricFamily(
            "alignda_rmse",
            "Area-weighted root-mean-square error against the posted verification, in the unit of the label.",
            labels=["experiment", "field", "variable", "level", "lead_hours", "unit"],
        )
        by_kind = ["experiment", "variable", "type"]
        departure_labels = ["experiment", "field", "variable", "type", "unit"]
        self.departure_rms = GaugeMetricFamily(
            "alignda_departure_rms", "Root mean square of observation minus field.", labels=departure_labels
        )
        self.departure_bias = GaugeMetricFamily(
            "alignda_departure_bias", "Mean of observation minus field.", labels=departure_labels
        )
        self.withheld_rms = GaugeMetricFamily(
            "alignda_withheld_rms",
            "Root mean square of observation minus field over the withheld observations.",
            labels=["experiment", "field", "variable", "unit"],
        )
        self.departure_count = GaugeMetricFamily(
            "alignda_departure_values", "Values assimilated (free run: compared).", labels=by_kind
        )
        self.chi_square = GaugeMetricFamily(
            "alignda_chi_square", "Mean squared O-B over its assumed variance; 1 is consistent.", labels=by_kind
        )
        self.error_ratio = GaugeMetricFamily(
            "alignda_error_ratio",
            "Diagnosed over assumed error (Desroziers et al. 2005); 1 is consistent.",
            labels=["experiment", "of", "variable", "type"],
        )
        self.dfs = GaugeMetricFamily(
            "alignda_dfs",
            "Degrees of freedom for signal: the sum of the influences of the observations.",
            labels=["experiment", "type", "estimate"],
        )
        self.observations = GaugeMetricFamily(
            "alignda_observations", "Observed values by reason code.", labels=["experiment", "reason"]
        )
        self.filters = GaugeMetricFamily(
            "alignda_filter_values",
            "Observed values that came into a filter of quality control and that it let pass.",
            labels=["experiment", "filter", "way"],
        )
        self.balance = GaugeMetricFamily(
            "alignda_balance_score",
            "Adherence to a balance, 0 (none) to 1 (perfect).",
            labels=["experiment", "field", "kind"],
        )
        self.spread_skill = GaugeMetricFamily(
            "alignda_spread_skill_ratio",
            "Ensemble spread over error of the mean; 1 is reliable.",
            labels=["experiment", "variable", "level"],
        )
        self.stages = GaugeMetricFamily(
            "alignda_stage_seconds", "Wall time of each stage.", labels=["experiment", "stage"]
        )
        self.valid_time = GaugeMetricFamily(
            "alignda_cycle_valid_timestamp_seconds",
            "Valid time of the newest completed cycle, to which the skill gauges belong.",
            labels=["experiment"],
        )

    def families(self) -> list[Metric]:
        """All of them, in a fixed order."""
        return list(vars(self).values())

    def add(self, experiment: str, cycle: Cycle, scores: Iterable[Score]) -> None:
        """The numbers of one cycle."""
        self.valid_time.add_metric([experiment], cycle.valid_time.timestamp())
        for stage, seconds in cycle.seconds.items():
            self.stages.add_metric([experiment, stage], seconds)
        for reason, count in Counter(cycle.counts.get("reasons", {})).items():
            self.observations.add_metric([experiment, reason], count)
        for check in cycle.counts.get("filters", []):
            self.filters.add_metric([experiment, check["filter"], "in"], check["in"])
            self.filters.add_metric([experiment, check["filter"], "out"], check["in"] - check["rejected"])
        for score in scores:
            if math.isfinite(score.value):
                self._add_score(experiment, score)

    def _add_score(self, experiment: str, score: Score) -> None:
        level = "" if score.level is None else f"{score.level:g}"
        if score.name == "rmse":
            lead = str(score.lead_hours or 0)
            self.rmse.add_metric([experiment, score.field, score.variable, level, lead, score.unit], score.value)
        elif score.name in {"departure_rms", "departure_bias"} and score.level is None:
            family = self.departure_rms if score.name == "departure_rms" else self.departure_bias
            family.add_metric([experiment, score.field, score.variable, score.type, score.unit], score.value)
        elif score.name == "withheld_rmse" and score.level is None:
            self.withheld_rms.add_metric([experiment, score.field, score.variable, score.unit], score.value)
        elif score.name == "departure_count":
            self.departure_count.add_metric([experiment, score.variable, score.type], score.value)
        elif score.name == "chi_square":
            self.chi_square.add_metric([experiment, score.variable, score.type], score.value)
        elif score.name in ERROR_RATIOS:
            self.error_ratio.add_metric([experiment, ERROR_RATIOS[score.name], score.variable, score.type], score.value)
        elif score.name in DFS_ESTIMATES:
            self.dfs.add_metric([experiment, score.type, DFS_ESTIMATES[score.name]], score.value)
        elif score.name in BALANCE_KINDS:
            self.balance.add_metric([experiment, score.field, BALANCE_KINDS[score.name]], score.value)
        elif score.name == "spread_skill_ratio" and score.field == "analysis":
            self.spread_skill.add_metric([experiment, score.variable, level], score.value)


def make_registry(catalogue: Catalogue) -> tuple[CollectorRegistry, Histogram]:
    """A registry of its own for one gateway, and its histogram of requests."""
    registry = CollectorRegistry()
    registry.register(CatalogueCollector(catalogue))
    ProcessCollector(registry=registry)
    requests = Histogram(
        "alignda_http_request_seconds",
        "Time from the request's first byte to the response's last.",
        ["route", "method", "status"],
        buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0),
        registry=registry,
    )
    return registry, requests


def route_template(scope: Scope) -> str:
    """The route of a request, such as `/v1/cycles/{cycle_id}`: a label per cycle would grow without bound."""
    template = getattr(scope.get("route"), "path", None)
    if template is None:
        return "unmatched"
    # A route knows its path within its router; the segments before that are the router's fixed prefix.
    parts, own = scope["path"].split("/"), template.split("/")[1:]
    return "/".join([*parts[: len(parts) - len(own)], *own])


class HasRequests(Protocol):
    """What a gateway offers to the timer."""

    @property
    def requests(self) -> Histogram:
        """The histogram of requests."""
        ...


class RequestTimer:
    """ASGI middleware that times requests by route. Event streams are left out: they last as long as their cycle."""

    METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and observe how long it took."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, content_type = 500, b""
        started = time.perf_counter()

        async def observed(message: Message) -> None:
            nonlocal status, content_type
            if message["type"] == "http.response.start":
                status = message["status"]
                content_type = dict(message.get("headers", ())).get(b"content-type", b"")
            await send(message)

        try:
            await self._app(scope, receive, observed)
        finally:
            if not content_type.startswith(b"text/event-stream"):
                self._observe(scope, status, time.perf_counter() - started)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_template(scope)
        method = scope["method"] if scope["method"] in self.METHODS else "other"
        gateway: HasRequests = scope["app"].state.gateway
        gateway.requests.labels(route, method, str(status)).observe(seconds)
