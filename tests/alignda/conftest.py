"""A real broker and gateway (`alignda serve --no-worker`) in a short temporary folder, with the toy's description."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignda.embedded import Stack
from service.settings import Settings
from tests.ports import free_port
from tests.worker.toy import write_bundle


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Short, because a unix socket's path may have only about a hundred bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ald-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def served() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="ald-"))
    settings = Settings(data_dir=folder / "data", port=free_port(), bundle=write_bundle(folder / "toy"))
    with Stack(settings, worker=False) as stack:
        stack.wait_until_ready()
        yield settings
    shutil.rmtree(folder, ignore_errors=True)
