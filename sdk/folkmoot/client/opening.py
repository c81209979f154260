"""From what the server tells of a run to what is known of it.

The server's account decides nothing: the task that the run belongs to is the one that was verified; the state is that of the node's
receipt; the content is the envelope that the receipt names, signed by the same node. What is not proven is marked so, and what was
altered is refused and said, without keeping other runs' results from the user.

Whoever signed is judged by the ledger as it was then: what a node sealed before it, its organization or a key went stays readable. An
entry that somebody names as the ledger's newest must be in the own copy: if it is not there yet, the copy is refreshed, once; if it still
is not, the server withholds it (LEDGER_STALE); if another entry stands there, two ledgers are shown (LEDGER_FORK). One signer's word is no
proof of either, so it is told with that run alone.
"""

import asyncio
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryFile

from folkmoot.client.connection import Connection
from folkmoot.client.encryption import check_envelope
from folkmoot.client.names import exit_class_name, name_of
from folkmoot.client.results import Proof, Result, RunState, run_state
from folkmoot.client.session import is_away
from folkmoot.transport import RemoteError
from folkmoot.transport.failures import read_failure
from folkmoot.trust import (
    ArrivingBody,
    BytesSource,
    DecryptionKey,
    EnvelopeRejected,
    Expected,
    FileSource,
    FolkmootError,
    LedgerBehind,
    Opened,
    State,
    TaskNotProven,
    VerifiedTask,
    fingerprint,
    inspect,
    open_envelope,
    verify,
    verify_receipt,
    verify_refusal,
)
from folkmoot.trust.rules import ReceiptRule
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.ledger_pb2 import Encryption, LedgerPosition
from folkmoot.v1.proxy_service_pb2 import Failure
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Receipt, Run

log = logging.getLogger("folkmoot.client")

_CONTENT = {
    RunState.COMPLETED: EnvelopeKind.ENVELOPE_KIND_RESULT,
    RunState.FAILED: EnvelopeKind.ENVELOPE_KIND_FAILURE,
    RunState.CRASHED: EnvelopeKind.ENVELOPE_KIND_FAILURE,
}
"""What a run that ended so leaves behind."""


async def result_of(connection: Connection, task: VerifiedTask, run: Run, envelope: bytes) -> Result:
    """Make the result of a run that has ended; `envelope` is what the server sent along, empty if nothing.

    Raises only what concerns all runs (a server that is away, a fork of the ledger); what is wrong with this one is in its `problem`.
    """
    organization_id = task.receiver(run.run_id).organization_id
    receipt, problem = await _verified_receipt(connection, task, run)
    if receipt is None:
        return Result(
            organization=name_of(await connection.state(), organization_id),
            organization_id=organization_id,
            run_id=run.run_id,
            attempt=run.attempt,
            state=run_state(run.state),
            proven=Proof.SERVER_SAYS,
            exit_class=exit_class_name(run.exit_class),
            reason=run.reason,
            rule=run.rule,
            problem=problem,
        )
    content, problem = await _content(connection, task, run, receipt, envelope)
    state = run_state(receipt.outcome)
    failure = read_failure(content) if content and state is not RunState.COMPLETED else Failure()
    return Result(
        organization=name_of(await connection.state(), organization_id),
        organization_id=organization_id,
        run_id=run.run_id,
        attempt=receipt.attempt,
        state=state,
        proven=Proof.PROVEN,
        exit_class=exit_class_name(receipt.exit_class),
        reason=receipt.reason or failure.reason,
        rule=receipt.rule,
        failure=failure.message,
        receipt=receipt,
        problem=problem,
        content=content if state is RunState.COMPLETED else None,
    )


async def as_proven(connection: Connection, task: VerifiedTask, run: Run) -> tuple[Run, Proof]:
    """The run as its node's receipt has it, if there is one that counts; else as the server tells it."""
    receipt, _ = await _verified_receipt(connection, task, run)
    if receipt is None:
        return run, Proof.SERVER_SAYS
    proven = Run()
    proven.CopyFrom(run)
    proven.state, proven.attempt = receipt.outcome, receipt.attempt
    proven.reason, proven.rule, proven.exit_class = receipt.reason, receipt.rule, receipt.exit_class
    proven.ended_at.CopyFrom(receipt.ended_at)
    return proven, Proof.PROVEN


