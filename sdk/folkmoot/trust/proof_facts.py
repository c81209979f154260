"""What a verified proof says: who belonged to the collaboration and how they came in, what was asked, what nodes signed.

Made by `verify_proof` alone; everything here was signed by the organizations and nodes that it names.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import Reference
from folkmoot.trust.membership import KeyTerm, Membership, Node
from folkmoot.trust.state import State
from folkmoot.trust.task import VerifiedTask
from folkmoot.trust.times import moment_at
from folkmoot.v1.task_pb2 import Approval, Receipt


@dataclass(frozen=True)
class Place:
    """An entry of the ledger, and when it was made by its author's clock."""

    sequence: int
    time: datetime


@dataclass(frozen=True)
class MemberProof:
    """An organization that was a member at some entry of the ledger."""

    membership: Membership
    keys: KeyTerm | None
    """Its keys at that entry; None while it had none."""
    since: Place
    founder: bool
    """It founded the collaboration: nobody voted on it."""
    approved_by: tuple[str, ...]
    """Organizations that approved its join request, by id."""
    declined_by: tuple[str, ...]


@dataclass(frozen=True)
class NodeProof:
    """A node that its organization admitted."""

    node: Node
    since: Place
    invited: bool
    """Admitted by an invitation that the governance key signed; otherwise by the governance key itself."""


@dataclass(frozen=True)
class ProvenLedger:
    """A ledger that replays, with what its state does not tell: when, and how somebody came in."""

    state: State
    created_at_nanoseconds: Sequence[int]
    """When each entry was made."""
    requests: Mapping[int, bytes]
    """The digests of the join requests that entries voted on."""
    invited: Mapping[str, bool]
    """Every node that was ever admitted, in that order, and whether it was by an invitation."""

    def place(self, sequence: int) -> Place:
        """Return an entry with its time."""
        return Place(sequence, moment_at(self.created_at_nanoseconds[sequence]))

    @property
    def head(self) -> Place:
        """The newest entry. What was decided later is not in the proof."""
        return self.place(self.state.position.sequence)

    def members_at(self, sequence: int) -> tuple[MemberProof, ...]:
        """Return who belonged to the collaboration after that entry, by name."""
        then = (
            membership
            for memberships in self.state.memberships.values()
            for membership in memberships
            if membership.since.sequence <= sequence and (not membership.until or sequence < membership.until.sequence)
        )
        return tuple(
            self._member(membership, sequence) for membership in sorted(then, key=lambda each: each.name.lower())
        )

    @property
    def nodes(self) -> tuple[NodeProof, ...]:
        """All nodes that were ever admitted, in that order."""
        known = {**self.state.former_nodes, **self.state.nodes}
        return tuple(
            NodeProof(known[node_id], self.place(known[node_id].since.sequence), invited)
            for node_id, invited in self.invited.items()
        )

    def _member(self, membership: Membership, sequence: int) -> MemberProof:
        since = membership.since.sequence
        request = self.state.requests[self.requests[since]] if since else None
        return MemberProof(
            membership=membership,
            keys=self.state.key_term_at(membership.organization_id, sequence),
            since=self.place(since),
            founder=request is None,
            approved_by=tuple(sorted(request.approved_by)) if request else (),
            declined_by=tuple(sorted(request.declined_by)) if request else (),
        )


@dataclass(frozen=True)
class RunProof:
    """A run of a task, and what nodes signed about it."""

    run_id: str
    organization_id: str
    receipts: tuple[Receipt, ...]
    """By attempt, then by node. Without any, nothing about the run is proven but that it was asked for."""
    approvals: tuple[Approval, ...] = ()
    """What people at its station decided: by attempt, then by node, then what they decided about."""

    @property
    def proven(self) -> bool:
        """Whether a node signed how it ended."""
        return bool(self.receipts)

    @property
    def shared_attempts(self) -> tuple[int, ...]:
        """Attempts that several nodes signed an end of: the server gave one to each of them, by a lie or after a restore."""
        signed = Counter(receipt.attempt for receipt in self.receipts)
        return tuple(attempt for attempt, nodes in signed.items() if nodes > 1)


@dataclass(frozen=True)
class TaskProof:
    """A task that is proven to be what its initiator signed."""

    task: VerifiedTask
    made_at: Place
    """The newest entry of the ledger that its creator knew: who belonged to the collaboration then could see it."""
    runs: tuple[RunProof, ...]
    """In the order of its receivers."""


@dataclass(frozen=True)
class VerifiedProof:
    """Everything that a proof file proves."""

    ledger: ProvenLedger
    tasks: tuple[TaskProof, ...]
    """The task that the proof is about, and those below it."""

    @property
    def reference(self) -> Reference:
        """The collaboration. Compare it with what a member told you: anybody can found another one of the same name."""
        return self.ledger.state.reference

    @property
    def unproven(self) -> tuple[tuple[TaskProof, RunProof], ...]:
        """The runs that no node signed anything about."""
        return tuple((task, run) for task in self.tasks for run in task.runs if not run.proven)
