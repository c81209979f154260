"""A ledger's meaning while it is being replayed: what a State has, in mappings that are copied when they first change.

Here is what entries do to members, keys and nodes; what entries must be like is in `intents` and `ledger`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from folkmoot.trust.ballots import Ballot
from folkmoot.trust.claims import check_keys_fit
from folkmoot.trust.keys import key_id
from folkmoot.trust.membership import (
    KeyEnding,
    KeyTerm,
    KeyUse,
    Member,
    Membership,
    Node,
    Position,
    Predecessor,
    Proposal,
    Removal,
    Request,
    Terms,
)
from folkmoot.trust.rules import LedgerRule, require, under
from folkmoot.trust.signed import verify
from folkmoot.trust.state import State
from folkmoot.v1.keys_pb2 import OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import LedgerEntry
from folkmoot.v1.signed_pb2 import Signed, SignedKind


class Entry(NamedTuple):
    """An entry whose place in the ledger is right."""

    signed: Signed
    message: LedgerEntry
    position: Position
    created_at: int
    """In nanoseconds since 1970."""


class Applicant(NamedTuple):
    """An organization that founds or joins."""

    organization_id: str
    name: str
    governance_key: PublicKey
    keys: OrganizationKeys
    key_claim: Signed

    @property
    def key_uses(self) -> dict[bytes, tuple[str, KeyUse]]:
        """Its keys by id; a key with two uses breaks KEY_REUSED."""
        governance = {key_id(self.governance_key): (self.organization_id, KeyUse.GOVERNANCE)}
        own = uses_of(self.keys)
        require(not governance.keys() & own.keys(), LedgerRule.KEY_REUSED)
        return governance | own


def uses_of(keys: OrganizationKeys) -> dict[bytes, tuple[str, KeyUse]]:
    """Return what an organization's keys are for, by id; a key with two uses breaks KEY_REUSED."""
    uses = {
        key_id(keys.encryption): (keys.organization_id, KeyUse.ENCRYPTION),
        key_id(keys.task_signing): (keys.organization_id, KeyUse.TASK_SIGNING),
    }
    require(len(uses) == 2, LedgerRule.KEY_REUSED)
    return uses


