"""One decoder per format behind `decode_parts` and `decode`; `decode_isolated` runs the latter in a bounded process.

A decoder turns a file into `RawRows` and knows nothing of the catalogue; the checks are the same for all formats.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from service.isolation import run_isolated
from service.observations.checks import DecodedBatch, Note, RawRows, check_rows, told
from service.observations.decoders.errors import DecodeError, UnsupportedFormat

__all__ = [
    "FORMATS", "DecodeError", "DecodedBatch", "Format", "UnsupportedFormat", "decode", "decode_isolated", "decode_parts",
    "find_format",
]  # fmt: skip

MAX_ROWS = 20_000_000
_SNIFFED_BYTES = 4096
_MODULES = "service.observations.decoders"
_LAST_EDITION = 4
_TABLES_OF_THE_SENDER = 11  # BUFR data category of the messages that open a file of NCEP


@dataclass(frozen=True)
class Format:
    """One input format.

    Attributes:
        media_types: what a client may call it.
        recognises: whether the first bytes of a file are its.
        binary: whether it is no text.
        module: has `read(path: Path) -> tuple[RawRows, list[str]]`, or `parts`, which yields such pairs and so holds
            no whole file; imported when first used.
    """

    name: str
    media_types: tuple[str, ...]
    recognises: Callable[[bytes], bool]
    binary: bool
    module: str


def _starts(*magic: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(magic)


def _is_json(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def _is_bufr(head: bytes) -> bool:
    return _first_message(head) is not None


def _first_message(head: bytes) -> int | None:
    # bulletins of the GTS put a header line before the message; "BUFR" in a text is none
    start = head.find(b"BUFR")
    while start >= 0:
        if start == 0 or (len(head) > start + 7 and head[start + 7] <= _LAST_EDITION):
            return start
        start = head.find(b"BUFR", start + 4)
    return None


def _is_prepbufr(head: bytes) -> bool:
    start = _first_message(head)
    if start is None or len(head) < start + 19:
        return False
    return head[start + (18 if head[start + 7] == _LAST_EDITION else 16)] == _TABLES_OF_THE_SENDER


def _is_csv(head: bytes) -> bool:
    line = head.partition(b"\n")[0].removeprefix(b"\xef\xbb\xbf").strip().lower()
    names = {name.strip(b' "') for name in line.split(b",")}
    return {b"time", b"variable"} <= names


FORMATS: tuple[Format, ...] = (
    Format(
        "Parquet",
        ("application/vnd.apache.parquet", "application/parquet", "application/x-parquet"),
        _starts(b"PAR1"),
        True,
        f"{_MODULES}.parquet_format",
    ),
    Format(
        "IODA",
        ("application/x-hdf5", "application/x-hdf", "application/x-netcdf", "application/netcdf"),
        _starts(b"\x89HDF\r\n\x1a\n"),
        True,
        f"{_MODULES}.ioda",
    ),
    Format("ODB-2", ("application/x-odb", "application/x-odb2"), _starts(b"\xff\xffODA"), True, f"{_MODULES}.odb"),
    Format("JSON", ("application/json",), _is_json, False, f"{_MODULES}.json_format"),
    Format("CSV", ("text/csv",), _is_csv, False, f"{_MODULES}.csv_format"),
    Format("PrepBUFR", ("application/bufr", "application/x-bufr"), _is_prepbufr, True, f"{_MODULES}.prepbufr"),
    Format("BUFR", ("application/bufr", "application/x-bufr"), _is_bufr, True, f"{_MODULES}.bufr"),
)
# what they might be instead, for the sake of a clear answer
_OTHERS = {
    b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
    b"GRIB": "GRIB", b"CDF": "classic netCDF",
}  # fmt: skip
_UNNAMED = ("", "application/octet-stream", "binary/octet-stream")


def find_format(path: Path, media_type: str | None) -> Format:
    """The format of a file, by its first bytes; they must agree with its media type where that says something.

    Raises:
        UnsupportedFormat: no decoder for the media type, or none recognises the bytes.
        DecodeError: the bytes are recognisably not what the media type says.
    """
    named = (media_type or "").split(";")[0].strip().lower()
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if not head.strip():
        raise DecodeError("the file is empty: send at least one observation")
    sniffed = next((f for f in FORMATS if f.recognises(head)), None)
    other = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), None)
    if named in _UNNAMED:
        if sniffed is not None and (other is None or sniffed.name != "BUFR"):
            return sniffed
        known = ", ".join(dict.fromkeys(f.name for f in FORMATS))
        looks = f"the bytes are {other}: unpack or convert them" if other else f"the bytes are neither of {known}"
        raise UnsupportedFormat(f"{looks}; send them with the Content-Type that they have")
    wanted = [f for f in FORMATS if named in f.media_types]
    if not wanted:
        types = ", ".join(sorted({name for f in FORMATS for name in f.media_types}))
        raise UnsupportedFormat(f"no decoder for {named!r}: use one of {types}, or application/octet-stream")
    recognised = next((f for f in wanted if f.recognises(head)), None)
    if recognised is not None:
        return recognised
    if wanted[0].binary or other is not None or (sniffed is not None and sniffed.binary):
        found = sniffed.name if sniffed else other
        looks = f"they look like {found}" if found else "they are no format known here"
        raise DecodeError(f"the bytes are not {wanted[0].name} as Content-Type {named!r} says: {looks}")
    return wanted[0]


def decode_parts(
    path: str | Path, media_type: str | None, source: str, receipt_time: datetime
) -> Iterator[DecodedBatch]:
    """Decode and check one submission, some ten thousand rows at a time. Opens untrusted bytes.

    Args:
        path: the file as received.
        media_type: the client's Content-Type; None, "" or application/octet-stream: found by the first bytes.
        source: the feed, for rows that do not name one.
        receipt_time: when it was received (aware), for rows that do not say.

    Raises:
        UnsupportedFormat: no decoder for it.
        DecodeError: not one row can be read from it, or the file is damaged in a way that leaves the rest in doubt:
            what came before is then worth nothing either. Says why.
    """
    total = 0
    for rows, notes in _read(Path(path), find_format(Path(path), media_type)):
        total += len(rows)
        if total > MAX_ROWS:
            raise DecodeError(f"more than {MAX_ROWS} rows: split the file")
        yield check_rows(rows, source, receipt_time, notes)


def _read(path: Path, chosen: Format) -> Iterator[tuple[RawRows, Sequence[Note]]]:
    module = importlib.import_module(chosen.module)
    if hasattr(module, "parts"):
        yield from module.parts(path)
        return
    rows, notes = module.read(path)
    assert isinstance(rows, RawRows)
    for part in rows.parts():
        yield part, notes
        notes = []
    if not len(rows):
        yield RawRows.empty(0), notes


def decode(path: str | Path, media_type: str | None, source: str, receipt_time: datetime) -> DecodedBatch:
    """One submission as a whole: all that `decode_parts` gives. The service stores the parts as they come."""
    parts = list(decode_parts(path, media_type, source, receipt_time))
    notes = told(note for part in parts for note in part.notes)
    if len(parts) == 1:
        return replace(parts[0], notes=notes)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    tables = ([part.table for part in parts], [part.rejected for part in parts])
    table, rejected = (pa.concat_tables(some).unify_dictionaries().combine_chunks() for some in tables)
    return DecodedBatch(table, rejected, dict(counts), notes)


def decode_isolated(
    path: str | Path,
    media_type: str | None,
    source: str,
    receipt_time: datetime,
    *,
    seconds: float = 60.0,
    megabytes: int = 2048,
) -> DecodedBatch:
    """`decode` in its own process with bounded time and memory; safe to call from any thread.

    Raises:
        UnsupportedFormat, DecodeError: as `decode`.
        service.isolation.IsolationError: the limits were exceeded or the decoder crashed.
    """
    batch = run_isolated(
        "service.observations.decoders:decode",
        str(path), media_type, source, receipt_time,
        seconds=seconds, megabytes=megabytes,
    )  # fmt: skip
    assert isinstance(batch, DecodedBatch)
    return batch
