"""`folkmoot node list`, and `invite | attempts | approve | revoke`: what an admin does for nodes.

The node's own commands come with its extra, in the same group.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm, governance_key, server_client
from folkmoot.cli.completing import members
from folkmoot.cli.node_key import create_private_key
from folkmoot.cli.output import json_list, json_of, show_json, show_rows, show_things, text_of
from folkmoot.cli.profile import Profile
from folkmoot.client import ListedNode, Node, nodes
from folkmoot.client.names import printable
from folkmoot.client.nodes import INVITATION_LIFETIME
from folkmoot.trust import FolkmootError, fingerprint_words
from folkmoot.v1 import errors_pb2


@click.group()
def node() -> None:
    """Data stations."""


node.add_command(create_private_key)


@node.command()
@click.argument("name")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; by default NAME.invitation."
)
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    default=INVITATION_LIFETIME.days,
    show_default=True,
    help="How long it is good.",
)
@asynchronous
async def invite(profile: Profile, name: str, output: Path | None, days: int) -> None:
    """Write an invitation for the node NAME. It is secret: whoever has it can become that node, once."""
    path = output or Path(f"{name}.invitation")
    if path.exists():
        raise click.ClickException(f"{path} exists already: choose another --output")
    async with client(profile) as opened:
        invitation = await nodes.invite(
            opened.connection,
            node_name=name,
            governance_key=governance_key(profile),
            valid_for=timedelta(days=days),
        )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise click.ClickException(f"{path} exists already: choose another --output") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(invitation)
    click.echo(f"{path}: bring it to the node's machine safely, and run there: folkmoot node join {path}")


_TOLD = ("connection", "data", "slots", "a_run_gets", "rows", "approval", "release", "as_of")
"""Columns that rest on the node's word, told by the server."""


@node.command("list")
@click.option(
    "-o", "--organization", default="", shell_complete=members, help="Only the nodes of this one, by name or address."
)
@click.option("--online/--away", default=None, help="Only those that are, or are not, connected.")
@click.option("-l", "--label", default="", help="Only those that offer data of this name.")
@click.option("--details", is_flag=True, help="Everything that the nodes say of their policies, line by line.")
@json_of(Node, *_TOLD, "server_says", many=True)
@asynchronous
async def list_nodes(
    profile: Profile, organization: str, *, online: bool | None, label: str, details: bool, as_json: bool
) -> None:
    """List the admitted nodes and what they offer: data, limits, hours, whether people are asked. `folkmoot task check` asks for one task.

    What nodes are there is by the verified ledger; the rest is what each has said last, as the server tells it.
    """
    async with client(profile) as opened:
        nodes = await opened.nodes(organization=organization, online=online, label=label)
    if details and not as_json:
        click.echo("\n\n".join("\n".join(map(printable, _detail_lines(one))) for one in nodes) or "(nothing)")
        return
    rows = [_row(one, as_json=as_json) for one in nodes]
    columns = ("organization", "name", *_TOLD)
    show_rows(rows, columns, as_json=as_json, server_says=_TOLD)


@node.command("describe")
@click.argument("name_or_id")
@json_of(Node, many=True)
@asynchronous
async def describe(profile: Profile, name_or_id: str, *, as_json: bool) -> None:
    """Describe the nodes of this name or id: who they are by the verified ledger, the rest in their own words, as the server tells it."""
    async with client(profile) as opened:
        found = [one for one in await opened.nodes() if name_or_id in (one.name, one.node_id)]
    if not found:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NODE_NOT_FOUND, f"no admitted node has the name or id {name_or_id!r}"
        )
    if as_json:
        show_json([asdict(one) for one in found])
    else:
        click.echo("\n\n".join("\n".join(map(printable, _detail_lines(one))) for one in found))


