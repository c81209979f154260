"""`folkmoot task`: create, check, list, show, wait, why, repeat, cancel, delete, delete-payloads, logs."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm
from folkmoot.cli.completing import members
from folkmoot.cli.exits import Exit
from folkmoot.cli.output import json_list, json_of, show_json, show_rows, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.cli.task_options import ArgumentType, described_task, task_options
from folkmoot.cli.times import TIMES
from folkmoot.client import Result, RunStatus, TaskSummary, Verdict, Why
from folkmoot.client.results import explain
from folkmoot.client.task import Deleted, TaskState
from folkmoot.trust import FolkmootError

RESULT = ("organization", "state", "proven", "value", "error", "run_id")
"""What is told of a result."""

_made = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help=f"JSON instead of text: an object with id, job_id; with --wait a list of objects with {', '.join(RESULT)}.",
)


@click.group()
def task() -> None:
    """Tasks: questions to organizations, and their answers."""


@task.command()
@task_options
@click.option("--wait", "waiting", is_flag=True, help="Wait for the results and print them.")
@_made
@asynchronous
async def create(profile: Profile, /, *, waiting: bool, as_json: bool, **options: Any) -> None:
    """Create a task: FUNCTION of IMAGE. Prints its id, or with --wait its results."""
    async with client(profile) as opened:
        created = await opened.tasks.create(**await described_task(opened, **options))
        if waiting:
            finish(await created.wait(), as_json=as_json)
        elif as_json:
            show_json({"id": created.id, "job_id": created.job_id})
        else:
            click.echo(created.id)


@task.command()
@task_options
@json_of(Verdict, "text", "server_says", many=True)
@asynchronous
async def check(profile: Profile, /, *, as_json: bool, **options: Any) -> None:
    """Ask the nodes whether they would accept a task, and what they would give it: FUNCTION of IMAGE. Nothing is created.

    Leaves with code 9 if any would refuse. What nodes say is a forecast, which the server tells.
    """
    async with client(profile) as opened:
        found = await opened.tasks.check(**await described_task(opened, **options))
    rows = [{**vars(one), "limits": vars(one.limits), "text": one.text} for one in found]
    show_rows(rows, ("organization", "forecast", "text"), as_json=as_json, server_says=("forecast", "text"))
    if any(one.refused for one in found):
        raise click.exceptions.Exit(Exit.REFUSED)


@task.command("list")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")
@click.option("--state", type=click.Choice(list(TaskState), case_sensitive=False), help="Only those in this state.")
@click.option("--name", "name_contains", help="Only those with this in their names.")
@click.option("--image", help="Only those of this image: its repository, local id or module.")
@click.option("--initiator", shell_complete=members, help="Only those of this organization.")
@click.option("--user", help="Only those of this user, by name or id.")
@click.option("--job", "job_id", help="Only those of this job.")
@click.option("--parent", "parent_task_id", help="Only those below this task.")
@click.option("--session", help="Only those of this session, by name or id.")
@click.option("--study", help="Only those made from this study.")
@click.option("--label", help="Only those that read this data.")
@click.option("--since", type=click.DateTime(TIMES), help="Only those made from then on; local time.")
@click.option("--until", type=click.DateTime(TIMES), help="Only those made before then; local time.")
@json_of(TaskSummary, "server_says", many=True)
@asynchronous
async def list_tasks(profile: Profile, /, limit: int, *, as_json: bool, **options: Any) -> None:
    """List the newest tasks, as the server tells them."""
    filters: Any = {name: value for name, value in options.items() if value is not None}
    filters |= {name: value.astimezone() for name, value in filters.items() if isinstance(value, datetime)}
    async with client(profile) as opened:
        listed = await opened.tasks.list(limit=limit, **filters)
    told = ("state", "name", "initiator", "created_at")
    show_rows(map(vars, listed), ("id", *told), as_json=as_json, server_says=told)


@task.command()
@click.argument("task_id")
@json_of(RunStatus, "server_says", many=True)
@asynchronous
async def show(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Show how far a task's runs are; how one ended is proven if its node signed it, and so is who approved it there."""
    async with client(profile) as opened:
        runs = await (await opened.tasks.get(task_id)).runs
    rows = [{**vars(run), "approvals": [vars(one) if as_json else str(one) for one in run.approvals]} for run in runs]
    columns = ["organization", "state", "proven", "attempt", "fraction", "run_id"]
    columns += ["approvals"] if any(run.approvals for run in runs) else []
    show_rows(rows, columns, as_json=as_json, server_says=("fraction", "node_id"))


