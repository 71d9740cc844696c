"""JSON observations: a list of rows, or an object whose `observations` is that list; columns as in the table."""

import json
from pathlib import Path

from service.observations.checks import RawRows
from service.observations.decoders.errors import DecodeError
from service.observations.decoders.rows import rows_from_cells


def read(path: Path) -> tuple[RawRows, list[str]]:
    """Read a JSON file (UTF-8). `NaN` as a value is read as missing.

    Raises:
        DecodeError: not JSON, or not a list of rows.
    """
    try:
        document = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not valid JSON: {str(error)[:200]}") from error
    if isinstance(document, dict):
        document = document.get("observations")
    if not isinstance(document, list):
        raise DecodeError('expected a list of rows, or {"observations": [...]}')
    if not document:
        raise DecodeError("the list of observations is empty: send at least one")
    return rows_from_cells(document)
