"""The observation table as arrays: what the filters, the model and the scores read."""

from collections.abc import Iterator
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from service.observations.configuration import ObservationConfiguration, shipped
from service.observations.table import SURFACE_VARIABLES, default_errors, nominal_pressure
from worker.model import Observations

Bools = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Texts = npt.NDArray[np.str_]
# what stands for a name that is missing or masked, as ships' names may be: many platforms, not one
NAMELESS = ("", "unknown", "SHIP", "MASKSTID")


class Columns:
    """The columns of a whole table, each converted once. Nulls are nan in number columns and "" in text columns."""

    def __init__(self, table: pa.Table, configuration: ObservationConfiguration) -> None:
        self.table, self.configuration = table, configuration
        self._numbers: dict[str, Doubles] = {}
        self._names: dict[str, tuple[Texts, Integers]] = {}

    def names(self, name: str) -> tuple[Texts, Integers]:
        """The distinct texts of a column, and which of them each row has."""
        if name not in self._names:
            column = self.table.column(name).combine_chunks().cast(pa.string()).fill_null("").dictionary_encode()
            distinct = np.asarray(column.dictionary.to_numpy(zero_copy_only=False)).astype(str)
            self._names[name] = distinct, column.indices.to_numpy().astype(np.int64)
        return self._names[name]

    def number(self, name: str) -> Doubles:
        """A number column; nan where the table has no such column."""
        if name not in self._numbers:
            if name == "error":
                values = self._errors()
            elif name not in self.table.column_names:
                values = np.full(self.table.num_rows, np.nan)
            else:
                values = np.asarray(self.table.column(name).cast(pa.float64()).to_numpy(), np.float64)
            self._numbers[name] = values
        return self._numbers[name]

    def microseconds(self, name: str) -> Integers:
        """A time column as microseconds since 1970; the smallest integer where it is null."""
        column = self.table.column(name).cast(pa.int64()).fill_null(np.iinfo(np.int64).min)
        return np.asarray(column.to_numpy(), np.int64)

    @cached_property
    def nominal_pressure(self) -> Doubles:
        """Of every value, Pa; see `service.observations.table.nominal_pressure`."""
        return nominal_pressure(self.table)

    def _errors(self) -> Doubles:
        return np.asarray(default_errors(self.table, self.configuration), np.float64)


class Observed:
    """Some rows of a table of observed values, n of them."""

    def __init__(self, table: pa.Table, configuration: ObservationConfiguration | None = None) -> None:
        self._columns, self._rows = Columns(table, configuration or shipped()), np.arange(table.num_rows)

    @classmethod
    def of(cls, columns: Columns, rows: Integers | None = None) -> "Observed":
        """Rows of columns that are there already."""
        self = cls.__new__(cls)
        self._columns = columns
        self._rows = np.arange(columns.table.num_rows) if rows is None else rows
        return self

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def table(self) -> pa.Table:
        return self._columns.table.take(pa.array(self._rows))

    def where(self, chosen: Bools) -> "Observed":
        """The values for which `chosen` [n] is true."""
        return Observed.of(self._columns, self._rows[chosen])

    def text(self, name: str) -> Texts:
        """[n]"""
        distinct, index = self.names(name)
        return distinct[index] if len(distinct) else np.full(len(self), "", dtype=str)

    def names(self, name: str) -> tuple[Texts, Integers]:
        """The distinct texts of the column (of the whole table), and which of them each value has [n]."""
        distinct, index = self._columns.names(name)
        return distinct, index[self._rows]

    def has(self, name: str, *wanted: str) -> Bools:
        """[n]: the text of this column is one of these."""
        distinct, index = self.names(name)
        return np.asarray(np.isin(distinct, wanted)[index], bool)

    def nameless(self) -> Bools:
        """[n]: nothing says which platform it was."""
        return self.has("station", *NAMELESS)

    def number(self, name: str) -> Doubles:
        """[n]"""
        return self._columns.number(name)[self._rows]

    def microseconds(self, name: str = "time") -> Integers:
        """[n]: since 1970."""
        return self._columns.microseconds(name)[self._rows]

    def pairs(self) -> Iterator[tuple[str, str, Integers]]:
        """(type, variable, the positions of their values) for each pair that occurs."""
        (kinds, kind), (variables, variable) = self.names("type"), self.names("variable")
        code = kind * max(len(variables), 1) + variable
        order = np.argsort(code, kind="stable")
        codes, starts = np.unique(code[order], return_index=True)
        for number, rows in zip(codes, np.split(order, starts[1:]), strict=False):
            yield str(kinds[number // len(variables)]), str(variables[number % len(variables)]), rows

    @property
    def variable(self) -> Texts:
        return self.text("variable")

    @property
    def type(self) -> Texts:
        return self.text("type")

    @property
    def station(self) -> Texts:
        return self.text("station")

    @property
    def value(self) -> Doubles:
        """As the cycle uses it: what was reported, less the bias where the table has one."""
        return self.number("value") - np.nan_to_num(self.number("bias"))

    @property
    def error(self) -> Doubles:
        """1-sigma: the report's own, else its type's default; nan where there is neither."""
        return self.number("error")

    @property
    def pressure(self) -> Doubles:
        """Pa, about: of a value at a height the standard atmosphere's, of a layer its middle; nan for surface variables."""
        return np.where(self.has("variable", *SURFACE_VARIABLES), np.nan, self._columns.nominal_pressure[self._rows])

    @property
    def given_pressure(self) -> Doubles:
        """Pa as reported; nan for surface variables, whose level is the ground, and where only a height is known."""
        return np.where(self.has("variable", *SURFACE_VARIABLES), np.nan, self.number("pressure"))

    @property
    def height(self) -> Doubles:
        """m above sea level, as the model's equivalent needs it: nan where the configuration asks for no reduction."""
        height = self.number("height").copy()
        for kind, variable, rows in self.pairs():
            entry = self._columns.configuration.of(kind, variable)
            if entry is not None and entry.operator == "surface":
                height[rows] = np.nan
        return height

    def hours_from(self, moment: datetime) -> Doubles:
        """[n]: valid time less `moment`."""
        return (self.microseconds() - round(moment.timestamp() * 1e6)) / 3.6e9

    def observations(self, valid_time: datetime) -> Observations:
        """What the model sees of them when it analyses `valid_time`."""
        return Observations(
            variable=self.variable,
            pressure=self.given_pressure,
            latitude=self.number("latitude"),
            longitude=self.number("longitude"),
            value=self.value,
            error=self.error,
            time_offset=self.hours_from(valid_time),
            height=self.height,
            pressure_top=self.number("pressure_top"),
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