@task.command()
@click.argument("task_id")
@json_list(*RESULT)
@asynchronous
async def wait(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Wait until all of a task's runs have ended, and print the results."""
    async with client(profile) as opened:
        results = await (await opened.tasks.get(task_id)).wait()
    finish(results, as_json=as_json)


@task.command()
@click.argument("task_id")
@json_of(Why, many=True)
@asynchronous
async def why(profile: Profile, task_id: str, *, as_json: bool) -> None:
    """Say what a task waits for, which is the server's word, or how its runs ended."""
    async with client(profile) as opened:
        reasons = await (await opened.tasks.get(task_id)).why()
    columns = ("organization", "state", "proven", "reason", "text")
    show_rows(map(vars, reasons), columns, as_json=as_json, empty="every run is completed")


@task.command()
@click.argument("task_id")
@click.option(
    "-o",
    "--organization",
    "organizations",
    multiple=True,
    shell_complete=members,
    help="Who executes; default: who did before.",
)
@click.option(
    "-a",
    "--argument",
    "arguments",
    multiple=True,
    type=ArgumentType(),
    help="An argument, in the place of all of before; with --function the earlier input is not needed.",
)
@click.option("--function", default="", help="Another function of the same image.")
@click.option("--name", default=None, help="A few words for people.")
@click.option("--wait", "waiting", is_flag=True, help="Wait for the results and print them.")
@_made
@asynchronous
async def repeat(
    profile: Profile, /, task_id: str, *, waiting: bool, as_json: bool, name: str | None, **changed: Any
) -> None:
    """Make a task again, as it was or with changes. Prints the new one's id, or with --wait its results.

    Its arguments can be had if your organization executed it; otherwise give --function and its arguments.
    """
    arguments = dict(changed.pop("arguments"))
    changes = {key: value for key, value in (changed | {"name": name}).items() if value}
    if arguments or changes.get("function"):
        changes["arguments"] = arguments
    async with client(profile) as opened:
        made = await (await opened.tasks.get(task_id)).repeat(**changes)
        if waiting:
            finish(await made.wait(), as_json=as_json)
        elif as_json:
            show_json({"id": made.id, "job_id": made.job_id})
        else:
            click.echo(made.id)


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
@yes_option
@asynchronous
async def delete(profile: Profile, task_id: str, *, yes: bool) -> None:
    """Delete a task that has ended, with all below it. Export a proof before, if one is wanted."""
    confirm("It goes with all below it, and nothing brings it back. Delete it?", yes=yes)
    async with client(profile) as opened:
        await (await opened.tasks.get(task_id)).delete()
    click.echo("deleted")


@task.command("delete-payloads")
@click.argument("task_id")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["input", "result", "log"]),
    help="Only these; repeatable. Default: all.",
)
@yes_option
@json_of(Deleted)
@asynchronous
async def delete_payloads(profile: Profile, task_id: str, kinds: tuple[Any, ...], *, yes: bool, as_json: bool) -> None:
    """Delete inputs, results and logs of a task that has ended and of all below it. What happened stays proven."""
    confirm("Nothing brings these back. Delete them?", yes=yes)
    async with client(profile) as opened:
        gone = await (await opened.tasks.get(task_id)).delete_payloads(*kinds)
    if as_json:
        show_json(vars(gone))
    else:
        click.echo(f"deleted {gone.envelopes} envelopes of {gone.size_bytes:,} bytes")


@task.command()
@click.argument("task_id")
@click.argument("organization", shell_complete=members)
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
