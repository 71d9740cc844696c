"""Regenerates the figures of docs/science.md from the committed configuration benchmarks/science.yaml (hours to days).

    python -m benchmarks.science --nature nature-3.nc --work science-work
    python -m benchmarks.science --nature nature-3.nc --work science-work --only table-1-guidance cycle-60

Results are written into benchmarks/results, each with command, seed, digest of the bundle, machine and date. What has a
result of the present bundle and these options is left alone; `--again` computes it anew. A run that was stopped goes on where it was.
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
from models.evaluation.report import alignment_digests, bundle_digest

HERE = Path(__file__).parent
RESULTS = HERE / "results"
Configuration = dict[str, Any]


def configuration() -> Configuration:
    """benchmarks/science.yaml."""
    read: Configuration = yaml.safe_load((HERE / "science.yaml").read_text())
    return read


def usable(methods: list[str], alignments: list[str]) -> list[str]:
    """The methods whose alignment, if they name one, exists; the others are told."""
    kept = []
    for method in methods:
        name = named_alignment(method)
        if name is None or name in alignments:
            kept.append(method)
        else:
            print(f"left out, there is no such alignment: {method}", flush=True)
    return kept


def result_file(name: str) -> str:
    """Relative to the root of the project, where the commands run: results name no folder of a machine."""
    return str((RESULTS / f"{name}.json").relative_to(HERE.parent))


def evaluation(asked: Configuration, name: str, nature: Path, work: Path, alignments: list[str]) -> list[str]:
    """The arguments of `alignda evaluate` for one entry."""
    entry = asked["evaluate"][name]
    arguments = ["evaluate", entry["kind"], "--truth", str(nature)]
    arguments += ["--from", str(asked["period"]["from"]), "--to", str(asked["period"]["to"])]
    arguments += ["--seed", str(entry.get("seed", asked["seed"])), "--reference", entry["reference"]]
    for option, value in entry["options"].items():
        arguments += [f"--{option}", str(value)]
    for method in usable(entry["methods"], alignments):
        arguments += ["--method", method]
    return [*arguments, "--work", str(work / name), "--json", result_file(name)]


def commands(asked: Configuration, nature: Path, work: Path) -> Iterator[tuple[str, list[str]]]:
    """Name of the result and the command that makes it."""
    alignments = alignment_names(SHIPPED)
    for name in asked["evaluate"]:
        yield name, [sys.executable, "-m", "alignda", *evaluation(asked, name, nature, work, alignments)]
    for name, (module, *arguments) in asked["benchmarks"].items():
        command = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--out", result_file(name)]
        yield name, [*command, "--nature", str(nature)]


def is_done(path: Path, command: list[str], digest: str) -> bool:
    """Whether there is a result of this bundle (or of none), and of an evaluation with these options, methods and
    alignments."""
    if not path.exists():
        return False
    provenance = json.loads(path.read_text()).get("provenance", {})
    if "evaluate" in command:
        if _asked(provenance["command"]) != _asked(command):
            return False
        methods = [text for option, text in _asked(command) if option == "--method"]
        if provenance.get("alignments") != alignment_digests(SHIPPED, methods):
            return False
    return provenance.get("bundle_sha256") in (digest, "random weights")


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
    asked, digest = configuration(), bundle_digest(SHIPPED)
    unknown = set(options.only or ()) - {*asked["evaluate"], *asked["benchmarks"]}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))} in science.yaml")
    for name, command in commands(asked, options.nature, options.work):
        if options.only and name not in options.only:
            continue
        done = is_done(RESULTS / f"{name}.json", command, digest) and not options.again
        print(f"{name}: {'done' if done else ' '.join(command)}", flush=True)
        if not done and not options.list:
            subprocess.run(command, check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
