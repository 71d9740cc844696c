"""CSV observations (RFC 4180, UTF-8): a header line with the table's column names, then one value per line."""

import csv
from pathlib import Path

from service.observations.checks import RawRows
from service.observations.decoders.errors import DecodeError
from service.observations.decoders.rows import rows_from_cells


def read(path: Path) -> tuple[RawRows, list[str]]:
    """Read a CSV file; an empty cell is an absent value, and so is a cell that a short line lacks.

    Raises:
        DecodeError: not UTF-8 text, no header with the required columns, or no line after it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="(beyond the header)")
            fields = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = fields
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DecodeError(f"not readable as CSV in UTF-8: {str(error)[:200]}") from error
    if len(set(fields)) != len(fields):
        raise DecodeError(f"the header names a column twice: {', '.join(fields)[:200]}")
    rows, notes = rows_from_cells(lines, fields)
    if not lines:
        raise DecodeError("the file has a header but no line after it: send at least one observation")
    return rows, notes
