"""What the benchmarks share: the world of the validation year, and how results are written."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.assimilation import Assimilator
from models.bundle import SHIPPED
from models.evaluation.report import provenance
from models.evaluation.scoring import CaseScores
from models.evaluation.summary import summarise
from models.evaluation.truth_run import TruthRun
from models.evaluation.world import World

FIRST, LAST = datetime(2020, 1, 5, tzinfo=UTC), datetime(2020, 12, 25, tzinfo=UTC)  # no state of 2021 is read
SCORES = {
    "mse": "mse_analysis_mean",
    "mse_member": "mse_analysis_member",
    "z500": "wrmse_z500_analysis_mean",
    "crps": "crps",
    "geo_score": "geo_score",
    "seconds": "seconds",
    "evaluations": "evaluations",
}
Row = dict[str, Any]


def validation_world(nature: Path, device: str = "cpu") -> World:
    """The shipped bundle beside the validation year of a nature run."""
    assimilator = Assimilator(SHIPPED, device)
    truth = TruthRun(nature, assimilator.spec)
    return World.of(assimilator, truth, truth, truth.within(FIRST, LAST))


def scores_of(cases: Sequence[CaseScores], world: World) -> Row:
    """Means over cases of `SCORES` and the spread-skill ratio over all channels."""
    summary = summarise(cases, world.assimilator.spec, world.scorer.scale[:, 0, 0], timedelta(days=5))
    found = {key: summary.scores[name].estimate for key, name in SCORES.items()}
    return {**found, "spread_skill": summary.spread_skill.get("all"), "cases": len(cases)}


def show(row: Row) -> Row:
    """Print a row as it is found."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in row.items()}), flush=True)
    return row


def write(path: Path, world: World, seed: int, rows: Sequence[Row], **more: Any) -> None:
    """The results with command, date, machine, seed and the digest of the bundle."""
    told = json.loads(provenance(world, SHIPPED).model_dump_json())
    path.write_text(json.dumps({"provenance": told, "seed": seed, **more, "rows": list(rows)}, indent=1) + "\n")
