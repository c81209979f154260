"""What an organization's admin does with the governance key: found a collaboration, ask to join one, vote, invite nodes.

The server orders and stores what is signed here. Who asks and how votes stand is always counted anew from the verified ledger; the
server's list of requests is only where to look.
"""

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, name_of
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust import (
    FolkmootError,
    OrganizationKey,
    Reference,
    SigningKey,
    State,
    digest,
    dump_invitation,
    fingerprint,
    key_id,
    make_invitation,
    make_join_request,
    verify_join_request,
    vote_entry,
)
from folkmoot.trust import found as founding_entry
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2 import ListJoinRequestsRequest, SubmitJoinRequestRequest
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.ledger_pb2 import Decision, Encryption, JoinRequest, JoinRequestState, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed

log = logging.getLogger("folkmoot.client")

INVITATION_LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class JoinAttempt:
    """An organization that asks to join, with the votes so far, by the verified ledger."""

    digest: bytes
    name: str
    organization_id: str
    """Its address: the fingerprint of its governance key. Compare it with what the organization itself tells you."""
    key_fingerprint: str
    state: str
    """PENDING, ADMITTED, DECLINED or EXPIRED."""
    approved_by: tuple[str, ...]
    declined_by: tuple[str, ...]
    missing: int
    """Approvals still missing."""
    created_at: datetime
    signed: Signed


async def found(
    session: Session,
    *,
    name: str,
    founder_name: str,
    governance_key: SigningKey,
    organization_key: OrganizationKey,
    encryption: Encryption.ValueType = Encryption.ENCRYPTION_SEALED,
    post_quantum: PostQuantum.ValueType = PostQuantum.POST_QUANTUM_OPTIONAL,
    quorum: Quorum.ValueType = Quorum.QUORUM_MAJORITY,
) -> Reference:
    """Found a collaboration; its reference (name@fingerprint) is what the other members must be told."""
    entry = founding_entry(
        name=name,
        founder_name=founder_name,
        governance_key=governance_key,
        organization_key=organization_key,
        now=datetime.now(UTC),
        random=os.urandom,
        encryption=encryption,
        post_quantum=post_quantum,
        quorum=quorum,
    )
    await session.call(session.keys.AppendLedgerEntry, AppendLedgerEntryRequest(entry=entry))
    return Reference(name, digest(entry.body))


async def join(
    session: Session,
    collaboration: str,
    *,
    name: str,
    governance_key: SigningKey,
    organization_key: OrganizationKey,
) -> int:
    """Ask to join; gives how many approvals are missing, as the server tells it. The same call shows later how it stands."""
    request = make_join_request(
        genesis=Reference.parse(collaboration).genesis,
        name=name,
        governance_key=governance_key,
        organization_key=organization_key,
        now=datetime.now(UTC),
        random=os.urandom,
    )
    answer = await session.call(session.admin.SubmitJoinRequest, SubmitJoinRequestRequest(request=request))
    return answer.join_request.missing


async def requests(connection: Connection) -> list[JoinAttempt]:
    """The organizations that asked to join, oldest first; what is not properly signed is left out."""
    state = await connection.state(newest=True)
    session = connection.session
    attempts: list[JoinAttempt] = []
    request = ListJoinRequestsRequest(page_size=PAGE_ITEMS, genesis=state.genesis)
    async for page in session.pages(session.admin.ListJoinRequests, request):
        for view in page.join_requests:
            try:
                attempts.append(_attempt(view.request, state, now=datetime.now(UTC)))
            except FolkmootError as error:
                log.warning("the server lists a join request that is not one: %s", error)
    return attempts


def _attempt(signed: Signed, state: State, *, now: datetime) -> JoinAttempt:
    request: JoinRequest = verify_join_request(signed, genesis=state.genesis)
    keys = OrganizationKeys.FromString(request.key_claim.body)
    name = digest(signed.body)
    known = state.requests.get(name)
    standing = JoinRequestState.Name(state.request_state(signed, now))
    return JoinAttempt(
        digest=name,
        name=request.name,
        organization_id=fingerprint(key_id(request.governance_key)),
        key_fingerprint=fingerprint(key_id(keys.encryption)),
        state=standing.removeprefix("JOIN_REQUEST_STATE_"),
        approved_by=tuple(sorted(name_of(state, one) for one in known.approved_by)) if known else (),
        declined_by=tuple(sorted(name_of(state, one) for one in known.declined_by)) if known else (),
        missing=state.missing_votes(name),
        created_at=moment(request.created_at),
        signed=signed,
    )


async def find_request(connection: Connection, name_or_address: str) -> JoinAttempt:
    """The one open request of that name or address. Raises JOIN_REQUEST_NOT_FOUND, also when a name is asked for twice."""
    waiting = [one for one in await requests(connection) if one.state in ("PENDING", "DECLINED")]
    found_ones = [one for one in waiting if name_or_address in (one.organization_id, one.name)]
    if len({one.organization_id for one in found_ones}) == 1:
        return found_ones[-1]
    listed = "; ".join(f"{one.name} ({one.organization_id})" for one in found_ones or waiting) or "nobody"
    text = "more than one organization asks under that name" if found_ones else "nobody of that name or address asks"
    raise FolkmootError(errors_pb2.ERROR_REASON_JOIN_REQUEST_NOT_FOUND, f"{name_or_address}: {text}; asking: {listed}")


async def vote(connection: Connection, attempt: JoinAttempt, *, approve: bool, governance_key: SigningKey) -> int:
    """Vote on a request; gives how many approvals are missing then. The first vote brings the request into the ledger."""
    decision = Decision.DECISION_APPROVE if approve else Decision.DECISION_DECLINE

    def make(state: State) -> Signed:
        subject = attempt.digest if attempt.digest in state.requests else attempt.signed
        return vote_entry(state, subject, decision, governance_key=governance_key, now=datetime.now(UTC))

    replica, session = await connection.replica(), connection.session
    await session.authorized(lambda: replica.append(session.keys, make, metadata=session.metadata))
    return replica.verified.missing_votes(attempt.digest)


async def invite(
    connection: Connection,
    *,
    node_name: str,
    governance_key: SigningKey,
    valid_for: timedelta = INVITATION_LIFETIME,
) -> bytes:
    """Write an invitation with which one machine can become the node of that name; secret, to be handed over safely."""
    address = connection.session.address
    invitation = make_invitation(
        await connection.state(newest=True),
        governance_key=governance_key,
        node_name=node_name,
        server_address=address.target,
        server_certificate_authority=(address.certificate_authority or b"").decode(),
        now=datetime.now(UTC),
        valid_for=valid_for,
        random=os.urandom,
    )
    return dump_invitation(invitation)
