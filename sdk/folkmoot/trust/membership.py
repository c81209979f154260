"""What a collaboration consists of, as its ledger says: terms, members with their keys, nodes, and what is being voted on."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fnmatch import fnmatchcase

from folkmoot.trust.ballots import Ballot
from folkmoot.trust.rules import REMOVAL_TERM
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Encryption, JoinRequest, LedgerPosition, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed

_LEAST_REMOVERS = 2


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
        """Approvals that decide, with so many who may vote."""
        match self.quorum:
            case Quorum.QUORUM_UNANIMOUS:
                return members
            case Quorum.QUORUM_TWO_THIRDS:
                return -(-2 * members // 3)
            case _:
                return members // 2 + 1

    def removal_votes_needed(self, electorate: int) -> int:
        """Approvals that remove a member, with so many others: their quorum, and never fewer than two."""
        return max(_LEAST_REMOVERS, self.votes_needed(electorate))


@dataclass(frozen=True)
class Predecessor:
    """The collaboration that this one succeeds, up to the entry that its members accept."""

    genesis: bytes
    head: Position


@dataclass(frozen=True)
class Member:
    """An organization that belongs to the collaboration."""

    organization_id: str
    name: str
    governance_key: PublicKey
    keys: OrganizationKeys | None
    """None: it revoked them, and has published no others yet."""
    key_claim: Signed | None
    key_entry: Position | None
    """The entry that brought the keys in."""
    since: Position
    """The entry that admitted it."""


@dataclass(frozen=True)
class Membership:
    """The time between an organization's admission and its end. `until` is the first entry that it was no member at."""

    organization_id: str
    name: str
    governance_key: PublicKey
    since: Position
    until: Position | None = None
    removed: bool = False
    """The others voted it out; otherwise it left."""


class KeyEnding(StrEnum):
    """How an organization's keys ended."""

    ROTATED = "rotated"
    REVOKED = "revoked"
    LEFT = "left"


@dataclass(frozen=True)
class KeyTerm:
    """The time during which the ledger showed these as an organization's keys."""

    keys: OrganizationKeys
    key_claim: Signed
    since: Position
    until: Position | None = None
    until_nanoseconds: int | None = None
    """When the entry that ended them was made."""
    ending: KeyEnding | None = None


@dataclass(frozen=True)
class Node:
    """A node that its organization admitted."""

    node_id: str
    name: str
    organization_id: str
    public_key: PublicKey
    since: Position
    until: Position | None = None
    """The entry that ended its admission."""


@dataclass(frozen=True)
class Request(Ballot):
    """A join request that was voted on. Decided: its organization was admitted, by it or by another one of its requests."""

    digest: bytes
    request: JoinRequest
    keys: OrganizationKeys
    organization_id: str


@dataclass(frozen=True)
class Removal(Ballot):
    """A wish to vote a member out. Decided: it was."""

    hash: bytes
    """Of the entry that asked for it."""
    target_organization_id: str
    target_since: Position
    """The membership that is to end; if it ends otherwise, the wish is void."""
    requested_by: str
    requested_at_nanoseconds: int

    @property
    def void_from_nanoseconds(self) -> int:
        """From when on nobody votes on it."""
        return self.requested_at_nanoseconds + in_nanoseconds(REMOVAL_TERM)


@dataclass(frozen=True)
class Proposal(Ballot):
    """An image that a member wants allowed. Decided: the members allowed it."""

    hash: bytes
    """Of the entry that proposed it."""
    algorithm: AlgorithmPropose
    proposed_by: str
    revoked: bool = False

    def names(self, image: str) -> bool:
        """Tell whether it is about an image (as text): its own is a pattern, as a shell's."""
        return fnmatchcase(image, self.algorithm.image)

    def is_in_force(self, now: datetime) -> bool:
        """Tell whether the members allow it at that time."""
        expires = self.algorithm.HasField("expires_at")
        return (
            self.decided
            and not self.revoked
            and not (expires and nanoseconds(self.algorithm.expires_at) <= nanoseconds_at(now))
        )


class KeyUse(StrEnum):
    """What a key is for."""

    GOVERNANCE = "governance"
    ENCRYPTION = "encryption"
    TASK_SIGNING = "task signing"
    NODE = "node"
    INVITATION = "invitation"
