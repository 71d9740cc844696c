"""Files in the archive are whole or absent, and stay inside it."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime

import pytest

from service.archive import Archive, ArchiveError, cycle_key

CONTENT = b"GRIB" + bytes(range(256)) * 100


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "archive")


@pytest.mark.parametrize("kind", ["bytes", "path", "stream"])
def test_what_was_put_is_found_under_its_key_with_its_digest(archive, tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    source = {"bytes": CONTENT, "path": file, "stream": io.BytesIO(CONTENT)}[kind]
    path, sha256, size = archive.put(source, "experiments/demo/20090123T12/analysis.grib2")
    assert archive.existing(path).read_bytes() == CONTENT
    assert (sha256, size) == (hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
    assert file.read_bytes() == CONTENT


def test_an_interrupted_write_leaves_the_old_file_and_no_other(archive):
    archive.put(b"old", "a/b")

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("disk on fire")

    with pytest.raises(OSError, match="disk on fire"):
        archive.put(Broken(), "a/b")
    assert archive.existing("a/b").read_bytes() == b"old"
    assert [path.name for path in (archive.root / "a").iterdir()] == ["b"]


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".hidden", "a/.x", "a\x00b", "a\n"])
def test_a_key_cannot_leave_the_archive(archive, key):
    with pytest.raises(ArchiveError, match="not an archive key"):
        archive.put(b"", key)


def test_a_missing_file_is_named(archive):
    with pytest.raises(ArchiveError, match="a/b is in the catalogue but not in the archive"):
        archive.existing("a/b")


def test_a_cycles_files_lie_under_its_valid_time():
    valid = datetime(2008, 12, 8, 12, tzinfo=UTC)
    assert cycle_key("demo", valid, "analysis.grib2") == "experiments/demo/20081208T12/analysis.grib2"
