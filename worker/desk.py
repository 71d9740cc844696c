"""A cycle's desk: what a stage leaves for the later ones, on disk, so that a cycle survives its worker.

Each attempt (fencing token) works in its own folder: a worker that lost its lease cannot spoil what its successor reads.
"""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worker.model import Array


class Desk:
    """Arrays and tables by name under {root}/{cycle_id}/{token}/, kept in memory as well."""

    def __init__(self, root: Path, cycle_id: int, token: int) -> None:
        self._cycle = root / str(cycle_id)
        self.folder = self._cycle / str(token)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._token = token
        self._arrays: dict[str, Array] = {}
        self._tables: dict[str, pa.Table] = {}

    def inherit(self, stages: list[str]) -> bool:
        """Take over what the last earlier attempt left, if it had finished all of these stages; False if none had."""
        earlier = (int(path.name) for path in self._cycle.iterdir() if path.name.isdigit())
        for token in sorted((token for token in earlier if token < self._token), reverse=True):
            folder = self._cycle / str(token)
            if all((folder / f"{stage}.done").exists() for stage in stages):
                for file in folder.iterdir():
                    # a hard link: whoever still writes there replaces its own name, not our file
                    if not file.name.startswith("."):
                        os.link(file, self.folder / file.name)
                return True
        return False

    def finished(self, stage: str) -> None:
        """Mark a stage whose results are all on the desk."""
        (self.folder / f"{stage}.done").touch()

    def has(self, name: str) -> bool:
        """Whether a stage has left this array or table."""
        left = name in self._arrays or name in self._tables
        return left or any((self.folder / f"{name}.{suffix}").exists() for suffix in ("npy", "parquet"))

    def put_array(self, name: str, array: Array) -> None:
        self._arrays[name] = array
        part = self.folder / f".{name}.npy"
        with part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
        os.replace(part, self.folder / f"{name}.npy")

    def array(self, name: str) -> Array:
        """Raises FileNotFoundError when no stage has left it."""
        if name not in self._arrays:
            self._arrays[name] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return self._arrays[name]

    def put_table(self, name: str, table: pa.Table) -> None:
        self._tables[name] = table
        part = self.folder / f".{name}.parquet"
        pq.write_table(table, part)
        os.replace(part, self.folder / f"{name}.parquet")

    def table(self, name: str) -> pa.Table:
        """Raises FileNotFoundError when no stage has left it."""
        if name not in self._tables:
            self._tables[name] = pq.read_table(self.folder / f"{name}.parquet")
        return self._tables[name]

    def draft(self, name: str) -> Path:
        """A path for a file that is on its way to the archive."""
        return self.folder / f".{name}"

    def discard(self) -> None:
        """Nothing of this attempt is needed any more; those of others stay."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._cycle.rmdir()

    @staticmethod
    def clear(root: Path, cycle_id: int) -> None:
        """The cycle has ended: nothing that any attempt left is needed any more."""
        shutil.rmtree(root / str(cycle_id), ignore_errors=True)
