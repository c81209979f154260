"""Where the data behind a label lies, as node.toml says; nothing is opened here.

A block of node.toml becomes one label, with two exceptions: a block of a database without `table` or `sql` is a connection that
views speak of and that no run can ask for, and an omop block becomes a label for each of its tables (`LABEL.person`).
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from folkmoot.node.data.omop import TABLES, types_of, view_of
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from folkmoot.node.config import DataBlock

VOLUME = "volume:"

_GROUP = "folkmoot.sources"
_SUFFIX_WILDCARDS = frozenset("*?[]")
_TYPE = re.compile(r"[A-Z][A-Z0-9_ ]*(\(\d+(,\s*\d+)?\))?")
_VOLUME_PATH = re.compile(rf"{VOLUME}[A-Za-z0-9][A-Za-z0-9_.-]*(/[^/]|/?$)")
_FOLDER_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SourceKind(StrEnum):
    """Forms of data that a node can offer without further packages."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    EXCEL = "excel"
    SQLITE = "sqlite"
    DUCKDB = "duckdb"
    POSTGRES = "postgres"
    MARIADB = "mariadb"
    SPARQL = "sparql"
    FOLDER = "folder"
    VIEW = "view"
    OMOP = "omop"


DATABASES = frozenset({SourceKind.POSTGRES, SourceKind.MARIADB, SourceKind.SQLITE, SourceKind.DUCKDB})
NETWORKED = frozenset({SourceKind.POSTGRES, SourceKind.MARIADB, SourceKind.SPARQL})
_FILES = frozenset(
    {SourceKind.CSV, SourceKind.PARQUET, SourceKind.JSON, SourceKind.EXCEL, SourceKind.SQLITE, SourceKind.DUCKDB}
)
_TYPED = frozenset({SourceKind.CSV, SourceKind.JSON, SourceKind.EXCEL, SourceKind.SQLITE, SourceKind.SPARQL})
_SCHEMES = {
    SourceKind.POSTGRES: ("postgresql",),
    SourceKind.MARIADB: ("mariadb",),
    SourceKind.SPARQL: ("http", "https"),
}


@dataclass(frozen=True)
class Source:
    """The data behind one label. Raises FolkmootError (INVALID_FIELD) for what could never be read."""

    kind: str
    path: Path | str = ""
    """Absolute, or volume:NAME/path."""
    types: Mapping[str, str] = field(default_factory=dict)
    """Types that shall not be guessed, by column, in DuckDB's words."""
    table: str = ""
    schema: str = ""
    sql: str = ""
    of: Mapping[str, "Source"] = field(default_factory=dict)
    url: str = ""
    password_file: Path | None = None
    password_variable: str = ""
    certificate_authority: Path | None = None
    timeout_seconds: int = 3600
    queries: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, problem)

    @property
    def is_folder(self) -> bool:
        """Whether algorithms get it as a folder instead of a table."""
        return self.kind == SourceKind.FOLDER

    @property
    def is_connection(self) -> bool:
        """Whether it is a database as such, of which only views can be read."""
        return self.kind in DATABASES and not self.table and not self.sql

    @property
    def has_network(self) -> bool:
        """Whether reading it takes a connection to another machine; of packages nobody knows."""
        return self.kind in NETWORKED or self.kind not in set(SourceKind) or any(map(_has_network, self.of.values()))


def sources_of(blocks: Mapping[str, "DataBlock"]) -> dict[str, Source]:
    """Turn the data blocks of a collaboration into its labels. Errors name the label."""
    sources: dict[str, Source] = {}
    for label in blocks:
        _add(label, blocks, sources, above=())
    offered = {label: source for label, source in sources.items() if not source.is_connection}
    return {
        offered_label: one
        for label, source in offered.items()
        for offered_label, one in (_omop(label, source) if source.kind == SourceKind.OMOP else ((label, source),))
    }


def _add(label: str, blocks: Mapping[str, "DataBlock"], sources: dict[str, Source], above: tuple[str, ...]) -> None:
    """Make the source of a label after those that it is made of."""
    if label in sources:
        return
    if label in above:
        raise _refused(label, f"is made of itself: {' of '.join((*above, label))}")
    block = blocks[label]
    for name in block.of:
        if name not in blocks:
            raise _refused(label, f"of names {name!r}; blocks here are {', '.join(blocks)}")
        _add(name, blocks, sources, (*above, label))
        if sources[name].kind in (SourceKind.FOLDER, SourceKind.OMOP):
            raise _refused(label, f"of names {name!r}, which is {sources[name].kind} and no table")
    try:
        sources[label] = _source(block, {name: sources[name] for name in block.of})
    except FolkmootError as error:
        raise _refused(label, error.message) from None
    if sources[label].is_folder and not _FOLDER_LABEL.fullmatch(label):
        raise _refused(label, "names a folder of algorithms: write letters, digits, '.', '_' and '-' only")


