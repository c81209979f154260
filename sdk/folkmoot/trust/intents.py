"""What entries of each intent must be like, and what they do: one function per intent, in a table.

How the rules meet where the contract leaves room:

- A vote is checked and counted by itself: approvals by current members against current members, after that entry, for
  that subject alone. No other entry admits, removes or allows anything. Whoever asks for a removal or proposes an
  algorithm has not voted by that.
- A join request enters the ledger whole, with any vote, and may be repeated whole; what names it is the digest of its
  body. It stays open, and each member may replace its vote, until it is admitted or expires. "Declined" is a view.
- With an organization's admission all of its requests are decided for ever: one that left joins again by a new one, and no
  vote from before counts for it.
- Keys and names are taken by admission, not by a pending request; every vote checks that they are still free.
- A removal is void when its target's membership ended otherwise, and after 90 days.
- Keys that were rotated or revoked never come back, nor do the keys of nodes. An organization that left may come back
  with the keys that it had then. Its nodes' admission ended with its membership.
- Of a pair of organization keys, revoking one ends both; only the revoked one loses what it signed before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from folkmoot.trust.book import Applicant, Book, Entry
from folkmoot.trust.claims import (
    check_keys_fit,
    checked_invitation,
    checked_join_request,
    checked_key_claim,
    checked_node_claim,
)
from folkmoot.trust.encoding import DIGEST_BYTES, digest, fingerprint
from folkmoot.trust.keys import key_id
from folkmoot.trust.membership import KeyEnding, KeyUse, Node, Proposal, Removal, Request
from folkmoot.trust.rules import (
    CLOCK_SKEW,
    LONGEST_IMAGE_BYTES,
    LONGEST_REFERENCE_BYTES,
    LedgerRule,
    RuleBroken,
    require,
    under,
)
from folkmoot.trust.times import in_nanoseconds, nanoseconds
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    Decision,
    NodeApprove,
    NodeRevoke,
    OrganizationLeave,
    OrganizationPublishKey,
    OrganizationRequestRemoval,
    OrganizationRevokeKey,
    OrganizationRotateKey,
    OrganizationVote,
)
from folkmoot.v1.signed_pb2 import Signed

_NONE: frozenset[str] = frozenset()

# ---- who belongs ----------------------------------------------------------------------------------------------------


def _vote(book: Book, entry: Entry, data: OrganizationVote) -> None:
    book.check_signed_by_member(entry)
    _check_vote(data.decision, data.reason_digest)
    match data.WhichOneof("subject"):
        case "join_request" | "join_request_digest":
            _vote_on_request(book, entry, data)
        case "removal_hash":
            _vote_on_removal(book, entry, data)
        case _:
            raise RuleBroken(LedgerRule.SUBJECT)


def _check_vote(decision: Decision.ValueType, reason_digest: bytes) -> None:
    require(decision in (Decision.DECISION_APPROVE, Decision.DECISION_DECLINE), LedgerRule.DECISION)
    _check_reason(reason_digest)


def _check_reason(reason_digest: bytes) -> None:
    require(len(reason_digest) in (0, DIGEST_BYTES), LedgerRule.REASON_DIGEST)


def _vote_on_request(book: Book, entry: Entry, data: OrganizationVote) -> None:
    request = _request(book, data)
    require(not request.decided, LedgerRule.REQUEST_DECIDED)
    made_at, expires_at = nanoseconds(request.request.created_at), nanoseconds(request.request.expires_at)
    require(made_at <= entry.created_at + in_nanoseconds(CLOCK_SKEW), LedgerRule.REQUEST_TERM)
    require(entry.created_at < expires_at, LedgerRule.REQUEST_EXPIRED)
    require(request.organization_id not in book.members, LedgerRule.ALREADY_MEMBER)
    book.check_name_free("", request.request.name)
    applicant = Applicant(
        request.organization_id,
        request.request.name,
        request.request.governance_key,
        request.keys,
        request.request.key_claim,
    )
    book.check_keys_free(applicant.key_uses)
    request = request.with_vote(entry.message.organization_id, data.decision)
    if request.missing(book.members.keys(), book.terms.votes_needed(len(book.members))) == 0:
        book.admit(applicant, entry.position)
        request = replace(request, decided=True)
        for other in [each for each in book.requests.values() if each.organization_id == request.organization_id]:
            book.put_request(replace(other, decided=True))
    book.put_request(request)


def _request(book: Book, data: OrganizationVote) -> Request:
    """Return the request that is voted on, with the votes so far."""
    if data.WhichOneof("subject") == "join_request_digest":
        known = book.requests.get(data.join_request_digest)
        if known is None:
            raise RuleBroken(LedgerRule.REQUEST_UNKNOWN)
        return known
    request, keys = checked_join_request(data.join_request, book.genesis)
    check_keys_fit(keys, book.terms.post_quantum)
    name = digest(data.join_request.body)
    return book.requests.get(name) or Request(
        approved_by=_NONE,
        declined_by=_NONE,
        decided=False,
        digest=name,
        request=request,
        keys=keys,
        organization_id=keys.organization_id,
    )


def _request_removal(book: Book, entry: Entry, data: OrganizationRequestRemoval) -> None:
    book.check_signed_by_member(entry)
    _check_reason(data.reason_digest)
    target = book.members.get(data.target_organization_id)
    if target is None:
        raise RuleBroken(LedgerRule.TARGET)
    require(target.organization_id != entry.message.organization_id, LedgerRule.TARGET_SELF)
    electorate = len(book.members) - 1
    require(book.terms.removal_votes_needed(electorate) <= electorate, LedgerRule.RULE_OF_TWO)
    for other in book.removals.values():
        same = (other.target_organization_id, other.target_since) == (target.organization_id, target.since)
        require(not same or entry.created_at >= other.void_from_nanoseconds, LedgerRule.REMOVAL_OPEN)
    book.put_removal(
        Removal(
            approved_by=_NONE,
            declined_by=_NONE,
            decided=False,
            hash=entry.position.hash,
            target_organization_id=target.organization_id,
            target_since=target.since,
            requested_by=entry.message.organization_id,
            requested_at_nanoseconds=entry.created_at,
        )
    )


def _vote_on_removal(book: Book, entry: Entry, data: OrganizationVote) -> None:
    removal = book.removals.get(data.removal_hash)
    if removal is None:
        raise RuleBroken(LedgerRule.REMOVAL_UNKNOWN)
    target = book.members.get(removal.target_organization_id)
    is_open = target is not None and target.since == removal.target_since and not removal.decided
    require(is_open and entry.created_at < removal.void_from_nanoseconds, LedgerRule.REMOVAL_VOID)
    require(entry.message.organization_id != removal.target_organization_id, LedgerRule.TARGET_VOTES)
    removal = removal.with_vote(entry.message.organization_id, data.decision)
    electorate = book.members.keys() - {removal.target_organization_id}
    if removal.missing(electorate, book.terms.removal_votes_needed(len(electorate))) == 0:
        removal = replace(removal, decided=True)
        book.end_membership(removal.target_organization_id, entry, removed=True)
    book.put_removal(removal)


def _leave(book: Book, entry: Entry, _data: OrganizationLeave) -> None:
    book.check_signed_by_member(entry)
    require(len(book.members) > 1, LedgerRule.LAST_MEMBER)
    book.end_membership(entry.message.organization_id, entry, removed=False)


# ---- keys -----------------------------------------------------------------------------------------------------------


def _publish_key(book: Book, entry: Entry, data: OrganizationPublishKey) -> None:
    book.check_signed_by_member(entry)
    organization_id = entry.message.organization_id
    require(book.members[organization_id].keys is None, LedgerRule.KEYS_PRESENT)
    book.set_keys(_new_keys(book, entry, data.key_claim), data.key_claim, entry.position)


def _rotate_key(book: Book, entry: Entry, data: OrganizationRotateKey) -> None:
    book.check_signed_by_member(entry)
    organization_id = entry.message.organization_id
    require(book.members[organization_id].keys is not None, LedgerRule.KEYS_ABSENT)
    keys = _new_keys(book, entry, data.key_claim)
    book.retire_keys(organization_id, entry, KeyEnding.ROTATED)
    book.set_keys(keys, data.key_claim, entry.position)


def _revoke_key(book: Book, entry: Entry, data: OrganizationRevokeKey) -> None:
    book.check_signed_by_member(entry)
    organization_id = entry.message.organization_id
    revoked = set(data.key_ids)
    require(0 < len(revoked) == len(data.key_ids), LedgerRule.KEYS_REVOKED)
    for each in revoked:
        owner, use = book.used_keys.get(each, ("", KeyUse.NODE))
        known = owner == organization_id and use in (KeyUse.ENCRYPTION, KeyUse.TASK_SIGNING)
        ending = book.spent_keys[each][0] if each in book.spent_keys else None
        require(known and ending is not KeyEnding.REVOKED, LedgerRule.KEYS_REVOKED)
    current = book.members[organization_id].keys
    ends = current is not None and bool(revoked & {key_id(current.encryption), key_id(current.task_signing)})
    keys = _new_keys(book, entry, data.key_claim) if data.HasField("key_claim") else None
    require(keys is None or ends or current is None, LedgerRule.KEYS_PRESENT)
    if ends:
        book.retire_keys(organization_id, entry, KeyEnding.REVOKED)
    book.revoke_keys(revoked, entry.position)
    if keys is not None:
        book.set_keys(keys, data.key_claim, entry.position)


def _new_keys(book: Book, entry: Entry, key_claim: Signed) -> OrganizationKeys:
    keys = checked_key_claim(key_claim, entry.message.organization_id)
    book.check_new_keys(keys)
    return keys


# ---- nodes ----------------------------------------------------------------------------------------------------------


def _approve_node(book: Book, entry: Entry, data: NodeApprove) -> None:
    organization_id = entry.message.organization_id
    claim = checked_node_claim(data.claim, book.genesis, organization_id)
    uses = {key_id(claim.public_key): (organization_id, KeyUse.NODE)}
    if data.HasField("invitation"):
        governance_key = book.members[organization_id].governance_key
        invitation = checked_invitation(data.invitation, book.genesis, organization_id, governance_key)
        require(invitation.node_name == claim.node_name, LedgerRule.INVITATION)
        require(entry.created_at < nanoseconds(invitation.expires_at), LedgerRule.INVITATION_EXPIRED)
        one_time = key_id(invitation.public_key)
        require(one_time not in book.used_keys, LedgerRule.INVITATION_USED)
        require(one_time not in uses, LedgerRule.KEY_REUSED)
        uses[one_time] = (organization_id, KeyUse.INVITATION)
        book.check_signature(entry, invitation.public_key)
    else:
        book.check_signed_by_member(entry)
    node_id = fingerprint(key_id(claim.public_key))
    require(key_id(claim.public_key) not in book.used_keys, LedgerRule.KEY_REUSED)
    book.check_name_free(organization_id, claim.node_name)
    node = Node(node_id, claim.node_name, organization_id, claim.public_key, since=entry.position)
    book.admit_node(node, uses)


def _revoke_node(book: Book, entry: Entry, data: NodeRevoke) -> None:
    book.check_signed_by_member(entry)
    node = book.nodes.get(data.node_id)
    if node is None or node.organization_id != entry.message.organization_id:
        raise RuleBroken(LedgerRule.NODE)
    book.end_node(node, entry.position)


# ---- algorithms -----------------------------------------------------------------------------------------------------


def _propose_algorithm(book: Book, entry: Entry, data: AlgorithmPropose) -> None:
    book.check_signed_by_member(entry)
    require(0 < len(data.image.encode()) <= LONGEST_IMAGE_BYTES, LedgerRule.ALGORITHM)
    require(_are_words(data.functions) and _are_words(data.labels), LedgerRule.ALGORITHM)
    if data.HasField("expires_at"):
        with under(LedgerRule.ALGORITHM):
            expires_at = nanoseconds(data.expires_at)
        require(entry.created_at < expires_at, LedgerRule.ALGORITHM)
    proposal = Proposal(
        approved_by=_NONE,
        declined_by=_NONE,
        decided=False,
        hash=entry.position.hash,
        algorithm=data,
        proposed_by=entry.message.organization_id,
    )
    book.put_algorithm(proposal)


def _are_words(words: Sequence[str]) -> bool:
    different = len(set(words)) == len(words)
    return different and all(0 < len(word.encode()) <= LONGEST_REFERENCE_BYTES for word in words)


def _vote_on_algorithm(book: Book, entry: Entry, data: AlgorithmVote) -> None:
    book.check_signed_by_member(entry)
    _check_vote(data.decision, data.reason_digest)
    proposal = _proposal(book, data.proposal_hash)
    expires_at = nanoseconds(proposal.algorithm.expires_at) if proposal.algorithm.HasField("expires_at") else None
    require(not proposal.decided, LedgerRule.PROPOSAL_VOID)
    require(expires_at is None or entry.created_at < expires_at, LedgerRule.PROPOSAL_VOID)
    proposal = proposal.with_vote(entry.message.organization_id, data.decision)
    needed = book.terms.votes_needed(len(book.members))
    book.put_algorithm(replace(proposal, decided=proposal.missing(book.members.keys(), needed) == 0))


def _revoke_algorithm(book: Book, entry: Entry, data: AlgorithmRevoke) -> None:
    book.check_signed_by_member(entry)
    proposal = _proposal(book, data.proposal_hash)
    require(proposal.proposed_by == entry.message.organization_id, LedgerRule.PROPOSER)
    book.put_algorithm(replace(proposal, revoked=True))


def _proposal(book: Book, proposal_hash: bytes) -> Proposal:
    proposal = book.algorithms.get(proposal_hash)
    if proposal is None:
        raise RuleBroken(LedgerRule.PROPOSAL_UNKNOWN)
    require(not proposal.revoked, LedgerRule.PROPOSAL_VOID)
    return proposal


# Intent -> its message and its effect.
EFFECTS: dict[str, tuple[type[Message], Callable[[Book, Entry, Any], None]]] = {
    "organization.vote": (OrganizationVote, _vote),
    "organization.request_removal": (OrganizationRequestRemoval, _request_removal),
    "organization.leave": (OrganizationLeave, _leave),
    "organization.publish_key": (OrganizationPublishKey, _publish_key),
    "organization.rotate_key": (OrganizationRotateKey, _rotate_key),
    "organization.revoke_key": (OrganizationRevokeKey, _revoke_key),
    "node.approve": (NodeApprove, _approve_node),
    "node.revoke": (NodeRevoke, _revoke_node),
    "algorithm.propose": (AlgorithmPropose, _propose_algorithm),
    "algorithm.vote": (AlgorithmVote, _vote_on_algorithm),
    "algorithm.revoke": (AlgorithmRevoke, _revoke_algorithm),
}
