"""JSON observations: a list of rows, or an object whose `observations` is that list; columns as in the table.

Read row by row, so that a large file takes no more memory than a small one. Standard JSON has no NaN; Python's writers
put it all the same, which is why the reader is Python's own and no strict one.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from service.observations.checks import PART_ROWS, Note, RawRows
from service.observations.decoders.errors import DecodeError
from service.observations.decoders.rows import Cells

_CHUNK = 1 << 20  # characters read at a time
_LONGEST = 4 << 20  # characters of one row
_NUMBER = re.compile(r"[-+.eE0-9]*")
_SPACE = re.compile(r"[ \t\r\n]*")


def parts(path: Path) -> Iterator[tuple[RawRows, list[Note]]]:
    """Read a JSON file (UTF-8). `NaN` as a value is read as missing.

    Raises:
        DecodeError: not JSON, or not a list of rows.
    """
    cells = Cells()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            waiting: list[object] = []
            for row in _Document(file).rows():
                waiting.append(row)
                if len(waiting) == PART_ROWS:
                    yield cells.rows(waiting)
                    waiting = []
            if waiting:
                yield cells.rows(waiting)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"not valid JSON: {str(error)[:200]}") from error
    if not cells.count:
        raise DecodeError("the list of observations is empty: send at least one")


class _Document:
    """The text of a file from `at` on, more of it when that does not hold a whole value."""

    def __init__(self, file: TextIO) -> None:
        self._file, self._text, self._at, self._ended = file, "", 0, False
        self._decoder = json.JSONDecoder()

    def rows(self) -> Iterator[object]:
        """The rows of the list, wherever it is."""
        if self._next() == "[":
            yield from self._items()
        elif self._next() == "{":
            yield from self._observations()
        else:
            self._value()
            raise DecodeError(_EXPECTED)
        if self._next():
            raise ValueError("there is more after the end")

    def _observations(self) -> Iterator[object]:
        self._take("{")
        found = False
        while self._next() != "}":
            if self._next() != '"':
                raise ValueError("an object's names are in quotes")
            name = self._value()
            self._take(":")
            if name != "observations":
                self._value()
            elif self._next() == "[":
                found = True
                yield from self._items()
            else:
                raise DecodeError(_EXPECTED)
            self._comma("}")
        self._take("}")
        if not found:
            raise DecodeError(_EXPECTED)

    def _items(self) -> Iterator[object]:
        self._take("[")
        while self._next() != "]":
            yield self._value()
            self._comma("]")
        self._take("]")

    def _comma(self, end: str) -> None:
        if self._next() == end:
            return
        self._take(",")
        if self._next() == end:
            raise ValueError(f"a comma stands before {end}")

    def _take(self, character: str) -> None:
        if self._next() != character:
            raise ValueError(f"expected {character!r}, found {self._next()[:1] or 'the end'!r}")
        self._at += 1

    def _next(self) -> str:
        """The character that follows, past white space; "" at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _value(self) -> object:
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            # a number may go on where the text ends: "0." is no 0
            if _NUMBER.match(self._text, end).end() < len(self._text) or not self._more():  # type: ignore[union-attr]
                self._at = end
                return value

    def _more(self) -> bool:
        if self._ended:
            return False
        if len(self._text) - self._at > _LONGEST:
            raise ValueError(f"a row of more than {_LONGEST} characters")
        chunk = self._file.read(_CHUNK)
        self._ended = not chunk
        self._text, self._at = self._text[self._at :] + chunk, 0
        return not self._ended


_EXPECTED = 'expected a list of rows, or {"observations": [...]}'
