"""`folkmoot task`: create, list, show, wait, why, cancel, logs."""

import json
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.access import asynchronous, client
from folkmoot.cli.exits import Exit
from folkmoot.cli.output import json_option, show_json, show_rows
from folkmoot.cli.profile import Profile
from folkmoot.client import Result, Subtasks
from folkmoot.client.results import explain
from folkmoot.trust import FolkmootError


@click.group()
def task() -> None:
    """Tasks: questions to organizations, and their answers."""


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


@task.command()
@click.argument("image")
@click.argument("function")
@click.option(
    "-o", "--organization", "organizations", multiple=True, required=True, help="Who executes; may be repeated."
)
@click.option(
    "-a", "--argument", "arguments", multiple=True, type=ArgumentType(), help="An argument; JSON, text, or @file."
)
@click.option("-l", "--label", "labels", multiple=True, help="Data that runs may read; may be repeated.")
@click.option(
    "-r", "--result-receiver", "receivers", multiple=True, help="Who can read the results; default: your organization."
)
@click.option("--after", multiple=True, help="Id of a task that must be completed before; may be repeated.")
@click.option("--name", default="", help="A few words for people.")
@click.option("--purpose", default="", help="Why the data is used.")
@click.option("--scratch", is_flag=True, help="Runs of the job share files at each node.")
@click.option("--messages", is_flag=True, help="Sibling runs may message each other.")
@click.option("--subtasks", type=click.IntRange(min=1), help="Subtasks that each run may create.")
@click.option("--subtask-depth", type=click.IntRange(min=1), default=1, show_default=True, help="Levels of subtasks.")
@click.option(
    "--expires-in-hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    help="Until when runs may start.",
)
@click.option("--wait", "waiting", is_flag=True, help="Wait for the results and print them.")
@json_option
@asynchronous
async def create(
    profile: Profile,
    image: str,
    function: str,
    *,
    organizations: tuple[str, ...],
    arguments: tuple[tuple[str, Any], ...],
    labels: tuple[str, ...],
    receivers: tuple[str, ...],
    after: tuple[str, ...],
    name: str,
    purpose: str,
    scratch: bool,
    messages: bool,
    subtasks: int | None,
    subtask_depth: int,
    expires_in_hours: float,
    waiting: bool,
    as_json: bool,
) -> None:
    """Create a task: FUNCTION of IMAGE. Prints its id, or with --wait its results."""
    async with client(profile) as opened:
        created = await opened.tasks.create(
            image=image,
            function=function,
            organizations=organizations,
            arguments=dict(arguments),
            labels=labels,
            result_receivers=receivers or None,
            after=[await opened.tasks.get(one) for one in after],
            name=name,
            purpose=purpose,
            scratch=scratch,
            messages=messages,
            subtasks=Subtasks(depth=subtask_depth, number=subtasks) if subtasks else None,
            expires_in=timedelta(hours=expires_in_hours),
        )
        if waiting:
            finish(await created.wait(), as_json=as_json)
        elif as_json:
            show_json({"id": created.id, "job_id": created.job_id})
        else:
            click.echo(created.id)


@task.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@json_option
@asynchronous
async def list_tasks(profile: Profile, limit: int, *, as_json: bool) -> None:
    """List the newest tasks, as the server tells them."""
    async with client(profile) as opened:
        listed = await opened.tasks.list(limit=limit)
    told = ("state", "name", "initiator", "created_at")
    show_rows(map(vars, listed), ("id", *told), as_json=as_json, server_says=told)


@task.command()
@click.argument("task_id")
@json_option
@asynchronous
async def show(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Show how far a task's runs are; how one ended is proven if its node signed it."""
    async with client(profile) as opened:
        runs = await (await opened.tasks.get(task_id)).runs
    columns = ("organization", "state", "proven", "attempt", "fraction", "run_id")
    show_rows(map(vars, runs), columns, as_json=as_json, server_says=("fraction", "node_id"))


@task.command()
@click.argument("task_id")
@json_option
@asynchronous
async def wait(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Wait until all of a task's runs have ended, and print the results."""
    async with client(profile) as opened:
        results = await (await opened.tasks.get(task_id)).wait()
    finish(results, as_json=as_json)


@task.command()
@click.argument("task_id")
@json_option
@asynchronous
async def why(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Say what a task waits for, which is the server's word, or how its runs ended."""
    async with client(profile) as opened:
        reasons = await (await opened.tasks.get(task_id)).why()
    columns = ("organization", "state", "proven", "reason", "text")
    show_rows(map(vars, reasons), columns, as_json=as_json, empty="every run is completed")


@task.command()
@click.argument("task_id")
@asynchronous
async def cancel(profile: Profile, task_id: str) -> None:
    """Cancel a task and all below it."""
    async with client(profile) as opened:
        await (await opened.tasks.get(task_id)).cancel()
    click.echo("cancelled; runs that a node holds end when the node says so")


@task.command()
@click.argument("task_id")
@click.argument("organization")
@click.option("--follow", is_flag=True, help="Until the run ends.")
@asynchronous
async def logs(profile: Profile, task_id: str, organization: str, *, follow: bool) -> None:
    """Print what the algorithm logged at ORGANIZATION."""
    async with client(profile) as opened:
        async for line in (await opened.tasks.get(task_id)).logs(organization, follow=follow):
            click.echo(str(line))


def finish(results: Iterable[Result], *, as_json: bool) -> None:
    """Print results; leaves with NOT_COMPLETED unless every run is completed, and proven to be."""
    rows = [described(result) for result in results]
    show_rows(rows, ("organization", "state", "proven", "value"), as_json=as_json)
    if any(row["error"] for row in rows):
        raise click.exceptions.Exit(Exit.NOT_COMPLETED)


def described(result: Result) -> dict[str, Any]:
    """A result as a row: its value, or in words why there is none."""
    error, value = "", None
    try:
        result.raise_for_state()
        value = shown(result.value) if result.has_value else "(sealed to others)"
    except FolkmootError as problem:
        error = str(problem)
        value = explain(result) if result.problem is None else error
    return {
        "organization": result.organization,
        "state": str(result.state),
        "proven": str(result.proven),
        "value": value,
        "error": error,
        "run_id": result.run_id,
    }


def shown(value: Any) -> Any:
    """A value for the terminal: bytes and tables by their size, JSON as it is."""
    if isinstance(value, bytes):
        return f"({len(value):,} bytes)"
    return value if isinstance(value, dict | list | str | int | float | bool | None) else str(value)