async def _verified_receipt(
    connection: Connection, task: VerifiedTask, run: Run
) -> tuple[Receipt | None, FolkmootError | None]:
    """The node's receipt, or why there is none that counts."""
    if not run.HasField("receipt"):
        return None, None
    state = await connection.state()
    if not state.is_used(run.receipt.key_id):  # Perhaps the node is newer than our copy of the ledger.
        state = await connection.state(newest=True)
    organization_id = task.receiver(run.run_id).organization_id
    try:
        receipt = _proven_receipt(run, task, organization_id, state)
        await check_position(connection, receipt.ledger_position)
    except FolkmootError as error:
        if server_is_away(error):
            raise
        log.warning("the receipt of run %s was not accepted: %s", run.run_id, error)
        return None, error
    _tell_of_several(connection.seen_receipts.note(run.receipt, receipt), receipt, await connection.state())
    return receipt, None


def _tell_of_several(node_ids: Sequence[str], receipt: Receipt, state: State) -> None:
    """Say that a server has given one attempt to several nodes."""
    if node_ids:
        known = {**state.former_nodes, **state.nodes}
        log.error(
            "attempt %d of run %s was given to several nodes of %s, and each has signed an end of it: %s. The server lies, or was "
            "restored from a backup in between: export the proof, which has all of them, and ask its operator",
            receipt.attempt,
            receipt.run_id,
            state.organization_name(receipt.organization_id),
            ", ".join(f"{known[each].name} ({each})" for each in node_ids),
        )


def _proven_receipt(run: Run, task: VerifiedTask, organization_id: str, state: State) -> Receipt:
    with suppress(FolkmootError):  # The node was handed something else than the task, and says so.
        return verify_refusal(run.receipt, run_id=run.run_id, organization_id=organization_id, state=state)
    try:
        return verify_receipt(run.receipt, task=task.as_of(state), run_id=run.run_id, state=state)
    except TaskNotProven as error:
        if error.metadata.get("rule") == ReceiptRule.LEDGER_POSITION.name:
            _check_fork(run.receipt, state)
        raise


def _check_fork(signed: Signed, state: State) -> None:
    """Raise LedgerFork when it is the node itself that names an entry of another ledger, and nobody on the way."""
    receipt = Receipt.FromString(signed.body)
    node = state.nodes.get(receipt.node_id) or state.former_nodes.get(receipt.node_id)
    if node is not None:
        kind = SignedKind.SIGNED_KIND_RECEIPT
        verify(signed, kind=kind, public_key=node.public_key, genesis=state.genesis)
        state.check_position(receipt.ledger_position.sequence, receipt.ledger_position.hash)


async def check_position(connection: Connection, position: LedgerPosition) -> None:
    """Hold the newest entry that somebody names against the own copy; refreshes it once. Raises LedgerStale, LedgerFork."""
    try:
        (await connection.state()).check_position(position.sequence, position.hash)
    except LedgerBehind:
        (await connection.state(newest=True)).check_position(position.sequence, position.hash)


async def _content(
    connection: Connection, task: VerifiedTask, run: Run, receipt: Receipt, envelope: bytes
) -> tuple[Opened | None, FolkmootError | None]:
    """The verified envelope that the receipt names, or why there is none."""
    kind = _CONTENT.get(run_state(receipt.outcome))
    reader = await connection.reader()
    if kind is None or not receipt.result_digest or reader.organization_id not in task.spec.result_receivers:
        return None, None
    expected = Expected(
        kind=kind,
        task_id=task.spec.task_id,
        digest=receipt.result_digest,
        task_digest=task.digest,
        run_id=run.run_id,
        attempt=receipt.attempt,
        sequence=0,
        sender_organization_id=receipt.organization_id,
    )
    state, keys = await connection.state(), await opening_keys(connection)
    try:
        arriving = ArrivingBody()
        source = (
            BytesSource(envelope) if envelope else await _download(connection, receipt.result_digest, run, arriving)
        )
        check_envelope(source, state)
        opened = await asyncio.to_thread(
            open_envelope,
            source,
            genesis=connection.reference.genesis,
            expected=expected,
            sender=lambda context: state.node_at(receipt.node_id, context.ledger_sequence).public_key,
            keys=keys,
            arrived=None if envelope else arriving,
        )
        await check_position(connection, _position(opened.context))
    except FolkmootError as error:
        if server_is_away(error):
            raise
        log.warning("the content of run %s was not accepted: %s", run.run_id, cause_of(error))
        return None, error
    return opened, None


