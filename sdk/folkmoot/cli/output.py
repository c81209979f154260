"""How commands show lists and things: a table for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from typing import Any, TypeVar
from unicodedata import category

import click

from folkmoot.client.names import printable

Command = TypeVar("Command", bound=Callable[..., Any])

Row = Mapping[str, Any]

MARK = "*"
"""Of what rests on the server's word alone."""

_WIDTH_OF_FILES = 100_000
_NARROWEST = 8
"""Columns that may be folded keep so much of a terminal's width."""


def json_option(command: Command) -> Command:
    """The option that every listing command has."""
    return click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")(command)


def json_of(kind: type[Any], *more: str, many: bool = False) -> Callable[[Command], Command]:
    """The option of a command that shows things of one kind: its JSON has the fields of that kind and `more`, and says so."""
    names = [*(field.name for field in fields(kind)), *more]
    return json_list(*names) if many else json_object(*names)


def json_list(*names: str) -> Callable[[Command], Command]:
    """The same for rows with these names."""
    return _json_as(f"a list of objects with {', '.join(names)}")


def json_object(*names: str) -> Callable[[Command], Command]:
    """The same for one object with these names."""
    return _json_as(f"an object with {', '.join(names)}")


def _json_as(shape: str) -> Callable[[Command], Command]:
    return click.option("--json", "as_json", is_flag=True, help=f"JSON instead of text: {shape}.")


def show_made(made: Any, made_id: str, *, as_json: bool) -> None:
    """Print what was made: all of it as JSON, or its id, for the next command."""
    if as_json:
        show_json(made)
    else:
        click.echo(made_id)


yes_option = click.option("--yes", is_flag=True, help="Don't ask.")
etag_option = click.option(
    "--etag", default="", help="Only if nobody has changed it since it was read: the etag that it had."
)


def show_things(things: Iterable[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """Print things of one kind: as JSON with all their fields, as a table with these."""
    show_rows([vars(one) for one in things], columns, as_json=as_json)


def show_thing(thing: Any, *, as_json: bool) -> None:
    """Print all of one thing: as JSON, or field by field."""
    if as_json:
        show_json(thing)
        return
    shown = [(name.replace("_", " "), text_of(value)) for name, value in vars(thing).items()]
    width = max(len(name) for name, _ in shown)
    behind = "\n" + " " * (width + 2)  # no line that somebody wrote looks like another field
    lines = [f"{name:<{width}}  {text}".rstrip().replace("\n", behind) for name, text in shown]
    click.echo("\n".join(lines))


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

    shown = [[text_of(row[column]).replace("\n", " ") for column in columns] for row in listed]  # one line is one row
    widths = [
        max(map(len, texts)) if _is_whole(column) else 0
        for column, texts in zip(columns, zip(*shown, strict=True), strict=True)
    ]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(heading(column, server_says), overflow="fold", no_wrap=width > 0)
    for texts in shown:
        table.add_row(*texts)
    # What is not a terminal has no edge, and an id goes over that of one: cut in pieces it can be neither searched for nor copied.
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False, markup=False)
    console.width = max(console.width, sum(2 + (width or _NARROWEST) for width in widths))
    console.print(table)
    if server_says:
        console.print(f"{MARK} the server says; nobody signed it")


def _is_whole(column: str) -> bool:
    """Whether what is in a column is copied: an id, an address."""
    return column in ("id", "address") or column.endswith("_id")


def heading(column: str, server_says: Collection[str]) -> str:
    """A column's name for people, with a mark if nobody but the server says what is in it."""
    return f"{column.replace('_', ' ')}{MARK if column in server_says else ''}"


def show_json(value: object) -> None:
    """Print a value as JSON; times by ISO 8601, what else JSON doesn't have as text."""
    click.echo(_harmless(json.dumps(value, indent=2, ensure_ascii=False, default=_in_json)))


def json_line(value: object) -> str:
    """A value as JSON on one line, for what goes on and on."""
    return _harmless(json.dumps(value, ensure_ascii=False, default=_in_json))


def _harmless(text: str) -> str:
    """The same JSON with what could steer a terminal as escapes; programs read the same."""
    if text.replace("\n", "").isprintable():  # much sooner said, of what may be long
        return text
    return "".join(one if one == "\n" or category(one)[0] != "C" else json.dumps(one)[1:-1] for one in text)


def _in_json(value: object) -> Any:
    """Times by ISO 8601; things by their fields, unless they are written as text."""
    if isinstance(value, date):
        return value.isoformat()
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return vars(value)
    return str(value)


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
        case date():
            return value.isoformat()
        case list() | tuple():
            return ", ".join(map(text_of, value))
        case _:
            return printable(str(value))
