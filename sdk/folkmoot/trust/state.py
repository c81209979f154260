"""The state of a collaboration: who belongs to it, with which keys, as its ledger says. Made by replay, read by everybody.

A state never changes; each further entry gives a new one. Equal entries give equal states, everywhere.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from folkmoot.trust.encoding import Reference, digest, fingerprint
from folkmoot.trust.envelope import Receiver
from folkmoot.trust.errors import NodeNotApproved, OrganizationNotFound
from folkmoot.trust.times import moment_at, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import Encryption, JoinRequest, JoinRequestState, LedgerPosition, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed


@dataclass(frozen=True)
class Position:
    """A place in a ledger: an entry's sequence, and its hash."""

    sequence: int
    hash: bytes

    def message(self) -> LedgerPosition:
        """The same, as messages carry it."""
        return LedgerPosition(sequence=self.sequence, hash=self.hash)


@dataclass(frozen=True)
class Terms:
    """What the founder fixed."""

    name: str
    encryption: Encryption.ValueType
    post_quantum: PostQuantum.ValueType
    quorum: Quorum.ValueType

    def votes_needed(self, members: int) -> int:
        """Approvals that admit an organization, with so many members."""
        match self.quorum:
            case Quorum.QUORUM_UNANIMOUS:
                return members
            case Quorum.QUORUM_TWO_THIRDS:
                return -(-2 * members // 3)
            case _:
                return members // 2 + 1


@dataclass(frozen=True)
class Member:
    """An organization that belongs to the collaboration."""

    organization_id: str
    name: str
    governance_key: PublicKey
    keys: OrganizationKeys
    key_claim: Signed
    key_entry: Position
    """The entry that brought the keys in."""


@dataclass(frozen=True)
class Node:
    """A node that its organization admitted."""

    node_id: str
    name: str
    organization_id: str
    public_key: PublicKey


@dataclass(frozen=True)
class Request:
    """A join request that was voted on."""

    digest: bytes
    request: JoinRequest
    keys: OrganizationKeys
    organization_id: str
    approved_by: frozenset[str]
    declined_by: frozenset[str]
    decided: bool
    """The organization was admitted by it. Anything else can still change until it expires."""


class KeyUse(StrEnum):
    """What a key is for."""

    GOVERNANCE = "governance"
    ENCRYPTION = "encryption"
    TASK_SIGNING = "task signing"
    NODE = "node"
    INVITATION = "invitation"


@dataclass(frozen=True)
class State:
    """A ledger's meaning after its newest entry. Mappings are read-only."""

    genesis: bytes
    terms: Terms
    members: Mapping[str, Member]
    """By organization id."""
    nodes: Mapping[str, Node]
    """By node id."""
    requests: Mapping[bytes, Request]
    """Join requests that were voted on, by digest."""
    used_keys: Mapping[bytes, tuple[str, KeyUse]]
    """Every key that the ledger ever knew, by key id: its organization and its use."""
    used_names: Mapping[tuple[str, str], str]
    """Ids by names in lower case: those of members as ("", name), those of nodes as (organization id, name)."""
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

    def is_member(self, organization_id: str) -> bool:
        """Tell whether the organization is a member now."""
        return organization_id in self.members

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

    def signing_key(self, organization_id: str) -> PublicKey:
        """Return the key that signs the organization's root tasks; raise OrganizationNotFound."""
        return self.member(organization_id).keys.task_signing

    def receivers(self, names_or_addresses: Iterable[str]) -> list[Receiver]:
        """Return the members, in order, as receivers of an envelope; raise OrganizationNotFound."""
        members = [self.member(each) for each in names_or_addresses]
        return [Receiver(member.organization_id, member.keys.encryption) for member in members]

    def node(self, node_id: str) -> Node:
        """Return an admitted node; raise NodeNotApproved."""
        node = self.nodes.get(node_id)
        if node is None:
            raise NodeNotApproved(
                f"The ledger of {self.name} does not admit the node {node_id}", metadata={"node_id": node_id}
            )
        return node

    def node_key(self, node_id: str) -> PublicKey:
        """Return an admitted node's key; raise NodeNotApproved."""
        return self.node(node_id).public_key

    def is_used(self, key_id: bytes) -> bool:
        """Tell whether a key was ever known to this ledger; an invitation whose key was is void."""
        return key_id in self.used_keys

    def missing_votes(self, request_digest: bytes) -> int:
        """Return how many approvals a join request still needs; 0 once its organization was admitted."""
        request = self.requests.get(request_digest)
        if request is None:
            return self.terms.votes_needed(len(self.members))
        if request.decided:
            return 0
        return max(0, self.terms.votes_needed(len(self.members)) - len(request.approved_by & self.members.keys()))

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
