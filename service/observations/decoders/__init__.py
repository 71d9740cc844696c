"""One decoder per format behind one function, `decode`; `decode_isolated` runs it in a bounded process.

A decoder turns a file into `RawRows` and knows nothing of the catalogue; the checks are the same for all formats.
"""

import importlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.isolation import run_isolated
from service.observations.checks import DecodedBatch, RawRows, check_rows
from service.observations.decoders.errors import DecodeError, UnsupportedFormat

__all__ = [
    "FORMATS", "DecodeError", "DecodedBatch", "Format", "UnsupportedFormat", "decode", "decode_isolated", "find_format",
]  # fmt: skip

_SNIFFED_BYTES = 4096


@dataclass(frozen=True)
class Format:
    """One input format.

    Attributes:
        media_types: what a client may call it.
        magic: the bytes that it starts with, or must contain near its start if `anywhere`; empty: none.
        module: has `read(path: Path) -> tuple[RawRows, list[str]]`, imported when first used.
    """

    name: str
    media_types: tuple[str, ...]
    magic: bytes
    anywhere: bool
    module: str

    def recognises(self, head: bytes) -> bool:
        if not self.magic:
            return False
        return self.magic in head if self.anywhere else head.lstrip().startswith(self.magic)


FORMATS: tuple[Format, ...] = (
    Format(
        "Parquet",
        ("application/vnd.apache.parquet", "application/parquet", "application/x-parquet"),
        b"PAR1",
        False,
        "service.observations.decoders.parquet_format",
    ),
    # bulletins of the GTS put a header line before the message
    Format(
        "BUFR",
        ("application/bufr", "application/x-bufr"),
        b"BUFR",
        True,
        "service.observations.decoders.bufr",
    ),
    Format("JSON", ("application/json",), b"{", False, "service.observations.decoders.json_format"),
    Format("JSON", ("application/json",), b"[", False, "service.observations.decoders.json_format"),
    Format("CSV", ("text/csv",), b"", False, "service.observations.decoders.csv_format"),
)
_UNNAMED = ("", "application/octet-stream", "binary/octet-stream")


def find_format(path: Path, media_type: str | None) -> Format:
    """The format of a file, by its media type, or by its first bytes where that says nothing.

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
    if named in _UNNAMED:
        if sniffed is None:
            raise UnsupportedFormat(
                "the bytes are neither BUFR, Parquet nor JSON: send them with the Content-Type that they have"
            )
        return sniffed
    wanted = [f for f in FORMATS if named in f.media_types]
    if not wanted:
        known = ", ".join(sorted({name for f in FORMATS for name in f.media_types}))
        raise UnsupportedFormat(f"no decoder for {named!r}: use one of {known}, or application/octet-stream")
    binary = wanted[0].magic in (b"PAR1", b"BUFR")
    if binary and not any(f.recognises(head) for f in wanted):
        found = f"they look like {sniffed.name}" if sniffed else "they are no format known here"
        raise DecodeError(f"the bytes are not {wanted[0].name} as Content-Type {named!r} says: {found}")
    return wanted[0]


def decode(path: str | Path, media_type: str | None, source: str, receipt_time: datetime) -> DecodedBatch:
    """Decode and check one submission. Opens untrusted bytes: the service calls `decode_isolated`.

    Args:
        path: the file as received.
        media_type: the client's Content-Type; None, "" or application/octet-stream: found by the first bytes.
        source: the feed, for rows that do not name one.
        receipt_time: when it was received (aware), for rows that do not say.

    Raises:
        UnsupportedFormat: no decoder for it.
        DecodeError: not one row can be read from it; says why.
    """
    chosen = find_format(Path(path), media_type)
    rows, notes = importlib.import_module(chosen.module).read(Path(path))
    assert isinstance(rows, RawRows)
    return check_rows(rows, source, receipt_time, notes)


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
