"""How commands show lists and things: a table for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import click

from folkmoot.client.names import printable

Command = TypeVar("Command", bound=Callable[..., Any])

Row = Mapping[str, Any]

MARK = "*"
"""Of what rests on the server's word alone."""

_WIDTH_OF_FILES = 100_000


def json_option(command: Command) -> Command:
    """The option that every listing command has."""
    return click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")(command)


def show_rows(
    rows: Iterable[Row],
    columns: Sequence[str],
    *,
    as_json: bool,
    server_says: Collection[str] = (),
    empty: str = "nothing",
) -> None:
    """Print rows: as JSON with all they have, as a table with these columns.

    `server_says`: columns that rest on the server's word alone. They are marked, and every JSON object names them.
    """
    listed = list(rows)
    if as_json:
        show_json([{**row, "server_says": list(server_says)} for row in listed] if server_says else listed)
        return
    if not listed:
        click.echo(f"({empty})")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(heading(column, server_says), overflow="fold")
    for row in listed:
        table.add_row(*(text_of(row[column]) for column in columns))
    # What is not a terminal has no edge: an address that is cut in pieces can be neither searched for nor copied.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False, markup=False)
    console.print(table)
    if server_says:
        console.print(f"{MARK} the server says; nobody signed it")


def heading(column: str, server_says: Collection[str]) -> str:
    """A column's name for people, with a mark if nobody but the server says what is in it."""
    return f"{column.replace('_', ' ')}{MARK if column in server_says else ''}"


def show_json(value: object) -> None:
    """Print a value as JSON; times by ISO 8601, what else JSON doesn't have as text."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=_text_in_json))


def _text_in_json(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def counted(number: int, one: str, many: str = "") -> str:
    """So many of something, in words."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def approvals(missing: int) -> str:
    """How many approvals are missing, in words."""
    return counted(missing, "approval is missing", "approvals are missing")


def text_of(value: object) -> str:
    """A value in a table; times are local."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return f"{value.astimezone():%Y-%m-%d %H:%M:%S}"
        case list() | tuple():
            return ", ".join(map(text_of, value))
        case _:
            return printable(str(value))
