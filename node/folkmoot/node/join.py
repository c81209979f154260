"""`folkmoot node join`: how a machine becomes a node, with an invitation or by asking.

The machine makes the node's key. With an invitation it proves that with the one-time key, and appends the entry that admits the node; no
server can redeem an invitation, or mint one. Without, it asks, and waits until an administrator of its organization has compared its
key's words and approved it. Either way it fetches the ledger, verifies it against the genesis that it was told, and believes that alone.
While the organization itself still waits for votes, joining waits with it; whoever stops it and calls it again goes on where it was.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from folkmoot.node.app import short_name, station_directory
from folkmoot.node.config import load_config, refused
from folkmoot.node.link.connection import Connection
from folkmoot.node.trust.keys import make_node_key
from folkmoot.transport import Replica, ServerAddress, Unreachable, retrying, timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import (
    FolkmootError,
    NodeNotApproved,
    Reference,
    SigningKey,
    State,
    fingerprint_words,
    load_invitation,
    make_authentication,
    make_node_claim,
    node_approve_entry,
    read_invitation,
    verify_invitation,
)
from folkmoot.v1.admin_service_pb2 import SubmitNodeAttemptRequest
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.signed_pb2 import Signed

_WAITS = (ErrorReason.ERROR_REASON_JOIN_PENDING, ErrorReason.ERROR_REASON_NOT_A_MEMBER)
_ASKING_WAITS = (*_WAITS, ErrorReason.ERROR_REASON_NODE_NOT_APPROVED, ErrorReason.ERROR_REASON_TOO_MANY)

Tell = Callable[[str], None]
"""Says something to whoever waits."""

POLICY_TOML = """\
# What may run beside your data. Whatever no rule allows is refused.
runtimes = ["container"]

# [[allow]]
# images = ["local:sha256:..."]       # as `docker image inspect` names it
# initiators = ["*"]                  # names or addresses of organizations; * for every member
# labels = ["patients"]               # of [collaboration.data.LABEL] in node.toml
# subtasks = false                    # whether the algorithm may create subtasks
# messages = false                    # whether sibling runs may message each other

[limits]
memory_bytes = 1073741824
cpu_millis = 1000
run_time_seconds = 3600
result_bytes = 1073741824
"""


@dataclass(frozen=True)
class Place:
    """What a machine must know to take part: where, in what, for whom."""

    address: ServerAddress
    reference: Reference
    organization_id: str


@dataclass(frozen=True)
class Ticket:
    """An invitation as this machine uses it."""

    signed: Signed
    invitation: Invitation
    reference: Reference
    one_time_key: SigningKey

    @classmethod
    def read(cls, path: Path) -> "Ticket":
        """Read an invitation file. Raises InvitationInvalid."""
        file = load_invitation(path.read_bytes())
        invitation, reference, one_time_key = read_invitation(file)
        return cls(file.invitation, invitation, reference, one_time_key)

    @property
    def place(self) -> Place:
        """Where it leads to; an invitation without a certificate is for a server without TLS on this machine."""
        authority = self.invitation.server_certificate_authority.encode()
        address = ServerAddress(self.invitation.server_address, authority or None, insecure=not authority)
        return Place(address, self.reference, self.invitation.organization_id)


@dataclass(frozen=True)
class _Files:
    """Where the node's key and ledger lie: as node.toml says, or as the one that will be written says."""

    node_key: Path
    directory: Path
    is_configured: bool

    def replica(self, reference: Reference) -> Replica:
        """This machine's copy of the ledger, in a state directory that is nobody else's."""
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return Replica(self.directory, reference)

    @classmethod
    def of(cls, reference: Reference, config_path: Path) -> "_Files":
        if not config_path.exists():
            folder = config_path.parent
            return cls(folder / "node.pem", folder / "state" / short_name(reference), is_configured=False)
        config = load_config(config_path)
        for block in config.collaboration:
            if block.collaboration.genesis == reference.genesis:
                return cls(block.node_key, station_directory(config, reference), is_configured=True)
        raise refused(config_path, "collaboration", f"has no block for {reference}, which is to be joined; add one")


