"""What an organization's admin does with the governance key: found a collaboration or a successor, ask to join one, vote on who joins.

The server orders and stores what is signed here. Who asks and how votes stand is always counted anew from the verified ledger; the
server's list of requests is only where to look. Members that leave are in `folkmoot.client.members`, nodes in `folkmoot.client.nodes`.
"""

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, names_of, require_name
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.transport import RemoteError, Replica
from folkmoot.trust import (
    FolkmootError,
    LedgerBehind,
    OrganizationKey,
    Predecessor,
    Reference,
    SigningKey,
    State,
    WrongCollaboration,
    digest,
    fingerprint,
    key_id,
    make_authentication,
    make_join_request,
    verify_join_request,
    vote_entry,
)
from folkmoot.trust import found as founding_entry
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2 import ListJoinRequestsRequest, SubmitJoinRequestRequest
from folkmoot.v1.auth_service_pb2 import GetNonceRequest, WhoAmIRequest
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.ledger_pb2 import Decision, Encryption, JoinRequestState, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed

log = logging.getLogger("folkmoot.client")

_SALT_BYTES = 16


# ---- founding and asking ---------------------------------------------------------------------------------------------


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
    predecessor: Predecessor | None = None,
) -> Reference:
    """Found a collaboration; its reference (name@fingerprint) is what the other members must be told.

    `predecessor`: what it succeeds, as `succession` gives it.
    """
    require_name("name", name)
    require_name("founder_name", founder_name)
    account = await session.call(session.auth.WhoAmI, WhoAmIRequest())
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
        created_by=account.user_id,
        predecessor=predecessor,
    )
    reference = Reference(name, digest(entry.body))
    possession = await _possession(session, governance_key, reference)
    request = AppendLedgerEntryRequest(entry=entry, possession=possession)
    await session.call(session.keys.AppendLedgerEntry, request)
    return reference


async def join(
    session: Session,
    collaboration: str,
    *,
    name: str,
    governance_key: SigningKey,
    organization_key: OrganizationKey,
) -> int:
    """Ask to join; gives how many approvals are missing, as the server tells it. The same call shows later how it stands."""
    require_name("name", name)
    reference = Reference.parse(collaboration)
    request = make_join_request(
        genesis=reference.genesis,
        name=name,
        governance_key=governance_key,
        organization_key=organization_key,
        now=datetime.now(UTC),
        random=os.urandom,
    )
    possession = await _possession(session, governance_key, reference)
    wish = SubmitJoinRequestRequest(request=request, possession=possession)
    answer = await session.call(session.admin.SubmitJoinRequest, wish)
    return answer.join_request.missing


async def _possession(session: Session, governance_key: SigningKey, reference: Reference) -> Signed:
    """Show this server that the caller holds the governance key: what it signed for all to read, anybody could bring."""
    answer = await session.call_anonymously(session.auth.GetNonce, GetNonceRequest())
    return make_authentication(
        genesis=reference.genesis,
        organization_id=governance_key.fingerprint,
        key=governance_key,
        nonce=answer.nonce,
        server_authority_digest=session.address.authority_digest,
        now=datetime.now(UTC),
    )


# ---- successors ------------------------------------------------------------------------------------------------------


def succession(state_directory: Path, collaboration: str) -> tuple[Predecessor, State]:
    """What a successor names: the collaboration and the newest entry of the own verified copy; with the state there.

    Needs no server, and goes on where a fork was seen: that is what successors are for. Raises COLLABORATION_NOT_FOUND without a copy.
    """
    state = Replica(state_directory, Reference.parse(collaboration)).verified
    return Predecessor(state.genesis, state.position), state


async def verify_successor(session: Session, state_directory: Path, collaboration: str, *, succeeds: str) -> bool:
    """Check that a collaboration succeeds the one that is named, from an entry on that the own verified copy of that one has.

    False: the server does not show it yet. To members of the old one it shows it at once if it has the old one too, to all others
    when they have asked to join: then check again, before anything is sent. Raises WrongCollaboration; LedgerFork or LedgerBehind when it succeeds another history, or one that goes on beyond what anybody shows;
    COLLABORATION_NOT_FOUND without such a copy.
    """
    old = Replica(state_directory, Reference.parse(succeeds))
    replica = Replica(state_directory, Reference.parse(collaboration))
    try:
        await session.authorized(lambda: replica.refresh(session.keys, metadata=session.metadata))
    except RemoteError as error:
        if error.reason == errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND:
            return False
        raise
    predecessor = replica.verified.predecessor
    if predecessor is None or predecessor.genesis != old.verified.genesis:
        says = f"names {fingerprint(predecessor.genesis)}" if predecessor else "names none"
        raise WrongCollaboration(
            f"{collaboration} does not succeed {succeeds}: its founding entry {says}. Ask whoever told you for the right reference"
        )
    try:
        old.verified.check_position(predecessor.head.sequence, predecessor.head.hash)
    except LedgerBehind:
        # What came to the old ledger since this copy was made, the server may have; it proves itself like every entry.
        with suppress(RemoteError):
            await session.authorized(lambda: old.refresh(session.keys, metadata=session.metadata))
        old.verified.check_position(predecessor.head.sequence, predecessor.head.hash)
    return True


