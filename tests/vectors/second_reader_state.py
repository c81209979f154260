"""A second reader of ledgers: what it remembers. Written from the contract's comments, docs/rules.md and the design alone.

Nothing is forgotten: memberships, key terms and nodes keep the entries that began and ended them, so that whoever judges a
task or a receipt can ask how things stood at an entry.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.vectors.second_reader_wire import check, check_signed, fingerprint, key_id, sha256

APPROVE, DECLINE = 1, 2
MAJORITY, TWO_THIRDS = 1, 2
Message = dict[str, Any]


@dataclass
class Span:
    """From one entry on, and until before another one."""

    since: int
    until: int | None = field(default=None, kw_only=True)

    def holds_at(self, sequence: int) -> bool:
        return self.since <= sequence and (self.until is None or sequence < self.until)


@dataclass
class Membership(Span):
    name: str
    governance_key: Message
    removed: bool = False


@dataclass
class Term(Span):
    """A pair of organization keys while it was in use."""

    keys: Message
    ended_at: int = 0
    """In nanoseconds."""


@dataclass
class Node(Span):
    name: str
    organization_id: str
    key: Message


@dataclass
class Ballot:
    """What is voted on, and each organization's newest decision."""

    votes: dict[str, int] = field(default_factory=dict, kw_only=True)
    decided: bool = field(default=False, kw_only=True)

    def by(self, decision: int) -> list[str]:
        return sorted(who for who, vote in self.votes.items() if vote == decision)

    def told(self) -> Message:
        return {"approved_by": self.by(APPROVE), "declined_by": self.by(DECLINE), "decided": self.decided}


@dataclass
class Request(Ballot):
    message: Message
    keys: Message


@dataclass
class Removal(Ballot):
    target: str
    membership: Membership
    asked_at: int


@dataclass
class Proposal(Ballot):
    image: str
    proposer: str
    expires_at: int | None
    revoked: bool = False


T = TypeVar("T", bound=Span)


def holding(spans: Iterable[T], sequence: int) -> T | None:
    """Return the one that held at an entry."""
    return next((each for each in spans if each.holds_at(sequence)), None)


