"""`folkmoot collaboration`: found one or its successor, ask to join one, see who belongs to it and how that came."""

from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import click

from folkmoot.cli.access import (
    asynchronous,
    client,
    governance_key,
    organization_key,
    server_client,
    session,
    state_directory,
)
from folkmoot.cli.output import approvals, json_list, json_of, show_rows, show_thing, show_things
from folkmoot.cli.profile import Profile
from folkmoot.cli.times import TIMES
from folkmoot.cli.vault import offer_key
from folkmoot.cli.votes import leave, remove, requests, vote
from folkmoot.client import AsyncClient, ListedCollaboration, Node, governance, history
from folkmoot.client.admin.resolving import is_id
from folkmoot.client.history import Selection
from folkmoot.client.members import former_members
from folkmoot.client.names import name_of
from folkmoot.transport.vault_secret import find_vault_secret
from folkmoot.trust import FolkmootError, fingerprint_words
from folkmoot.v1 import errors_pb2
from folkmoot.v1.ledger_pb2 import Encryption, PostQuantum, Quorum

_QUORUMS = {
    "majority": Quorum.QUORUM_MAJORITY,
    "two-thirds": Quorum.QUORUM_TWO_THIRDS,
    "unanimous": Quorum.QUORUM_UNANIMOUS,
}


@click.group()
def collaboration() -> None:
    """Collaborations: who belongs to them is decided by their members and recounted by each of them."""


@collaboration.command()
@click.argument("name")
@click.option("--as", "founder_name", required=True, help="The name that your organization will have in it.")
@click.option("--plain", is_flag=True, help="Payloads are signed, but not encrypted.")
@click.option(
    "--post-quantum-required", is_flag=True, help="Members must have keys that stay closed to a quantum computer."
)
@click.option(
    "--quorum", type=click.Choice(list(_QUORUMS)), default="majority", show_default=True, help="Who must approve."
)
@asynchronous
async def found(
    profile: Profile, name: str, founder_name: str, quorum: str, *, plain: bool, post_quantum_required: bool
) -> None:
    """Found the collaboration NAME; prints the reference that the other members must be told, and remembers it."""
    secret, own, key = find_vault_secret(None), governance_key(profile), organization_key(profile)
    async with session(profile) as opened:
        reference = await governance.found(
            opened,
            name=name,
            founder_name=founder_name,
            governance_key=own,
            organization_key=key,
            encryption=Encryption.ENCRYPTION_PLAIN if plain else Encryption.ENCRYPTION_SEALED,
            post_quantum=(
                PostQuantum.POST_QUANTUM_REQUIRED if post_quantum_required else PostQuantum.POST_QUANTUM_OPTIONAL
            ),
            quorum=_QUORUMS[quorum],
        )
        await offer_key(opened, key, secret, organization_id=own.fingerprint)
    _remember(profile, str(reference))
    click.echo(str(reference))


@collaboration.command()
@click.argument("name", required=False)
@click.option(
    "--as", "founder_name", help="The name that your organization will have in it; the one it has if not given."
)
@asynchronous
async def succeed(profile: Profile, name: str | None, founder_name: str | None) -> None:
    """Found a successor of your collaboration, on the same terms, from the newest entry on that you have verified.

    For a fork of the ledger, or a quorum that can't be reached any more. Prints the reference that the other members must be told, and
    remembers it. They check it with `folkmoot collaboration join REFERENCE --succeeds OLD`; each data owner decides whether to follow.
    """
    key = governance_key(profile)
    predecessor, old = governance.succession(state_directory(profile), profile.needed("collaboration"))
    async with session(profile) as opened:
        reference = await governance.found(
            opened,
            name=name or old.name,
            founder_name=founder_name or name_of(old, key.fingerprint),
            governance_key=key,
            organization_key=organization_key(profile),
            encryption=old.encryption,
            post_quantum=old.post_quantum,
            quorum=old.quorum,
            predecessor=predecessor,
        )
    _remember(profile, str(reference))
    click.echo(str(reference))
    click.echo(f"It succeeds {old.reference} from its entry {predecessor.head.sequence} on.", err=True)


@collaboration.command()
@click.argument("reference")
@click.option("--as", "name", required=True, help="The name that your organization will have in it.")
@click.option(
    "--succeeds", help="The collaboration that it must succeed, name@fingerprint; checked with your copy of its ledger."
)
@asynchronous
async def join(profile: Profile, reference: str, name: str, succeeds: str | None) -> None:
    """Ask to join REFERENCE (name@fingerprint, as a member told you); its members vote."""
    secret, own, key = find_vault_secret(None), governance_key(profile), organization_key(profile)
    async with session(profile) as opened:
        check = partial(
            governance.verify_successor, opened, state_directory(profile), reference, succeeds=succeeds or ""
        )
        checked = not succeeds or await check()
        missing = await governance.join(
            opened,
            reference,
            name=name,
            governance_key=own,
            organization_key=key,
        )
        await offer_key(opened, key, secret, organization_id=own.fingerprint)
        if not checked and not await check():
            raise click.ClickException(
                f"the server does not show {reference}, so nothing says that it succeeds {succeeds}"
            )
    _remember(profile, reference)
    if not missing:
        click.echo(
            f"Your organization is a member of {reference}, says the server; your account there is known as its own."
        )
        return
    click.echo(f"{name} asks to join {reference}: {approvals(missing)}, says the server.")
    click.echo(f"Members compare your address with what you tell them: {own.fingerprint}")
    click.echo(f"In words: {fingerprint_words(own.fingerprint)}")


