"""Regenerates the figures of docs/science.md from the committed configuration benchmarks/science.yaml (hours to days).

    python -m benchmarks.science --nature nature-3.nc --work science-work
    python -m benchmarks.science --nature nature-3.nc --work science-work --only table-1-guidance cycle-60

First the alignments that are compared are made beside the bundle, those that it does not have. Results are written into
benchmarks/results, each with command, seed, digests of bundle and code, machine and date. What has a result of the
present bundle, code and options is left alone; `--again` computes it anew. A run that was stopped goes on where it was.
The plots are drawn at last.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from models.alignment_card import alignment_names
from models.bundle import SHIPPED
from models.evaluation.options import named_alignment
from models.evaluation.report import alignment_digests, bundle_digest, code_digest

HERE = Path(__file__).parent
RESULTS = HERE / "results"
RECIPES = HERE.parent / "models" / "alignment" / "recipes"
Configuration = dict[str, Any]


def configuration() -> Configuration:
    """benchmarks/science.yaml."""
    read: Configuration = yaml.safe_load((HERE / "science.yaml").read_text())
    return read


def result_file(name: str) -> str:
    """Relative to the root of the project, where the commands run: results name no folder of a machine."""
    return str((RESULTS / f"{name}.json").relative_to(HERE.parent))


def evaluation(asked: Configuration, name: str, nature: Path, work: Path) -> list[str]:
    """The arguments of `alignda evaluate` for one entry."""
    entry = asked["evaluate"][name]
    arguments = ["evaluate", entry["kind"], "--truth", str(nature)]
    period = entry.get("period", asked["period"])
    arguments += ["--from", str(period["from"]), "--to", str(period["to"])]
    arguments += ["--seed", str(entry.get("seed", asked["seed"])), "--reference", entry["reference"]]
    for option, value in entry["options"].items():
        arguments += [f"--{option}", str(value)]
    for method in entry["methods"]:
        arguments += ["--method", method]
    return [*arguments, "--work", str(work / name), "--json", result_file(name)]


def commands(asked: Configuration, nature: Path, work: Path) -> Iterator[tuple[str, list[str]]]:
    """Name of the alignment or result, and the command that makes it."""
    for name in asked["align"]:
        recipe = RECIPES.relative_to(HERE.parent) / f"{name}.yaml"
        command = [sys.executable, "-m", "alignda", "align", "--config", str(recipe)]
        yield name, [*command, "--bundle", str(SHIPPED), "--work", str(work), "--nature", str(nature.parent)]
    for name in asked["evaluate"]:
        yield name, [sys.executable, "-m", "alignda", *evaluation(asked, name, nature, work)]
    for name, (module, *arguments) in asked["benchmarks"].items():
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--out", result_file(name)]
        yield name, [*command, "--nature", str(nature)]
    yield "plots", [sys.executable, "-m", "benchmarks.plots"]


def is_done(path: Path, command: list[str], bundle: str, code: str) -> bool:
    """Whether there is a result of this bundle (or of none), of this code, and of an evaluation with these options,
    methods and alignments; an alignment is done when the bundle has it."""
    if "align" in command:
        return path.stem in alignment_names(SHIPPED)
    if not path.exists():
        return False
    provenance = json.loads(path.read_text()).get("provenance", {})
    if "evaluate" in command:
        if _asked(provenance["command"]) != _asked(command):
            return False
        if provenance.get("alignments") != alignment_digests(SHIPPED, _methods(command)):
            return False
    if provenance.get("bundle_sha256") == "random weights":
        return True
    return bool(provenance.get("bundle_sha256") == bundle and provenance.get("code_sha256") == code)


def missing_alignments(command: list[str]) -> list[str]:
    """Those that methods of an evaluation name and the bundle does not have."""
    named = map(named_alignment, _methods(command)) if "evaluate" in command else ()
    return sorted({name for name in named if name} - set(alignment_names(SHIPPED)))


def _methods(command: list[str]) -> list[str]:
    return [text for option, text in _asked(command) if option == "--method"]


def _asked(command: list[str]) -> list[tuple[str, str]]:
    """Option and value of an evaluation, without the files, whose folders differ."""
    options = command[command.index("evaluate") + 2 :]
    pairs = zip(options[::2], options[1::2], strict=True)
    return sorted(pair for pair in pairs if pair[0] not in ("--truth", "--work", "--json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nature", type=Path, required=True, help="two years of `alignda nature --seed 3`")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true", help="show the commands, run nothing")
    options = parser.parse_args()
    asked, bundle, code = configuration(), bundle_digest(SHIPPED), code_digest()
    listed = list(commands(asked, options.nature, options.work))
    if unknown := set(options.only or ()) - {name for name, _ in listed}:
        parser.error(f"there is no {', '.join(sorted(unknown))} in science.yaml")
    for name, command in listed:
        if options.only and name not in options.only:
            continue
        done = is_done(RESULTS / f"{name}.json", command, bundle, code) and not options.again
        print(f"{name}: {'done' if done else ' '.join(command)}", flush=True)
        if done or options.list:
            continue
        if missing := missing_alignments(command):
            parser.error(
                f"{name} compares alignments that the bundle does not have; make them first: --only {' '.join(missing)}"
            )
        subprocess.run(command, check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
