"""`folkmoot event` and `folkmoot usage`: what was done at a server, and what it cost."""

from collections.abc import Callable
from datetime import datetime
from functools import reduce
from typing import Any, TypeVar

import click

from folkmoot.cli.access import asynchronous, server_client
from folkmoot.cli.output import json_line, json_of, show_things, text_of
from folkmoot.cli.profile import Profile
from folkmoot.cli.times import TIMES
from folkmoot.client import Event, Usage

Command = TypeVar("Command", bound=Callable[..., Any])

_FILTERS = (
    click.option("--intent", default="", help="Only this, such as user.create."),
    click.option("--by", default="", help="Only what this user did, by name or id, or this node, by id."),
    click.option(
        "--organization",
        default="",
        help="Only what users of this account did, by name or id, or nodes of this address.",
    ),
    click.option("--outcome", default="", help="Only these: ok, or a reason such as NOT_ALLOWED."),
    click.option("--request-id", default="", help="Only what this call did."),
)


def filters(command: Command) -> Command:
    """The options that choose events."""
    return reduce(lambda made, option: option(made), reversed(_FILTERS), command)


@click.group()
def event() -> None:
    """The audit trail: who did what at the server, when, and with what outcome."""


@event.command("list")
@filters
@click.option("--since", type=click.DateTime(TIMES), help="Only from then on; local time.")
@click.option("--until", type=click.DateTime(TIMES), help="Only before then; local time.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many.")
@json_of(Event, many=True)
@asynchronous
async def list_events(
    profile: Profile, /, *, since: datetime | None, until: datetime | None, as_json: bool, **only: Any
) -> None:
    """List events, newest first."""
    begin, end = since.astimezone() if since else None, until.astimezone() if until else None
    async with server_client(profile) as opened:
        found = [one async for one in opened.events.list(since=begin, until=end, **only)]
    columns = ("sequence", "created_at", "intent", "organization", "created_by", "outcome", "origin")
    show_things(found, columns, as_json=as_json)


@event.command("watch")
@filters
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=None,
    help="Begin behind this sequence; 0 for all that there are. By default, with what happens from now on.",
)
@click.option("--limit", type=click.IntRange(min=1), default=None, help="End after so many.")
@json_of(Event)
@asynchronous
async def watch_events(profile: Profile, /, *, limit: int | None, as_json: bool, **only: Any) -> None:
    """Print each event as it happens, one per line, until it is interrupted; nothing is left out when the server restarts."""
    async with server_client(profile) as opened:
        printed = 0
        async for one in opened.events.watch(**only):
            click.echo(json_line(one) if as_json else _line(one))
            printed += 1
            if printed == limit:
                return


def _line(one: Event) -> str:
    return f"{one.sequence:>8}  {text_of(one.created_at)}  {one.outcome:<12} {text_of(one.intent)}  {text_of(one.organization)}  {one.created_by}"


@click.command()
@click.option("--organization", default="", help="Only of this one, by its account's name or id, or its address.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="From this day on (UTC); by default 30 days ago.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="Up to this day; by default today.")
@json_of(Usage, many=True)
@asynchronous
async def usage(
    profile: Profile, organization: str, *, since: datetime | None, until: datetime | None, as_json: bool
) -> None:
    """Tell what organizations have used of the server, day by day: runs, their time, sealed bytes stored and fetched."""
    async with server_client(profile) as opened:
        days = {"since": since.date() if since else None, "until": until.date() if until else None}
        found = [one async for one in opened.usage(organization=organization, **days)]
    columns = (
        "day",
        "runs_asked_for",
        "runs_executed",
        "run_seconds",
        "bytes_stored",
        "bytes_fetched",
        "organization_id",
    )
    show_things(found, columns, as_json=as_json)
