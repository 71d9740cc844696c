"""The report of an evaluation: a JSON document (docs/evaluation.md describes every key) and a table for the terminal."""

import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.alignment_card import weights_path
from models.bundle import file_digest
from models.evaluation.intervals import Comparison, Interval
from models.evaluation.ledger import Ledger
from models.evaluation.options import named_alignment, unaligned
from models.evaluation.scoring import CaseScores
from models.evaluation.summary import MethodSummary, all_scores, channel_name, compare, summarise
from models.evaluation.world import World
from models.specification import Frozen

FORMAT = "alignda.evaluation/1"
MODELS = Path(__file__).parents[1]
MAKERS = {"training", "alignment"}
COLUMNS = {
    "mse_analysis_mean": "MSE",
    "mse_analysis_member": "MSE 1",
    "wrmse_z500_analysis_mean": "z500",
    "mse_48h_mean": "48h MSE",
    "wrmse_z500_48h_mean": "48h z500",
    "crps": "CRPS",
    "geo_score": "Geo",
    "hydro_score": "Hydro",
    "brier_wind": "Brier w",
    "seconds": "s",
    "evaluations": "evals",
}


class Provenance(Frozen):
    """How the figures came about."""

    command: list[str]
    date: datetime
    machine: str
    device: str
    threads: int
    python: str
    torch: str
    bundle: str
    bundle_sha256: str
    code_sha256: str = ""
    alignments: dict[str, str]
    truth: str


class Case(Frozen):
    """One case in short: what a curve over time needs. `wrmse` of the analysis mean, SI."""

    valid_time: datetime
    observations: int
    mse: float
    mse_member: float
    mse_background: float
    mse_48h: float | None
    crps: float
    wrmse: dict[str, float]
    seconds: float


class MethodReport(Frozen):
    """A method: its summary, how it stands to the reference and, aligned, to itself without the alignment, its cases."""

    summary: MethodSummary
    against_reference: dict[str, Comparison] | None
    against_unaligned: dict[str, Comparison] | None
    cases: list[Case]


class Report(Frozen):
    """The whole document."""

    format: str
    kind: str
    provenance: Provenance
    protocol: dict[str, Any]
    block_hours: float
    reference: str
    units: dict[str, str]
    failures: dict[str, str]
    methods: dict[str, MethodReport]


@dataclass(frozen=True)
class Run:
    """What was asked: kind (one-shot or cycle), folder of the bundle, protocol, reference method, length of blocks."""

    kind: str
    bundle: Path
    protocol: dict[str, Any]
    reference: str
    block: timedelta


def bundle_digest(folder: Path) -> str:
    """One sha256 for a bundle without its alignments: of the lines "name sha256" of bundle.json and the weights beside
    it, sorted by name."""
    files = [folder / "bundle.json", *folder.glob("*.safetensors")]
    lines = sorted(f"{path.name} {file_digest(path)}\n" for path in files)
    return sha256("".join(lines).encode()).hexdigest()


def code_digest() -> str:
    """One sha256 of the source that an evaluation runs: of the lines "path sha256" of the modules in models/, without those
    that make bundles and alignments, which have digests of their own."""
    modules = [path.relative_to(MODELS) for path in MODELS.rglob("*.py")]
    lines = sorted(
        f"{path.as_posix()} {file_digest(MODELS / path)}\n" for path in modules if path.parts[0] not in MAKERS
    )
    return sha256("".join(lines).encode()).hexdigest()


def alignment_digests(bundle: Path, methods: Iterable[str]) -> dict[str, str]:
    """sha256 of the weights of every alignment that these methods name."""
    names = sorted({name for name in map(named_alignment, methods) if name})
    return {name: file_digest(weights_path(bundle, name)) for name in names}