async def _download(connection: Connection, envelope_digest: bytes, run: Run, arriving: ArrivingBody) -> FileSource:
    """Bring a sealed envelope to a file without a name, which goes when nobody refers to it any more; note what it holds."""
    file = TemporaryFile(dir=connection.state_directory)  # noqa: SIM115 - it lives as long as its source

    def take(data: bytes) -> None:
        file.write(data)
        arriving.add(data)

    received_bytes = 0
    taking = asyncio.ensure_future(asyncio.to_thread(take, b""))
    try:
        async for data in connection.session.download(envelope_digest):
            received_bytes += len(data)
            check_size(received_bytes, run.result_size_bytes)
            await taking
            taking = asyncio.ensure_future(asyncio.to_thread(take, data))
        await taking
        file.flush()
        source = FileSource(file)
    except BaseException:
        await asyncio.gather(taking, return_exceptions=True)  # a thread is at the file
        file.close()
        raise
    weakref.finalize(source, file.close)
    return source


def _position(context: EnvelopeContext) -> LedgerPosition:
    return LedgerPosition(sequence=context.ledger_sequence, hash=context.ledger_hash)


def server_is_away(error: FolkmootError) -> bool:
    """Tell whether the server is away just now: then nothing is wrong with what was asked for."""
    return isinstance(error, RemoteError) and is_away(error)


def check_size(received_bytes: int, announced_bytes: int) -> None:
    """Raise EnvelopeRejected when a server sends without end."""
    if received_bytes > announced_bytes:
        raise EnvelopeRejected("the server sends more bytes than it announced")


async def opening_keys(connection: Connection) -> Mapping[bytes, DecryptionKey] | None:
    """The keys that open envelopes for this organization; None where nothing is sealed."""
    if (await connection.state()).encryption == Encryption.ENCRYPTION_PLAIN:
        return None
    return (await connection.reader()).keys.decryption_keys()


def node_of(state: State, task: VerifiedTask, organization_id: str) -> Callable[[EnvelopeContext], PublicKey]:
    """For envelopes without a receipt: the key of the node that sealed it, if it was one of that organization's then.

    Whoever executes a task knows the ledger as its creator did: what names an earlier entry is by who was gone when it was made.
    """

    def sender(context: EnvelopeContext) -> PublicKey:
        if context.ledger_sequence < task.spec.ledger_position.sequence:
            raise EnvelopeRejected("sealed on a ledger from before the task")
        node = state.node_at(fingerprint(context.sender_key_id), context.ledger_sequence)
        if node.organization_id != organization_id:
            raise EnvelopeRejected("sealed by a key that is no node of the executing organization")
        return node.public_key

    return sender


async def open_from_run(
    connection: Connection, task: VerifiedTask, run_id: str, attempt: int, kind: EnvelopeKind.ValueType, envelope: bytes
) -> Opened:
    """Open what a run says while it runs: a LOG or PROGRESS envelope, signed by a node of the executing organization.

    Its sequence is its own word; whoever reads several checks that they come in order. Raises EnvelopeRejected,
    EncryptionDisagrees, LedgerStale, LedgerFork.
    """
    organization_id = task.receiver(run_id).organization_id
    source = BytesSource(envelope)
    context = inspect(source).context
    expected = Expected(
        kind=kind,
        task_id=task.spec.task_id,
        task_digest=task.digest,
        run_id=run_id,
        attempt=attempt,
        sequence=context.sequence,
        sender_organization_id=organization_id,
    )
    state = await connection.state()
    if state.position.sequence < context.ledger_sequence:
        state = await connection.state(
            newest=True
        )  # Its node, or the own key, may be newer than our copy of the ledger.
    check_envelope(source, state)
    opened = open_envelope(
        source,
        genesis=connection.reference.genesis,
        expected=expected,
        sender=node_of(state, task, organization_id),
        keys=await opening_keys(connection),
    )
    await check_position(connection, _position(opened.context))
    return opened


async def progress_of(connection: Connection, task: VerifiedTask, run: Run) -> str:
    """What the algorithm last said of its progress; empty if nothing, or nothing that can be read and is proven."""
    if not run.progress_envelope:
        return ""
    kind = EnvelopeKind.ENVELOPE_KIND_PROGRESS
    try:
        opened = await open_from_run(connection, task, run.run_id, run.attempt, kind, run.progress_envelope)
        return opened.content().decode(errors="replace")
    except FolkmootError as error:
        log.warning("the progress of run %s was not accepted: %s", run.run_id, cause_of(error))
        return ""


def cause_of(error: FolkmootError) -> str:
    """What goes to the local log: for a rejected envelope also the cause, which nobody else is told."""
    return error.cause_text if isinstance(error, EnvelopeRejected) else str(error)
