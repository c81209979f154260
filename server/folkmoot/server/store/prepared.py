"""Statements of the busiest operations: written in SQLAlchemy Core, compiled once, executed by the driver itself.

For a short statement Core takes several times as long to bind parameters and wrap results as the database does to
execute it. A prepared statement takes and gives the same values, by the same types, in the transaction of the connection
that it is given; what it can't have is an expanding IN: execute it once for each value. Where the database is at the end
of a connection, all that is executed at once is under way at once, and costs one way there and back.
"""

import re
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import count
from typing import Any, TypeAlias

from sqlalchemy import CompoundSelect, Connection, Delete, Dialect, Insert, Select, Update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

MOST_ROWS = 32
"""By one statement."""

_STREAMS = count(1)
_AT_ONCE = "folkmoot.at_once"
_PARAMETER = re.compile(r"%\((\w+)\)s")
_NUMBER = re.compile(r"\$(\d+)")

Parameters = Mapping[str, Any]
Statement: TypeAlias = Select[Any] | CompoundSelect[Any] | Insert | Update | Delete
_Process = Callable[[Any], Any]


class Prepared:
    """A statement and, for each dialect and set of parameters, what the driver needs of it."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        self._compiled: dict[tuple[str, tuple[str, ...]], _Compiled] = {}

    def rows(self, connection: Connection, parameters: Parameters) -> list[Any]:
        """Execute it once; return its rows, whose columns are attributes."""
        compiled = self._for(connection.dialect, parameters)
        cursor = self._execute(connection, compiled, "execute", compiled.bind(parameters))
        return [compiled.read(row) for row in cursor]

    def stream(self, connection: Connection, parameters: Parameters) -> Iterator[Any]:
        """Execute it once; give its rows as they are asked for, so that large ones need not all be in memory."""
        compiled = self._for(connection.dialect, parameters)
        cursor = self._execute(connection, compiled, "execute", compiled.bind(parameters), streams=True)
        with closing(cursor), _told(connection, compiled.text):  # the database may go away between two rows
            yield from map(compiled.read, cursor)

    def row(self, connection: Connection, parameters: Parameters) -> Any:
        """Execute it once; return its first row, None if there is none."""
        return next(iter(self.rows(connection, parameters)), None)

    def rows_of_each(self, connection: Connection, parameters: Sequence[Parameters]) -> list[list[Any]]:
        """Execute it for each of the parameters, all of which have the same names; return the rows of each."""
        if len(parameters) < 2 or connection.dialect.name != "postgresql":
            return [self.rows(connection, each) for each in parameters]
        compiled = self._for(connection.dialect, parameters[0])
        bound = [compiled.bind(each) for each in parameters]
        cursor = self._execute(connection, compiled, "executemany", bound, returning=True)
        found = [[compiled.read(row) for row in cursor]]
        while cursor.nextset():
            found.append([compiled.read(row) for row in cursor])
        return found

    def each(self, connection: Connection, parameters: Sequence[Parameters]) -> None:
        """Execute it for each of the parameters, all of which have the same names."""
        if not parameters:
            return
        compiled = self._for(connection.dialect, parameters[0])
        bound = [compiled.bind(each) for each in parameters]
        if len(bound) == 1:  # what takes many takes more steps
            self._execute(connection, compiled, "execute", bound[0])
        elif compiled.inserts and _is_far(connection):
            self._insert(connection, compiled, bound)
        else:
            self._execute(connection, compiled, "executemany", bound)

    def _insert(self, connection: Connection, compiled: "_Compiled", bound: Sequence[Any]) -> None:
        """Insert rows, many by each statement, of which there are few different ones, so that they are planned once."""
        with at_once(connection):
            first = 0
            for size in _sizes(len(bound)):
                values = [value for row in bound[first : first + size] for value in row]
                text = compiled.rows(size)
                with _told(connection, text):
                    _cursor(connection).execute(text, values)
                first += size

    def _for(self, dialect: Dialect, parameters: Parameters) -> "_Compiled":
        key = dialect.name, tuple(parameters)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = _Compiled(self._statement, dialect, key[1])
        return compiled

    @staticmethod
    def _execute(
        connection: Connection,
        compiled: "_Compiled",
        way: str,
        parameters: Any,
        *,
        streams: bool = False,
        **options: bool,
    ) -> Any:
        cursor = _cursor(connection, streams=streams)
        try:
            with _told(connection, compiled.text):
                getattr(cursor, way)(compiled.text, parameters, **options)
        except DBAPIError:
            cursor.close()
            raise
        compiled.describe(cursor.description)
        return cursor


@contextmanager
def _told(connection: Connection, text: str) -> Iterator[None]:
    """Have the driver's errors raised as the library's, which the store knows."""
    errors = connection.dialect.loaded_dbapi.Error
    try:
        yield
    except errors as error:
        raise DBAPIError.instance(text, None, error, errors, dialect=connection.dialect) from error


@contextmanager
def at_once(connection: Connection) -> Iterator[None]:
    """Have prepared statements under way at once where the database is at the end of a connection.

    One that returns rows waits for these; an error of another comes with what is waited for next, at the latest at the end.
    Nothing else may be executed in it: Core does not know of rows that are still to come.
    """
    info = connection.info  # the connection may be lost when this ends, and what is known of it with it
    if not _is_far(connection) or _AT_ONCE in info:
        yield
        return
    driver: Any = connection.connection.driver_connection
    info[_AT_ONCE] = True
    try:
        with _told(connection, "several statements at once"), driver.pipeline():
            yield
    finally:
        del info[_AT_ONCE]


def _is_far(connection: Connection) -> bool:
    """Whether the database is at the end of a connection."""
    return connection.dialect.name == "postgresql"


def _sizes(number: int) -> Iterator[int]:
    """Cut so many rows into lots, whose sizes are powers of two."""
    while number:
        size = min(MOST_ROWS, 1 << (number.bit_length() - 1))
        yield size
        number -= size


def _cursor(connection: Connection, *, streams: bool = False) -> Any:
    """Return a cursor of the driver: for PostgreSQL one that takes statements as the database does, as they are."""
    if not _is_far(connection):
        return connection.connection.cursor()
    from psycopg import RawCursor, RawServerCursor

    driver: Any = connection.connection.driver_connection
    # The driver's cursor has all rows in memory, unless it has a name: then the database keeps them.
    return RawServerCursor(driver, f"folkmoot_stream_{next(_STREAMS)}") if streams else RawCursor(driver)


class _Compiled:
    """A statement's text, and how its parameters and columns are converted."""

    def __init__(self, statement: Statement, dialect: Dialect, names: Sequence[str]) -> None:
        if isinstance(statement, Insert) and not statement.returning_column_descriptions:
            statement = statement.inline()  # nobody asked for the key that the database gives
        columns = _columns(statement)
        compiled: Any = statement.compile(dialect=dialect, column_keys=list(names))
        self.text = str(compiled)
        self.inserts = type(statement) is Insert and not columns and " VALUES (" in self.text
        """Whether it inserts one row, and nothing else."""
        self._order: list[str] | None = None
        if dialect.name == "postgresql":
            self.text, self._order = _numbered(self.text)
        self._many: dict[int, str] = {}
        binds = {name: _impl(compiled.binds[name].type, dialect).bind_processor(dialect) for name in compiled.binds}
        self._constants = {
            name: binds[name](value) if binds[name] else value
            for name, value in compiled.params.items()
            if name not in names
        }
        self._binds = {name: process for name, process in binds.items() if process and name in names}
        self._row = _row_type([name for name, _ in columns])
        self._kinds = [_impl(kind, dialect) for _, kind in columns]
        self._dialect = dialect
        self._reads: list[tuple[int, _Process]] | None = None

    def bind(self, parameters: Parameters) -> Any:
        """Return what the driver takes."""
        bound = {**self._constants, **parameters}
        for name, process in self._binds.items():
            bound[name] = process(bound[name])
        return bound if self._order is None else [bound[name] for name in self._order]

    def rows(self, number: int) -> str:
        """Return what inserts so many rows, and takes the values of one after the other."""
        if number not in self._many:
            head, row = self.text.split(" VALUES ")
            width = len(self._order or ())
            rows = [_shifted(row, before * width) for before in range(number)]
            self._many[number] = f"{head} VALUES {', '.join(rows)}"
        return self._many[number]

    def describe(self, description: Sequence[Any] | None) -> None:
        """Learn from the first result how the driver hands over what it reads."""
        if self._reads is None and description is not None:
            processes = [
                kind.result_processor(self._dialect, column[1])
                for kind, column in zip(self._kinds, description, strict=True)
            ]
            self._reads = [(index, process) for index, process in enumerate(processes) if process]

    def read(self, row: Sequence[Any]) -> Any:
        """Return what Core would give."""
        values = list(row)
        for index, process in self._reads or ():
            values[index] = process(values[index])
        return self._row(*values)


def _numbered(text: str) -> tuple[str, list[str]]:
    """Write a statement with numbers in place of its parameters' names; return the names in the order of their numbers."""
    order = list(dict.fromkeys(_PARAMETER.findall(text)))
    numbered = _PARAMETER.sub(lambda found: f"${order.index(found[1]) + 1}", text)
    return numbered.replace("%%", "%"), order


def _shifted(row: str, by: int) -> str:
    """Write a row with higher numbers."""
    return _NUMBER.sub(lambda found: f"${int(found[1]) + by}", row)


def _impl(kind: TypeEngine[Any], dialect: Dialect) -> Any:
    return kind.dialect_impl(dialect)


def _columns(statement: Any) -> list[tuple[str, TypeEngine[Any]]]:
    if isinstance(statement, CompoundSelect):
        return [(column.name, column.type) for column in statement.selected_columns]
    described = (
        statement.column_descriptions if isinstance(statement, Select) else statement.returning_column_descriptions
    )
    return [(each["name"], each["type"]) for each in described]


def _row_type(names: Sequence[str]) -> Any:
    return namedtuple("Row", names)
