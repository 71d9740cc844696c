"""The dashboard and the rules speak PromQL, and only of metrics that exist."""

from collections.abc import Iterator
from itertools import combinations

import promql_parser
import pytest
import yaml

from tests.deploy.documented import OF_PROMETHEUS, ROOT, dashboard, documented_series, panels, rules
from tests.deploy.panels import VARIABLES, panel_queries, with_variables


def expressions() -> list[tuple[str, str]]:
    annotations = [(note["name"], with_variables(note["expr"])) for note in dashboard()["annotations"]["list"]]
    named_rules = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    return [*panel_queries(), *annotations, *variables(), *named_rules]


def variables() -> Iterator[tuple[str, str]]:
    """The selectors inside label_values(SELECTOR, LABEL), from which Grafana offers choices."""
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            selector, _ = variable["query"]["query"].removeprefix("label_values(").rsplit(",", 1)
            yield variable["name"], selector


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """All vector selectors of an expression, those inside ranges too."""
    found: list[promql_parser.VectorSelector] = []

    def note(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    yield from found


def known_series() -> dict[str, frozenset[str]]:
    every = documented_series() | OF_PROMETHEUS
    recorded = {rule["record"]: next(selectors(rule["expr"])).name for rule in rules() if "record" in rule}
    return every | {name: every[source or ""] for name, source in recorded.items()}


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_every_expression_parses(name: str, expression: str) -> None:
    assert promql_parser.parse(expression) is not None, name


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_every_expression_asks_only_for_documented_metrics_and_labels(name: str, expression: str) -> None:
    known = known_series()
    asked = list(selectors(expression))
    assert asked, f"{name} asks for nothing"
    for selector in asked:
        assert selector.name in known, f"{name}: no metric is called {selector.name}"
        labels = {matcher.name for matcher in selector.matchers.matchers}
        allowed = known[selector.name] | {"job", "instance"}
        assert labels <= allowed, f"{name}: {selector.name} has no label {labels - allowed}"


def test_every_documented_metric_is_on_the_dashboard() -> None:
    shown = {selector.name for _, expression in panel_queries() for selector in selectors(expression)}
    assert set(documented_series()) - shown == {"alignda_http_request_seconds_sum"}


def test_every_panel_says_what_it_shows_and_asks_the_chosen_data_source() -> None:
    for panel in panels():
        assert panel["description"], panel["title"]
        for asker in (panel, *panel["targets"]):
            assert asker["datasource"]["uid"] == "${datasource}", panel["title"]


def test_panels_do_not_overlap_and_have_names_and_ids_of_their_own() -> None:
    every = dashboard()["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    assert len({panel["title"] for panel in every}) == len(every)
    for one, other in combinations([panel["gridPos"] for panel in every], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_every_variable_of_a_query_is_defined_by_the_dashboard_or_by_grafana() -> None:
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]} - {"datasource"}
    assert {name for name in VARIABLES if not name.startswith("__")} == defined


def test_every_alert_says_how_grave_it_is_what_happened_and_what_to_do() -> None:
    for rule in (rule for rule in rules() if "alert" in rule):
        assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
        assert rule["annotations"]["summary"] and rule["annotations"]["description"], rule["alert"]


def test_grafana_is_provisioned_with_this_prometheus_and_this_folder() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in compose
    (provider,) = yaml.safe_load((provisioning / "dashboards/alignda.yml").read_text())["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
