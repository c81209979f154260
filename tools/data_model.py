"""docs/data-model.md: the server's tables as they are, with diagrams, from their metadata and their meanings."""

from collections.abc import Iterator

from sqlalchemy import Column, LargeBinary, Table

from folkmoot.server.store import meanings, models
from folkmoot.server.store.tables import Instant

HEAD = """# Data model

<!-- Written by `make generate`: do not edit. -->

What the server stores, in SQLite or PostgreSQL alike. Rows are the truth, streams are hints: whatever is told to anybody
has a row first. Of what people compute it has sealed bytes only. Moments are microseconds since 1970, in UTC; messages and
signed things are stored as they came. No foreign keys are declared: what belongs together is written in one transaction.
"""


def document() -> str:
    """Return the document."""
    return HEAD + "".join(_area(title, tuple(tables)) for title, tables in meanings.AREAS.items())


def _area(title: str, names: tuple[str, ...]) -> str:
    tables = [models.metadata.tables[name] for name in names]
    parts = [f"\n## {title}\n", *_diagram(tables), *(part for table in tables for part in _table(table))]
    return "\n".join(parts) + "\n"


def _diagram(tables: list[Table]) -> Iterator[str]:
    yield "```mermaid\nerDiagram"
    for table in tables:
        keys = [
            column for column in table.columns if column.primary_key or meanings.pointed_to(table.name, column.name)
        ]
        yield f"    {table.name} {{"
        yield from (f"        {_kind(column)} {column.name}{' PK' if column.primary_key else ''}" for column in keys)
        yield "    }"
    for table in tables:
        for column in table.columns:
            target = meanings.pointed_to(table.name, column.name)
            if target is not None and target in models.metadata.tables:
                yield f"    {target} ||--o{{ {table.name} : {column.name}"
    yield "```"


def _table(table: Table) -> Iterator[str]:
    [purpose] = [tables[table.name] for tables in meanings.AREAS.values() if table.name in tables]
    yield f"\n### {table.name}\n\n{purpose}\n\n| column | kind | means |\n|---|---|---|"
    for column in table.columns:
        notes = ["key"] * column.primary_key + ["may be empty"] * bool(column.nullable)
        kind = ", ".join((_kind(column), *notes))
        yield f"| `{column.name}` | {kind} | {meanings.meaning(table.name, column.name)} |"


def _kind(column: Column[object]) -> str:
    if isinstance(column.type, Instant):
        return "moment"
    if isinstance(column.type, LargeBinary):
        return "bytes"
    return {str: "text", int: "integer", float: "number", bool: "boolean"}[column.type.python_type]
