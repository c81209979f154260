"""`folkmoot key entry`: signed ledger entries as JSON, for who talks to the server with another program, or from another machine.

Each command signs what follows from the verified ledger and prints the request, in one line, that KeyService/AppendLedgerEntry takes:

    folkmoot key entry vote Beta --approve | grpcurl -d @ … folkmoot.v1.KeyService/AppendLedgerEntry

With --offline nothing is asked of any server: the governance key can stay on a machine without a network, with a copy of the ledger.
"""

import asyncio
import base64
import binascii
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from folkmoot.cli.access import client, governance_key, local_state, organization_key, passphrase, server_address
from folkmoot.cli.algorithms import expires_option
from folkmoot.cli.profile import Profile
from folkmoot.client import keys
from folkmoot.client.algorithms import proposed
from folkmoot.client.keyfiles import EncryptionKind
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    OrganizationKey,
    Reference,
    SigningKey,
    State,
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    leave_entry,
    make_authentication,
    make_join_request,
    node_approve_entry,
    node_revoke_entry,
    publish_key_entry,
    request_removal_entry,
    revoke_key_entry,
    rotate_key_entry,
    vote_entry,
    vote_removal_entry,
)
from folkmoot.trust import found as founding_entry
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2 import SubmitJoinRequestRequest
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from folkmoot.v1.ledger_pb2 import Decision, Encryption, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed

P = ParamSpec("P")
_M = TypeVar("_M", bound=Message)

_KIND = {kind.value: kind for kind in EncryptionKind}
_QUORUMS = {name.removeprefix("QUORUM_").lower().replace("_", "-"): value for name, value in Quorum.items() if value}
_MESSAGE_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def entry() -> None:
    """Print signed ledger entries as the JSON that KeyService/AppendLedgerEntry takes; nothing is sent."""


def _nonce_option(command: Callable[P, None]) -> Callable[P, None]:
    text = "The server's nonce (AuthService/GetNonce), base64 or hex: adds the proof of possession that the first entry needs."
    return click.option("--nonce", help=text)(command)


def _following(function: Callable[Concatenate[Profile, State, SigningKey, P], Signed]) -> Callable[..., None]:
    """A command that prints the entry which a function makes on the verified ledger."""

    @entry.command(function.__name__.removesuffix("_command").replace("_", "-"))
    @click.option("--offline", is_flag=True, help="Sign on this machine's copy of the ledger as it is, and ask nobody.")
    @_nonce_option
    @click.pass_obj
    @wraps(function)
    def command(profile: Profile, /, *args: Any, offline: bool, nonce: str | None, **kwargs: Any) -> None:
        state = _state(profile, offline=offline)
        own = governance_key(profile)
        signed = function(profile, state, own, *args, **kwargs)
        possession = _possession(profile, state.genesis, own, nonce)
        _show(AppendLedgerEntryRequest(entry=signed, possession=possession))

    return command


# ---- before there is a ledger ----------------------------------------------------------------------------------------


@entry.command()
@click.argument("name")
@click.option("--as", "founder_name", required=True, help="The name that your organization will have in it.")
@click.option("--plain", is_flag=True, help="Payloads are signed, but not encrypted.")
@click.option("--post-quantum-required", is_flag=True, help="Members must have keys of kind x-wing.")
@click.option(
    "--quorum", type=click.Choice(list(_QUORUMS)), default="majority", show_default=True, help="Who must approve."
)
@_nonce_option
@click.pass_obj
def found(
    profile: Profile,
    name: str,
    founder_name: str,
    quorum: str,
    *,
    plain: bool,
    post_quantum_required: bool,
    nonce: str | None,
) -> None:
    """Found the collaboration NAME."""
    own = governance_key(profile)
    signed = founding_entry(
        name=name,
        founder_name=founder_name,
        governance_key=own,
        organization_key=organization_key(profile),
        now=datetime.now(UTC),
        random=os.urandom,
        encryption=Encryption.ENCRYPTION_PLAIN if plain else Encryption.ENCRYPTION_SEALED,
        post_quantum=(
            PostQuantum.POST_QUANTUM_REQUIRED if post_quantum_required else PostQuantum.POST_QUANTUM_OPTIONAL
        ),
        quorum=_QUORUMS[quorum],
    )
    genesis = digest(signed.body)
    _show(AppendLedgerEntryRequest(entry=signed, possession=_possession(profile, genesis, own, nonce)))
    click.echo(f"the collaboration is {Reference(name, genesis)}", err=True)


