"""Replay: what a ledger's entries mean. The same entries give the same state, or the same refusal, everywhere.

`replay` is the one function that decides it, for clients, nodes and the server alike. It takes all entries or none: the
first that breaks a rule (`rules.LedgerRule`) is refused with the rule's name, and an entry of a later release stops it
with LEDGER_UPGRADE_NEEDED; nothing is ever skipped.

How the rules meet where the contract leaves room:

- A vote is checked and counted by itself: approvals by current members against current members, after that entry, for
  that request alone. No other entry admits anybody.
- A join request enters the ledger whole, with any vote, and may be repeated whole; what names it is the digest of its
  body. It stays open, and each member may replace its vote, until it is admitted or expires. "Declined" is a view.
- A request that was admitted is decided for ever: it can't be voted on again after its organization has left.
- Keys and names are taken by admission, not by a pending request; every vote checks that they are still free.
- organization.publish_key is for members without keys. Organizations bring their keys when they found or join, and keys
  can't be revoked in this release, so every ledger of this release refuses it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from google.protobuf.message import Message

from folkmoot.trust.claims import (
    address,
    check_keys_fit,
    check_name,
    check_nonce,
    check_signing_key,
    checked_invitation,
    checked_join_request,
    checked_key_claim,
    checked_node_claim,
)
from folkmoot.trust.encoding import DIGEST_BYTES, digest, fingerprint, parse
from folkmoot.trust.errors import LedgerEntryInvalid, LedgerUpgradeNeeded, WrongCollaboration
from folkmoot.trust.keys import key_id
from folkmoot.trust.rules import CLOCK_SKEW, LONGEST_REFERENCE_BYTES, LedgerRule, RuleBroken, require, under
from folkmoot.trust.signed import verify
from folkmoot.trust.state import KeyUse, Member, Node, Position, Request, State, Terms
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import (
    CollaborationCreate,
    Decision,
    Encryption,
    LedgerEntry,
    NodeApprove,
    OrganizationPublishKey,
    OrganizationVote,
    PostQuantum,
    Quorum,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind

DATA_VERSION = 1
FOUNDING_INTENT = "collaboration.create"

_K = TypeVar("_K")
_V = TypeVar("_V")


def replay(
    entries: Iterable[Signed],
    *,
    state: State | None = None,
    expected_genesis: bytes | None = None,
    now: datetime | None = None,
) -> State:
    """Return the state after these entries; `state` is the one before them, None where they begin with the first.

    `expected_genesis` names the collaboration that it must be. With `now`, entries from the future are refused.
    Raises LedgerEntryInvalid (metadata: sequence, rule), LedgerUpgradeNeeded (sequence, intent), WrongCollaboration.
    """
    latest = None if now is None else nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW)
    book = _Book.of(state) if state else None
    _check_collaboration(book, expected_genesis)
    first = len(book.hashes) if book else 0
    for sequence, signed in enumerate(entries, first):
        try:
            if book is None:
                book = _found(signed, latest)
                _check_collaboration(book, expected_genesis)
            else:
                book.append(signed, latest)
        except RuleBroken as broken:
            metadata = {"sequence": str(sequence), **broken.metadata}
            raise LedgerEntryInvalid(f"Entry {sequence} breaks a rule: {broken}", metadata=metadata) from broken
    if book is None:
        raise LedgerEntryInvalid("A ledger has at least the entry that founds it", metadata={"sequence": "0"})
    return book.state()


class _Entry(NamedTuple):
    """An entry whose place in the ledger is right."""

    signed: Signed
    message: LedgerEntry
    position: Position
    created_at: int


@dataclass
class _Book:
    """A ledger while it is being replayed: what a State has, in containers that change."""

    genesis: bytes
    terms: Terms
    members: dict[str, Member]
    nodes: dict[str, Node]
    requests: dict[bytes, Request]
    used_keys: dict[bytes, tuple[str, KeyUse]]
    used_names: dict[tuple[str, str], str]
    hashes: list[bytes]
    last_created_at: int

    @classmethod
    def of(cls, state: State) -> Self:
        """Return a book that continues a state."""
        return cls(
            genesis=state.genesis,
            terms=state.terms,
            members=_thawed(state.members),
            nodes=_thawed(state.nodes),
            requests=_thawed(state.requests),
            used_keys=_thawed(state.used_keys),
            used_names=_thawed(state.used_names),
            hashes=list(state.hashes),
            last_created_at=state.last_created_at_nanoseconds,
        )

    def state(self) -> State:
        """Return what the book says now; the book ends with it."""
        return State(
            genesis=self.genesis,
            terms=self.terms,
            members=MappingProxyType(self.members),
            nodes=MappingProxyType(self.nodes),
            requests=MappingProxyType(self.requests),
            used_keys=MappingProxyType(self.used_keys),
            used_names=MappingProxyType(self.used_names),
            hashes=tuple(self.hashes),
            last_created_at_nanoseconds=self.last_created_at,
        )

    def append(self, signed: Signed, latest: int | None) -> None:
        """Take one more entry."""
        message = _message(signed)
        created_at = _created_at(message, latest)
        require(message.sequence == len(self.hashes), LedgerRule.SEQUENCE)
        require(message.previous_hash == self.hashes[-1], LedgerRule.PREVIOUS_HASH)
        require(message.genesis == self.genesis, LedgerRule.GENESIS)
        require(created_at >= self.last_created_at, LedgerRule.TIME_ORDER)
        require(message.intent != FOUNDING_INTENT, LedgerRule.FOUNDING)
        _check_known(message)
        require(message.organization_id in self.members, LedgerRule.SIGNER)
        data_type, effect = _EFFECTS[message.intent]
        with under(LedgerRule.FORM):
            data = parse(data_type, message.data)
        position = Position(message.sequence, digest(signed.body))
        effect(self, _Entry(signed, message, position, created_at), data)
        self.hashes.append(position.hash)
        self.last_created_at = created_at

    def check_signature(self, entry: _Entry, public_key: PublicKey) -> None:
        """Check who signed an entry."""
        _check_signature(entry.signed, public_key, self.genesis)

    def check_signed_by_member(self, entry: _Entry) -> None:
        """Check that an entry is signed by its organization's governance key."""
        self.check_signature(entry, self.members[entry.message.organization_id].governance_key)

    def check_name_free(self, scope: str, name: str) -> None:
        """Check that nobody has this name among the members ("") or an organization's nodes (its id)."""
        require((scope, name.lower()) not in self.used_names, LedgerRule.NAME_TAKEN)

    def check_keys_free(self, uses: dict[bytes, tuple[str, KeyUse]]) -> None:
        """Check that the keys are new, or known for exactly this use by exactly this organization."""
        for each, use in uses.items():
            require(self.used_keys.get(each, use) == use, LedgerRule.KEY_REUSED)

    def admit(self, request: "_Applicant", at: Position) -> None:
        """Make an organization a member; that it may become one has been checked."""
        self.members[request.organization_id] = Member(
            organization_id=request.organization_id,
            name=request.name,
            governance_key=request.governance_key,
            keys=request.keys,
            key_claim=request.key_claim,
            key_entry=at,
        )
        self.used_names["", request.name.lower()] = request.organization_id
        self.used_keys.update(request.key_uses)


