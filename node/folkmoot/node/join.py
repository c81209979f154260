"""`folkmoot node join`: how a machine becomes a node.

The machine makes the node's key, proves its invitation with the one-time key, fetches the ledger and verifies it against the genesis that
the invitation names, and appends the entry that admits the node. No server can redeem an invitation, or mint one. While the organization
itself still waits for votes, joining waits with it.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from folkmoot.node.app import short_name, station_directory
from folkmoot.node.config import load_config, refused
from folkmoot.node.connection import Connection, authority_digest
from folkmoot.node.keys import make_node_key
from folkmoot.transport import Replica, ServerAddress
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import (
    FolkmootError,
    Reference,
    SigningKey,
    load_invitation,
    make_authentication,
    make_node_claim,
    node_approve_entry,
    read_invitation,
    verify_invitation,
)
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.signed_pb2 import Signed

_WAITS = (ErrorReason.ERROR_REASON_JOIN_PENDING, ErrorReason.ERROR_REASON_NOT_A_MEMBER)

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
    def address(self) -> ServerAddress:
        """Where the server is; an invitation without a certificate is for a server without TLS on this machine."""
        authority = self.invitation.server_certificate_authority.encode()
        return ServerAddress(self.invitation.server_address, authority or None, insecure=not authority)


@dataclass(frozen=True)
class _Place:
    """Where the node's key and ledger lie: as node.toml says, or as the one that will be written says."""

    node_key: Path
    directory: Path
    is_configured: bool

    @classmethod
    def of(cls, reference: Reference, config_path: Path) -> "_Place":
        if not config_path.exists():
            folder = config_path.parent
            return cls(folder / "node.pem", folder / "state" / short_name(reference), is_configured=False)
        config = load_config(config_path)
        for block in config.collaboration:
            if block.collaboration.genesis == reference.genesis:
                return cls(block.node_key, station_directory(config, reference), is_configured=True)
        raise refused(
            config_path, "collaboration", f"has no block for {reference}, which the invitation is for; add one"
        )


async def join(ticket: Ticket, config_path: Path, *, tell: Callable[[str], None]) -> str:
    """Make this machine the invited node; return its id. Writes node.toml and policy.toml where there are none."""
    place = _Place.of(ticket.reference, config_path)
    node_key = make_node_key(place.node_key)
    replica = Replica(place.directory, ticket.reference)
    connection = Connection(ticket.address, lambda nonce: _prove(ticket, nonce))
    try:
        await _authenticate(connection, tell)
        state = await replica.refresh(connection.keys, metadata=connection.metadata)
        if node_key.fingerprint not in state.nodes:
            await _append(ticket, replica, connection, node_key)
    finally:
        await connection.close()
    if not place.is_configured:
        write_configuration(ticket, config_path, sealed=state.encryption == Encryption.ENCRYPTION_SEALED)
    return node_key.fingerprint


async def _authenticate(connection: Connection, tell: Callable[[str], None]) -> None:
    """Prove the invitation; while members still vote on the organization, wait for them."""
    attempt, told = 0, ""
    while True:
        try:
            await connection.authenticate()
        except FolkmootError as error:
            if error.reason not in _WAITS:
                raise
            attempt += 1
            if error.message != told:
                tell(f"{error.reason_name}: {error.message}")
                told = error.message
            await asyncio.sleep(pause_seconds(attempt))
        else:
            return


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


def _prove(ticket: Ticket, nonce: bytes) -> AuthenticateNodeRequest:
    authentication = make_authentication(
        genesis=ticket.reference.genesis,
        organization_id=ticket.invitation.organization_id,
        key=ticket.one_time_key,
        nonce=nonce,
        server_authority_digest=authority_digest(ticket.address),
        now=datetime.now(UTC),
    )
    return AuthenticateNodeRequest(authentication=authentication, invitation=ticket.signed)


def write_configuration(ticket: Ticket, path: Path, *, sealed: bool) -> None:
    """Write what a node needs to start: node.toml, the server's certificate, and a policy that allows nothing yet."""
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    authority = ticket.invitation.server_certificate_authority
    if authority:
        (folder / "ca.pem").write_text(authority)
    if not (folder / "policy.toml").exists():
        (folder / "policy.toml").write_text(POLICY_TOML)
    path.write_text(
        NODE_TOML.format(
            runtime_directory=json.dumps(f"/run/folkmoot-{short_name(ticket.reference)[:8]}"),
            collaboration=json.dumps(str(ticket.reference)),
            server=json.dumps(ticket.invitation.server_address),
            trust='certificate_authority = "ca.pem"' if authority else "insecure = true",
            organization=json.dumps(ticket.invitation.organization_id),
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
encryption = {encryption}
policy = "policy.toml"
runtime = "docker"
slots = 1

# [collaboration.data.patients]
# source = "csv"
# path = "/data/patients.csv"
"""