async def join(ticket: Ticket, config_path: Path, *, tell: Tell) -> str:
    """Make this machine the invited node; return its id. Writes node.toml and policy.toml where there are none."""
    files, place = _Files.of(ticket.reference, config_path), ticket.place
    node_key = make_node_key(files.node_key)
    replica = files.replica(ticket.reference)
    try:
        state = await _redeem(ticket, replica, node_key, tell)
    except FolkmootError as error:
        if error.reason != ErrorReason.ERROR_REASON_INVITATION_INVALID:
            raise
        # This machine may have used it, and been cut off before it had written its files: then it is the node already.
        state = await _admitted(place, replica, node_key, error)
    if not files.is_configured:
        write_configuration(place, config_path, sealed=state.encryption == Encryption.ENCRYPTION_SEALED)
    return node_key.fingerprint


async def _redeem(ticket: Ticket, replica: Replica, node_key: SigningKey, tell: Tell) -> State:
    """Have the invitation's key admit the node; return the state with it."""
    place = ticket.place
    connection = Connection(place.address, lambda nonce: _prove(place, ticket.one_time_key, nonce, ticket.signed))
    try:
        await _at_last(connection.authenticate, _WAITS, tell)
        state = await replica.refresh(connection.keys, metadata=connection.metadata)
        if node_key.fingerprint in state.former_nodes:
            raise NodeNotApproved(
                f"this machine's key {node_key.fingerprint} was revoked, or its organization had left since, and never comes back: move "
                "its file (node.pem) elsewhere, and run the same command again, which makes another one"
            )
        if node_key.fingerprint not in state.nodes:
            await _append(ticket, replica, connection, node_key)
        return replica.verified
    finally:
        await connection.close()


async def _admitted(place: Place, replica: Replica, node_key: SigningKey, otherwise: FolkmootError) -> State:
    """Return the state in which this machine's own key is that of an admitted node. Raises what is given if it isn't."""
    connection = Connection(place.address, lambda nonce: _prove(place, node_key, nonce))
    try:
        await connection.authenticate()
        state = await replica.refresh(connection.keys, metadata=connection.metadata)
    except Unreachable:
        raise
    except FolkmootError as error:
        raise otherwise from error
    finally:
        await connection.close()
    if node_key.fingerprint not in state.nodes:
        raise otherwise
    return state


async def ask(place: Place, node_name: str, config_path: Path, *, tell: Tell) -> str:
    """Make this machine a node as soon as an administrator has approved it; return its id. Writes files as `join` does.

    Raises NodeNotApproved when the verified ledger admits it as something else than it asked to be.
    """
    files = _Files.of(place.reference, config_path)
    node_key = make_node_key(files.node_key)
    replica = files.replica(place.reference)
    tell(
        f"This machine asks to be the node {node_name} of {place.reference}. Its key is {node_key.fingerprint}, in words:"
    )
    tell(f"    {fingerprint_words(node_key.fingerprint)}")
    tell(f"An administrator of your organization compares these words and runs: folkmoot node approve {node_name}")
    connection = Connection(place.address, lambda nonce: _prove(place, node_key, nonce))
    try:
        await _at_last(lambda: _approved(connection, place, node_name, node_key), _ASKING_WAITS, tell)
        state = await replica.refresh(connection.keys, metadata=connection.metadata)
    finally:
        await connection.close()
    node = state.node(node_key.fingerprint)
    if (node.organization_id, node.name) != (place.organization_id, node_name):
        raise NodeNotApproved(f"the ledger admits this machine's key as the node {node.name} of {node.organization_id}")
    if not files.is_configured:
        write_configuration(place, config_path, sealed=state.encryption == Encryption.ENCRYPTION_SEALED)
    return node_key.fingerprint


