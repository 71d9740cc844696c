"""Files that the catalogue names: written under a temporary name, synced, then renamed; read by key."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]*(/[A-Za-z0-9_][A-Za-z0-9_.+=-]*)*")
CHUNK = 1 << 20


class ArchiveError(Exception):
    """A key that cannot be, or a file that should be there and is not."""


@dataclass(frozen=True)
class Stored:
    """What became of a file: its key, the sha256 of its content in hex, its size in bytes."""

    path: str
    sha256: str
    size: int

    def __iter__(self) -> Iterator[str | int]:
        """Unpacks as (path, sha256, size)."""
        return iter((self.path, self.sha256, self.size))


class Archive:
    """A folder of files. A key is a relative path such as `experiments/demo/20081208T12/analysis.grib2`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, source: bytes | Path | BinaryIO, key: str) -> Stored:
        """Store bytes, a copy of a file, or a stream under `key`, replacing what was there. Atomic and durable."""
        target = self._target(key)
        handle, name = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                if isinstance(source, bytes):
                    out.write(source)
                elif isinstance(source, Path):
                    with source.open("rb") as file:
                        shutil.copyfileobj(file, out, CHUNK)
                else:
                    shutil.copyfileobj(source, out, CHUNK)
            return self.adopt(temporary, key)
        finally:
            temporary.unlink(missing_ok=True)

    def adopt(self, file: Path, key: str) -> Stored:
        """Move a finished file of the same file system to `key`. Atomic and durable."""
        target = self._target(key)
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            os.fsync(content.fileno())
            size = os.fstat(content.fileno()).st_size
        file.chmod(0o644)
        file.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return Stored(key, digest, size)

    def path(self, key: str) -> Path:
        """Where the file of `key` is or would be. Raises ArchiveError for a key that leaves the archive."""
        if not KEY.fullmatch(key):
            raise ArchiveError(
                f"{key!r} is not an archive key: use names of letters, digits, _ . + = - between slashes"
            )
        return self.root / key

    def existing(self, key: str) -> Path:
        """The file of `key`. Raises ArchiveError when it is missing."""
        path = self.path(key)
        if not path.is_file():
            raise ArchiveError(
                f"{key} is in the catalogue but not in the archive {self.root}: restore it from a backup"
            )
        return path

    def _target(self, key: str) -> Path:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


def cycle_key(experiment: str, valid_time: datetime, name: str) -> str:
    """The key of a cycle's file, e.g. `experiments/demo/20081208T12/analysis.grib2`."""
    return f"experiments/{experiment}/{valid_time.astimezone(UTC):%Y%m%dT%H}/{name}"
