"""The observation table (Arrow): one row is one observed value in SI units; and how its columns are built.

`preqc` is the sender's confidence in per cent (0: none, the value is rejected; null: the sender says nothing).
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.observations.configuration import ObservationConfiguration
from service.observations.conversions import standard_atmosphere_pressure
from service.observations.error_table import default_error

__all__ = [
    "LAYER_VARIABLES", "REJECTED_SCHEMA", "SCHEMA", "SURFACE_VARIABLES", "TYPES", "VARIABLES",
    "columns_to_table", "default_error", "default_errors", "empty_table", "nominal_pressure", "value_ids",
]  # fmt: skip

SURFACE_VARIABLES = ("sp", "msl", "t2m", "td2m", "rh2m", "u10", "v10", "ws10", "wdir10")
LAYER_VARIABLES = ("tlayer", "tb")
VARIABLES = (
    "z", "t", "u", "v", "q", "ws", "wdir", "rh", "td", "gh", "h", "refractivity", *LAYER_VARIABLES, *SURFACE_VARIABLES,
)  # fmt: skip
TYPES = ("temp", "pilot", "amdar", "synop", "ship", "buoy", "satwind", "scatterometer", "gnssro", "sounder")

_TIME = pa.timestamp("us", tz="UTC")
_NAME = pa.dictionary(pa.int32(), pa.string())

SCHEMA: pa.Schema = pa.schema(
    [
        ("id", pa.string()),
        ("time", _TIME),
        ("receipt_time", _TIME),
        ("latitude", pa.float64()),
        ("longitude", pa.float64()),
        ("pressure", pa.float32()),
        ("height", pa.float32()),
        ("variable", _NAME),
        ("value", pa.float32()),
        ("error", pa.float32()),
        ("type", _NAME),
        ("station", _NAME),
        ("source", _NAME),
        ("preqc", pa.int8()),
        ("pressure_top", pa.float32()),
    ]
)
REJECTED_SCHEMA: pa.Schema = SCHEMA.append(pa.field("reason", pa.int16())).append(pa.field("detail", pa.string()))

_ID_RECORD = np.dtype(
    [
        ("time", "<i8"),
        ("latitude", "<f8"),
        ("longitude", "<f8"),
        ("pressure", "<f4"),
        ("height", "<f4"),
        ("value", "<f4"),
    ]
)


def empty_table() -> pa.Table:
    """A table of `SCHEMA` without rows."""
    return SCHEMA.empty_table()


def value_ids(columns: Mapping[str, NDArray[Any]]) -> list[str]:
    """The name of each value: 16 hex digits of sha256 over what was observed where, when and by whom.

    Args:
        columns: time (datetime64), latitude, longitude, pressure, height, value (NaN: none), station, type,
            variable (text), each [n]. Receipt time, source and error take no part: the same value through two
            feeds has the same name, which is how it is recognised as a duplicate.
    """
    n = len(columns["time"])
    record = np.zeros(n, dtype=_ID_RECORD)
    record["time"] = columns["time"].astype("datetime64[us]").astype(np.int64)
    for name in ("latitude", "longitude", "pressure", "height", "value"):
        # one bit pattern for every NaN and for both zeros
        with np.errstate(over="ignore"):
            numbers = columns[name].astype(_ID_RECORD[name]) + 0.0
        record[name] = np.where(np.isnan(numbers), np.nan, numbers)
    packed, width = record.tobytes(), _ID_RECORD.itemsize
    names = zip(columns["station"], columns["type"], columns["variable"], strict=True)
    endings: dict[tuple[Any, ...], bytes] = {}
    out = []
    for start, key in zip(range(0, n * width, width), names, strict=True):
        ending = endings.get(key)
        if ending is None:
            endings[key] = ending = "|{}|{}|{}".format(*key).encode()
        out.append(hashlib.sha256(packed[start : start + width] + ending).hexdigest()[:16])
    return out


def _named_by_layer(columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The variable of each value, with the top of its layer where it has one: layers with one bottom are several."""
    variable, top = columns["variable"], columns.get("pressure_top")
    if top is None or np.isnan(top).all():
        return variable
    return np.array([v if np.isnan(p) else f"{v}@{p:.9g}" for v, p in zip(variable, top, strict=True)], dtype=object)


def nominal_pressure(table: pa.Table) -> NDArray[np.float64]:
    """About where each value lies, Pa: [n]. Its pressure; else the standard atmosphere's at its height; null is nan.

    Of a layer the middle in ln p.
    """

    def number(name: str) -> NDArray[np.float64]:
        if name not in table.column_names:
            return np.full(table.num_rows, np.nan)
        return np.asarray(table.column(name).cast(pa.float64()).to_numpy(), np.float64)

    pressure, top = number("pressure"), number("pressure_top")
    pressure = np.where(np.isnan(top), pressure, np.sqrt(pressure * top))
    with np.errstate(invalid="ignore"):
        return np.where(np.isnan(pressure), standard_atmosphere_pressure(number("height")), pressure)


def columns_to_table(columns: Mapping[str, NDArray[Any]], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Arrays by column name, as decoders and the simulated network hold them, as a table of `schema` with ids.

    Args:
        columns: every column of `schema` but `id`, each [n]; `pressure_top` may be left out. Times are datetime64 (UTC; NaT: null); NaN in a
            number column and None in a text column mean null; `preqc` below 0 means null.

    Raises:
        KeyError: a column is missing.
    """
    arrays: list[pa.Array] = []
    for field in schema:
        if field.name == "id":
            arrays.append(pa.array(value_ids({**columns, "variable": _named_by_layer(columns)}), type=pa.string()))
            continue
        if field.name == "pressure_top" and field.name not in columns:
            arrays.append(pa.nulls(len(arrays[0]), field.type))
            continue
        values = columns[field.name]
        if field.type == _TIME:
            array = pa.array(values.astype("datetime64[us]"), type=pa.timestamp("us")).cast(_TIME)
        elif pa.types.is_floating(field.type):
            with np.errstate(over="ignore"):
                array = pa.array(values.astype(field.type.to_pandas_dtype()), from_pandas=True)
        elif pa.types.is_integer(field.type):
            array = pa.array(values.astype(np.int64), mask=values < 0 if field.name == "preqc" else None).cast(
                field.type
            )
        else:
            array = _texts(values).cast(field.type)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, schema=schema)


def _texts(values: NDArray[Any]) -> pa.Array:
    texts = pa.array(values if values.dtype == object else values.tolist(), type=pa.string())
    # encoded first: a cast of the texts themselves would look each of them up twice
    return texts.dictionary_encode() if len(texts) else texts


def default_errors(table: pa.Table, configuration: ObservationConfiguration | None = None) -> NDArray[np.float32]:
    """The 1-sigma error of every row of a `SCHEMA` table: its own where it brings one, else its type's default. [n]"""
    error: NDArray[np.float32] = table.column("error").to_numpy().astype(np.float32)
    pressure = nominal_pressure(table)
    kinds = table.column("type").combine_chunks().cast(pa.string()).to_numpy(zero_copy_only=False)
    variables = table.column("variable").combine_chunks().cast(pa.string()).to_numpy(zero_copy_only=False)
    for kind in np.unique(kinds.astype(str)):
        for variable in np.unique(variables[kinds == kind].astype(str)):
            rows = (kinds == kind) & (variables == variable) & np.isnan(error)
            error[rows] = default_error(str(kind), str(variable), pressure[rows], configuration)
    return error