@node.command("overview")
@click.option("--collaboration", default="", help="Only those of this one, name@fingerprint.")
@click.option(
    "-o", "--organization", default="", help="Only those of this one, by its account's name or id, or its address."
)
@click.option("--online/--away", default=None, help="Only those that are, or are not, connected.")
@click.option("-l", "--label", default="", help="Only those that offer data of this name.")
@json_of(ListedNode, many=True)
@asynchronous
async def overview(profile: Profile, /, *, as_json: bool, **only: Any) -> None:
    """List the nodes of all collaborations that you may see at the server, by its word: for those who look after it."""
    async with server_client(profile) as opened:
        found = [one async for one in opened.collaborations.nodes(**only)]
    columns = ("name", "online", "since", "availability", "version", "organization_id", "node_id")
    show_things(found, columns, as_json=as_json)


def _row(one: Node, *, as_json: bool) -> dict[str, Any]:
    offer = one.offer
    row = {
        "organization": one.organization,
        "name": one.name,
        "connection": _connection(one),
        "data": list(offer.labels) if offer else [],
        "slots": offer.slots if offer else None,
        "a_run_gets": offer.limits.amounts if offer else "",
        "rows": f">= {offer.minimum_rows}" if offer and offer.minimum_rows else "",
        "approval": offer.approval if offer else "",
        "release": offer.release if offer else "",
        "as_of": one.offered_at,
    }
    return {**row, **asdict(one)} if as_json else row


def _connection(one: Node) -> str:
    if one.since is None:
        return "never seen"
    if not one.online:
        return "away"
    return "online" if one.availability == "open" else one.availability


def _detail_lines(one: Node) -> Iterator[str]:
    yield f"{one.name} of {one.organization}, id {one.node_id}"
    since = f" since {text_of(one.since)}" if one.since else ""
    yield f"  {_connection(one)}{since}{f', release {one.version}' if one.version else ''}"
    if one.offer is not None:
        for name, value in one.offer.lines():
            yield f"  {name:<16}{value}"
        yield f"  as it said at {text_of(one.offered_at)}; told by the server"


@node.command()
@json_list("name", "words", "node_id", "created_at")
@asynchronous
async def attempts(profile: Profile, *, as_json: bool) -> None:
    """List the machines that ask to become nodes of your organization without an invitation; each has signed that it asks."""
    async with client(profile) as opened:
        waiting = await nodes.attempts(opened.connection)
    rows = [
        {
            "name": one.name,
            "words": fingerprint_words(one.node_id),
            "node_id": one.node_id,
            "created_at": one.created_at,
        }
        for one in waiting
    ]
    show_rows(rows, ("name", "created_at", "node_id", "words"), as_json=as_json)


@node.command()
@click.argument("name_or_id")
@click.option("--yes", is_flag=True, help="Don't ask: the words were compared with those that the machine shows.")
@asynchronous
async def approve(profile: Profile, name_or_id: str, *, yes: bool) -> None:
    """Admit the machine NAME_OR_ID, which asks for it, as a node of your organization. It goes on by itself."""
    async with client(profile) as opened:
        attempt = await nodes.find_attempt(opened.connection, name_or_id)
        click.echo(f"{attempt.name}, id {attempt.node_id}")
        click.echo(f"in words: {fingerprint_words(attempt.node_id)}")
        confirm("Does the machine itself show these words?", yes=yes)
        await nodes.approve(opened.connection, attempt, governance_key=governance_key(profile))
    click.echo(f"{attempt.name} is a node of your organization")


@node.command()
@click.argument("name_or_id")
@click.option("--yes", is_flag=True, help="Don't ask.")
@asynchronous
async def revoke(profile: Profile, name_or_id: str, *, yes: bool) -> None:
    """End the admission of the node NAME_OR_ID for ever. Whatever it signed before stays readable.

    If its disk was stolen, revoke the organization's key too: `folkmoot key revoke --replace`.
    """
    async with client(profile) as opened:
        going = await nodes.find_node(opened.connection, name_or_id)
        click.echo(f"{going.name}, id {going.node_id}")
        confirm("End its admission? Its key never comes back.", yes=yes)
        await nodes.revoke(opened.connection, going.node_id, governance_key=governance_key(profile))
    click.echo(f"{going.name} is no node any more")