def provenance(world: World, bundle: Path, methods: Iterable[str] = ()) -> Provenance:
    """Of this process, now, and of the alignments that the methods name."""
    spec, device = world.assimilator.spec, world.assimilator.device
    return Provenance(
        command=[Path(sys.argv[0]).name, *sys.argv[1:]],
        date=datetime.now(UTC).replace(microsecond=0),
        machine=f"{platform.machine()} {platform.system()}, {_processor()}",
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        torch=torch.__version__,
        bundle=spec.name,
        bundle_sha256=bundle_digest(bundle),
        code_sha256=code_digest(),
        alignments=alignment_digests(bundle, methods),
        truth=world.truth.path.name,
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(named)} x {named[0]}" if named else platform.processor()


def make_report(world: World, ledgers: dict[str, Ledger], run: Run, times: Sequence[datetime]) -> Report:
    """Summaries and comparisons of all methods over the asked times. Raises ValueError: no method finished a case."""
    cases = {name: [ledger.cases[t] for t in times if t in ledger.cases] for name, ledger in ledgers.items()}
    if not any(cases.values()):
        raise ValueError("no method finished a case: " + "; ".join(str(ledger.failure) for ledger in ledgers.values()))
    spec, scale = world.assimilator.spec, np.asarray(world.scorer.scale)[:, 0, 0]
    reference = cases.get(run.reference, [])
    methods = {
        name: MethodReport(
            summary=summarise(mine, spec, scale, run.block),
            against_reference=None if name == run.reference else compare(mine, reference, spec, scale, run.block),
            against_unaligned=compare(mine, cases[unaligned(name)], spec, scale, run.block)
            if named_alignment(name) and cases.get(unaligned(name))
            else None,
            cases=[_in_short(case, world) for case in mine],
        )
        for name, mine in cases.items()
        if mine
    }
    return Report(
        format=FORMAT,
        kind=run.kind,
        provenance=provenance(world, run.bundle, ledgers),
        protocol=run.protocol,
        block_hours=run.block / timedelta(hours=1),
        reference=run.reference,
        units={score.name: score.unit for score in all_scores(spec, scale)},
        failures={name: ledger.failure for name, ledger in ledgers.items() if ledger.failure},
        methods=methods,
    )


def _in_short(case: CaseScores, world: World) -> Case:
    scale = np.asarray(world.scorer.scale)[:, 0, 0]
    errors = np.sqrt(case.analysis_mean.mse) * scale
    return Case(
        valid_time=case.valid_time,
        observations=case.observations,
        mse=float(np.mean(case.analysis_mean.mse)),
        mse_member=float(np.mean(case.analysis_member.mse)),
        mse_background=float(np.mean(case.background.mse)),
        mse_48h=case.forecast_mean and float(np.mean(case.forecast_mean.mse)),
        crps=float(np.mean(case.crps)),
        wrmse={channel_name(c): float(e) for c, e in zip(world.assimilator.spec.channels, errors, strict=True)},
        seconds=case.cost.seconds,
    )


def write_json(report: Report, path: Path) -> None:
    """Write the document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads(report.model_dump_json()), indent=1) + "\n")


def table(report: Report) -> str:
    """A row per method, then the ratios to the reference with their intervals."""
    heads = [*COLUMNS.values(), "spread"]
    rows = [["", *heads]]
    for name, method in report.methods.items():
        scores = method.summary.scores
        cells = [_number(scores[key].estimate if key in scores else None) for key in COLUMNS]
        rows.append([name, *cells, _number(method.summary.spread_skill.get("all"))])
    text = f"{report.kind}: means over {max(m.summary.cases for m in report.methods.values())} cases\n{_aligned(rows)}"
    ratios = [["", *list(COLUMNS.values())[:9]]]
    for name, method in report.methods.items():
        if method.against_reference:
            found = method.against_reference
            ratios.append([name, *(_ratio(found[k].ratio if k in found else None) for k in list(COLUMNS)[:9])])
    if len(ratios) > 1:
        block = report.block_hours / 24
        text += f"\n\nratio to {report.reference}, 95 % interval over blocks of {block:g} days\n{_aligned(ratios)}"
    failures = [f"{name} was given up: {reason}" for name, reason in report.failures.items()]
    return "\n".join([text, *failures])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _ratio(interval: Interval | None) -> str:
    if interval is None or interval.estimate is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f} ({interval.low:.3f} {interval.high:.3f})"


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
