"""The frame of GRIB messages: lengths, order of sections, end marks (WMO Manual on Codes 306, FM 92).

ecCodes follows the lengths of a damaged message beyond its end and crashes; they are checked before it sees them.
"""

import os
from pathlib import Path
from typing import BinaryIO

from service.fields.errors import FieldError

END = b"7777"
HEADING_BYTES = 4096  # the longest stretch between two messages, such as telecommunication headings
FOLLOWERS = {0: (1,), 1: (2, 3), 2: (3,), 3: (4,), 4: (5,), 5: (6,), 6: (7,), 7: (2, 3, 4)}
SHORTEST = {1: 21, 2: 5, 3: 15, 4: 9, 5: 12, 6: 6, 7: 5}


def check_framing(path: str | Path) -> int:
    """Walk through the messages of a file without decoding them; returns how many there are.

    Raises:
        FieldError: a message is cut off, its sections do not fill it in their order, or it lacks its end mark.
    """
    size = os.path.getsize(path)
    count = position = 0
    with open(path, "rb") as file:
        while (start := _next_message(file, position)) is not None:
            count += 1
            file.seek(start)
            head = file.read(16)
            if len(head) < 16:
                raise FieldError(f"GRIB message {count} is cut off at its beginning")
            edition = head[7]
            if edition == 1 and head[4] & 0x80:
                # beyond 8 MiB edition 1 keeps its length in other ways, which ecCodes knows
                return count
            if edition not in (1, 2):
                raise FieldError(f"GRIB message {count} claims the unknown edition {edition}")
            length = int.from_bytes(head[4:7] if edition == 1 else head[8:16], "big")
            if start + length > size or length < 20:
                raise FieldError(f"GRIB message {count} is cut off: it claims {length} bytes, {size - start} are there")
            if edition == 2:
                _check_sections(file, start, length, count)
            file.seek(start + length - 4)
            if file.read(4) != END:
                raise FieldError(f"GRIB message {count} does not end with 7777 where its length says")
            position = start + length
    return count


def _next_message(file: BinaryIO, position: int) -> int | None:
    file.seek(position)
    found = file.read(HEADING_BYTES).find(b"GRIB")
    return None if found < 0 else position + found


def _check_sections(file: BinaryIO, start: int, length: int, count: int) -> None:
    position, end, previous = start + 16, start + length - 4, 0
    points = 0
    while position < end:
        file.seek(position)
        head = file.read(10)
        section, number = int.from_bytes(head[:4], "big"), head[4]
        if number not in FOLLOWERS[previous]:
            raise FieldError(f"GRIB message {count} is damaged: section {number} follows section {previous}")
        if section < SHORTEST[number] or position + section > end:
            raise FieldError(f"GRIB message {count} is damaged: section {number} claims {section} bytes")
        if number == 3:
            points = int.from_bytes(head[6:10], "big")
        elif number == 5 and int.from_bytes(head[5:9], "big") > points:
            raise FieldError(f"GRIB message {count} is damaged: more values than points")
        position, previous = position + section, number
    if previous != 7:
        raise FieldError(f"GRIB message {count} is damaged: it ends after section {previous}")
