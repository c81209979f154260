"""`folkmoot collaboration`: found one, ask to join one, vote, see who belongs to it and how that came."""

import click

from folkmoot.cli.access import asynchronous, client, governance_key, organization_key, session
from folkmoot.cli.output import json_option, show_rows
from folkmoot.cli.profile import Profile
from folkmoot.client import governance
from folkmoot.client.names import moment, name_of
from folkmoot.trust import digest, fingerprint_words
from folkmoot.v1.ledger_pb2 import Encryption, LedgerEntry, PostQuantum, Quorum

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
    async with session(profile) as opened:
        reference = await governance.found(
            opened,
            name=name,
            founder_name=founder_name,
            governance_key=governance_key(profile),
            organization_key=organization_key(profile),
            encryption=Encryption.ENCRYPTION_PLAIN if plain else Encryption.ENCRYPTION_SEALED,
            post_quantum=(
                PostQuantum.POST_QUANTUM_REQUIRED if post_quantum_required else PostQuantum.POST_QUANTUM_OPTIONAL
            ),
            quorum=_QUORUMS[quorum],
        )
    profile.changed(collaboration=str(reference)).save()
    click.echo(str(reference))


@collaboration.command()
@click.argument("reference")
@click.option("--as", "name", required=True, help="The name that your organization will have in it.")
@asynchronous
async def join(profile: Profile, reference: str, name: str) -> None:
    """Ask to join REFERENCE (name@fingerprint, as a member told you); its members vote."""
    own = governance_key(profile)
    async with session(profile) as opened:
        missing = await governance.join(
            opened,
            reference,
            name=name,
            governance_key=own,
            organization_key=organization_key(profile),
        )
    profile.changed(collaboration=reference).save()
    click.echo(f"{name} asks to join {reference}: {missing} approvals are missing, says the server.")
    click.echo(f"Members compare your address with what you tell them: {own.fingerprint}")
    click.echo(f"In words: {fingerprint_words(own.fingerprint)}")


@collaboration.command()
@json_option
@asynchronous
async def requests(profile: Profile, *, as_json: bool) -> None:
    """List who asks to join, with the votes so far."""
    async with client(profile) as opened:
        attempts = await governance.requests(opened.connection)
    rows = [
        {
            "name": one.name,
            "state": one.state,
            "approved_by": list(one.approved_by),
            "declined_by": list(one.declined_by),
            "missing": one.missing,
            "address": one.organization_id,
            "words": fingerprint_words(one.organization_id),
            "created_at": one.created_at,
            "digest": one.digest.hex(),
        }
        for one in attempts
    ]
    show_rows(rows, ("name", "state", "approved_by", "declined_by", "missing", "address"), as_json=as_json)


@collaboration.command()
@click.argument("organization")
@click.option("--approve/--decline", default=None, required=True, help="For or against.")
@click.option("--yes", is_flag=True, help="Don't ask: the address was compared with what the organization says.")
@asynchronous
async def vote(profile: Profile, organization: str, *, approve: bool, yes: bool) -> None:
    """Vote on ORGANIZATION's wish to join; by name, or better by address."""
    async with client(profile) as opened:
        attempt = await governance.find_request(opened.connection, organization)
        click.echo(f"{attempt.name}, address {attempt.organization_id}")
        click.echo(f"in words: {fingerprint_words(attempt.organization_id)}")
        if approve and not yes:
            click.confirm("Did the organization itself tell you this address, over another channel?", abort=True)
        missing = await governance.vote(
            opened.connection, attempt, approve=approve, governance_key=governance_key(profile)
        )
    click.echo(f"voted; {missing} approvals are missing" if missing else "voted; it is a member")


@collaboration.command()
@json_option
@asynchronous
async def members(profile: Profile, *, as_json: bool) -> None:
    """List the members, by the verified ledger."""
    async with client(profile) as opened:
        listed = await opened.organizations
    rows = [
        {
            "name": one.name,
            "address": one.organization_id,
            "key": one.key_fingerprint,
            "post_quantum": one.post_quantum,
            "own": one.own,
        }
        for one in listed
    ]
    show_rows(rows, ("name", "own", "post_quantum", "address"), as_json=as_json)


@collaboration.command()
@json_option
@asynchronous
async def nodes(profile: Profile, *, as_json: bool) -> None:
    """List the admitted nodes, with whether they are connected."""
    async with client(profile) as opened:
        listed = await opened.nodes()
    rows = [vars(one) for one in listed]
    show_rows(rows, ("organization", "name", "online", "since", "node_id"), as_json=as_json)


@collaboration.command()
@json_option
@asynchronous
async def log(profile: Profile, *, as_json: bool) -> None:
    """List the ledger's entries, each verified."""
    async with client(profile) as opened:
        state = await opened.connection.state(newest=True)
        replica = await opened.connection.replica()
    rows = [
        {
            "sequence": entry.sequence,
            "intent": entry.intent,
            "organization": name_of(state, entry.organization_id),
            "created_at": moment(entry.created_at),
            "created_by": entry.created_by,
            "hash": digest(signed.body).hex(),
        }
        for signed in replica.entries
        for entry in (LedgerEntry.FromString(signed.body),)
    ]
    show_rows(rows, ("sequence", "created_at", "organization", "intent", "hash"), as_json=as_json)
