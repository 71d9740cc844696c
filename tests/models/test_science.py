"""The committed configuration of `make science` against the commands that it calls."""

import json
from pathlib import Path

import click
import pytest

from alignda.cli import align
from alignda.evaluate.commands import evaluate
from benchmarks import science
from benchmarks.baselines import method_text, search
from models.alignment.recipe import AlignmentRecipe
from models.alignment_card import alignment_names, read_card
from models.evaluation.options import METHODS
from models.evaluation.report import alignment_digests, code_digest

ASKED = science.configuration()
RECIPES = {path.stem for path in (science.HERE.parent / "models/alignment/recipes").glob("*.yaml")}


@pytest.mark.parametrize("name", ASKED["evaluate"])
def test_every_evaluation_is_a_command_that_alignda_understands(name: str, tmp_path: Path) -> None:
    truth = tmp_path / "truth.nc"
    truth.touch()
    arguments = science.evaluation(ASKED, name, truth, tmp_path)
    command = evaluate.commands[arguments[1]]
    context = command.make_context(arguments[1], arguments[2:])
    year = 2020 if name == "cycle-choices" else 2021  # what is chosen by is not what is reported
    assert context.params["start"].year == context.params["end"].year == year
    assert context.params["reference"] in context.params["methods"]
    assert len(context.params["methods"]) == len(set(ASKED["evaluate"][name]["methods"]))
    assert {method.partition(":")[0] for method in context.params["methods"]} <= set(METHODS)


def test_an_evaluation_is_refused_while_an_alignment_that_it_compares_is_missing() -> None:
    shipped = alignment_names(science.SHIPPED)[0]
    command = ["alignda", "evaluate", "one-shot", "--method", "ours", "--method", f"ours:alignment={shipped}"]
    assert science.missing_alignments(command) == []
    assert science.missing_alignments([*command, "--method", "ours:steps=8,alignment=of-mars"]) == ["of-mars"]


def test_the_alignments_come_first_and_are_made_once(tmp_path: Path) -> None:
    listed = list(science.commands(ASKED, tmp_path / "nature-3.nc", tmp_path))
    assert [name for name, _ in listed][: len(ASKED["align"])] == ASKED["align"]
    for name, command in listed[: len(ASKED["align"])]:
        arguments = command[command.index("align") + 1 :]
        assert align.make_context("align", arguments).params["nature"] == tmp_path
        assert science.is_done(science.RESULTS / f"{name}.json", command, "", "") == (
            name in alignment_names(science.SHIPPED)
        )


@pytest.mark.parametrize("name", sorted(set(alignment_names(science.SHIPPED)) & RECIPES))
def test_a_shipped_alignment_is_what_its_recipe_makes(name: str) -> None:
    recipe = AlignmentRecipe.load(science.RECIPES / f"{name}.yaml")
    assert AlignmentRecipe.model_validate(read_card(science.SHIPPED, name).recipe) == recipe


def test_every_alignment_of_the_configuration_has_a_recipe() -> None:
    named = {
        part.partition("=")[2]
        for entry in ASKED["evaluate"].values()
        for method in entry["methods"]
        for part in method.partition(":")[2].split(",")
        if part.startswith("alignment=")
    }
    assert named and named <= set(ASKED["align"]) <= RECIPES


def test_a_result_of_fewer_cases_another_bundle_or_other_code_is_made_again(tmp_path: Path) -> None:
    result, command = tmp_path / "table.json", ["python", "-m", "alignda", "evaluate", "one-shot", "--cases", "40"]
    command += ["--method", "ours", "--method", "3dvar", "--json", "here/table.json"]
    assert not science.is_done(result, command, "bundle", "code")
    made = ["alignda", "evaluate", "one-shot", "--method", "3dvar", "--method", "ours", "--cases", "40"]
    told = {"command": made, "bundle_sha256": "bundle", "code_sha256": "code", "alignments": {}}
    result.write_text(json.dumps({"provenance": told}))
    assert science.is_done(result, command, "bundle", "code")
    assert not science.is_done(result, command, "other", "code")
    assert not science.is_done(result, command, "bundle", "other")
    made[-1] = "16"
    result.write_text(json.dumps({"provenance": told}))
    assert not science.is_done(result, command, "bundle", "code")


def test_a_result_of_an_alignment_that_was_trained_again_is_made_again(tmp_path: Path) -> None:
    name = alignment_names(science.SHIPPED)[0]
    result, command = tmp_path / "table.json", ["alignda", "evaluate", "one-shot", "--method", f"ours:alignment={name}"]
    digests = alignment_digests(science.SHIPPED, [f"ours:steps=8,alignment={name}"])
    assert list(digests) == [name]
    told = {"command": command, "bundle_sha256": "bundle", "code_sha256": "code", "alignments": digests}
    result.write_text(json.dumps({"provenance": told}))
    assert science.is_done(result, command, "bundle", "code")
    result.write_text(json.dumps({"provenance": {**told, "alignments": {name: "of last week"}}}))
    assert not science.is_done(result, command, "bundle", "code")


def test_the_digest_of_the_code_knows_what_an_evaluation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("assimilation.py", "training/loop.py", "nature/network.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("a = 1")
    monkeypatch.setattr("models.evaluation.report.MODELS", tmp_path)
    before = code_digest()
    (tmp_path / "training/loop.py").write_text("a = 2")
    assert code_digest() == before
    (tmp_path / "nature/network.py").write_text("a = 2")
    assert code_digest() != before


def test_unknown_options_would_be_noticed(tmp_path: Path) -> None:
    with pytest.raises(click.NoSuchOption):
        evaluate.commands["cycle"].make_context("cycle", ["--fraction", "0.1", "--days", "1"])


def test_the_search_keeps_the_best_value_of_each_option_and_tries_nothing_twice() -> None:
    tried: list[str] = []

    def run(texts: list[str]) -> list[dict[str, object]]:
        tried.extend(texts)
        return [{"method": text, "mse": abs(_value(text, "a") - 2) + abs(_value(text, "b") - 5)} for text in texts]

    rows = search(run, "letkf", {"a": 1, "b": 4}, {"a": (1, 2, 3), "b": (4, 5)})  # type: ignore[arg-type]
    assert tried == [method_text("letkf", {"a": a, "b": b}) for a, b in ((1, 4), (2, 4), (3, 4), (2, 5))]
    assert min(rows, key=lambda row: row["mse"])["method"] == "letkf:a=2,b=5"


def _value(text: str, option: str) -> float:
    return float(dict(part.split("=") for part in text.partition(":")[2].split(","))[option])