def _source(block: "DataBlock", of: Mapping[str, Source]) -> Source:
    return Source(
        kind=block.source,
        path=block.path,
        types=block.types,
        table=block.table,
        schema=block.schema,
        sql=block.sql,
        of=of,
        url=block.url,
        password_file=block.password_file,
        password_variable=block.password_variable,
        certificate_authority=block.certificate_authority,
        timeout_seconds=block.timeout_seconds,
        queries=block.queries == "allowed",
        options={**block.options, "tables": block.tables} if block.source == SourceKind.OMOP else block.options,
    )


def _omop(label: str, source: Source) -> Iterator[tuple[str, Source]]:
    """The labels of an OMOP database: one for each table."""
    [(name, database)] = source.of.items()
    for table in source.options["tables"] or TABLES:
        view = view_of(table, source.schema)
        of = {name: database} if database.kind in DATABASES else _omop_files(database, table)
        types = types_of(table) if database.kind == SourceKind.SQLITE else {}
        yield f"{label}.{table}", replace(source, kind=SourceKind.VIEW, sql=view, of=of, types=types, schema="")


def _omop_files(folder: Source, table: str) -> dict[str, Source]:
    """The Parquet files that a view of an OMOP table speaks of: FOLDER/person.parquet, or the folder FOLDER/person."""
    return {name: replace(folder, path=f"{folder.path}/{name}") for name in (table, "concept")}


def _has_network(source: Source) -> bool:
    return source.has_network


def _problems(source: Source) -> Iterator[str]:
    kind = source.kind
    if kind not in set(SourceKind) and kind not in {one.name for one in entry_points(group=_GROUP)}:
        yield f"source {kind!r} is not known; known are {', '.join(SourceKind)} and those of packages (group {_GROUP})"
    if kind in _FILES or kind == SourceKind.FOLDER:
        yield from _path_problems(source)
    if kind in _SCHEMES:
        yield from _url_problems(source)
    if source.types and kind in set(SourceKind) - _TYPED - {SourceKind.VIEW}:
        yield f"types can only be given for {', '.join(sorted(_TYPED))}; {kind} has its own"
    for column, name in source.types.items():
        if not _TYPE.fullmatch(name):
            yield f"type {name!r} of {column} must be one such as VARCHAR or DECIMAL(10, 2)"
    if source.password_file is not None and source.password_variable:
        yield "password_file and password_variable exclude each other; remove one"
    yield from _view_problems(source)


def _path_problems(source: Source) -> Iterator[str]:
    path = str(source.path)
    if path == "/" or not (path.startswith("/") or _VOLUME_PATH.match(path)):
        yield f"path {path!r} must be absolute, or volume:NAME/path"
    several = source.kind in (SourceKind.CSV, SourceKind.PARQUET, SourceKind.JSON)
    if not several and _SUFFIX_WILDCARDS & set(path):
        yield f"path {path!r} must be one {source.kind}, without {' '.join(sorted(_SUFFIX_WILDCARDS))}"
    if ".." in Path(path).parts:
        yield f"path {path!r} must not contain .."


def _url_problems(source: Source) -> Iterator[str]:
    schemes = _SCHEMES[SourceKind(source.kind)]
    try:
        url = urlsplit(source.url)
        host, password, _ = url.hostname, url.password, url.port
    except ValueError:
        host, password, url = None, None, urlsplit("")
    if url.scheme not in schemes or not host:
        yield f"url must be {' or '.join(schemes)}://USER@HOST…"
    if password is not None:
        yield "url must not hold a password: write password_file or password_variable"
    if source.kind == SourceKind.SPARQL and not source.sql:
        yield "sparql needs its SELECT: sql = '…'"


def _view_problems(source: Source) -> Iterator[str]:
    if source.kind == SourceKind.VIEW and not (source.of and source.sql):
        yield "a view needs what it is of and its SELECT: of = '…', sql = '…'"
    if source.kind == SourceKind.VIEW and len(source.of) > 1 and any(one.is_connection for one in source.of.values()):
        yield "a view of several labels can only be of tables: give each database block its table"
    if source.kind == SourceKind.OMOP:
        yield from _omop_problems(source)
    if source.of and source.kind not in (SourceKind.VIEW, SourceKind.OMOP):
        yield f"of belongs to view and omop, not to {source.kind}"


def _omop_problems(source: Source) -> Iterator[str]:
    kinds = [one.kind for one in source.of.values()]
    fits = len(kinds) == 1 and (kinds[0] in DATABASES or kinds[0] == SourceKind.PARQUET)
    if not fits or SourceKind.MARIADB in kinds:
        yield "omop is of one block: a postgres, sqlite or duckdb database, or a folder of Parquet files"
    if unknown := set(source.options.get("tables", ())) - TABLES.keys():
        yield f"tables: {', '.join(sorted(unknown))} not known; known are {', '.join(TABLES)}"


def _refused(label: str, text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{label}: {text}")


def environment_secret(source: Source) -> str:
    """The credential of a source, read anew each time so that it can be changed. Raises OSError or KeyError."""
    if source.password_file is not None:
        return source.password_file.read_text().strip()
    return os.environ[source.password_variable] if source.password_variable else ""


def labels_of_folders(sources: Mapping[str, Source], labels: Sequence[str]) -> list[str]:
    """Those of the labels that are folders."""
    return [label for label in labels if label in sources and sources[label].is_folder]
