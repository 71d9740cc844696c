"""Alignments of a bundle on disk: `alignments/<name>.safetensors` (a low-rank change) and its card `<name>.json`."""

import os
from pathlib import Path
from typing import Any, Literal

from models.specification import Frozen

FOLDER = "alignments"


class ScoreChange(Frozen):
    """One score on the validation cases: means before and after, relative change in per cent with 95 % interval."""

    before: float
    after: float
    change_percent: float
    low_percent: float
    high_percent: float


class AlignmentCard(Frozen):
    """What an alignment is, what it was made from, and what it does."""

    format_version: Literal[1] = 1
    name: str
    description: str
    method: str
    seed: int
    rank: int
    base_denoiser: str
    """sha256 of the `denoiser.safetensors` that it changes."""
    sha256: str
    """Of the change itself, `<name>.safetensors`."""
    recipe: dict[str, Any]
    scores: dict[str, ScoreChange]
    """On backgrounds of the validation period, unguided samples; docs/alignment.md defines each."""
    cost: dict[str, float]
    environment: dict[str, str]


def alignment_names(bundle: Path) -> list[str]:
    """Alignments that lie in the folder of a bundle."""
    return sorted(path.stem for path in (bundle / FOLDER).glob("*.json"))


def weights_path(bundle: Path, name: str) -> Path:
    return bundle / FOLDER / f"{name}.safetensors"


def read_card(bundle: Path, name: str) -> AlignmentCard:
    """Raises pydantic.ValidationError for a wrong card, FileNotFoundError when there is none."""
    return AlignmentCard.model_validate_json((bundle / FOLDER / f"{name}.json").read_text())


def write_card(bundle: Path, card: AlignmentCard) -> None:
    """Write the card and the table of all alignments beside it (README.md)."""
    path = bundle / FOLDER / f"{card.name}.json"
    path.with_suffix(".tmp").write_text(card.model_dump_json(indent=1) + "\n")
    os.replace(path.with_suffix(".tmp"), path)
    lines = [
        "# Alignments of this bundle\n",
        "Low-rank changes of the denoiser, chosen by an experiment's `alignment`. Scores: change of unguided samples on",
        "the validation period, in per cent (docs/alignment.md).\n",
        "| name | method | sample MSE | mean MSE | CRPS | |",
        "|---|---|---|---|---|---|",
    ]
    for name in alignment_names(bundle):
        each = read_card(bundle, name)
        shown = [f"{each.scores[key].change_percent:+.2f}" for key in ("sample_mse", "mean_mse", "crps")]
        lines.append(f"| {each.name} | {each.method} | {' | '.join(shown)} | {each.description} |")
    (bundle / FOLDER / "README.md").write_text("\n".join(lines) + "\n")