class Record:
    """All that the entries so far have brought."""

    def __init__(self, now: int | None) -> None:
        self.now = now
        self.hashes: list[bytes] = []
        self.last = 0
        self.terms: Message = {}
        self.memberships: dict[str, list[Membership]] = {}
        self.key_terms: dict[str, list[Term]] = {}
        self.nodes: dict[str, Node] = {}
        self.requests: dict[bytes, Request] = {}
        self.removals: dict[bytes, Removal] = {}
        self.proposals: dict[bytes, Proposal] = {}
        self.keys: dict[bytes, tuple[str, str]] = {}
        self.spent: set[bytes] = set()
        self.revoked: dict[bytes, int] = {}

    @property
    def genesis(self) -> bytes:
        return self.hashes[0] if self.hashes else b""

    @property
    def here(self) -> int:
        """The sequence of the entry that is being read."""
        return len(self.hashes)

    @property
    def members(self) -> dict[str, Membership]:
        return {address: all_[-1] for address, all_ in self.memberships.items() if all_[-1].until is None}

    def member_at(self, organization: str, sequence: int) -> Membership | None:
        return holding(self.memberships.get(organization, ()), sequence)

    def current_keys(self, organization: str) -> Term | None:
        newest = self.key_terms[organization][-1]
        return newest if newest.until is None else None

    # ---- checks that intents share

    def by_governance(self, signed: Message, organization: str) -> None:
        key = self.members[organization].governance_key
        check_signed(signed, "LEDGER_ENTRY", key, self.genesis, "SIGNATURE")

    def uses(self, governance: Message, keys: Message) -> dict[bytes, tuple[str, str]]:
        owner = fingerprint(key_id(governance))
        named = (("governance", governance), ("encryption", keys["encryption"]), ("signing", keys["task_signing"]))
        uses = {key_id(key): (owner, use) for use, key in named}
        check(len(uses) == 3, "KEY_REUSED")
        return uses

    def check_uses(self, uses: dict[bytes, tuple[str, str]]) -> None:
        check(not self.spent & uses.keys(), "KEY_SPENT")
        check(all(self.keys.get(key, use) == use for key, use in uses.items()), "KEY_REUSED")

    # ---- votes

    def missing(self, ballot: Ballot, electorate: Collection[str], least: int = 1) -> int:
        """Return how many approvals are missing."""
        if ballot.decided:
            return 0
        everybody = len(electorate)
        needed = {MAJORITY: everybody // 2 + 1, TWO_THIRDS: (2 * everybody + 2) // 3}.get(
            self.terms["quorum"], everybody
        )
        approvals = sum(ballot.votes.get(who) == APPROVE for who in electorate)
        return max(0, max(needed, least) - approvals)

    def others(self, organization: str) -> set[str]:
        return self.members.keys() - {organization}

    # ---- who and what comes and goes

    def admit(self, name: str, governance: Message, keys: Message) -> None:
        address = fingerprint(key_id(governance))
        self.keys |= self.uses(governance, keys)
        self.memberships.setdefault(address, []).append(Membership(self.here, name, governance))
        self.key_terms.setdefault(address, []).append(Term(self.here, keys))

    def end_membership(self, organization: str, time: int, *, removed: bool) -> None:
        member = self.members[organization]
        member.until, member.removed = self.here, removed
        self.end_keys(organization, time)
        for node in self.nodes.values():
            if node.organization_id == organization and node.until is None:
                node.until = self.here
        for ballot in (*self.requests.values(), *self.removals.values(), *self.proposals.values()):
            if not ballot.decided:
                ballot.votes.pop(organization, None)

    def end_keys(self, organization: str, time: int) -> set[bytes]:
        """End the present pair, if there is one; return its keys."""
        term = self.current_keys(organization)
        if not term:
            return set()
        term.until, term.ended_at = self.here, time
        return pair(term.keys)

    # ---- what is told

    def summary(self) -> Message:
        """Return what ledger.json says of an accepted ledger."""
        return {
            "collaboration": self.reference,
            "head": self.hashes[-1].hex(),
            "members": {
                address: {
                    "name": member.name,
                    "governance_key": member.governance_key["public"].hex(),
                    "encryption": sha256(self.key_terms[address][-1].keys["encryption"]["public"]).hex(),
                    "task_signing": self.key_terms[address][-1].keys["task_signing"]["public"].hex(),
                    "since": member.since,
                }
                for address, member in self.members.items()
            },
            "nodes": {
                node_id: {
                    "name": node.name,
                    "organization_id": node.organization_id,
                    "public_key": node.key["public"].hex(),
                }
                for node_id, node in self.nodes.items()
            },
            "requests": {digest.hex(): request.told() for digest, request in self.requests.items()},
        }

    def history(self) -> Message:
        """Return what history.json says of an accepted ledger."""
        predecessor = self.terms["predecessor"]
        newest = {address: all_[-1] for address, all_ in self.memberships.items()}
        return {
            "collaboration": self.reference,
            "head": self.hashes[-1].hex(),
            "predecessor": predecessor["genesis"].hex() if predecessor else None,
            "members": {
                address: {"name": member.name, "since": member.since, "task_signing": self._signs(address)}
                for address, member in self.members.items()
            },
            "former_members": {
                address: {"name": one.name, "since": one.since, "until": one.until, "removed": one.removed}
                for address, one in newest.items()
                if one.until is not None
            },
            "keys": {address: [told(term) for term in terms] for address, terms in self.key_terms.items()},
            "revoked_keys": {key.hex(): sequence for key, sequence in self.revoked.items()},
            "nodes": {
                node_id: {
                    "name": node.name,
                    "organization_id": node.organization_id,
                    "since": node.since,
                    "until": node.until,
                }
                for node_id, node in self.nodes.items()
            },
            "removals": {
                name.hex(): {
                    "target": removal.target,
                    **removal.told(),
                    "missing": self.missing(removal, self.others(removal.target), 2),
                }
                for name, removal in self.removals.items()
            },
            "algorithms": {
                name.hex(): {"image": proposal.image, **proposal.told(), "revoked": proposal.revoked}
                for name, proposal in self.proposals.items()
            },
        }

    @property
    def reference(self) -> str:
        return f"{self.terms['name']}@{fingerprint(self.genesis)}"

    def _signs(self, organization: str) -> str | None:
        term = self.current_keys(organization)
        return term.keys["task_signing"]["public"].hex() if term else None


def pair(keys: Message) -> set[bytes]:
    """Return the ids of a pair of organization keys."""
    return {key_id(keys["encryption"]), key_id(keys["task_signing"])}


def told(term: Term) -> Message:
    return {
        "generation": term.keys["generation"],
        "task_signing": term.keys["task_signing"]["public"].hex(),
        "since": term.since,
        "until": term.until,
    }