@entry.command()
@click.argument("reference")
@click.option("--as", "name", required=True, help="The name that your organization will have in it.")
@_nonce_option
@click.pass_obj
def join(profile: Profile, reference: str, name: str, nonce: str | None) -> None:
    """Ask to join REFERENCE: not an entry yet, but what AdminService/SubmitJoinRequest takes."""
    own, genesis = governance_key(profile), Reference.parse(reference).genesis
    request = make_join_request(
        genesis=genesis,
        name=name,
        governance_key=own,
        organization_key=organization_key(profile),
        now=datetime.now(UTC),
        random=os.urandom,
    )
    _show(SubmitJoinRequestRequest(request=request, possession=_possession(profile, genesis, own, nonce)))


# ---- members ---------------------------------------------------------------------------------------------------------


@_following
@click.argument("organization")
@click.option("--approve/--decline", default=None, required=True, help="For or against.")
@click.option(
    "--request",
    "file",
    type=_MESSAGE_FILE,
    help="JSON of the join request (`request` of AdminService/ListJoinRequests); needed for the first vote on it.",
)
def vote(_: Profile, state: State, own: SigningKey, organization: str, *, approve: bool, file: Path | None) -> Signed:
    """Vote on ORGANIZATION's wish to join, or on its removal if it is a member; by name or address."""
    decision = Decision.DECISION_APPROVE if approve else Decision.DECISION_DECLINE
    now = datetime.now(UTC)
    if file is not None:
        return vote_entry(state, _read(file, Signed()), decision, governance_key=own, now=now)
    for request in state.requests.values():
        if not request.decided and organization in (request.organization_id, request.request.name):
            return vote_entry(state, request.digest, decision, governance_key=own, now=now)
    for removal in state.open_removals(now):
        if organization in (removal.target_organization_id, state.organization_name(removal.target_organization_id)):
            return vote_removal_entry(state, removal.hash, decision, governance_key=own, now=now)
    raise FolkmootError(
        errors_pb2.ERROR_REASON_JOIN_REQUEST_NOT_FOUND,
        f"{organization}: the ledger has no open join request of that name or address, and no wish to remove it; "
        "the first vote on a request takes the request itself: --request FILE",
    )


@_following
@click.argument("organization")
def remove(_: Profile, state: State, own: SigningKey, organization: str) -> Signed:
    """Ask the members to vote ORGANIZATION out. It is no vote yet."""
    target = state.member(organization).organization_id
    return request_removal_entry(state, target, governance_key=own, now=datetime.now(UTC))


@_following
def leave(_: Profile, state: State, own: SigningKey) -> Signed:
    """Leave the collaboration."""
    return leave_entry(state, governance_key=own, now=datetime.now(UTC))


# ---- keys ------------------------------------------------------------------------------------------------------------


@_following
def publish(profile: Profile, state: State, own: SigningKey) -> Signed:
    """Publish the organization's key, when it has none in the ledger."""
    claim = keys.claim(state, organization_key(profile), own)
    return publish_key_entry(state, claim, governance_key=own, now=datetime.now(UTC))


@_following
@click.option("--kind", type=click.Choice(list(_KIND)), help="Kind of the new key; by default that of the present one.")
def rotate(profile: Profile, state: State, own: SigningKey, kind: str | None) -> Signed:
    """Rotate the organization's key: the next one is written beside it first. When the ledger has it, run `folkmoot key rotate`."""
    claim = keys.claim(state, _next(profile, state, own, kind), own)
    return rotate_key_entry(state, claim, governance_key=own, now=datetime.now(UTC))


@_following
@click.argument("fingerprints", nargs=-1)
@click.option("--replace", "replacement", is_flag=True, help="Put a new key in its place, in the same entry.")
@click.option("--kind", type=click.Choice(list(_KIND)), help="Kind of the new key; by default that of the present one.")
def revoke(
    profile: Profile,
    state: State,
    own: SigningKey,
    fingerprints: tuple[str, ...],
    kind: str | None,
    *,
    replacement: bool,
) -> Signed:
    """Revoke the organization's present key, or those named."""
    member = state.member(own.fingerprint)
    revoked = keys.to_revoke(state, member, fingerprints)
    coming = _next(profile, state, own, kind) if replacement else None
    claim = keys.claim(state, coming, own) if coming else None
    return revoke_key_entry(state, revoked, claim, governance_key=own, now=datetime.now(UTC))