def _thawed(mapping: Mapping[_K, _V]) -> dict[_K, _V]:
    """Return a dictionary to change. A read-only view copies what it shows far faster than its items can be walked."""
    return mapping.copy() if isinstance(mapping, MappingProxyType) else dict(mapping)


class _Applicant(NamedTuple):
    """An organization that founds or joins."""

    organization_id: str
    name: str
    governance_key: PublicKey
    keys: OrganizationKeys
    key_claim: Signed

    @property
    def key_uses(self) -> dict[bytes, tuple[str, KeyUse]]:
        """Its keys by id; a key with two uses breaks KEY_REUSED."""
        keys = {
            KeyUse.GOVERNANCE: self.governance_key,
            KeyUse.ENCRYPTION: self.keys.encryption,
            KeyUse.TASK_SIGNING: self.keys.task_signing,
        }
        uses = {key_id(key): (self.organization_id, use) for use, key in keys.items()}
        require(len(uses) == len(keys), LedgerRule.KEY_REUSED)
        return uses


# ---- the entry that founds ------------------------------------------------------------------------------------------


def _found(signed: Signed, latest: int | None) -> _Book:
    """Begin a ledger with its first entry."""
    message = _message(signed)
    created_at = _created_at(message, latest)
    require(message.sequence == 0, LedgerRule.SEQUENCE)
    require(message.previous_hash == b"", LedgerRule.PREVIOUS_HASH)
    require(message.genesis == b"", LedgerRule.GENESIS)
    require(message.intent == FOUNDING_INTENT, LedgerRule.FOUNDING)
    _check_known(message)
    with under(LedgerRule.FORM):
        data = parse(CollaborationCreate, message.data)
    if data.HasField("predecessor"):
        raise _upgrade_needed(message, "a collaboration that succeeds another one")
    check_signing_key(data.governance_key)
    require(message.organization_id == address(data.governance_key), LedgerRule.FOUNDER)
    _check_signature(signed, data.governance_key, b"")
    return _founded(message, data, Position(0, digest(signed.body)), created_at)


