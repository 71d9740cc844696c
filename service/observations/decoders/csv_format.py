"""CSV observations (RFC 4180, UTF-8): a header line with the table's or Earth2Studio's column names, one value per line."""

import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.observations.checks import PART_ROWS, Note, RawRows
from service.observations.decoders import earth2studio
from service.observations.decoders.errors import DecodeError
from service.observations.decoders.rows import Cells, number, parse_time

_BEYOND = "(beyond the header)"


def parts(path: Path) -> Iterator[tuple[RawRows, list[Note]]]:
    """Read a CSV file; an empty cell is an absent value, and so is a cell that a short line lacks.

    Raises:
        DecodeError: not UTF-8 text, no header with the required columns, or no line after it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            fields = [name.strip() for name in next(reader, [])]
            if len(set(fields)) != len(fields):
                raise DecodeError(f"the header names a column twice: {', '.join(fields)[:200]}")
            theirs = earth2studio.recognises(fields)
            cells = Cells(None if theirs else fields)
            lines = (line for line in reader if line)
            empty = True
            while part := list(islice(lines, PART_ROWS)):
                empty = False
                columns = _by_name(part, fields)
                yield earth2studio.convert(_columns(columns)) if theirs else cells.columns(columns, len(part))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DecodeError(f"not readable as CSV in UTF-8: {str(error)[:200]}") from error
    if empty:
        raise DecodeError("the file has a header but no line after it: send at least one observation")


def _by_name(lines: list[list[str]], fields: list[str]) -> dict[str, list[Any]]:
    width = len(fields)
    if any(len(line) != width for line in lines):
        beyond = any(len(line) > width for line in lines)
        lines = [line[:width] + [""] * (width - len(line)) for line in lines]
        return _by_name(lines, fields) | ({_BEYOND: []} if beyond else {})
    return dict(zip(fields, map(list, zip(*lines, strict=True)), strict=True))


def _columns(given: Mapping[str, list[str]]) -> dict[str, NDArray[Any]]:
    """Earth2Studio's columns; a cell that cannot be read is an absent one."""
    columns: dict[str, NDArray[Any]] = {}
    for name in earth2studio.COLUMNS:
        if name not in given or name == "type":
            continue
        cells = [cell or None for cell in given[name]]
        if name in earth2studio.TEXTS:
            columns[name] = np.array([None if cell is None else cell[:64] for cell in cells], dtype=object)
        elif name == "time":
            columns[name] = np.array([_time(cell) for cell in cells], dtype="datetime64[us]")
        else:
            numbers = [None if cell is None else number(cell) for cell in cells]
            columns[name] = np.array([np.nan if x is None else x for x in numbers], dtype=np.float64)
    return columns


def _time(cell: str | None) -> np.datetime64:
    try:
        return parse_time(cell or "")
    except (ValueError, OverflowError):
        return np.datetime64("NaT", "us")
