"""Proofs: a task with its tree of subtasks, its receipts and the ledger, in a file that anybody can verify without a server.

The server is asked what there is; what it shows is taken in only as far as it is proven. What is not in a proof is told with
what the server says of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.client.connection import Connection
from folkmoot.client.receipts import SeenReceipts
from folkmoot.client.results import run_state
from folkmoot.client.session import PAGE_ITEMS
from folkmoot.trust import FolkmootError, State, TaskNotProven, VerifiedTask, make_proof, verify_approval, verify_task
from folkmoot.trust.proof import proven_receipt
from folkmoot.v1.proof_pb2 import ProvenTask
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receiver, Run
from folkmoot.v1.task_service_pb2 import GetTaskRequest, GetTaskResponse, ListTasksRequest


@dataclass(frozen=True)
class ExportedProof:
    """A proof file, and what it does not prove."""

    data: bytes
    missing: tuple[str, ...]
    """What no node signed, or not as it must be, in sentences, with what the server says of it."""


async def export_proof(connection: Connection, task_id: str) -> ExportedProof:
    """Make the proof of a task and all below it. Raises TASK_NOT_FOUND, and TaskNotProven when the task itself is not proven."""
    top = await _get(connection, task_id)
    task = verify_task(top.chain, await connection.shown_state(), now=None)
    if task.spec.task_id != task_id:
        raise TaskNotProven(f"The server shows the task {task.spec.task_id} in place of {task_id}.")
    below = [await _get(connection, each) for each in await _below(connection, task)]
    state = await connection.shown_state()  # With everything that their signers knew.
    entries = (await connection.replica()).entries[: len(state.hashes)]
    gathered = _Gathered(state, task, connection.seen_receipts)
    gathered.take(top)
    for answer in sorted(below, key=lambda each: len(each.chain.specs)):
        gathered.take(answer)
    return ExportedProof(make_proof(entries, gathered.tasks), tuple(gathered.missing))


class _Gathered:
    """What the server showed of a task and those below it, as far as it is proven."""

    def __init__(self, state: State, task: VerifiedTask, seen: SeenReceipts) -> None:
        self.tasks: list[ProvenTask] = []
        self.missing: list[str] = []
        self._state = state
        self._seen = seen
        self._expected = task.digest
        self._taken: set[bytes] = set()

    def take(self, answer: GetTaskResponse) -> None:
        """Take in a task, if it is the expected one or lies below one that was taken."""
        try:
            task = self._verified(answer)
        except FolkmootError as error:
            self.missing.append(f"task {answer.task.task_id}, which the server shows below it: {error.message}")
            return
        self._taken.add(task.digest)
        receipts = [signed for run in task.spec.receivers for signed in self._receipts(run, answer, task)]
        approvals = [signed for run in task.spec.receivers for signed in self._approvals(run, answer, task)]
        self.tasks.append(ProvenTask(chain=answer.chain, receipts=receipts, approvals=approvals))

    def _verified(self, answer: GetTaskResponse) -> VerifiedTask:
        task = verify_task(answer.chain, self._state, now=None)
        is_below = len(task.chain) > 1 and task.chain_digests[-2] in self._taken and task.digest not in self._taken
        if not is_below and (self._taken or task.digest != self._expected):
            raise TaskNotProven(f"The task {task.spec.task_id} does not lie below those that are proven")
        return task

    def _receipts(self, receiver: Receiver, answer: GetTaskResponse, task: VerifiedTask) -> Sequence[Signed]:
        """Return what nodes signed about a run, shown now or before; a sentence goes among what is missing, if that is nothing."""
        run = next((run for run in answer.runs if run.run_id == receiver.run_id), Run())
        shown = [run.receipt] if run.HasField("receipt") else []
        problem = "no node signed how it ended"
        receipts: dict[tuple[int, str], Signed] = {}
        for signed in (*self._seen.of(receiver.run_id), *shown):
            try:
                receipt = proven_receipt(signed, task=task, state=self._state)
                if receipt.run_id != receiver.run_id:
                    raise TaskNotProven("It is another run's")
            except FolkmootError as error:
                problem = f"its receipt is not proven ({error.message.rstrip('.')})"
            else:
                receipts[receipt.attempt, receipt.node_id] = signed
        if receipts:
            return tuple(receipts.values())
        says = f"the server says {run_state(run.state)}" if run.state else "the server does not show it"
        organization = self._state.organization_name(receiver.organization_id)
        self.missing.append(f"run {receiver.run_id} of {organization}: {problem}; {says}")
        return ()

    def _approvals(self, receiver: Receiver, answer: GetTaskResponse, task: VerifiedTask) -> Sequence[Signed]:
        """Return what people at its station decided about a run; a sentence goes among what is missing for each that is not proven."""
        approvals: dict[tuple[int, bytes, int], Signed] = {}
        shown = next((run.approvals for run in answer.runs if run.run_id == receiver.run_id), ())
        for signed in shown:
            try:
                approval = verify_approval(signed, task=task, run_id=receiver.run_id, state=self._state)
            except FolkmootError as error:
                organization = self._state.organization_name(receiver.organization_id)
                why = f"an approval is not proven ({error.message.rstrip('.')})"
                self.missing.append(f"run {receiver.run_id} of {organization}: {why}")
            else:
                approvals.setdefault((approval.attempt, signed.key_id, approval.subject), signed)
        return tuple(approvals.values())


async def _get(connection: Connection, task_id: str) -> GetTaskResponse:
    session = connection.session
    return await session.call(session.tasks.GetTask, GetTaskRequest(task_id=task_id))


async def _below(connection: Connection, task: VerifiedTask) -> list[str]:
    """The tasks below one, by the server's list; each after the one above it."""
    session = connection.session
    request = ListTasksRequest(page_size=PAGE_ITEMS, genesis=task.spec.genesis, job_id=task.spec.job_id)
    children: dict[str, list[str]] = {}
    async for page in session.pages(session.tasks.ListTasks, request):
        for listed in page.tasks:
            children.setdefault(listed.parent_task_id, []).append(listed.task_id)
    found = [task.spec.task_id]
    for each in found:
        found += children.pop(each, [])  # Each once, whatever circle a server may draw.
    return found[1:]
