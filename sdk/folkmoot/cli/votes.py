"""`folkmoot collaboration requests | vote | remove | leave`: what members decide with their governance keys."""

from typing import Any

import click

from folkmoot.cli.access import asynchronous, client, confirm, governance_key, require_typed
from folkmoot.cli.completing import members
from folkmoot.cli.output import approvals, json_list, show_rows, yes_option
from folkmoot.cli.profile import Profile
from folkmoot.cli.vault import offer_own_key
from folkmoot.client import governance
from folkmoot.client import members as membership
from folkmoot.client.governance import JoinAttempt, reason_to_keep
from folkmoot.client.members import OpenRemoval
from folkmoot.transport.vault_secret import find_vault_secret
from folkmoot.trust import FolkmootError, SigningKey, fingerprint_words
from folkmoot.v1 import errors_pb2

reason_option = click.option(
    "--reason",
    default="",
    help="Why. The ledger gets its digest only; the text to keep beside is printed.",
)


_OPEN = (
    *("kind", "name", "state", "approved_by", "declined_by", "missing", "address", "words", "created_at", "digest"),
    *("requested_by", "void_from"),
)
"""What is told of a wish to join, or of a removal."""


@click.command()
@json_list(*_OPEN)
@asynchronous
async def requests(profile: Profile, *, as_json: bool) -> None:
    """List who asks to join and who is to be removed, with the votes so far, counted from the verified ledger."""
    async with client(profile) as opened:
        attempts = await governance.requests(opened.connection)
        removals = await membership.removals(opened.connection)
    rows = [*map(_join_row, attempts), *map(_removal_row, removals)]
    columns = ("kind", "name", "state", "approved_by", "declined_by", "missing", "address")
    show_rows(rows, columns, as_json=as_json)


def _join_row(one: JoinAttempt) -> dict[str, Any]:
    return {
        "kind": "join",
        "name": one.name,
        "state": one.state,
        "approved_by": list(one.approved_by),
        "declined_by": list(one.declined_by),
        "missing": one.missing,
        "address": one.organization_id,
        "words": fingerprint_words(one.organization_id),
        "created_at": one.created_at,
        "digest": one.digest.hex(),
        "requested_by": "",
        "void_from": None,
    }


def _removal_row(one: OpenRemoval) -> dict[str, Any]:
    return {
        "kind": "removal",
        "name": one.name,
        "state": "PENDING",
        "approved_by": list(one.approved_by),
        "declined_by": list(one.declined_by),
        "missing": one.missing,
        "address": one.organization_id,
        "words": fingerprint_words(one.organization_id),
        "created_at": one.requested_at,
        "requested_by": one.requested_by,
        "void_from": one.void_from,
        "digest": one.hash.hex(),
    }


@click.command()
@click.argument("organization", shell_complete=members)
@click.option("--approve/--decline", default=None, required=True, help="For or against.")
@click.option(
    "--removal", is_flag=True, help="On the removal of ORGANIZATION, not on a wish to join; needed with --yes."
)
@reason_option
@click.option("--yes", is_flag=True, help="Don't ask: the address was compared with what the organization says.")
@asynchronous
async def vote(profile: Profile, organization: str, *, approve: bool, removal: bool, reason: str, yes: bool) -> None:
    """Vote on what is open about ORGANIZATION, named by name or better by address: its wish to join, or its removal.

    A vote can be changed until enough members approve.
    """
    kept, secret = reason_to_keep(reason), find_vault_secret(None)
    async with client(profile) as opened:
        subject = await membership.find_subject(opened.connection, organization, removal=removal)
        if isinstance(subject, OpenRemoval) and yes and not removal:
            raise click.UsageError(
                f"what is open about {subject.name} is its removal: with --yes, say --removal, so that nobody is voted out "
                "who was to be admitted"
            )
        click.echo(f"{subject.name}, address {subject.organization_id}")
        click.echo(f"in words: {fingerprint_words(subject.organization_id)}")
        if isinstance(subject, OpenRemoval):
            outcome, question = "it is removed", f"Shall this member {'be removed' if approve else 'stay'}?"
        else:
            outcome, question = (
                "it is a member",
                "Did the organization itself tell you this address, over another channel?",
            )
        confirm(question, yes=yes or not (approve or isinstance(subject, OpenRemoval)))
        missing = await membership.vote_on(
            opened.connection, subject, approve=approve, governance_key=governance_key(profile), reason=kept
        )
        await offer_own_key(opened, secret)
    click.echo(f"voted; {approvals(missing)}" if missing else f"voted; {outcome}")
    _tell_reason(kept)


@click.command()
@click.argument("organization", shell_complete=members)
@reason_option
@yes_option
@asynchronous
async def remove(profile: Profile, organization: str, *, reason: str, yes: bool) -> None:
    """Ask the members to vote ORGANIZATION out, and approve it. The others vote with `folkmoot collaboration vote`."""
    kept = reason_to_keep(reason)
    async with client(profile) as opened:
        target = await opened.connection.member(organization)
        click.echo(f"{target.name}, address {target.organization_id}")
        confirm("Shall the members vote it out?", yes=yes)
        open_one = await membership.remove(
            opened.connection, target.organization_id, governance_key=governance_key(profile), reason=kept
        )
    if open_one is None:
        click.echo(f"{target.name} is removed")
    else:
        until = f"until {open_one.void_from.astimezone():%Y-%m-%d}"
        click.echo(f"asked for and approved; {approvals(open_one.missing)}, {until}")
    _tell_reason(kept)


@click.command()
@yes_option
@asynchronous
async def leave(profile: Profile, *, yes: bool) -> None:
    """Leave the collaboration."""
    key = governance_key(profile)
    async with client(profile) as opened:
        state = await opened.connection.state(newest=True)
        name = _own_name(
            key, state.members[key.fingerprint].name if state.is_member(key.fingerprint) else "", state.name
        )
        nodes = sorted(node.name for node in state.nodes.values() if node.organization_id == key.fingerprint)
        click.echo(f"{name} leaves {state.reference}, and can come back only by asking to join and being voted in.")
        click.echo(
            f"What ends: the admission of its nodes ({', '.join(nodes) or 'it has none'}); tasks to it and from it."
        )
        click.echo("What stays: whatever was signed and sealed before stays readable for those who have it now.")
        require_typed(name, f"Type {name} to leave", yes=yes)
        await membership.leave(opened.connection, governance_key=key)
    click.echo(f"{name} has left {state.reference}")


def _own_name(key: SigningKey, name: str, collaboration: str) -> str:
    if not name:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NOT_A_MEMBER,
            f"the organization with the address {key.fingerprint} is no member of {collaboration}",
        )
    return name


def _tell_reason(kept: str) -> None:
    if kept:
        click.echo(f"Keep this reason beside the ledger, word for word; its SHA-256 is in the entry: {kept}")
