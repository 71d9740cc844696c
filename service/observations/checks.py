"""What every decoded value must pass before it enters the table, whatever its format was.

Each row gets the first `Reason` that applies; a row with a reason goes to `rejected` with it and a sentence that
says what was wrong. Nothing is dropped.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.observations.conversions import standard_atmosphere_pressure
from service.observations.reasons import Reason
from service.observations.table import (
    LAYER_VARIABLES,
    REJECTED_SCHEMA,
    SURFACE_VARIABLES,
    TYPES,
    VARIABLES,
    columns_to_table,
)

# What each variable can have on Earth up to 1 Pa, in SI units, with room for records.
RANGES: dict[str, tuple[float, float]] = {
    "z": (-10_000.0, 1_000_000.0),
    "t": (130.0, 350.0),
    "u": (-250.0, 250.0),
    "v": (-250.0, 250.0),
    "q": (0.0, 0.06),
    "sp": (30_000.0, 110_000.0),
    "t2m": (170.0, 340.0),
    "u10": (-120.0, 120.0),
    "v10": (-120.0, 120.0),
    "ws": (0.0, 250.0),
    "wdir": (0.0, 360.0),
    "rh": (0.0, 1.6),
    "td": (100.0, 320.0),
    "gh": (-1_000.0, 100_000.0),
    "h": (-1_000.0, 100_000.0),
    "refractivity": (0.0, 600.0),
    "tlayer": (130.0, 350.0),
    "tb": (130.0, 350.0),
    "msl": (85_000.0, 110_000.0),
    "td2m": (150.0, 320.0),
    "rh2m": (0.0, 1.6),
    "ws10": (0.0, 120.0),
    "wdir10": (0.0, 360.0),
}
NEEDS_PRESSURE = ("z", "gh", "h", *LAYER_VARIABLES)  # at a height the first three are that height again
PRESSURE_RANGE = (1.0, 110_000.0)  # Pa
HEIGHT_RANGE = (-1_000.0, 100_000.0)  # m
STANDARD_HEIGHTS = (
    -690.0,
    20_000.0,
)  # m; where the standard atmosphere is known: 1099 hPa to the isothermal layer's end
FIRST_TIME, LAST_TIME = np.datetime64("1900-01-01"), np.datetime64("2200-01-01")

PART_ROWS = 1 << 16  # a file is read, checked and written in parts of so many rows

Note = str | tuple[int, str]
"""What a sender should know: a sentence, or the number that it begins with and the rest, to be summed over parts."""

_NUMBERS = ("latitude", "longitude", "pressure", "height", "value", "error", "preqc", "pressure_top")
_NAMES = ("variable", "type", "station", "source")
_TIMES = ("time", "receipt_time")


@dataclass(frozen=True)
class DecodedBatch:
    """What one submission contained.

    Attributes:
        table: the values that can be used, `table.SCHEMA`.
        rejected: the values that cannot, `table.REJECTED_SCHEMA`: what is known of them, `reason` and `detail`.
        counts: number of rejected values by the name of their reason.
        notes: what a sender should know that concerns no single value; of a part of a batch as `Note`s, see `told`.
    """

    table: pa.Table
    rejected: pa.Table
    counts: dict[str, int]
    notes: Sequence[Note] = field(default_factory=list)

    @property
    def received(self) -> int:
        return int(self.table.num_rows + self.rejected.num_rows)


def told(notes: Iterable[Note]) -> list[str]:
    """Each sentence once, numbers summed, in the order of their first appearance."""
    counted: dict[str, int | None] = {}
    for note in notes:
        number, sentence = note if isinstance(note, tuple) else (None, note)
        counted[sentence] = None if number is None else number + (counted.get(sentence) or 0)
    return [sentence if number is None else f"{number} {sentence}" for sentence, number in counted.items()]


@dataclass
class RawRows:
    """Rows as a decoder read them, before any check. All arrays [n].

    Numbers are float64 (NaN: absent), times datetime64[us] (NaT: absent or unreadable), names objects (str or
    None). `reason` (0: none yet) and `detail` are set by the decoder where only it can know.
    """

    columns: dict[str, NDArray[Any]]
    reason: NDArray[np.int16]
    detail: NDArray[np.object_]

    @classmethod
    def empty(cls, n: int) -> "RawRows":
        """`n` rows in which everything is absent."""
        columns: dict[str, NDArray[Any]] = {name: np.full(n, np.nan) for name in _NUMBERS}
        columns |= {name: np.full(n, None, dtype=object) for name in _NAMES}
        columns |= {name: np.full(n, np.datetime64("NaT", "us")) for name in _TIMES}
        return cls(columns, np.zeros(n, dtype=np.int16), np.full(n, None, dtype=object))

    @classmethod
    def join(cls, parts: list["RawRows"]) -> "RawRows":
        """All rows of `parts`, in their order."""
        if not parts:
            return cls.empty(0)
        columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        return cls(columns, np.concatenate([p.reason for p in parts]), np.concatenate([p.detail for p in parts]))

    def __len__(self) -> int:
        return len(self.reason)

    def parts(self) -> Iterator["RawRows"]:
        """`PART_ROWS` rows at a time, not copied."""
        for start in range(0, len(self), PART_ROWS):
            part = slice(start, start + PART_ROWS)
            yield RawRows({k: v[part] for k, v in self.columns.items()}, self.reason[part], self.detail[part])

    def refuse(self, rows: NDArray[np.bool_], reason: Reason, detail: Callable[[int], str] | str) -> None:
        """Give `reason` to those of `rows` [n] that have none yet."""
        for i in np.flatnonzero(rows & (self.reason == 0)):
            self.reason[i] = int(reason)
            self.detail[i] = detail if isinstance(detail, str) else detail(int(i))


def check_rows(rows: RawRows, source: str, receipt_time: datetime, notes: Sequence[Note] | None = None) -> DecodedBatch:
    """Check every row, normalise what can be, and part the usable from the rejected.

    Args:
        rows: changed in place. Rows without own source or receipt time get `source` and `receipt_time`.
        receipt_time: aware.

    Raises:
        ValueError: `receipt_time` has no time zone.
    """
    if receipt_time.tzinfo is None:
        raise ValueError(f"receipt_time {receipt_time.isoformat()} has no time zone: give it in UTC")
    columns = rows.columns
    columns["source"][_absent(columns["source"])] = source
    received = np.datetime64(receipt_time.astimezone(UTC).replace(tzinfo=None), "us")
    columns["receipt_time"] = np.where(np.isnat(columns["receipt_time"]), received, columns["receipt_time"])
    with np.errstate(invalid="ignore"):
        _check_names(rows)
        _check_value_present(rows)
        _check_position(rows)
        placed = _place_by_height(rows)
        _check_layer(rows)
        _check_time(rows)
        _check_range(rows)
        # stored as a whole number of per cent, rounded down
        no_confidence = np.floor(columns["preqc"]) == 0
    rows.refuse(no_confidence, Reason.SENDER_REJECTED, "the sender's confidence in this value is 0 %")
    return _part(rows, [*(notes or []), *_placing_note(rows, placed)])


def _absent(names: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(names == None, dtype=np.bool_)  # of each


def _distinct(names: NDArray[Any]) -> tuple[list[str | None], NDArray[np.int64]]:
    """The different names, None the last of them, and which of them each of `names` [n] is."""
    encoded = pa.array(names, type=pa.string()).dictionary_encode()
    known = encoded.dictionary.to_pylist()
    return [*known, None], encoded.indices.fill_null(len(known)).to_numpy().astype(np.int64)


def _among(names: NDArray[Any], known: Collection[str]) -> NDArray[np.bool_]:
    """Which names [n] are among these."""
    distinct, which = _distinct(names)
    return np.array([name in known for name in distinct], dtype=np.bool_)[which]


def _check_names(rows: RawRows) -> None:
    for column, known in (("variable", VARIABLES), ("type", TYPES)):
        names = rows.columns[column]
        unknown = ~_among(names, known)
        rows.refuse(
            unknown,
            Reason.UNKNOWN_VARIABLE,
            lambda i, names=names, column=column, known=known: (  # type: ignore[misc]
                f"{column} {str(names[i])[:40]!r} is none of {', '.join(known)}"
            ),
        )
    nameless = _absent(rows.columns["station"]) | (rows.columns["station"] == "")
    rows.columns["station"][nameless] = "unknown"


def _check_value_present(rows: RawRows) -> None:
    rows.refuse(np.isnan(rows.columns["value"]), Reason.MISSING_VALUE, "the value is missing")


def _check_position(rows: RawRows) -> None:
    c = rows.columns
    bad_latitude = ~(np.abs(c["latitude"]) <= 90.0)
    rows.refuse(
        bad_latitude, Reason.POSITION_INVALID, lambda i: f"latitude {c['latitude'][i]:.9g} is not within [-90, 90]"
    )
    good_longitude = (c["longitude"] >= -180.0) & (c["longitude"] <= 360.0)
    rows.refuse(
        ~good_longitude,
        Reason.POSITION_INVALID,
        lambda i: f"longitude {c['longitude'][i]:.9g} is not within [-180, 360]",
    )
    turned = (c["longitude"] + 180.0) % 360.0 - 180.0
    east = good_longitude & (c["longitude"] >= 180.0)
    c["longitude"] = np.where(east, turned, c["longitude"])
    for name, (low, high) in (
        ("pressure", PRESSURE_RANGE),
        ("pressure_top", PRESSURE_RANGE),
        ("height", HEIGHT_RANGE),
    ):
        given = ~np.isnan(c[name])
        impossible = given & ~((c[name] >= low) & (c[name] <= high))
        rows.refuse(
            impossible,
            Reason.POSITION_INVALID,
            lambda i, name=name, low=low, high=high: (  # type: ignore[misc]
                f"{name} {c[name][i]:.9g} is not within [{low:g}, {high:g}] {'m' if name == 'height' else 'Pa'}"
            ),
        )


def _place_by_height(rows: RawRows) -> NDArray[np.bool_]:
    """Give aircraft without a pressure that of the ICAO standard atmosphere at their height; which ones [n].

    That is exact: their altimeters compute the height from pressure so. All others keep their height, at which the
    model's equivalent is made. A geopotential at a height is no observation at all, it is refused.
    """
    c = rows.columns
    variable, (low, high) = c["variable"], STANDARD_HEIGHTS
    lacking = ~_among(variable, SURFACE_VARIABLES) & np.isnan(c["pressure"])
    rows.refuse(
        lacking & np.isnan(c["height"]), Reason.POSITION_INVALID, "an upper-air value needs a pressure or a height"
    )
    rows.refuse(
        lacking & _among(variable, NEEDS_PRESSURE),
        Reason.POSITION_INVALID,
        lambda i: f"{variable[i]} has a height and no pressure, give its pressure",
    )
    aircraft = _among(c["type"], ("amdar",))
    rows.refuse(
        lacking & ~_among(variable, ("refractivity",)) & ~((c["height"] >= low) & (c["height"] <= high)),
        Reason.POSITION_INVALID,
        lambda i: f"height {c['height'][i]:.9g} is not within [{low:g}, {high:g}] m, give the pressure instead",
    )
    placed: NDArray[np.bool_] = lacking & aircraft & (rows.reason == 0)
    c["pressure"] = np.where(placed, standard_atmosphere_pressure(c["height"]), c["pressure"])
    return placed


def _check_layer(rows: RawRows) -> None:
    """A layer needs two pressures, its top above its bottom; nothing else has a top."""
    c = rows.columns
    layer = _among(c["variable"], ("tlayer",))
    rows.refuse(
        layer & ~(c["pressure_top"] < c["pressure"]),
        Reason.POSITION_INVALID,
        lambda i: f"tlayer needs pressure_top above its pressure, got {c['pressure_top'][i]:.9g} Pa",
    )
    c["pressure_top"] = np.where(layer, c["pressure_top"], np.nan)


def _placing_note(rows: RawRows, placed: NDArray[np.bool_]) -> list[Note]:
    count = int((placed & (rows.reason == 0)).sum())
    if count == 0:
        return []
    return [(count, "values of aircraft without a pressure got that of the ICAO standard atmosphere at their height")]


def _check_time(rows: RawRows) -> None:
    times = rows.columns["time"]
    rows.refuse(np.isnat(times), Reason.TIME_INVALID, "the valid time is missing or cannot be read")
    outside = (times < FIRST_TIME) | (times >= LAST_TIME)
    rows.refuse(outside, Reason.TIME_INVALID, lambda i: f"valid time {times[i]} is not between 1900 and 2200")


def _check_range(rows: RawRows) -> None:
    c = rows.columns
    present, which = _distinct(c["variable"])
    for variable, (low, high) in RANGES.items():
        if variable not in present:
            continue
        impossible = (which == present.index(variable)) & ~((c["value"] >= low) & (c["value"] <= high))
        rows.refuse(
            impossible,
            Reason.RANGE,
            lambda i, variable=variable, low=low, high=high: (  # type: ignore[misc]
                f"{variable} {c['value'][i]:.9g} is not within [{low:g}, {high:g}]"
            ),
        )
    given = ~np.isnan(c["error"])
    rows.refuse(
        given & ~((c["error"] > 0) & np.isfinite(c["error"])),
        Reason.RANGE,
        lambda i: f"the error {c['error'][i]:.9g} is not a positive number",
    )
    given = ~np.isnan(c["preqc"])
    rows.refuse(
        given & ~((c["preqc"] >= 0) & (c["preqc"] <= 100)),
        Reason.RANGE,
        lambda i: f"preqc {c['preqc'][i]:.9g} is not a confidence within [0, 100] %",
    )


def _part(rows: RawRows, notes: list[Note]) -> DecodedBatch:
    columns = dict(rows.columns)
    quality = columns["preqc"]
    columns["preqc"] = np.where((quality >= 0) & (quality <= 100), quality, -1)
    refused = rows.reason != 0

    def chosen(mask: NDArray[np.bool_]) -> dict[str, NDArray[Any]]:
        return {name: values[mask] for name, values in columns.items()}

    usable = columns_to_table(chosen(~refused))
    extra = {"reason": rows.reason[refused], "detail": rows.detail[refused]}
    rejected = columns_to_table(chosen(refused) | extra, REJECTED_SCHEMA)
    counts = Counter(Reason(int(code)).name for code in rows.reason[refused])
    return DecodedBatch(usable, rejected, dict(counts), notes)
