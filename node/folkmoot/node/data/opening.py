"""From what node.toml says to a relation of the engine, in the reading process.

Files are read by the engine itself. Every other source gives Arrow streams (`table_source`), which the engine reads as often as it
needs; a database gets the columns and conditions on the way. A view of one database is executed there, every other one in the engine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import entry_points

import pyarrow as pa
from duckdb import DuckDBPyConnection, DuckDBPyRelation

from folkmoot.node.data.engine import name_view, quoted_name
from folkmoot.node.data.files import categories, open_files, parts
from folkmoot.node.data.streams import Scan
from folkmoot.node.data.table_source import SOURCES_GROUP, Condition, OpenTable, Settings, TableSource

FILES = frozenset({"csv", "parquet", "json"})

_MODULES = {
    "excel": ("excel", "excel"),
    "sqlite": ("sqlite", "node"),
    "postgres": ("postgres", "postgres"),
    "mariadb": ("mariadb", "mariadb"),
    "sparql": ("sparql", "sparql"),
}
"""The module of each kind, and the extra that brings its library."""

_PUSHES_VIEWS = frozenset({"postgres", "mariadb", "sqlite"})


@dataclass
class Opened:
    """A source in the engine: how to make it a relation, and the files that the engine may open for that."""

    relation: Callable[[Sequence[str] | None, Sequence[Condition]], DuckDBPyRelation]
    """Given the columns that are needed (None: all) and conditions, both there to save work."""

    paths: list[str] = field(default_factory=list)
    categories: Mapping[str, pa.DataType] = field(default_factory=dict)
    source: TableSource | None = None


def open_table(connection: DuckDBPyConnection, settings: Settings) -> Opened:
    """Open a source. Raises whatever its library raises."""
    if settings.kind in FILES:
        return _files(connection, settings)
    if settings.kind == "duckdb":
        return _database_file(connection, settings)
    if settings.kind == "view" and not (len(settings.of) == 1 and settings.of[0].kind in _PUSHES_VIEWS):
        return _view(connection, settings)
    return _streams(connection, settings)


def _files(connection: DuckDBPyConnection, settings: Settings) -> Opened:
    paths = parts(settings)
    relation = open_files(connection, settings, paths)
    return Opened(lambda _columns, _conditions: relation, paths, categories(settings, paths))


def _database_file(connection: DuckDBPyConnection, settings: Settings) -> Opened:
    name = quoted_name(f"database {settings.label}")
    connection.execute(f"ATTACH '{settings.path.replace(chr(39), chr(39) * 2)}' AS {name} (READ_ONLY)")
    connection.execute(f"USE {name}")
    if not settings.table:
        return Opened(lambda _columns, _conditions: connection.sql("SELECT 1"), [settings.path])
    schema = f"{quoted_name(settings.schema)}." if settings.schema else ""
    relation = connection.sql(f"SELECT * FROM {name}.{schema or 'main.'}{quoted_name(settings.table)}")  # noqa: S608 - the data owner's
    return Opened(lambda _columns, _conditions: relation, [settings.path])


def _view(connection: DuckDBPyConnection, settings: Settings) -> Opened:
    """The data owner's SELECT over other labels."""
    opened = [open_table(connection, one) for one in settings.of]
    for one, of in zip(opened, settings.of, strict=True):
        if of.table or of.kind != "duckdb":
            name_view(connection, one.relation(None, ()), of.label)
    relation = _one_select(connection, settings.sql)
    return Opened(
        lambda _columns, _conditions: relation,
        [path for one in opened for path in one.paths],
        {name: kind for one in opened for name, kind in one.categories.items() if name in relation.columns},
    )


def _one_select(connection: DuckDBPyConnection, sql: str) -> DuckDBPyRelation:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or str(statements[0].type) != "StatementType.SELECT":
        raise ValueError("sql of a view must be one SELECT")
    return connection.sql(sql)


def _streams(connection: DuckDBPyConnection, settings: Settings) -> Opened:
    source = _source(settings)
    schema = source.schema

    def relation(columns: Sequence[str] | None, conditions: Sequence[Condition]) -> DuckDBPyRelation:
        name = f"stream {settings.label}"
        wanted = schema.names if columns is None else [name for name in schema.names if name in set(columns)]
        connection.register(name, Scan(source, wanted or schema.names[:1], conditions))
        return connection.table(quoted_name(name))

    kinds = {one.name: one.type for one in schema if pa.types.is_dictionary(one.type)}
    return Opened(relation, [], kinds, source)


def _source(settings: Settings) -> TableSource:
    """The source that a kind, or a package, gives."""
    if settings.kind == "view":
        [database] = settings.of
        return _source(replace(database, sql=settings.sql, types={**database.types, **settings.types}))
    if settings.kind in _MODULES:
        name, extra = _MODULES[settings.kind]
        try:
            module = import_module(f"folkmoot.node.data.{name}")
        except ModuleNotFoundError as error:
            raise ValueError(f"{error}: install folkmoot[{extra}]") from None
        opened: TableSource = module.open_table(settings)
        return opened
    [entry] = entry_points(group=SOURCES_GROUP, name=settings.kind)
    open_: OpenTable = entry.load()
    return open_(settings)
