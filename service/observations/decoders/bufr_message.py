"""One BUFR message as ecCodes sees it: arrays with NaN for missing, its station, its time; and where messages lie."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import eccodes as ec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MISSING_LONG = 2147483647
_MISSING_DOUBLE = -1e100
_HEADER = 8  # octets of section 0: "BUFR", length (3), edition
_SHORTEST = 45  # octets that any complete message has at least


class Unreadable(Exception):
    """A message that cannot be decoded; the text says why."""


def split_messages(data: bytes) -> Iterator[tuple[bytes, str | None]]:
    """Every message of a file: its bytes, and what is wrong with its frame (None: nothing).

    Lengths come from section 0 and must lead to "7777"; after a broken message the search goes on behind its start,
    so that one bad length does not cost the messages that follow.
    """
    start = data.find(b"BUFR")
    while start >= 0:
        length = int.from_bytes(data[start + 4 : start + 7], "big")
        end = start + length
        if start + _HEADER > len(data) or end > len(data):
            problem = f"cut off: its header at byte {start} says {length} bytes, the file has {len(data) - start} left"
        elif length < _SHORTEST or data[end - 4 : end] != b"7777":
            problem = f"damaged: {length} bytes from byte {start} do not end with 7777"
        else:
            yield data[start:end], None
            start = data.find(b"BUFR", end)
            continue
        yield b"", problem
        start = data.find(b"BUFR", start + 4)


class Message:
    """An unpacked message with one subset. Holds the handle, does not own it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._arrays: dict[str, Floats | None] = {}

    def array(self, key: str) -> Floats | None:
        """All values of an element in the order of the message, NaN where missing; None if it does not occur."""
        if key not in self._arrays:
            self._arrays[key] = self._read(key)
        return self._arrays[key]

    def _read(self, key: str) -> Floats | None:
        try:
            values = np.asarray(ec.codes_get_array(self._handle, key))
        except ec.KeyValueNotFoundError:
            return None
        if values.dtype.kind not in "iuf":
            raise Unreadable(f"{key} is text, expected numbers")
        missing = values == (_MISSING_LONG if values.dtype.kind in "iu" else _MISSING_DOUBLE)
        return np.where(missing, np.nan, values.astype(np.float64))

    def size(self, key: str) -> int:
        """How often an element occurs."""
        values = self.array(key)
        return 0 if values is None else len(values)

    def one(self, *keys: str) -> float:
        """The first value of the first of `keys` that has one; NaN if none has."""
        for key in keys:
            values = self.array(key)
            if values is not None and len(values) and not np.isnan(values[0]):
                return float(values[0])
        return float("nan")

    def confidence(self, key: str, count: int) -> Floats:
        """The sender's per cent confidence in the first `count` values of an element; NaN where it gives none."""
        values = self.array(key)
        result = np.full(count, np.nan)
        if values is None:
            return result
        marks = self.array(f"{key}->percentConfidence")
        if marks is None:
            return result
        if len(marks) == len(values):
            return np.broadcast_to(marks[:count], (count,)).copy()
        # a bitmap covers part of the elements and the array skips the others: ask for each by its rank
        for i in np.flatnonzero(~np.isnan(values[:count])):
            mark = self.one(f"#{i + 1}#{key}->percentConfidence")
            result[i] = mark
        return result

    def text(self, key: str) -> str | None:
        """A text element without its padding; None if missing."""
        try:
            value = str(ec.codes_get(self._handle, key)).strip().strip("\x00\xff")
        except ec.KeyValueNotFoundError:
            return None
        return value or None

    def station(self) -> str | None:
        """WMO number (block and station), else the identifier of ship, aircraft or flight."""
        block, number = self.one("blockNumber"), self.one("stationNumber")
        if not np.isnan(block) and not np.isnan(number):
            return f"{int(block):02d}{int(number):03d}"
        keys = (
            "shipOrMobileLandStationIdentifier",
            "aircraftRegistrationNumberOrOtherIdentification",
            "aircraftFlightNumber",
            "aircraftTailNumber",
        )
        return next((name for name in map(self.text, keys) if name), None)

    def time(self) -> np.datetime64:
        """Valid time of the report (launch time of a sounding), UTC; NaT if missing or impossible."""
        parts = [self.one(f"#1#{key}", key) for key in ("year", "month", "day", "hour", "minute")]
        seconds = np.nan_to_num(self.one("#1#second"))
        if np.isnan(parts[0:4]).any():
            return np.datetime64("NaT", "us")
        year, month, day, hour, minute = (int(part) for part in np.nan_to_num(parts))
        if not (0 <= hour <= 24 and 0 <= minute < 60 and 0 <= seconds < 61):
            return np.datetime64("NaT", "us")
        try:
            date = datetime(year, month, day)
        except ValueError:
            return np.datetime64("NaT", "us")
        return np.datetime64(date + timedelta(seconds=hour * 3600 + minute * 60 + float(seconds)), "us")
