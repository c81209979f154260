"""What `folkmoot task create` and `folkmoot task check` are told of a task: the same options, given to the same parameters."""

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.cli.completing import members
from folkmoot.client import AsyncClient, Resources, Subtasks

Command = TypeVar("Command", bound=Callable[..., Any])


class ArgumentType(click.ParamType[tuple[str, Any]]):
    """`name=value`; the value is JSON where it is JSON, text otherwise; `name=@file` is a file's bytes."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Split and read."""
        name, separator, text = str(value).partition("=")
        if not separator or not name:
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        if text.startswith("@"):
            try:
                return name, Path(text[1:]).read_bytes()
            except OSError as error:
                self.fail(f"{text[1:]} can't be read: {error.strerror}", param, ctx)
        return name, parsed(text)


def parsed(text: str) -> Any:
    """A value as JSON has it; text that is not JSON stands for itself."""
    try:
        return json.loads(text, parse_constant=_refused)
    except ValueError:
        return text


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.argument("image"),
    click.argument("function"),
    click.option(
        "-o",
        "--organization",
        "organizations",
        multiple=True,
        shell_complete=members,
        help="Who executes; may be repeated.",
    ),
    click.option(
        "--study", default="", help="All organizations of this study execute, or those of them that are named."
    ),
    click.option(
        "-a", "--argument", "arguments", multiple=True, type=ArgumentType(), help="An argument; JSON, text, or @file."
    ),
    click.option("-l", "--label", "labels", multiple=True, help="Data that runs may read; may be repeated."),
    click.option(
        "-r",
        "--result-receiver",
        "result_receivers",
        multiple=True,
        shell_complete=members,
        help="Who can read the results; default: your organization.",
    ),
    click.option("--after", multiple=True, help="Id of a task that must be completed before; may be repeated."),
    click.option("--name", default="", help="A few words for people."),
    click.option("--purpose", default="", help="Why the data is used."),
    click.option("--scratch", is_flag=True, help="Runs of the job share files at each node."),
    click.option("--session", default="", help="A session, by name or id, whose dataframes runs read or leave."),
    click.option(
        "--dataframe", "dataframes", multiple=True, help="A dataframe of it that runs may read; may be repeated."
    ),
    click.option("--leaves", default="", help="The dataframe of it that each run leaves at its node."),
    click.option("--messages", is_flag=True, help="Sibling runs may message each other."),
    click.option("--subtasks", type=click.IntRange(min=1), help="Subtasks that each run may create."),
    click.option(
        "--subtask-depth", type=click.IntRange(min=1), default=1, show_default=True, help="Levels of subtasks."
    ),
    click.option(
        "--resource-class", default="", help="A class of resources that the nodes' policies name; `folkmoot node list`."
    ),
    click.option(
        "--expires-in-hours",
        type=click.FloatRange(min=0, min_open=True),
        default=24.0,
        show_default=True,
        help="Until when runs may start.",
    ),
)


def task_options(command: Command) -> Command:
    """Arguments and options that describe a task."""
    return reduce(lambda made, option: option(made), reversed(_OPTIONS), command)


async def described_task(
    client: AsyncClient,
    *,
    organizations: Sequence[str],
    arguments: Sequence[tuple[str, Any]],
    result_receivers: Sequence[str],
    after: Sequence[str],
    subtasks: int | None,
    subtask_depth: int,
    resource_class: str,
    expires_in_hours: float,
    **same: Any,
) -> dict[str, Any]:
    """What the options say, as `tasks.create` and `tasks.check` take it."""
    return {
        **same,
        "organizations": organizations or None,
        "arguments": dict(arguments),
        "result_receivers": result_receivers or None,
        "after": [await client.tasks.get(one) for one in after],
        "subtasks": Subtasks(depth=subtask_depth, number=subtasks) if subtasks else None,
        "resources": Resources(resource_class=resource_class) if resource_class else None,
        "expires_in": timedelta(hours=expires_in_hours),
    }