@dataclass
class Book:
    """A ledger while it is being replayed."""

    genesis: bytes
    terms: Terms
    predecessor: Predecessor | None
    hashes: list[bytes]
    last_created_at: int
    _mappings: dict[str, Mapping[Any, Any]]

    MAPPINGS = (
        "members",
        "memberships",
        "key_terms",
        "nodes",
        "former_nodes",
        "requests",
        "removals",
        "algorithms",
        "used_keys",
        "spent_keys",
        "used_names",
        "last_entries",
    )

    @classmethod
    def begin(cls, terms: Terms, predecessor: Predecessor | None, entry: Entry) -> Self:
        """Return the book of a ledger that has its first entry, and no member yet."""
        genesis = entry.position.hash
        book = cls(genesis, terms, predecessor, [], 0, {name: {} for name in cls.MAPPINGS})
        book.take(entry)
        return book

    @classmethod
    def of(cls, state: State) -> Self:
        """Return a book that continues a state."""
        mappings = {name: getattr(state, name) for name in cls.MAPPINGS}
        last = state.last_created_at_nanoseconds
        return cls(state.genesis, state.terms, state.predecessor, list(state.hashes), last, mappings)

    def state(self) -> State:
        """Return what the book says now; the book ends with it."""
        mappings = {
            name: MappingProxyType(mapping) for name, mapping in self._mappings.items() if type(mapping) is dict
        }
        return State(
            genesis=self.genesis,
            terms=self.terms,
            predecessor=self.predecessor,
            hashes=tuple(self.hashes),
            last_created_at_nanoseconds=self.last_created_at,
            **(self._mappings | mappings),
        )

    # ---- reading ---------------------------------------------------------------------------------------------------

    @property
    def members(self) -> Mapping[str, Member]:
        """The members."""
        return self._mappings["members"]

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The admitted nodes."""
        return self._mappings["nodes"]

    @property
    def requests(self) -> Mapping[bytes, Request]:
        """The join requests that were voted on."""
        return self._mappings["requests"]

    @property
    def removals(self) -> Mapping[bytes, Removal]:
        """The wishes to vote a member out."""
        return self._mappings["removals"]

    @property
    def algorithms(self) -> Mapping[bytes, Proposal]:
        """The proposed algorithms."""
        return self._mappings["algorithms"]

    @property
    def used_keys(self) -> Mapping[bytes, tuple[str, KeyUse]]:
        """Every key that the ledger ever knew."""
        return self._mappings["used_keys"]

    @property
    def spent_keys(self) -> Mapping[bytes, tuple[KeyEnding, Position]]:
        """Keys that never come back."""
        return self._mappings["spent_keys"]

    def last_generation(self, organization_id: str) -> int:
        """The generation of the organization's newest keys."""
        terms: tuple[KeyTerm, ...] = self._mappings["key_terms"][organization_id]
        return terms[-1].keys.generation

    # ---- checks ----------------------------------------------------------------------------------------------------

    def check_signature(self, entry: Entry, public_key: PublicKey) -> None:
        """Check who signed an entry."""
        check_signature(entry.signed, public_key, self.genesis)

    def check_signed_by_member(self, entry: Entry) -> None:
        """Check that an entry is signed by its organization's governance key."""
        self.check_signature(entry, self.members[entry.message.organization_id].governance_key)

    def check_name_free(self, scope: str, name: str) -> None:
        """Check that nobody has this name among the members ("") or an organization's nodes (its id)."""
        require((scope, name.lower()) not in self._mappings["used_names"], LedgerRule.NAME_TAKEN)

    def check_keys_free(self, uses: dict[bytes, tuple[str, KeyUse]]) -> None:
        """Check that the keys are new, or known for exactly this use by exactly this organization and not spent."""
        for each, use in uses.items():
            require(self.used_keys.get(each, use) == use, LedgerRule.KEY_REUSED)
            require(each not in self.spent_keys, LedgerRule.KEY_SPENT)

    def check_new_keys(self, keys: OrganizationKeys) -> None:
        """Check keys that follow those that a member has, or had."""
        check_keys_fit(keys, self.terms.post_quantum)
        require(keys.generation == self.last_generation(keys.organization_id) + 1, LedgerRule.KEY_GENERATION)
        uses = uses_of(keys)
        self.check_keys_free(uses)
        require(not uses.keys() & self.used_keys.keys(), LedgerRule.KEY_REUSED)

    def take(self, entry: Entry) -> None:
        """Note that an entry is part of the ledger."""
        self.hashes.append(entry.position.hash)
        self.last_created_at = entry.created_at
        self._changing("last_entries")[entry.message.organization_id] = entry.created_at

    # ---- what entries do -------------------------------------------------------------------------------------------

    def admit(self, applicant: Applicant, at: Position) -> None:
        """Make an organization a member; that it may become one has been checked."""
        organization_id, name = applicant.organization_id, applicant.name
        self._changing("members")[organization_id] = Member(
            organization_id=organization_id,
            name=name,
            governance_key=applicant.governance_key,
            keys=None,
            key_claim=None,
            key_entry=None,
            since=at,
        )
        membership = Membership(organization_id, name, applicant.governance_key, since=at)
        self._add("memberships", organization_id, membership)
        self._changing("used_names")["", name.lower()] = organization_id
        self._changing("used_keys").update(applicant.key_uses)
        self.set_keys(applicant.keys, applicant.key_claim, at)

    def end_membership(self, organization_id: str, entry: Entry, *, removed: bool) -> None:
        """End an organization's membership, and with it the admission of its nodes and its votes on what is undecided."""
        member = self._changing("members").pop(organization_id)
        self._end("memberships", organization_id, until=entry.position, removed=removed)
        del self._changing("used_names")["", member.name.lower()]
        if member.keys is not None:
            self._end_keys(organization_id, entry, KeyEnding.LEFT)
        for node in [node for node in self.nodes.values() if node.organization_id == organization_id]:
            self.end_node(node, entry.position)
        for name in ("requests", "removals", "algorithms"):
            ballots: Mapping[bytes, Ballot] = self._mappings[name]
            voted = {each: ballot for each, ballot in ballots.items() if ballot.counts_vote_of(organization_id)}
            if voted:
                without = {each: ballot.without(organization_id) for each, ballot in voted.items()}
                self._changing(name).update(without)

    def set_keys(self, keys: OrganizationKeys, key_claim: Signed, at: Position) -> None:
        """Make these an organization's keys; it has none."""
        organization_id = keys.organization_id
        member = self.members[organization_id]
        members = self._changing("members")
        members[organization_id] = replace(member, keys=keys, key_claim=key_claim, key_entry=at)
        self._add("key_terms", organization_id, KeyTerm(keys, key_claim, since=at))
        self._changing("used_keys").update(uses_of(keys))

    def retire_keys(self, organization_id: str, entry: Entry, ending: KeyEnding) -> None:
        """End a member's keys; they never come back."""
        keys = self.members[organization_id].keys
        if keys is None:
            return
        self._end_keys(organization_id, entry, ending)
        self._changing("spent_keys").update(dict.fromkeys(uses_of(keys), (KeyEnding.ROTATED, entry.position)))
        members = self._changing("members")
        members[organization_id] = replace(members[organization_id], keys=None, key_claim=None, key_entry=None)

    def revoke_keys(self, key_ids: set[bytes], at: Position) -> None:
        """Let nothing that these keys signed be accepted any more."""
        self._changing("spent_keys").update(dict.fromkeys(key_ids, (KeyEnding.REVOKED, at)))

    def admit_node(self, node: Node, uses: dict[bytes, tuple[str, KeyUse]]) -> None:
        """Admit a node."""
        self._changing("nodes")[node.node_id] = node
        self._changing("used_names")[node.organization_id, node.name.lower()] = node.node_id
        self._changing("used_keys").update(uses)

    def end_node(self, node: Node, at: Position) -> None:
        """End a node's admission."""
        del self._changing("nodes")[node.node_id]
        del self._changing("used_names")[node.organization_id, node.name.lower()]
        self._changing("former_nodes")[node.node_id] = replace(node, until=at)

    def put_request(self, request: Request) -> None:
        """Note how a join request stands."""
        self._changing("requests")[request.digest] = request

    def put_removal(self, removal: Removal) -> None:
        """Note how a removal stands."""
        self._changing("removals")[removal.hash] = removal

    def put_algorithm(self, proposal: Proposal) -> None:
        """Note how a proposal stands."""
        self._changing("algorithms")[proposal.hash] = proposal

    def _end_keys(self, organization_id: str, entry: Entry, ending: KeyEnding) -> None:
        self._end(
            "key_terms",
            organization_id,
            until=entry.position,
            until_nanoseconds=entry.created_at,
            ending=ending,
        )

    def _add(self, name: str, organization_id: str, term: KeyTerm | Membership) -> None:
        history = self._changing(name)
        history[organization_id] = (*history.get(organization_id, ()), term)

    def _end(self, name: str, organization_id: str, **changes: object) -> None:
        history = self._changing(name)
        *before, last = history[organization_id]
        history[organization_id] = (*before, replace(last, **changes))

    def _changing(self, name: str) -> dict[Any, Any]:
        """Return a mapping to change. A read-only view copies what it shows far faster than its items can be walked."""
        mapping = self._mappings[name]
        if isinstance(mapping, dict):
            return mapping
        own = self._mappings[name] = mapping.copy() if isinstance(mapping, MappingProxyType) else dict(mapping)
        return own


def check_signature(signed: Signed, public_key: PublicKey, genesis: bytes) -> None:
    """Check the signature of an entry."""
    with under(LedgerRule.SIGNATURE):
        verify(signed, kind=SignedKind.SIGNED_KIND_LEDGER_ENTRY, public_key=public_key, genesis=genesis)
