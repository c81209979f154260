"""What people at a station decided about a run: verified here again, whatever the server shows."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment
from folkmoot.trust import FolkmootError, State, VerifiedTask, fingerprint, verify_approval
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject, Run

log = logging.getLogger("folkmoot.client")

_WORDS: Mapping[tuple[int, bool], str] = {
    (ApprovalSubject.APPROVAL_SUBJECT_RUN, True): "approved",
    (ApprovalSubject.APPROVAL_SUBJECT_RUN, False): "declined",
    (ApprovalSubject.APPROVAL_SUBJECT_RELEASE, True): "result released",
    (ApprovalSubject.APPROVAL_SUBJECT_RELEASE, False): "result withheld",
}


@dataclass(frozen=True)
class Approval:
    """A person's decision, signed by the station's node."""

    subject: str
    """What it is about: "run", that it starts; "release", that its result leaves."""
    approved: bool
    """Whether the person was for it."""
    approved_by: str
    """The person: an opaque reference, which the station knows."""
    node: str
    """The name of the node that signed it."""
    attempt: int
    time: datetime
    """When, by the node's clock."""
    text: str
    """The decision in a word or two: "approved", "declined", "result released", "result withheld"."""

    def __str__(self) -> str:
        return f"{self.text} by {self.approved_by} ({self.node}, {self.time.astimezone():%Y-%m-%d %H:%M})"


async def approvals_of(connection: Connection, task: VerifiedTask, run: Run) -> tuple[Approval, ...]:
    """The decisions about a run that are proven; what is not is logged and left out."""
    state = await connection.state()
    if not all(state.is_used(signed.key_id) for signed in run.approvals):  # Perhaps the node is newer than our copy.
        state = await connection.state(newest=True)
    found = []
    for signed in run.approvals:
        try:
            found.append(_approval(signed, task, run.run_id, state))
        except FolkmootError as error:
            log.warning("an approval of run %s was not accepted: %s", run.run_id, error)
    return tuple(found)


def _approval(signed: Signed, task: VerifiedTask, run_id: str, state: State) -> Approval:
    approval = verify_approval(signed, task=task, run_id=run_id, state=state)
    is_for = approval.decision == Decision.DECISION_APPROVE
    known = {**state.former_nodes, **state.nodes}
    return Approval(
        subject=ApprovalSubject.Name(approval.subject).removeprefix("APPROVAL_SUBJECT_").lower(),
        approved=is_for,
        approved_by=approval.approved_by,
        node=known[fingerprint(signed.key_id)].name,
        attempt=approval.attempt,
        time=moment(approval.time),
        text=_WORDS[approval.subject, is_for],
    )
