"""`folkmoot session`: dataframes that tasks leave at the nodes, for later tasks to read."""

from dataclasses import asdict, dataclass
from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm
from folkmoot.cli.output import etag_option, json_of, show_made, show_rows, show_thing, show_things, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.client import Dataframe, SessionInfo

_FOR_WHOM = click.Choice(["own", "organization", "collaboration"])


@dataclass(frozen=True)
class ShownSession(SessionInfo):
    """A session with what is told of its dataframes."""

    dataframes: tuple[Dataframe, ...]


@click.group()
def session() -> None:
    """Sessions: dataframes that stay at the nodes, for later tasks."""


@session.command("create")
@click.argument("name")
@click.option(
    "--scope",
    type=_FOR_WHOM,
    default="own",
    show_default=True,
    help="For whom it is: you, your organization, or the collaboration.",
)
@json_of(SessionInfo)
@asynchronous
async def create_session(profile: Profile, /, name: str, *, as_json: bool, scope: Any) -> None:
    """Make the session NAME. `folkmoot task create --session NAME` uses it. Prints its id."""
    async with client(profile) as opened:
        made = (await opened.sessions.create(name, scope=scope)).info
    show_made(made, made.session_id, as_json=as_json)


@session.command("list")
@click.option("--name", "name_prefix", default="", help="Only those whose names begin so.")
@click.option("--user", default="", help="Only those that this user made, by name or id.")
@json_of(SessionInfo, many=True)
@asynchronous
async def list_sessions(profile: Profile, /, *, as_json: bool, **only: str) -> None:
    """List the sessions that are for you, last used first."""
    async with client(profile) as opened:
        found = [one.info async for one in opened.sessions.list(**only)]
    columns = ("name", "scope", "organization", "dataframe_names", "last_used_at", "session_id")
    show_things(found, columns, as_json=as_json)


@session.command("show")
@click.argument("name_or_id")
@json_of(ShownSession)
@asynchronous
async def show_session(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Show a session: where its dataframes are, and what data owners let be told of them."""
    async with client(profile) as opened:
        found = await opened.sessions.get(name_or_id)
        dataframes = await found.dataframes()
    if as_json:
        show_thing(ShownSession(**vars(found.info), dataframes=dataframes), as_json=True)
        return
    show_thing(found.info, as_json=False)
    click.echo()
    rows = [{"dataframe": one.name, **asdict(part)} for one in dataframes for part in one.parts]
    show_rows(rows, ("dataframe", "organization", "rows", "columns", "left_at"), as_json=False)


@session.command("update")
@click.argument("name_or_id")
@click.option("--name", default=None, help="Its name.")
@click.option("--scope", type=_FOR_WHOM, default=None, help="For whom it is.")
@etag_option
@json_of(SessionInfo)
@asynchronous
async def update_session(profile: Profile, /, name_or_id: str, *, etag: str, as_json: bool, **changed: Any) -> None:
    """Change a session's name, or for whom it is."""
    async with client(profile) as opened:
        show_thing((await opened.sessions.update(name_or_id, etag=etag, **changed)).info, as_json=as_json)


@session.command("delete")
@click.argument("name_or_id")
@click.option("--dataframe", default="", help="Only this dataframe.")
@click.option("--cancel-tasks", is_flag=True, help="Tasks of the session that have not ended are cancelled.")
@etag_option
@yes_option
@asynchronous
async def delete_session(
    profile: Profile, name_or_id: str, *, dataframe: str, cancel_tasks: bool, etag: str, yes: bool
) -> None:
    """Delete a session with its dataframes, or one dataframe, at all nodes: at those that are away when they return."""
    if dataframe and (cancel_tasks or etag):
        raise click.UsageError(
            "--cancel-tasks and --etag are for a session, and --dataframe deletes one dataframe of it"
        )
    what = f"dataframe {dataframe} of {name_or_id}" if dataframe else f"session {name_or_id} with its dataframes"
    confirm(f"Delete the {what}?", yes=yes)
    async with client(profile) as opened:
        if dataframe:
            await (await opened.sessions.get(name_or_id)).delete_dataframe(dataframe)
        else:
            await opened.sessions.delete(name_or_id, cancel_tasks=cancel_tasks, etag=etag)
    click.echo(f"{dataframe or name_or_id} is deleted")
