"""Committing a run: its receipt and its result become durable together, once, or not at all.

A receipt is verified against the task as it is stored and the ledger as it stands; then compare-and-set on run, attempt
and node decides. What the first receipt said stays: a repetition gets the same answer, anything else RUN_CONFLICT.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, bindparam, select

from folkmoot.server.context import Caller
from folkmoot.server.payloads.quotas import Quota
from folkmoot.server.store import endings, links, payload_rows, runs, session_rows, usage_rows, views
from folkmoot.server.store.payload_rows import Envelope, Place, Sending
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.store.usage_rows import Counted
from folkmoot.server.tasks import states
from folkmoot.trust import (
    BytesSource,
    Malformed,
    State,
    fingerprint,
    inspect,
    serialize,
    verify_approval,
    verify_task,
)
from folkmoot.trust.errors import FolkmootError, SignatureInvalid, TaskNotProven
from folkmoot.trust.receipt import verify_receipt, verify_refusal
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, Run, RunState, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import CommitRunRequest

_KINDS: Mapping[int, EnvelopeKind.ValueType] = {
    RunState.RUN_STATE_COMPLETED: EnvelopeKind.ENVELOPE_KIND_RESULT,
    RunState.RUN_STATE_FAILED: EnvelopeKind.ENVELOPE_KIND_FAILURE,
    RunState.RUN_STATE_CRASHED: EnvelopeKind.ENVELOPE_KIND_FAILURE,
}


@dataclass(frozen=True, slots=True)
class Ending:
    """A receipt that has passed every check that needs no rows of the run."""

    receipt: Receipt
    signed: bytes
    envelope: bytes | None
    """The result's or failure's bytes if they rode along."""
    approvals: Sequence[Signed]
    """What people at the station decided."""
    now: datetime
    session_id: str
    """The session that a dataframe was left in; empty: the task uses none."""
    job_id: str

    @property
    def outcome(self) -> str:
        """The terminal state, in a word."""
        return RunState.Name(self.receipt.outcome).removeprefix("RUN_STATE_")

    @property
    def place(self) -> Place:
        """Where the result belongs."""
        return Place(_KINDS[self.receipt.outcome], self.receipt.task_id, self.receipt.run_id)


def run_id_of(signed: Signed) -> str:
    """Return the run that a receipt, not verified yet, says it is for."""
    try:
        return Receipt.FromString(signed.body).run_id
    except DecodeError as error:
        raise Malformed("The receipt does not parse") from error


def find_chain(connection: Connection, caller: Caller, run_id: str) -> TaskChain:
    """Return the chain of a run's task; raise RUN_NOT_FOUND unless it is of the node's collaboration."""
    row = _CHAIN.row(connection, {"run_id": run_id, "genesis": caller.genesis})
    if row is None:
        raise views.run_not_found(run_id)
    return TaskChain.FromString(row.chain)


_CHAIN = Prepared(
    select(task_table.c.chain)
    .join(run_table, run_table.c.task_id == task_table.c.task_id)
    .where(run_table.c.run_id == bindparam("run_id"), task_table.c.genesis == bindparam("genesis"))
)


def check(request: CommitRunRequest, chain: TaskChain, *, caller: Caller, state: State, now: datetime) -> Ending:
    """Verify receipt and approvals, that they are the caller's to send, and that the envelope is the one that the receipt names."""
    receipt = _verify(request.receipt, chain, caller=caller, state=state)
    _check_approvals(request.approvals, receipt, chain, state)
    if receipt.node_id != caller.node_id:
        raise states.run_conflict("The receipt is another node's.")
    if receipt.outcome not in states.NODE_OUTCOMES:
        raise Malformed("That a run has expired is for the server to say")
    spec = TaskSpec.FromString(chain.specs[-1].body)
    ending = Ending(
        receipt=receipt,
        signed=serialize(request.receipt),
        envelope=request.envelope or None,
        approvals=request.approvals,
        now=now,
        session_id=spec.session.session_id,
        job_id=spec.job_id,
    )
    if ending.envelope is not None:
        _check_envelope(ending)
    return ending


