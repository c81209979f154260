"""Ledger entries, made: what the holder of a governance key, or of an invitation, signs to change a collaboration.

Every entry made here has been replayed: what the others would refuse is refused where it is made, with the same words.
An entry is made for one state; when another entry was faster (LEDGER_HEAD_MOVED) it is made anew on the newer state.
"""

from datetime import datetime

from google.protobuf.message import Message

from folkmoot.trust.encoding import Random, serialize
from folkmoot.trust.keys import SigningKey
from folkmoot.trust.ledger import DATA_VERSION, FOUNDING_INTENT, replay
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.signed import sign
from folkmoot.trust.state import State
from folkmoot.trust.times import nanoseconds_at, timestamp_at
from folkmoot.v1.ledger_pb2 import (
    CollaborationCreate,
    Decision,
    Encryption,
    LedgerEntry,
    NodeApprove,
    OrganizationVote,
    PostQuantum,
    Quorum,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind

_NONCE_BYTES = 16


def found(
    *,
    name: str,
    founder_name: str,
    governance_key: SigningKey,
    organization_key: OrganizationKey,
    now: datetime,
    random: Random,
    encryption: Encryption.ValueType = Encryption.ENCRYPTION_SEALED,
    post_quantum: PostQuantum.ValueType = PostQuantum.POST_QUANTUM_OPTIONAL,
    quorum: Quorum.ValueType = Quorum.QUORUM_MAJORITY,
    created_by: str = "",
) -> Signed:
    """Make the entry that founds a collaboration; `replay([entry])` gives its state and its fingerprint."""
    organization_id = governance_key.fingerprint
    data = CollaborationCreate(
        name=name,
        encryption=encryption,
        post_quantum=post_quantum,
        quorum=quorum,
        founder_name=founder_name,
        governance_key=governance_key.public,
        key_claim=organization_key.claim(organization_id, 1, now),
        nonce=random(_NONCE_BYTES),
    )
    entry = LedgerEntry(
        intent=FOUNDING_INTENT,
        organization_id=organization_id,
        created_by=created_by,
        created_at=timestamp_at(nanoseconds_at(now)),
        data_version=DATA_VERSION,
        data=serialize(data),
    )
    signed = sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=governance_key)
    replay([signed], now=now)
    return signed


def make_entry(
    state: State,
    intent: str,
    data: Message,
    *,
    key: SigningKey,
    organization_id: str,
    now: datetime,
    created_by: str = "",
) -> Signed:
    """Make the entry that follows a state. Raises LedgerEntryInvalid when the ledger would not take it.

    Where the newest entry was made by a clock that is ahead of `now`, this one gets the same time.
    """
    entry = LedgerEntry(
        sequence=state.position.sequence + 1,
        previous_hash=state.position.hash,
        genesis=state.genesis,
        intent=intent,
        organization_id=organization_id,
        created_by=created_by,
        created_at=timestamp_at(max(nanoseconds_at(now), state.last_created_at_nanoseconds)),
        data_version=DATA_VERSION,
        data=serialize(data),
    )
    signed = sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=key, genesis=state.genesis)
    replay([signed], state=state, now=now)
    return signed


def vote_entry(
    state: State,
    request: Signed | bytes,
    decision: Decision.ValueType,
    *,
    governance_key: SigningKey,
    now: datetime,
    created_by: str = "",
    reason_digest: bytes = b"",
) -> Signed:
    """Make a vote on a join request: on the request itself, or on the digest of one that was voted on before."""
    vote = OrganizationVote(decision=decision, reason_digest=reason_digest)
    if isinstance(request, bytes):
        vote.join_request_digest = request
    else:
        vote.join_request.CopyFrom(request)
    return make_entry(
        state,
        "organization.vote",
        vote,
        key=governance_key,
        organization_id=governance_key.fingerprint,
        now=now,
        created_by=created_by,
    )


def node_approve_entry(
    state: State,
    claim: Signed,
    *,
    key: SigningKey,
    organization_id: str,
    now: datetime,
    invitation: Signed | None = None,
    created_by: str = "",
) -> Signed:
    """Make the entry that admits a node.

    `key` is the invitation's one-time key (`SigningKey.from_seed(invitation_file.seed)`), or without an invitation the
    organization's governance key.
    """
    data = NodeApprove(claim=claim, invitation=invitation)
    return make_entry(
        state, "node.approve", data, key=key, organization_id=organization_id, now=now, created_by=created_by
    )
