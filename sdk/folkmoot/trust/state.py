"""The state of a collaboration: who belongs to it, with which keys, as its ledger says. Made by replay, read by everybody.

A state never changes; each further entry gives a new one. Equal entries give equal states, everywhere. What was signed
earlier is judged by the ledger as it was then: a state knows since when, and until when, everything in it held.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import Reference, digest, fingerprint
from folkmoot.trust.envelope import Receiver
from folkmoot.trust.errors import KeyUnpublished, LedgerBehind, LedgerFork, NodeNotApproved, OrganizationNotFound
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
from folkmoot.trust.times import moment_at, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import Encryption, JoinRequest, JoinRequestState, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed


@dataclass(frozen=True)
class State:
    """A ledger's meaning after its newest entry. Mappings are read-only."""

    genesis: bytes
    terms: Terms
    predecessor: Predecessor | None
    members: Mapping[str, Member]
    """Present members, by organization id."""
    memberships: Mapping[str, tuple[Membership, ...]]
    """Of everybody who ever was a member, oldest first, by organization id."""
    key_terms: Mapping[str, tuple[KeyTerm, ...]]
    """Every pair of organization keys, oldest first, by organization id."""
    nodes: Mapping[str, Node]
    """Admitted nodes, by node id."""
    former_nodes: Mapping[str, Node]
    """Nodes that are admitted no more, by node id."""
    requests: Mapping[bytes, Request]
    """Join requests that were voted on, by digest."""
    removals: Mapping[bytes, Removal]
    """Wishes to vote a member out, by the hash of the entry that asked for it."""
    algorithms: Mapping[bytes, Proposal]
    """Proposed images, by the hash of the entry that proposed it."""
    used_keys: Mapping[bytes, tuple[str, KeyUse]]
    """Every key that the ledger ever knew, by key id: its organization and its use."""
    spent_keys: Mapping[bytes, tuple[KeyEnding, Position]]
    """Organization keys that never come back, by key id: whether rotated or revoked, and by which entry."""
    used_names: Mapping[tuple[str, str], str]
    """Ids by names in lower case: those of members as ("", name), those of nodes as (organization id, name)."""
    last_entries: Mapping[str, int]
    """When each organization's newest entry was made, in nanoseconds since 1970, by organization id."""
    hashes: tuple[bytes, ...]
    """The entries' hashes."""
    last_created_at_nanoseconds: int

    @property
    def name(self) -> str:
        """The collaboration's name."""
        return self.terms.name

    @property
    def encryption(self) -> Encryption.ValueType:
        """Whether payloads are sealed."""
        return self.terms.encryption

    @property
    def post_quantum(self) -> PostQuantum.ValueType:
        """Which encryption keys members may have."""
        return self.terms.post_quantum

    @property
    def quorum(self) -> Quorum.ValueType:
        """How many members must approve."""
        return self.terms.quorum

    @property
    def reference(self) -> Reference:
        """The collaboration as people name it."""
        return Reference(self.name, self.genesis)

    @property
    def position(self) -> Position:
        """The newest entry."""
        return Position(len(self.hashes) - 1, self.hashes[-1])

    @property
    def last_created_at(self) -> datetime:
        """When the newest entry was made."""
        return moment_at(self.last_created_at_nanoseconds)

    def hash_at(self, sequence: int) -> bytes | None:
        """Return an entry's hash; None if this state has not seen it yet."""
        return self.hashes[sequence] if sequence < len(self.hashes) else None

    def check_position(self, sequence: int, entry_hash: bytes) -> None:
        """Check that this ledger has that entry there, as the sender of something says.

        Raises LedgerFork when another one stands there, LedgerBehind when there is none yet: refresh the replica and ask
        again; if there still is none, the server withholds it.
        """
        known = self.hash_at(sequence)
        if known is None:
            raise LedgerBehind(
                f"Somebody has seen an entry {sequence} of {self.name}; this replica ends at {self.position.sequence}",
                metadata={"sequence": str(sequence)},
            )
        if known != entry_hash:
            raise LedgerFork(
                f"Somebody was shown another entry {sequence} of {self.name} than this replica",
                metadata={"sequence": str(sequence), "ours": known.hex(), "theirs": entry_hash.hex()},
            )

    # ---- members ---------------------------------------------------------------------------------------------------

    def is_member(self, organization_id: str) -> bool:
        """Tell whether the organization is a member now."""
        return organization_id in self.members

    def was_member(self, organization_id: str, sequence: int) -> bool:
        """Tell whether the organization was a member after that entry."""
        return any(
            membership.since.sequence <= sequence and (membership.until is None or sequence < membership.until.sequence)
            for membership in self.memberships.get(organization_id, ())
        )

    @property
    def former_members(self) -> Mapping[str, Membership]:
        """The newest membership of each organization that is a member no more."""
        return {each: terms[-1] for each, terms in self.memberships.items() if each not in self.members}

    def member(self, name_or_address: str) -> Member:
        """Return a member; raise OrganizationNotFound, naming those that there are."""
        organization_id = self.used_names.get(("", name_or_address.lower()), name_or_address)
        member = self.members.get(organization_id)
        if member is None:
            names = ", ".join(sorted(member.name for member in self.members.values()))
            raise OrganizationNotFound(
                f"{name_or_address!r} is not a member of {self.name}; its members are {names}",
                metadata={"organization": name_or_address},
            )
        return member

    def organization_name(self, organization_id: str) -> str:
        """Return the name of a member or former member; raise OrganizationNotFound."""
        terms = self.memberships.get(organization_id)
        if not terms:
            raise OrganizationNotFound(
                f"{organization_id!r} never was a member of {self.name}", metadata={"organization": organization_id}
            )
        return terms[-1].name

    def own_name(self, organization_id: str) -> str | None:
        """Return the name of a member or former member if nobody else ever had it: whoever goes by names alone would take one for the other."""
        name = self.organization_name(organization_id)
        others = (terms for each, terms in self.memberships.items() if each != organization_id)
        taken = any(term.name.lower() == name.lower() for terms in others for term in terms)
        return None if taken else name

    # ---- keys ------------------------------------------------------------------------------------------------------

    def keys(self, organization_id: str) -> OrganizationKeys:
        """Return a member's keys; raise OrganizationNotFound, and KeyUnpublished while it has none."""
        member = self.member(organization_id)
        if member.keys is None:
            raise KeyUnpublished(
                f"{member.name} has no keys in the ledger of {self.name}: it revoked them and has published no others",
                metadata={"organization": organization_id},
            )
        return member.keys

    def key_term_at(self, organization_id: str, sequence: int) -> KeyTerm | None:
        """Return what the ledger showed as the organization's keys after that entry, if any."""
        for term in self.key_terms.get(organization_id, ()):
            if term.since.sequence <= sequence and (term.until is None or sequence < term.until.sequence):
                return term
        return None

    def revocation(self, key_id: bytes) -> Position | None:
        """Return the entry that revoked an organization key, if one did."""
        ending, position = self.spent_keys.get(key_id, (None, None))
        return position if ending is KeyEnding.REVOKED else None

    def ending(self, key_id: bytes) -> Position | None:
        """Return the entry from which on nothing that a key signs is accepted: it revoked an organization key, or ended a node's admission."""
        node = self.former_nodes.get(fingerprint(key_id))
        return node.until if node else self.revocation(key_id)

    def receivers(self, names_or_addresses: Iterable[str]) -> list[Receiver]:
        """Return the members, in order, as receivers of an envelope; raise as `keys` does."""
        members = [self.member(each).organization_id for each in names_or_addresses]
        return [Receiver(member, self.keys(member).encryption) for member in members]

    # ---- nodes -----------------------------------------------------------------------------------------------------

    def node(self, node_id: str) -> Node:
        """Return an admitted node; raise NodeNotApproved."""
        node = self.nodes.get(node_id)
        if node is None:
            former = self.former_nodes.get(node_id)
            ended = f" any more: entry {former.until.sequence} ended it" if former and former.until else ""
            raise NodeNotApproved(
                f"The ledger of {self.name} does not admit the node {node_id}{ended}", metadata={"node_id": node_id}
            )
        return node

    def node_at(self, node_id: str, sequence: int) -> Node:
        """Return a node that was admitted after that entry, be it gone since; raise NodeNotApproved."""
        node = self.nodes.get(node_id) or self.former_nodes.get(node_id)
        if node is None or sequence < node.since.sequence or (node.until and sequence >= node.until.sequence):
            raise NodeNotApproved(
                f"The ledger of {self.name} did not admit the node {node_id} at entry {sequence}",
                metadata={"node_id": node_id, "sequence": str(sequence)},
            )
        return node

    def node_key(self, node_id: str) -> PublicKey:
        """Return an admitted node's key; raise NodeNotApproved."""
        return self.node(node_id).public_key

    def is_used(self, key_id: bytes) -> bool:
        """Tell whether a key was ever known to this ledger; an invitation whose key was is void."""
        return key_id in self.used_keys

    # ---- algorithms ------------------------------------------------------------------------------------------------

    def allowed_algorithm(
        self, image: str, function: str | None, labels: Iterable[str], now: datetime
    ) -> Proposal | None:
        """Return the oldest proposal by which the members allow an image (as text) to be used so now, if there is one.

        They have approved it, nobody has withdrawn it, and it has not expired. Its image is a pattern, as a shell's; functions and labels
        that it names are all that it allows. `function` None: one that is not known yet.
        """
        wanted = frozenset(labels)
        return next(
            (
                proposal
                for proposal in self.algorithms.values()
                if proposal.is_in_force(now)
                and proposal.names(image)
                and (function is None or not proposal.algorithm.functions or function in proposal.algorithm.functions)
                and (not proposal.algorithm.labels or wanted.issubset(proposal.algorithm.labels))
            ),
            None,
        )

    # ---- votes -----------------------------------------------------------------------------------------------------

    def missing_votes(self, request_digest: bytes) -> int:
        """Return how many approvals a join request still needs; 0 once its organization was admitted."""
        needed = self.terms.votes_needed(len(self.members))
        request = self.requests.get(request_digest)
        return needed if request is None else request.missing(self.members.keys(), needed)

    def missing_removal_votes(self, removal_hash: bytes) -> int:
        """Return how many approvals a removal still needs; 0 once it has passed. Raises KeyError."""
        removal = self.removals[removal_hash]
        electorate = self.members.keys() - {removal.target_organization_id}
        return removal.missing(electorate, self.terms.removal_votes_needed(len(electorate)))

    def missing_proposal_votes(self, proposal_hash: bytes) -> int:
        """Return how many approvals a proposed image still needs; 0 once it was allowed. Raises KeyError."""
        return self.algorithms[proposal_hash].missing(self.members.keys(), self.terms.votes_needed(len(self.members)))

    def open_removals(self, now: datetime) -> list[Removal]:
        """Return the removals that can still be voted on, oldest first."""
        return [
            removal
            for removal in self.removals.values()
            if not removal.decided
            and nanoseconds_at(now) < removal.void_from_nanoseconds
            and (target := self.members.get(removal.target_organization_id)) is not None
            and target.since == removal.target_since
        ]

    def request_state(self, signed: Signed, now: datetime) -> JoinRequestState.ValueType:
        """Tell how a join request stands. DECLINED is a view: until it expires, members may change their votes."""
        request = self.requests.get(digest(signed.body))
        if request is not None and request.decided:
            return JoinRequestState.JOIN_REQUEST_STATE_ADMITTED
        if nanoseconds(JoinRequest.FromString(signed.body).expires_at) <= nanoseconds_at(now):
            return JoinRequestState.JOIN_REQUEST_STATE_EXPIRED
        members = len(self.members)
        declined = len(request.declined_by & self.members.keys()) if request else 0
        if members - declined < self.terms.votes_needed(members):
            return JoinRequestState.JOIN_REQUEST_STATE_DECLINED
        return JoinRequestState.JOIN_REQUEST_STATE_PENDING

    def __str__(self) -> str:
        return f"{self.name}@{fingerprint(self.genesis)}, entry {self.position.sequence}"