def _verify(signed: Signed, chain: TaskChain, *, caller: Caller, state: State) -> Receipt:
    """Verify a receipt against its task; one that says that the task came altered is no less a receipt."""
    run_id = run_id_of(signed)
    try:
        task = verify_task(chain, state, now=None)
        return verify_receipt(signed, task=task, run_id=run_id, state=state)
    except TaskNotProven as error:
        with suppress(TaskNotProven):
            return verify_refusal(signed, run_id=run_id, organization_id=caller.organization_id, state=state)
        raise _not_proven(error) from error


def _check_approvals(approvals: Sequence[Signed], receipt: Receipt, chain: TaskChain, state: State) -> None:
    """Check that people at the same node decided them, about the same attempt."""
    if not approvals:
        return
    try:
        task = verify_task(chain, state, now=None)
        decided = [verify_approval(each, task=task, run_id=receipt.run_id, state=state) for each in approvals]
    except TaskNotProven as error:
        raise _not_proven(error) from error
    of = {(fingerprint(signed.key_id), approval.attempt) for signed, approval in zip(approvals, decided, strict=True)}
    if of != {(receipt.node_id, receipt.attempt)}:
        raise Malformed("An approval comes along that is another node's, or of another attempt")


def _not_proven(error: TaskNotProven) -> FolkmootError:
    reason = SignatureInvalid.REASON if error.metadata.get("rule") == "SIGNATURE" else Malformed.REASON
    return FolkmootError(reason, error.message, metadata=error.metadata)


def _check_envelope(ending: Ending) -> None:
    if not ending.receipt.result_digest:
        raise Malformed("An envelope rides along that the receipt does not name")
    inspected = inspect(BytesSource(ending.envelope or b""))
    if inspected.digest != ending.receipt.result_digest or Place.of(inspected) != ending.place:
        raise Malformed("The envelope that rides along is not the one that the receipt names")


def store(connection: Connection, ending: Ending, caller: Caller, touched: Touched, quota: Quota) -> bool:
    """End the run; False if the same receipt had ended it before. Raises RUN_CONFLICT and PAYLOAD_NOT_FOUND."""
    receipt = ending.receipt
    (run,) = runs.load(connection, [receipt.run_id])
    link_id = links.ensure(connection, receipt.genesis, caller.node_id, caller.organization_id)
    decided = states.commit(run, link_id=link_id, attempt=receipt.attempt, receipt=ending.signed)
    if decided is states.Commit.REPEATED:
        return False
    values: dict[str, object] = _store_result(connection, ending, quota) if receipt.result_digest else {}
    if run.state == states.PENDING:
        values["assigned_at"] = ending.now  # the acknowledgement of its delivery is still under way
    runs.move(connection, [run], touched, **values, **_outcome(ending))
    usage_rows.add(connection, moment_at(nanoseconds(receipt.ended_at)), _executed(receipt))
    if receipt.HasField("dataframe"):
        session_rows.keep(connection, receipt, ending.session_id, link_id=link_id, left_at=ending.now)
    endings.settle(connection, [run.task_id], now=ending.now, touched=touched)
    return True


def _executed(receipt: Receipt) -> Counted:
    """Return what the run was at its node. How long it ran is the node's word, as the receipt is."""
    running_nanoseconds = 0
    if receipt.HasField("started_at"):
        running_nanoseconds = max(0, nanoseconds(receipt.ended_at) - nanoseconds(receipt.started_at))
    return Counted(
        organization_id=receipt.organization_id, runs_executed=1, run_milliseconds=running_nanoseconds // 1_000_000
    )


def _outcome(ending: Ending) -> dict[str, object]:
    receipt = ending.receipt
    started = {"started_at": moment_at(nanoseconds(receipt.started_at))} if receipt.HasField("started_at") else {}
    return started | {
        "state": receipt.outcome,
        "exit_class": receipt.exit_class,
        "reason": receipt.reason,
        "rule": receipt.rule,
        "waiting": None,
        "receipt": ending.signed,
        "approvals": Run(approvals=ending.approvals).SerializeToString() if ending.approvals else None,
        "ended_at": moment_at(nanoseconds(receipt.ended_at)),
    }


def _store_result(connection: Connection, ending: Ending, quota: Quota) -> dict[str, object]:
    receipt = ending.receipt
    result = Envelope(receipt.result_digest, ending.place, receipt.result_receivers, ending.envelope)
    sizes = payload_rows.store(connection, [Sending(receipt.organization_id, [result], ending.now)], quota.counting)
    return {"result_digest": receipt.result_digest, "result_size_bytes": sizes[receipt.result_digest]}