def _founded(message: LedgerEntry, data: CollaborationCreate, position: Position, created_at: int) -> _Book:
    require(data.encryption in (Encryption.ENCRYPTION_SEALED, Encryption.ENCRYPTION_PLAIN), LedgerRule.TERMS)
    post_quantum_kinds = (PostQuantum.POST_QUANTUM_OPTIONAL, PostQuantum.POST_QUANTUM_REQUIRED)
    require(data.post_quantum in post_quantum_kinds, LedgerRule.TERMS)
    quorums = (Quorum.QUORUM_MAJORITY, Quorum.QUORUM_TWO_THIRDS, Quorum.QUORUM_UNANIMOUS)
    require(data.quorum in quorums, LedgerRule.TERMS)
    check_name(data.name)
    check_name(data.founder_name)
    check_nonce(data.nonce)
    keys = checked_key_claim(data.key_claim, message.organization_id)
    check_keys_fit(keys, data.post_quantum)
    terms = Terms(data.name, data.encryption, data.post_quantum, data.quorum)
    book = _Book(position.hash, terms, {}, {}, {}, {}, {}, [position.hash], created_at)
    founder = _Applicant(message.organization_id, data.founder_name, data.governance_key, keys, data.key_claim)
    book.admit(founder, position)
    return book


# ---- the other intents ----------------------------------------------------------------------------------------------


def _vote(book: _Book, entry: _Entry, data: OrganizationVote) -> None:
    book.check_signed_by_member(entry)
    require(data.decision in (Decision.DECISION_APPROVE, Decision.DECISION_DECLINE), LedgerRule.DECISION)
    require(len(data.reason_digest) in (0, DIGEST_BYTES), LedgerRule.REASON_DIGEST)
    request = _subject(book, entry, data)
    require(not request.decided, LedgerRule.REQUEST_DECIDED)
    require(entry.created_at < nanoseconds(request.request.expires_at), LedgerRule.REQUEST_EXPIRED)
    require(request.organization_id not in book.members, LedgerRule.ALREADY_MEMBER)
    book.check_name_free("", request.request.name)
    applicant = _Applicant(
        request.organization_id,
        request.request.name,
        request.request.governance_key,
        request.keys,
        request.request.key_claim,
    )
    book.check_keys_free(applicant.key_uses)
    request = _with_vote(request, entry.message.organization_id, data.decision)
    if len(request.approved_by & book.members.keys()) >= book.terms.votes_needed(len(book.members)):
        request = replace(request, decided=True)
        book.admit(applicant, entry.position)
    book.requests[request.digest] = request


