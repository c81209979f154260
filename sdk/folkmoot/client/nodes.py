"""What an organization's admin does for its nodes: invite one, see which ask without an invitation, approve and revoke them.

A node's claim is signed by its own key; everything else that the server tells of an attempt is its word. Names are those that
nodes give themselves, so a person compares the words of the fingerprint before approving.
"""

import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, require_name
from folkmoot.trust import (
    FolkmootError,
    SigningKey,
    State,
    WrongCollaboration,
    dump_invitation,
    fingerprint,
    key_id,
    make_invitation,
    node_approve_entry,
    node_revoke_entry,
)
from folkmoot.trust import Node as AdmittedNode
from folkmoot.trust.joining import verify_node_claim
from folkmoot.v1.admin_service_pb2 import DeleteNodeAttemptRequest, ListNodeAttemptsRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed

log = logging.getLogger("folkmoot.client")

INVITATION_LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class NodeAttempt:
    """A machine that asks to become a node of the own organization, by its own signed claim."""

    node_id: str
    """The fingerprint of its key. Compare it with what the machine itself shows."""
    name: str
    organization_id: str
    created_at: datetime
    """When the machine says that it asked."""
    claim: Signed = field(repr=False)


async def invite(
    connection: Connection,
    *,
    node_name: str,
    governance_key: SigningKey,
    valid_for: timedelta = INVITATION_LIFETIME,
) -> bytes:
    """Write an invitation with which one machine can become the node of that name; secret, to be handed over safely.

    Raises NOT_A_MEMBER for an organization that the ledger does not show: it has no nodes. NAME_TAKEN, INVALID_FIELD.
    """
    require_name("name", node_name)
    state, address = await connection.state(newest=True), connection.session.address
    if not state.is_member(governance_key.fingerprint):
        raise FolkmootError(
            ErrorReason.ERROR_REASON_NOT_A_MEMBER,
            f"the organization with the address {governance_key.fingerprint} is no member of {state.reference}, and has no nodes in it",
        )
    if (governance_key.fingerprint, node_name.lower()) in state.used_names:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_NAME_TAKEN, f"your organization has a node with the name {node_name} already"
        )
    invitation = make_invitation(
        state,
        governance_key=governance_key,
        node_name=node_name,
        server_address=address.target,
        server_certificate_authority=(address.certificate_authority or b"").decode(),
        now=datetime.now(UTC),
        valid_for=valid_for,
        random=os.urandom,
    )
    return dump_invitation(invitation)


async def attempts(connection: Connection) -> list[NodeAttempt]:
    """The machines that wait for approval, oldest first; what is not properly signed, or admitted already, is left out."""
    state = await connection.shown_state()
    session = connection.session
    answer = await session.call(session.admin.ListNodeAttempts, ListNodeAttemptsRequest(genesis=state.genesis))
    waiting = []
    for listed in answer.attempts:
        try:
            attempt = _attempt(listed.claim, state)
        except FolkmootError as error:
            log.warning("the server lists an attempt that is not one: %s", error)
        else:
            if attempt.node_id not in state.nodes:
                waiting.append(attempt)
    return waiting


def _attempt(signed: Signed, state: State) -> NodeAttempt:
    claim = verify_node_claim(signed)
    if claim.genesis != state.genesis:
        raise WrongCollaboration(f"the claim of {claim.node_name} is for another collaboration than {state.reference}")
    return NodeAttempt(
        node_id=fingerprint(key_id(claim.public_key)),
        name=claim.node_name,
        organization_id=claim.organization_id,
        created_at=moment(claim.created_at),
        claim=signed,
    )


async def find_attempt(connection: Connection, name_or_id: str) -> NodeAttempt:
    """The one attempt of that name or id. Raises NODE_ATTEMPT_NOT_FOUND, also when a name is asked for twice."""
    waiting = await attempts(connection)
    matching = [one for one in waiting if name_or_id in (one.node_id, one.name)]
    if len(matching) == 1:
        return matching[0]
    listed = "; ".join(f"{one.name} ({one.node_id})" for one in matching or waiting) or "none"
    text = (
        "more than one machine asks under that name: say its id" if matching else "no machine of that name or id asks"
    )
    raise FolkmootError(ErrorReason.ERROR_REASON_NODE_ATTEMPT_NOT_FOUND, f"{name_or_id}: {text}; asking: {listed}")


async def approve(connection: Connection, attempt: NodeAttempt, *, governance_key: SigningKey) -> None:
    """Admit a node of the own organization: one approval is enough. What waited for it goes on by itself."""
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        return node_approve_entry(
            state,
            attempt.claim,
            key=governance_key,
            organization_id=governance_key.fingerprint,
            now=datetime.now(UTC),
            created_by=user_id,
        )

    state = await connection.append(make)
    session = connection.session
    try:
        forget = DeleteNodeAttemptRequest(genesis=state.genesis, node_id=attempt.node_id)
        await session.call(session.admin.DeleteNodeAttempt, forget)
    except FolkmootError as error:
        log.warning("the node is admitted, and its attempt stays in the server's list: %s", error)


async def find_node(connection: Connection, name_or_id: str) -> AdmittedNode:
    """An admitted node of the own organization. Raises NODE_NOT_FOUND, naming those there are."""
    state = await connection.state(newest=True)
    own = (await connection.own(state)).member.organization_id
    nodes = [node for node in state.nodes.values() if node.organization_id == own]
    for node in nodes:
        if name_or_id in (node.node_id, node.name):
            return node
    listed = "; ".join(f"{node.name} ({node.node_id})" for node in nodes) or "none"
    raise FolkmootError(
        ErrorReason.ERROR_REASON_NODE_NOT_FOUND,
        f"{name_or_id}: your organization has no such node; its nodes are {listed}",
    )


async def revoke(connection: Connection, node_id: str, *, governance_key: SigningKey) -> None:
    """End a node's admission, for ever: its key never comes back, its name is free. What it signed before stays readable."""
    user_id = await connection.user_id()
    await connection.append(
        lambda state: node_revoke_entry(
            state, node_id, governance_key=governance_key, now=datetime.now(UTC), created_by=user_id
        )
    )
