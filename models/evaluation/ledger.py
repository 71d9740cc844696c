"""The results of a long evaluation on disk, so that a run that was stopped goes on where it was.

WORK/protocol.json          what was asked; a run with other settings is refused
WORK/<method>/cases.jsonl   one line per finished case
WORK/<method>/version       sha256 of the alignment that made them, where the method names one
WORK/<method>/state.npz     cycling: the ensemble that the next cycle starts from, and its valid time
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from models.evaluation.method import States
from models.evaluation.scoring import CaseScores


class LedgerError(ValueError):
    """The work folder belongs to another evaluation; the text names what differs."""


class Ledger:
    """The finished cases of one method, in order of time, and its state. Without a folder everything is in memory."""

    def __init__(self, folder: Path | None, method: str, cycling: bool = False, version: str = "") -> None:
        self.method, self._cycling = method, cycling
        self.cases: dict[datetime, CaseScores] = {}
        self.background: States | None = None
        self.next_time: datetime | None = None
        self.failure: str | None = None
        self._folder = folder / _file_name(method) if folder else None
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._check(self._folder / "version", version)
            self._load(self._folder)

    def _check(self, path: Path, version: str) -> None:
        begun = path.read_text() if path.exists() else None
        if begun is not None and begun != version:
            raise LedgerError(f"{path.parent} holds cases of {self.method} with another alignment of that name."
                              " Delete that folder")  # fmt: skip
        if version:
            path.write_text(version)

    def _load(self, folder: Path) -> None:
        lines = (folder / "cases.jsonl").read_text().splitlines() if (folder / "cases.jsonl").exists() else []
        for number, line in enumerate(lines):
            try:
                case = CaseScores.model_validate_json(line)
            except ValueError:
                if number < len(lines) - 1:
                    raise
                break  # the last line was being written when the run was stopped
            self.cases[case.valid_time] = case
        if (folder / "state.npz").exists():
            with np.load(folder / "state.npz") as saved:
                self.background = saved["background"]
                self.next_time = datetime.fromisoformat(str(saved["valid_time"]))
        if self._cycling:  # a cycle whose state was not saved any more is computed again
            self.cases = {t: case for t, case in self.cases.items() if self.next_time and t < self.next_time}
        _replace(folder / "cases.jsonl", "".join(f"{c.model_dump_json()}\n" for c in self.cases.values()).encode())

    def add(self, case: CaseScores) -> None:
        """Note a finished case."""
        self.cases[case.valid_time] = case
        if self._folder:
            with (self._folder / "cases.jsonl").open("a") as file:
                file.write(f"{case.model_dump_json()}\n")

    def carry(self, background: States, next_time: datetime) -> None:
        """Keep the ensemble that the next cycle starts from."""
        self.background, self.next_time = background, next_time
        if self._folder:
            partial = self._folder / "state.partial.npz"
            np.savez(partial, background=background, valid_time=np.array(next_time.isoformat()))
            os.replace(partial, self._folder / "state.npz")


def open_ledgers(
    work: Path | None,
    methods: Sequence[str],
    protocol: dict[str, Any],
    cycling: bool = False,
    versions: Mapping[str, str] | None = None,
) -> dict[str, Ledger]:
    """A ledger per method; `versions` of what a method's text names but does not fix. Raises LedgerError when `work` was
    begun with another protocol, or a method in it with another version.

    Methods may be added to a work folder: they catch up on the same cases.
    """
    if work:
        work.mkdir(parents=True, exist_ok=True)
        wanted, path = json.loads(json.dumps(protocol)), work / "protocol.json"
        if path.exists():
            begun = json.loads(path.read_text())
            differing = [key for key in sorted({*wanted, *begun}) if wanted.get(key) != begun.get(key)]
            if differing:
                told = "; ".join(f"{key} was {begun.get(key)!r}, now {wanted.get(key)!r}" for key in differing)
                raise LedgerError(f"{work} holds another evaluation: {told}. Choose another folder")
        _replace(path, json.dumps(wanted, indent=1).encode())
    return {name: Ledger(work, name, cycling, (versions or {}).get(name, "")) for name in methods}


def _file_name(method: str) -> str:
    """Readable, and different for every method."""
    return f"{re.sub(r'[^a-z0-9.=-]+', '_', method.lower())}-{sha256(method.encode()).hexdigest()[:6]}"


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
