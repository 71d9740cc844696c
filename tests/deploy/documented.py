"""Which metrics there are: what docs/scores.md says, in the form in which PromQL sees it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/cycle-skill.json"
RULES = ROOT / "deploy/prometheus/rules/alignda.yml"
ROW = re.compile(r"^\| `(?P<name>alignda_\w+)` \| (?P<labels>[^|]*)\|(?P<unit>[^|]*)\|", re.MULTILINE)
OF_PROMETHEUS = {"up": frozenset({"job", "instance"})}


def documented_metrics() -> dict[str, frozenset[str]]:
    """Metric -> its labels, from the table in docs/scores.md."""
    text = (ROOT / "docs/scores.md").read_text()
    return {
        row["name"]: frozenset(label.strip() for label in row["labels"].split(",") if label.strip())
        for row in ROW.finditer(text)
    }


def documented_series() -> dict[str, frozenset[str]]:
    """Series -> its labels: a histogram is three series, one of them with the label `le`."""
    units = {row["name"]: row["unit"] for row in ROW.finditer((ROOT / "docs/scores.md").read_text())}
    series: dict[str, frozenset[str]] = {}
    for name, labels in documented_metrics().items():
        if "histogram" in units[name]:
            series |= {f"{name}_sum": labels, f"{name}_count": labels, f"{name}_bucket": labels | {"le"}}
        else:
            series[name] = labels
    return series


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def panels() -> Iterator[dict[str, Any]]:
    """The panels that show something (a row is only a heading)."""
    return (panel for panel in dashboard()["panels"] if panel["type"] != "row")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