@collaboration.command("list")
@click.option("--organization", default="", help="Only those of this one, by its account's name or id, or its address.")
@click.option("--name", "name_prefix", default="", help="Only those whose names begin so.")
@json_of(ListedCollaboration, many=True)
@asynchronous
async def list_collaborations(profile: Profile, /, *, as_json: bool, **only: str) -> None:
    """List the collaborations that you may see at the server, by its word; what members rely on is the ledger."""
    async with server_client(profile) as opened:
        found = [one async for one in opened.collaborations.list(**only)]
    show_things(found, ("name", "encrypted", "members", "sequence", "reference"), as_json=as_json)


@collaboration.command("show")
@click.argument("reference", required=False)
@json_of(ListedCollaboration)
@asynchronous
async def show_collaboration(profile: Profile, reference: str | None, *, as_json: bool) -> None:
    """Show the collaboration REFERENCE, or that of your profile, by the server's word. `members` and `log` verify the ledger."""
    async with server_client(profile) as opened:
        found = await opened.collaborations.get(reference or profile.needed("collaboration"))
    show_thing(found, as_json=as_json)


@collaboration.command()
@click.option("--all", "with_former", is_flag=True, help="Also those who are members no more.")
@json_list(
    *("name", "state", "address", "words", "key", "key_kind", "post_quantum", "since", "until", "own"),
)
@asynchronous
async def members(profile: Profile, *, with_former: bool, as_json: bool) -> None:
    """List the members, by the verified ledger."""
    async with client(profile) as opened:
        listed = await opened.organizations
        former = await former_members(opened.connection) if with_former else []
        about = await opened.collaboration
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "state": "member",
            "address": one.organization_id,
            "words": one.words,
            "key": one.key_fingerprint,
            "key_kind": one.key_kind,
            "post_quantum": one.post_quantum if one.key_kind else None,
            "since": one.since,
            "until": None,
            "own": one.own,
        }
        for one in listed
    ]
    rows += [
        {
            "name": one.name,
            "state": "removed" if one.removed else "left",
            "address": one.organization_id,
            "words": one.words,
            "key": "",
            "key_kind": "",
            "post_quantum": None,
            "since": one.since,
            "until": one.until,
            "own": False,
        }
        for one in former
    ]
    columns = ("name", "own", "key_kind", "post_quantum", "since", "address", "words")
    show_rows(rows, ("state", "until", *columns) if with_former else columns, as_json=as_json)
    if as_json:
        return
    if about.predecessor:
        click.echo(f"{about.reference} succeeds the collaboration {about.predecessor}.")
    if weak := [one.name for one in listed if one.key_kind and not one.post_quantum]:
        click.echo(f"What is sealed to {', '.join(weak)} among others does not stay closed to a quantum computer.")


@collaboration.command()
@json_of(Node, "server_says", many=True)
@asynchronous
async def nodes(profile: Profile, *, as_json: bool) -> None:
    """List the admitted nodes, by the verified ledger, with whether they are connected, as the server says."""
    async with client(profile) as opened:
        listed = await opened.nodes()
    rows = [asdict(one) for one in listed]
    columns = ("organization", "name", "online", "since", "node_id")
    show_rows(rows, columns, as_json=as_json, server_says=("online", "since"))


@collaboration.command()
@click.option(
    "--intent", default="", help="Only this intent, such as organization.vote, or kind of intents, such as node."
)
@click.option("--organization", default="", help="Only what this organization did, by name or address.")
@click.option("--user", default="", help="Only what this user did, by id, or by name if you may see it.")
@click.option("--since", type=click.DateTime(TIMES), help="Only from then on; local time.")
@click.option("--until", type=click.DateTime(TIMES), help="Only before then; local time.")
@json_list(
    *("sequence", "created_at", "organization", "what", "intent", "address", "created_by", "data", "hash"),
)
@asynchronous
async def log(
    profile: Profile,
    intent: str,
    organization: str,
    user: str,
    *,
    since: datetime | None,
    until: datetime | None,
    as_json: bool,
) -> None:
    """List the ledger's entries in words, each verified from the first one on."""
    async with client(profile) as opened:
        selection = Selection(
            intent=intent,
            organization=organization,
            created_by=await _user_id(opened, user),
            since=since.astimezone() if since else None,
            until=until.astimezone() if until else None,
        )
        events = await history.log(opened.connection, selection)
    rows = [
        {
            "sequence": event.sequence,
            "created_at": event.created_at,
            "organization": event.organization,
            "what": event.text,
            "intent": event.intent,
            "address": event.organization_id,
            "created_by": event.created_by,
            "data": event.data,
            "hash": event.hash.hex(),
        }
        for event in events
    ]
    show_rows(rows, ("sequence", "created_at", "organization", "what"), as_json=as_json)


def _remember(profile: Profile, reference: str) -> None:
    """Make it the collaboration of later commands; the one before is told, since nobody remembers a fingerprint."""
    if profile.collaboration not in ("", reference):
        click.echo(
            f"commands were about {profile.collaboration} before: `folkmoot login --collaboration` goes back to it",
            err=True,
        )
    profile.changed(collaboration=reference).save()


async def _user_id(opened: AsyncClient, name_or_id: str) -> str:
    """The id of a user; one whose name nobody knows here is taken for an id."""
    if not name_or_id or is_id(name_or_id):
        return name_or_id
    try:
        return (await opened.users.get(name_or_id)).user_id
    except FolkmootError as error:
        if error.reason not in (errors_pb2.ERROR_REASON_USER_NOT_FOUND, errors_pb2.ERROR_REASON_NOT_ALLOWED):
            raise
        return name_or_id


for command in (leave, remove, requests, vote):
    collaboration.add_command(command)