def _subject(book: _Book, entry: _Entry, data: OrganizationVote) -> Request:
    """Return the request that is voted on, with the votes so far."""
    match data.WhichOneof("subject"):
        case "join_request":
            request, keys = checked_join_request(data.join_request, book.genesis)
            check_keys_fit(keys, book.terms.post_quantum)
            name = digest(data.join_request.body)
            new = Request(name, request, keys, keys.organization_id, frozenset(), frozenset(), decided=False)
            return book.requests.get(name, new)
        case "join_request_digest":
            known = book.requests.get(data.join_request_digest)
            if known is None:
                raise RuleBroken(LedgerRule.REQUEST_UNKNOWN)
            return known
        case "removal_hash":
            raise _upgrade_needed(entry.message, "a vote on a removal")
        case _:
            raise RuleBroken(LedgerRule.SUBJECT)


def _with_vote(request: Request, organization_id: str, decision: Decision.ValueType) -> Request:
    voter = frozenset({organization_id})
    if decision == Decision.DECISION_APPROVE:
        return replace(request, approved_by=request.approved_by | voter, declined_by=request.declined_by - voter)
    return replace(request, approved_by=request.approved_by - voter, declined_by=request.declined_by | voter)


def _publish_key(_book: _Book, _entry: _Entry, _data: OrganizationPublishKey) -> None:
    """Refuse it: members bring their keys along, and nothing in this release takes them away."""
    raise RuleBroken(LedgerRule.KEYS_PRESENT)


def _approve_node(book: _Book, entry: _Entry, data: NodeApprove) -> None:
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
    book.nodes[node_id] = Node(node_id, claim.node_name, organization_id, claim.public_key)
    book.used_names[organization_id, claim.node_name.lower()] = node_id
    book.used_keys.update(uses)


# Intent -> its message and its effect.
_EFFECTS: dict[str, tuple[type[Message], Callable[[_Book, _Entry, Any], None]]] = {
    "organization.vote": (OrganizationVote, _vote),
    "organization.publish_key": (OrganizationPublishKey, _publish_key),
    "node.approve": (NodeApprove, _approve_node),
}


# ---- rules of every entry -------------------------------------------------------------------------------------------


def _message(signed: Signed) -> LedgerEntry:
    with under(LedgerRule.FORM):
        return parse(LedgerEntry, signed.body)


def _created_at(message: LedgerEntry, latest: int | None) -> int:
    with under(LedgerRule.TIME):
        created_at = nanoseconds(message.created_at)
    require(latest is None or created_at <= latest, LedgerRule.TIME_AHEAD)
    require(len(message.created_by.encode()) <= LONGEST_REFERENCE_BYTES, LedgerRule.CREATED_BY)
    return created_at


def _check_known(message: LedgerEntry) -> None:
    if message.intent not in (*_EFFECTS, FOUNDING_INTENT) or message.data_version != DATA_VERSION:
        raise _upgrade_needed(message, f"{message.intent[:80]!r}, version {message.data_version}")


def _check_signature(signed: Signed, public_key: PublicKey, genesis: bytes) -> None:
    with under(LedgerRule.SIGNATURE):
        verify(signed, kind=SignedKind.SIGNED_KIND_LEDGER_ENTRY, public_key=public_key, genesis=genesis)


def _check_collaboration(book: _Book | None, expected_genesis: bytes | None) -> None:
    if book and expected_genesis not in (None, book.genesis):
        raise WrongCollaboration(
            f"The ledger is that of {book.terms.name}@{fingerprint(book.genesis)}, another one than asked for",
            metadata={"genesis": book.genesis.hex()},
        )


def _upgrade_needed(message: LedgerEntry, what: str) -> LedgerUpgradeNeeded:
    return LedgerUpgradeNeeded(
        f"Entry {message.sequence} is of a later release: {what}",
        metadata={"sequence": str(message.sequence), "intent": message.intent[:80]},
    )