# ---- who asks, and votes ---------------------------------------------------------------------------------------------


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
    signed: Signed = field(repr=False)


async def requests(connection: Connection) -> list[JoinAttempt]:
    """The organizations that asked to join, oldest first; what is not properly signed, or open though it is a member, is left out."""
    state = await connection.shown_state()
    session = connection.session
    attempts: list[JoinAttempt] = []
    request = ListJoinRequestsRequest(page_size=PAGE_ITEMS, genesis=state.genesis)
    async for page in session.pages(session.admin.ListJoinRequests, request):
        for view in page.join_requests:
            try:
                attempt = _attempt(view.request, state, now=datetime.now(UTC))
            except FolkmootError as error:
                log.warning("the server lists a join request that is not one: %s", error)
            else:
                if attempt.state == "ADMITTED" or not state.is_member(attempt.organization_id):
                    attempts.append(attempt)
    return attempts


def _attempt(signed: Signed, state: State, *, now: datetime) -> JoinAttempt:
    request = verify_join_request(signed, genesis=state.genesis)
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
        approved_by=names_of(state, known.approved_by) if known else (),
        declined_by=names_of(state, known.declined_by) if known else (),
        missing=state.missing_votes(name),
        created_at=moment(request.created_at),
        signed=signed,
    )


async def find_request(connection: Connection, name_or_address: str) -> JoinAttempt:
    """The open request of that name or address. Raises JOIN_REQUEST_NOT_FOUND, also when a name is asked for twice.

    Who has asked more than once for the same keys has one wish: then it is the request with the most approvals, so that votes meet.
    """
    waiting = [one for one in await requests(connection) if one.state in ("PENDING", "DECLINED")]
    found_ones = [one for one in waiting if name_or_address in (one.organization_id, one.name)]
    if len({one.organization_id for one in found_ones}) == 1:
        newest = found_ones[-1]
        same = [one for one in found_ones if (one.name, one.key_fingerprint) == (newest.name, newest.key_fingerprint)]
        return max(reversed(same), key=lambda one: len(one.approved_by))
    listed = "; ".join(f"{one.name} ({one.organization_id})" for one in found_ones or waiting) or "nobody"
    text = "more than one organization asks under that name" if found_ones else "nobody of that name or address asks"
    raise FolkmootError(errors_pb2.ERROR_REASON_JOIN_REQUEST_NOT_FOUND, f"{name_or_address}: {text}; asking: {listed}")


async def vote(
    connection: Connection,
    attempt: JoinAttempt,
    *,
    approve: bool,
    governance_key: SigningKey,
    reason: str = "",
) -> int:
    """Vote on a request; gives how many approvals are missing then. The first vote brings the request into the ledger.

    A vote can be changed until the request is decided. Of a `reason` only the digest is stored: see `reason_to_keep`.
    """
    user_id = await connection.user_id()

    def make(state: State) -> Signed:
        subject = attempt.digest if attempt.digest in state.requests else attempt.signed
        return vote_entry(
            state,
            subject,
            decision(approve=approve),
            governance_key=governance_key,
            now=datetime.now(UTC),
            created_by=user_id,
            reason_digest=reason_digest(reason),
        )

    return (await connection.append(make)).missing_votes(attempt.digest)


def decision(*, approve: bool) -> Decision.ValueType:
    """A vote as the ledger has it."""
    return Decision.DECISION_APPROVE if approve else Decision.DECISION_DECLINE


def reason_to_keep(text: str) -> str:
    """A reason as it is to be kept beside the ledger: with random characters, so that nobody guesses it from its digest."""
    return f"{text} [{os.urandom(_SALT_BYTES).hex()}]" if text else ""


def reason_digest(reason: str) -> bytes:
    """What the ledger has of a reason; nothing if there is none."""
    return digest(reason.encode()) if reason else b""
