"""Ledger entries, made: what the holder of a governance key, or of an invitation, signs to change a collaboration.

Every entry made here has been replayed: what the others would refuse is refused where it is made, with the same words.
An entry is made for one state; when another entry was faster (LEDGER_HEAD_MOVED) it is made anew on the newer state.
"""

from collections.abc import Iterable
from datetime import datetime

from google.protobuf.message import Message

from folkmoot.trust.encoding import Random, serialize
from folkmoot.trust.errors import EntryNotPossible, LedgerEntryInvalid
from folkmoot.trust.keys import SigningKey
from folkmoot.trust.ledger import DATA_VERSION, FOUNDING_INTENT, replay
from folkmoot.trust.membership import Predecessor
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.signed import sign
from folkmoot.trust.state import State
from folkmoot.trust.times import nanoseconds_at, timestamp_at
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    CollaborationCreate,
    Decision,
    Encryption,
    LedgerEntry,
    NodeApprove,
    NodeRevoke,
    OrganizationLeave,
    OrganizationPublishKey,
    OrganizationRequestRemoval,
    OrganizationRevokeKey,
    OrganizationRotateKey,
    OrganizationVote,
    PostQuantum,
    Quorum,
)
from folkmoot.v1.ledger_pb2 import Predecessor as PredecessorMessage
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
    predecessor: Predecessor | None = None,
    created_by: str = "",
) -> Signed:
    """Make the entry that founds a collaboration; `replay([entry])` gives its state and its fingerprint.

    `predecessor` is the collaboration that it succeeds; whoever is asked to join decides by that whether to accept it.
    """
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
        predecessor=PredecessorMessage(genesis=predecessor.genesis, head=predecessor.head.message())
        if predecessor
        else None,
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
    _check(signed, None, now)
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
    """Make the entry that follows a state. Raises EntryNotPossible when the ledger would not take it.

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
    _check(signed, state, now)
    return signed


def _check(signed: Signed, state: State | None, now: datetime) -> None:
    """Check that the ledger would take an entry that was just made."""
    try:
        replay([signed], state=state, now=now)
    except LedgerEntryInvalid as error:
        raise EntryNotPossible(error.message, metadata=error.metadata) from error


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
    return _own_entry(state, "organization.vote", vote, governance_key, now, created_by)


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


def node_revoke_entry(
    state: State, node_id: str, *, governance_key: SigningKey, now: datetime, created_by: str = ""
) -> Signed:
    """Make the entry that ends a node's admission."""
    return _own_entry(state, "node.revoke", NodeRevoke(node_id=node_id), governance_key, now, created_by)


def vote_removal_entry(
    state: State,
    removal_hash: bytes,
    decision: Decision.ValueType,
    *,
    governance_key: SigningKey,
    now: datetime,
    created_by: str = "",
    reason_digest: bytes = b"",
) -> Signed:
    """Make a vote on a member's removal, which is named by the hash of the entry that asked for it."""
    vote = OrganizationVote(removal_hash=removal_hash, decision=decision, reason_digest=reason_digest)
    return _own_entry(state, "organization.vote", vote, governance_key, now, created_by)


def request_removal_entry(
    state: State,
    target_organization_id: str,
    *,
    governance_key: SigningKey,
    now: datetime,
    created_by: str = "",
    reason_digest: bytes = b"",
) -> Signed:
    """Make the entry that asks the members to vote another one out; its hash names the removal. It is no vote yet."""
    data = OrganizationRequestRemoval(target_organization_id=target_organization_id, reason_digest=reason_digest)
    return _own_entry(state, "organization.request_removal", data, governance_key, now, created_by)


def leave_entry(state: State, *, governance_key: SigningKey, now: datetime, created_by: str = "") -> Signed:
    """Make the entry with which an organization leaves."""
    return _own_entry(state, "organization.leave", OrganizationLeave(), governance_key, now, created_by)


def publish_key_entry(
    state: State, key_claim: Signed, *, governance_key: SigningKey, now: datetime, created_by: str = ""
) -> Signed:
    """Make the entry that gives keys to a member without any."""
    data = OrganizationPublishKey(key_claim=key_claim)
    return _own_entry(state, "organization.publish_key", data, governance_key, now, created_by)


def rotate_key_entry(
    state: State, key_claim: Signed, *, governance_key: SigningKey, now: datetime, created_by: str = ""
) -> Signed:
    """Make the entry that puts new keys in the place of a member's keys; the claim is of `next_generation`."""
    data = OrganizationRotateKey(key_claim=key_claim)
    return _own_entry(state, "organization.rotate_key", data, governance_key, now, created_by)


def revoke_key_entry(
    state: State,
    key_ids: Iterable[bytes],
    key_claim: Signed | None = None,
    *,
    governance_key: SigningKey,
    now: datetime,
    created_by: str = "",
) -> Signed:
    """Make the entry after which nothing that these keys sign is accepted; with new keys if there are any."""
    data = OrganizationRevokeKey(key_ids=key_ids, key_claim=key_claim)
    return _own_entry(state, "organization.revoke_key", data, governance_key, now, created_by)


def algorithm_propose_entry(
    state: State, proposal: AlgorithmPropose, *, governance_key: SigningKey, now: datetime, created_by: str = ""
) -> Signed:
    """Make the entry that asks the members to allow an image; its hash names the proposal. It is no vote yet."""
    return _own_entry(state, "algorithm.propose", proposal, governance_key, now, created_by)


def algorithm_vote_entry(
    state: State,
    proposal_hash: bytes,
    decision: Decision.ValueType,
    *,
    governance_key: SigningKey,
    now: datetime,
    created_by: str = "",
    reason_digest: bytes = b"",
) -> Signed:
    """Make a vote on a proposed image."""
    vote = AlgorithmVote(proposal_hash=proposal_hash, decision=decision, reason_digest=reason_digest)
    return _own_entry(state, "algorithm.vote", vote, governance_key, now, created_by)


def algorithm_revoke_entry(
    state: State, proposal_hash: bytes, *, governance_key: SigningKey, now: datetime, created_by: str = ""
) -> Signed:
    """Make the entry with which a proposer withdraws a proposal, allowed or not."""
    data = AlgorithmRevoke(proposal_hash=proposal_hash)
    return _own_entry(state, "algorithm.revoke", data, governance_key, now, created_by)


def _own_entry(
    state: State, intent: str, data: Message, governance_key: SigningKey, now: datetime, created_by: str
) -> Signed:
    organization_id = governance_key.fingerprint
    return make_entry(
        state, intent, data, key=governance_key, organization_id=organization_id, now=now, created_by=created_by
    )
