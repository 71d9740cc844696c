"""Configuration and rules by Debian's promtool; every panel on a real Prometheus that scrapes real metrics."""

import subprocess
import time
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.documented import ROOT, documented_series, rules
from tests.deploy.panels import Prometheus, PrometheusMissing, run_panel_queries, scraping

RULE_TESTS = ROOT / "deploy/prometheus/tests/alignda_test.yml"


def check(promtool: Path, *arguments: str | Path) -> str:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_configuration_and_its_rules(promtool: Path, tmp_path: Path) -> None:
    (tmp_path / "rules").symlink_to(ROOT / "deploy/prometheus/rules")
    key, settings = tmp_path / "metrics-key", tmp_path / "prometheus.yml"
    key.write_text("0123456789abcdef")  # promtool looks for it; the compose file mounts it there
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    settings.write_text(text.replace("/run/secrets/metrics-key", str(key)))
    assert f"{len(rules())} rules found" in check(promtool, "check", "config", settings)


def test_every_alert_fires_on_its_case_and_not_on_its_neighbour(promtool: Path) -> None:
    assert "SUCCESS" in check(promtool, "test", "rules", RULE_TESTS)


def test_no_alert_is_without_a_case() -> None:
    cases = [case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


def test_the_documented_metrics_are_exactly_what_the_gateway_exports(metrics_url: str) -> None:
    """Fails when a metric or a label is added to service/metrics.py and not to docs/scores.md."""
    families = text_string_to_metric_families(httpx.get(metrics_url).text)
    samples = [sample for family in families for sample in family.samples if sample.name.startswith("alignda_")]
    exported = {sample.name: frozenset(sample.labels) for sample in samples if not sample.name.endswith("_created")}
    assert exported == documented_series()


@pytest.mark.slow
def test_every_panel_shows_data_from_a_real_prometheus(metrics_url: str) -> None:
    try:
        shown = run_panel_queries(metrics_url)
    except PrometheusMissing as missing:
        pytest.skip(f"no Prometheus: {missing}")
    assert len(shown) > 30
    assert [panel for panel, series in shown.items() if series == 0] == []


@pytest.mark.slow
def test_every_rule_can_be_evaluated_on_real_series(metrics_url: str) -> None:
    """Joins that are many-to-many on real labels fail only here."""
    try:
        with scraping(metrics_url) as prometheus:
            states = evaluated_rules(prometheus)
    except PrometheusMissing as missing:
        pytest.skip(f"no Prometheus: {missing}")
    assert {name: error for name, (health, error) in states.items() if health != "ok"} == {}
    assert len(states) == len(rules())


def evaluated_rules(prometheus: Prometheus) -> dict[str, tuple[str, str]]:
    """Rule -> (health, last error), once all have been evaluated."""
    deadline = time.monotonic() + 20
    while True:
        every = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        states = {rule["name"]: (rule["health"], rule.get("lastError", "")) for rule in every}
        if all(health != "unknown" for health, _ in states.values()) or time.monotonic() > deadline:
            return states
        time.sleep(0.2)