async def _at_last(attempt: Callable[[], Awaitable[object]], waits: Collection[int], tell: Tell) -> None:
    """Do something as soon as it is possible; what is in the way is told once."""
    number, told = 0, ""
    while True:
        try:
            await attempt()
        except FolkmootError as error:
            if error.reason not in waits:
                raise
            number += 1
            if error.message != told:
                tell(f"{error.reason_name}: {error.message}")
                told = error.message
            await asyncio.sleep(pause_seconds(number))
        else:
            return


async def _approved(connection: Connection, place: Place, node_name: str, node_key: SigningKey) -> None:
    """Prove the node's key; if nobody has heard of it yet, ask."""
    try:
        await connection.authenticate()
    except FolkmootError as error:
        asked = error.metadata.get("attempt") == "pending"
        if error.reason != ErrorReason.ERROR_REASON_NODE_NOT_APPROVED or asked:
            raise
        claim = make_node_claim(
            genesis=place.reference.genesis,
            organization_id=place.organization_id,
            node_name=node_name,
            node_key=node_key,
            now=datetime.now(UTC),
        )
        request = SubmitNodeAttemptRequest(claim=claim)
        admin = connection.admin
        await retrying(
            lambda: admin.SubmitNodeAttempt(request, timeout=timeouts.CALL_SECONDS), server=place.address.target
        )
        raise


async def _append(ticket: Ticket, replica: Replica, connection: Connection, node_key: SigningKey) -> None:
    now = datetime.now(UTC)
    organization_id = ticket.invitation.organization_id
    verify_invitation(ticket.signed, replica.verified, now=now)
    claim = make_node_claim(
        genesis=ticket.reference.genesis,
        organization_id=organization_id,
        node_name=ticket.invitation.node_name,
        node_key=node_key,
        now=now,
    )
    await replica.append(
        connection.keys,
        lambda state: node_approve_entry(
            state,
            claim,
            key=ticket.one_time_key,
            organization_id=organization_id,
            now=now,
            invitation=ticket.signed,
        ),
        metadata=connection.metadata,
    )


def _prove(place: Place, key: SigningKey, nonce: bytes, invitation: Signed | None = None) -> AuthenticateNodeRequest:
    authentication = make_authentication(
        genesis=place.reference.genesis,
        organization_id=place.organization_id,
        key=key,
        nonce=nonce,
        server_authority_digest=place.address.authority_digest,
        now=datetime.now(UTC),
    )
    return AuthenticateNodeRequest(authentication=authentication, invitation=invitation)


def write_configuration(place: Place, path: Path, *, sealed: bool) -> None:
    """Write what a node needs to start: node.toml, the server's certificate, and a policy that allows nothing yet."""
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    authority = place.address.certificate_authority
    if authority:
        (folder / "ca.pem").write_bytes(authority)
        trust = 'certificate_authority = "ca.pem"'
    else:
        trust = f"insecure = {json.dumps(place.address.insecure)}"
    if not (folder / "policy.toml").exists():
        (folder / "policy.toml").write_text(POLICY_TOML)
    path.write_text(
        NODE_TOML.format(
            runtime_directory=json.dumps(f"/run/folkmoot-{short_name(place.reference)[:8]}"),
            collaboration=json.dumps(str(place.reference)),
            server=json.dumps(place.address.target),
            trust=trust,
            organization=json.dumps(place.organization_id),
            encryption=json.dumps("sealed" if sealed else "plain"),
        )
    )


NODE_TOML = """\
state_directory = "state"
runtime_directory = {runtime_directory}

[[collaboration]]
collaboration = {collaboration}
server = {server}
{trust}
organization = {organization}
node_key = "node.pem"
organization_key = "organization.pem"
# vault_secret_file = "vault.secret"   # with it, or with ORGANIZATION_VAULT_SECRET, the node fetches the organization's key by itself
encryption = {encryption}
policy = "policy.toml"
runtime = "docker"
slots = 1

# [collaboration.data.patients]
# source = "csv"
# path = "/data/patients.csv"
"""
