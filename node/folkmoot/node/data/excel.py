"""Excel workbooks (.xlsx): the first line of a sheet names its columns.

Excel knows numbers, texts, truths and dates, and a sheet is held in memory as a whole, so a column's type is the one that all of its
values have: whole numbers, numbers, dates, moments, truths, or else texts. Lines without any value are left out.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from python_calamine import CalamineWorkbook

from folkmoot.node.data.rows import Row, guess_schema, reader_of
from folkmoot.node.data.table_source import Condition, Settings


class Sheet:
    """Implements `TableSource`."""

    def __init__(self, settings: Settings) -> None:
        workbook = CalamineWorkbook.from_path(settings.path)
        sheet = workbook.get_sheet_by_name(settings.table) if settings.table else workbook.get_sheet_by_index(0)
        lines = [[_value(cell) for cell in line] for line in sheet.to_python(skip_empty_area=True)]
        lines = [line for line in lines if any(cell is not None for cell in line)]
        names = [str(name) for name in lines[0]] if lines else []
        if len(set(names)) < len(names) or "None" in names:
            raise ValueError("the first line of the sheet must name each column, and no two alike")
        self._rows: list[Row] = _of_one_kind(lines[1:])
        self.schema: pa.Schema = guess_schema(names, self._rows, settings.types)

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:  # noqa: ARG002
        """See TableSource."""
        indexes = [self.schema.get_field_index(name) for name in columns]
        wanted = pa.schema([self.schema.field(index) for index in indexes])
        return reader_of(([row[index] for index in indexes] for row in self._rows), wanted)

    def warnings(self) -> Sequence[str]:
        """See TableSource."""
        return ()


def open_table(settings: Settings) -> Sheet:
    """Open a sheet. Raises if it is not there."""
    return Sheet(settings)


def _value(cell: Any) -> Any:
    return None if cell == "" else cell


def _of_one_kind(lines: list[list[Any]]) -> list[Row]:
    """Give columns of whole numbers as such, and columns of days as days."""
    columns = [list(column) for column in zip(*lines, strict=True)]
    for values in columns:
        there = [value for value in values if value is not None]
        if there and all(type(value) is float and value.is_integer() and abs(value) < 2**53 for value in there):
            values[:] = [value if value is None else int(value) for value in values]
        elif there and all(isinstance(value, dt.datetime) and value.time() == dt.time() for value in there):
            values[:] = [value if value is None else value.date() for value in values]
    return list(zip(*columns, strict=True))