def _next(profile: Profile, state: State, own: SigningKey, kind: str | None) -> OrganizationKey:
    path = Path(profile.needed("organization_key"))
    keyring = Keyring.load(path, passphrase(path))
    coming = asyncio.run(keys.next_key(state, keyring, own.fingerprint, kind=_KIND[kind] if kind else None))
    keyring.add(coming)
    click.echo(f"the next key, {coming.fingerprint}, is in {keyring.path_beside(coming.fingerprint)}", err=True)
    return coming


# ---- nodes -----------------------------------------------------------------------------------------------------------


@_following
@click.argument("claim", type=_MESSAGE_FILE)
def approve_node(_: Profile, state: State, own: SigningKey, claim: Path) -> Signed:
    """Admit the node whose CLAIM (JSON, `claim` of AdminService/ListNodeAttempts) is in a file."""
    return node_approve_entry(
        state, _read(claim, Signed()), key=own, organization_id=own.fingerprint, now=datetime.now(UTC)
    )


@_following
@click.argument("node")
def revoke_node(_: Profile, state: State, own: SigningKey, node: str) -> Signed:
    """End the admission of your node NODE; by name or id."""
    node_id = state.used_names.get((own.fingerprint, node.lower()), node)
    return node_revoke_entry(state, node_id, governance_key=own, now=datetime.now(UTC))


# ---- algorithms ------------------------------------------------------------------------------------------------------


@_following
@click.argument("image")
@click.option("-f", "--function", "functions", multiple=True, help="A function that is allowed; by default all.")
@click.option("-l", "--label", "labels", multiple=True, help="Data that it may be used with; by default all.")
@expires_option
def propose_algorithm(
    _: Profile,
    state: State,
    own: SigningKey,
    image: str,
    functions: tuple[str, ...],
    labels: tuple[str, ...],
    expires: datetime | None,
) -> Signed:
    """Ask the members to allow IMAGE, a pattern or an image with its digest. It is no vote yet."""
    expires_at = expires.replace(tzinfo=UTC) if expires else None
    proposal = proposed(image, functions=functions, labels=labels, expires_at=expires_at)
    return algorithm_propose_entry(state, proposal, governance_key=own, now=datetime.now(UTC))


@_following
@click.argument("proposal")
@click.option("--approve/--decline", default=None, required=True, help="For or against.")
def vote_algorithm(_: Profile, state: State, own: SigningKey, proposal: str, *, approve: bool) -> Signed:
    """Vote on PROPOSAL, named by its whole id."""
    decision = Decision.DECISION_APPROVE if approve else Decision.DECISION_DECLINE
    return algorithm_vote_entry(state, _hash_of(proposal), decision, governance_key=own, now=datetime.now(UTC))


@_following
@click.argument("proposal")
def revoke_algorithm(_: Profile, state: State, own: SigningKey, proposal: str) -> Signed:
    """Withdraw PROPOSAL, named by its whole id."""
    return algorithm_revoke_entry(state, _hash_of(proposal), governance_key=own, now=datetime.now(UTC))


def _hash_of(proposal: str) -> bytes:
    try:
        return bytes.fromhex(proposal)
    except ValueError as error:
        raise click.BadParameter("not an id of a proposal: `folkmoot algorithm list --json` shows them") from error


# ---- how -------------------------------------------------------------------------------------------------------------


def _state(profile: Profile, *, offline: bool) -> State:
    if not offline:
        asyncio.run(_refresh(profile))
    state = local_state(profile)
    if state is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND,
            f"there is no copy of the ledger of {profile.needed('collaboration')} on this machine: run it without --offline once, "
            "or bring the copy (`state_directory`) from another one",
        )
    return state


async def _refresh(profile: Profile) -> None:
    async with client(profile) as opened:
        await opened.connection.state(newest=True)


def _possession(profile: Profile, genesis: bytes, own: SigningKey, nonce: str | None) -> Signed | None:
    if nonce is None:
        return None
    return make_authentication(
        genesis=genesis,
        organization_id=own.fingerprint,
        key=own,
        nonce=_bytes_of(nonce),
        server_authority_digest=server_address(profile).authority_digest,
        now=datetime.now(UTC),
    )


def _bytes_of(text: str) -> bytes:
    with suppress(ValueError):
        return bytes.fromhex(text)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise click.BadParameter("neither base64 nor hexadecimal", param_hint="--nonce") from error


def _read(path: Path, message: _M) -> _M:
    try:
        return json_format.Parse(path.read_text(encoding="utf-8"), message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        name = message.DESCRIPTOR.name
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"{path} is no JSON of a {name}: {error}") from error


def _show(request: Message) -> None:
    click.echo(json_format.MessageToJson(request, indent=None))
