"""The documentation names what the code has: reason codes, settings, fallbacks, commands, endpoints, tests."""

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path

import click
import numpy as np
import pytest
from pydantic import BaseModel

from alignda.cli import main
from alignda.demo.cycle_row import CycleRow
from models.evaluation import intervals, ranks, report, scoring, summary
from models.evaluation.options import METHODS
from models.specification import BundleSpec
from service.app import create_app
from service.observations.reasons import DESCRIPTIONS, Reason
from service.observations.table import SCHEMA, TYPES, VARIABLES
from service.settings import Settings
from worker.cycle import STAGES
from worker.stages.filters import FILTERS

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
CLIENT_VARIABLES = {"ALIGNDA_URL", "ALIGNDA_API_KEY"}  # read by alignda/remote.py
FENCED = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^alignda ([a-z][^#|\n]*)", re.MULTILINE)


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text().replace("\\\n", " ")


def table_rows(name: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the tables under a heading, without their headings."""
    section = text_of(name).split(f"{heading}\n", 1)[1]
    section = re.split(r"^#{2,3} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in rows if row[0].startswith("`") or row[0].isdigit()]


def all_commands(
    group: click.Command = main, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with its words."""
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from all_commands(command, (*path, name))
    else:
        yield path, group


def shown_commands(text: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """(the words of the command, the rest) of each `alignda ...` in code; words without a command raise KeyError."""
    blocks = "".join(FENCED.findall(text)).replace("\\\n", " ")
    inline = "\n".join(re.findall(r"`([^`\n]+)`", FENCED.sub("", text)))
    shown = []
    for match in COMMAND.finditer(f"{blocks}\n{inline}"):
        words, node, path = match[1].split(), main, ()
        while isinstance(node, click.Group) and words and not words[0].startswith("-"):
            node, path = node.commands[words[0]], (*path, words.pop(0))
        shown.append((path, words))
    return shown


def test_every_reason_code_is_documented_with_its_words() -> None:
    rows = table_rows("observations.md", "## Reason codes")
    documented = {(int(row[0]), row[1].strip("`"), row[2]) for row in rows}
    assert documented == {(int(reason), reason.name, DESCRIPTIONS[reason]) for reason in Reason}


def test_the_filters_are_documented_in_their_order() -> None:
    rows = table_rows("observations.md", "## Filters of a cycle")
    assert [(row[0].strip("`"), row[1].strip("`")) for row in rows] == [(f.name, f.reason.name) for f in FILTERS]


def test_every_column_type_and_variable_of_the_table_is_documented() -> None:
    section = text_of("observations.md").split("## The table", 1)[1].split("## Reason codes", 1)[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert {*SCHEMA.names, *TYPES, *VARIABLES} <= named


def test_every_setting_is_documented_with_its_default() -> None:
    documented = {row[0].strip("`"): row[1].strip("`") for row in table_rows("operating.md", "## Settings")}
    settings = {f"ALIGNDA_{name.upper()}": field.default for name, field in Settings.model_fields.items()}
    assert set(documented) == set(settings)
    for name, default in settings.items():
        if isinstance(default, str | int | float | Path):
            assert documented[name] == str(default), name


def test_no_page_names_a_setting_that_does_not_exist() -> None:
    known = {f"ALIGNDA_{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES
    named = {word for page in DOCS for word in re.findall(r"\bALIGNDA_[A-Z_]+\b", page.read_text())}
    assert named <= known


def test_every_fallback_of_a_cycle_is_documented() -> None:
    reasons = set()
    for file in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fallback":
                assert isinstance(node.args[0], ast.Constant), f"{file}: name the reason where it is given"
                reasons.add(node.args[0].value)
    assert {row[0].strip("`") for row in table_rows("operating.md", "### Degraded cycles")} == reasons


def test_the_stages_are_documented_in_their_order() -> None:
    rows = table_rows("architecture.md", "## The story of a cycle")
    assert [(row[0].strip("`"), row[1].strip("`")) for row in rows] == [(s.state.value, s.name) for s in STAGES]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    commands = dict(all_commands())
    for path, words in shown_commands(page.read_text()):
        if path not in commands:  # a group, or `alignda ...` itself: it has --help
            assert set(words) <= {"--help", "..."}, (path, words)
            continue
        options = {
            option for parameter in commands[path].params for option in parameter.opts + parameter.secondary_opts
        }
        given = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert given <= options, (path, given - options)


def test_every_command_of_a_running_service_is_shown() -> None:
    shown = {path for page in DOCS for path, _ in shown_commands(page.read_text())}
    made_elsewhere = {("nature",), ("train",), ("experiments", "list")}
    assert {path for path, _ in all_commands()} - made_elsewhere <= shown


def test_every_option_of_the_demo_is_documented() -> None:
    options = {option for parameter in main.commands["demo"].params for option in parameter.opts}
    assert {row[0].strip("`") for row in table_rows("demo.md", "## Options")} == options


def test_the_summary_is_documented_as_it_is_written() -> None:
    keys = {row[0].strip("`") for row in table_rows("demo.md", "## summary.json")}
    of_cycles = {match[1] for key in keys if (match := re.match(r"cycles\[\]\.(\w+)", key))}
    assert of_cycles == {field.name for field in fields(CycleRow)}
    stages = "{" + ",".join(stage.name for stage in STAGES) + "}"
    assert f"cycles[].seconds.{stages}" in keys


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_endpoint_named_exists(page: Path) -> None:
    paths = create_app(Settings()).openapi()["paths"]
    templates = [re.compile(re.sub(r"\{\w+\}", r"[^/]+", path)) for path in paths]
    for named in re.findall(r"/v1/[\w/{}.-]*[\w}]", page.read_text()):
        assert any(template.fullmatch(named) for template in templates), named


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_every_file_and_test_named_exists(page: Path) -> None:
    text = page.read_text()
    defined = {
        name for file in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    assert set(re.findall(r"`(test_\w+)`", text)) <= defined
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / target).exists(), target
    for named in re.findall(r"`((?:alignda|service|worker|models|deploy|tests)/[\w/.-]*)`", text):
        assert (ROOT / named).exists(), named


def test_every_option_of_an_evaluation_is_documented() -> None:
    rows = {row[0].strip("`"): row[1] for row in table_rows("evaluation.md", "## Options")}
    commands = dict(all_commands())
    kinds = {kind: {o for p in commands["evaluate", kind].params for o in p.opts} for kind in ("one-shot", "cycle")}
    assert set(rows) == kinds["one-shot"] | kinds["cycle"]
    (block,) = [p for p in commands["evaluate", "cycle"].params if "--block-days" in p.opts]
    assert block.default == 5.0 and "five by default" in text_of("evaluation.md")
    for option, kind in rows.items():
        assert {name for name, options in kinds.items() if option in options} == (
            {"one-shot", "cycle"} if kind == "both" else {kind}
        ), option


def test_every_method_of_an_evaluation_is_documented() -> None:
    rows = table_rows("evaluation.md", "## Methods")
    assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row[0])} == set(METHODS)


def test_the_document_of_an_evaluation_is_documented_as_it_is_written() -> None:
    parts: dict[str, type[BaseModel]] = {
        "": report.Report,
        "provenance.": report.Provenance,
        "methods.*.": report.MethodReport,
        "methods.*.summary.": summary.MethodSummary,
        "methods.*.summary.scores.*.": intervals.Interval,
        "methods.*.summary.ranks.*.": ranks.Flatness,
        "methods.*.summary.spectra.*.": scoring.Spectra,
        "methods.*.against_reference.*.": intervals.Comparison,
        "methods.*.against_unaligned.*.": intervals.Comparison,
        "methods.*.cases[].": report.Case,
    }
    keys = {row[0].strip("`") for row in table_rows("evaluation.md", "## The document")}
    assert keys == {f"{prefix}{field}" for prefix, model in parts.items() for field in model.model_fields}


def test_every_score_of_an_evaluation_is_documented_with_its_unit() -> None:
    spec = BundleSpec.model_validate_json((ROOT / "models/bundles/speedy-t31/bundle.json").read_text())
    rows = table_rows("evaluation.md", "## Scores")
    documented = [(pattern, row[1]) for row in rows for pattern in re.findall(r"`([\w*]+)`", row[0])]
    scores = [(s.name, s.unit) for s in summary.all_scores(spec, np.ones(len(spec.channels)))]
    for pattern, unit in documented:
        assert any(fnmatchcase(name, pattern) and unit == of for name, of in scores), pattern
    for name, unit in scores:
        assert any(fnmatchcase(name, pattern) and unit == of for pattern, of in documented), name
