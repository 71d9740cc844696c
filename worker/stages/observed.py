"""The observation table as arrays: what the filters, the model and the scores read."""

from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.observations.table import SURFACE_VARIABLES, default_errors
from worker.model import Observations

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]


class Observed:
    """The columns of a table of n values. Nulls are nan in number columns and "" in text columns."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def where(self, chosen: Bools) -> "Observed":
        """The values for which `chosen` [n] is true."""
        return Observed(self.table.filter(pa.array(chosen)))

    def text(self, name: str) -> npt.NDArray[np.str_]:
        """[n]"""
        column = self.table.column(name).combine_chunks().cast(pa.string()).fill_null("")
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(str)

    def number(self, name: str) -> Doubles:
        """[n]"""
        return np.asarray(self.table.column(name).cast(pa.float64()).to_numpy(), np.float64)

    @cached_property
    def variable(self) -> npt.NDArray[np.str_]:
        return self.text("variable")

    @cached_property
    def type(self) -> npt.NDArray[np.str_]:
        return self.text("type")

    @cached_property
    def station(self) -> npt.NDArray[np.str_]:
        return self.text("station")

    @cached_property
    def value(self) -> Doubles:
        return self.number("value")

    @cached_property
    def error(self) -> Doubles:
        """1-sigma: the report's own, else its type's default; nan where there is neither."""
        return np.asarray(default_errors(self.table), np.float64)

    @cached_property
    def pressure(self) -> Doubles:
        """Pa; nan for surface variables, whose level is the ground."""
        return np.where(np.isin(self.variable, SURFACE_VARIABLES), np.nan, self.number("pressure"))

    def observations(self, valid_time: datetime) -> Observations:
        """What the model sees of them when it analyses `valid_time`."""
        microseconds = self.table.column("time").cast(pa.int64()).to_numpy() - round(valid_time.timestamp() * 1e6)
        return Observations(
            variable=self.variable,
            pressure=self.pressure,
            latitude=self.number("latitude"),
            longitude=self.number("longitude"),
            value=self.value,
            error=self.error,
            time_offset=microseconds / 3.6e9,
        )


def with_columns(table: pa.Table, columns: dict[str, npt.NDArray[Any]]) -> pa.Table:
    """`table` with these columns appended or replaced; nan means null."""
    for name, values in columns.items():
        array = pa.array(values, from_pandas=True)
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, array)
        else:
            table = table.append_column(name, array)
    return table
