"""Runs: what an algorithm is answered stands; all that it says is sealed to whom the task names, and to nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from folkmoot.node.execution.outcomes import CANCELLED, crashed
from folkmoot.node.journal import message_records, records
from folkmoot.node.link import reports
from folkmoot.node.link.intake import Intake
from folkmoot.node.proxy import messages
from folkmoot.node.proxy.inputs import open_input
from folkmoot.node.proxy.message_envelopes import check_message
from folkmoot.node.proxy.ports import Exit
from folkmoot.node.proxy.runs import Run
from folkmoot.node.station import Station
from folkmoot.node.storage import egress
from folkmoot.transport import INLINE_BYTES
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    FolkmootError,
    Opened,
    OrganizationNotFound,
    inspect,
    leave_entry,
    open_envelope,
    publish_key_entry,
    revoke_key_entry,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Accepted, NodeFrame, ServerFrame
from folkmoot.v1.proxy_service_pb2 import Failure, LogLine, LogLines, SendMessageRequest
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import (
    ExitClass,
    Grant,
    Isolation,
    MessageGrant,
    Receipt,
    RunState,
    TaskInputRef,
    TaskSpec,
    WaitReason,
)
from tests.builders import NOW, World, organization
from tests.polling import until
from tests.unit.node.assignments import assign, content, sealed_task
from tests.unit.node.conftest import MakeStation
from tests.unit.node.test_intake import SIBLINGS, Taken, message

MakeRun = Callable[..., Awaitable[Run]]


class Sent(list[NodeFrame]):
    """What a run has sent on the link."""

    def __call__(self, frame: NodeFrame) -> None:
        self.append(NodeFrame.FromString(frame.SerializeToString()))


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
async def make_run(lung: World, make_station: MakeStation, sent: Sent) -> AsyncIterator[MakeRun]:
    made: list[Run] = []

    async def make(frame: ServerFrame | None = None, station: Station | None = None) -> Run:
        station = station or make_station()
        taken = Taken()
        await Intake(station, taken).take([frame or assign(lung, data=content("mean", column="age"))])
        [record] = taken.records
        assert record.state == records.ASSIGNED, record.receipt
        task = verify_task(record.task_chain(), lung.state, now=None)
        run = Run(station, record, task, isolation=Isolation.ISOLATION_CONTAINER, send=sent)
        starting = records.RunRecord(
            **(
                vars(record)
                | {"run_name": "name", "image_id": task.spec.image.local.id, "started_at_us": records.microseconds(NOW)}
            )
        )
        run.record = await station.journal.transact(lambda db: records.start_run(db, starting))
        made.append(run)
        return run

    yield make
    for run in made:
        await run.reports.close()
        run.closing.close()


async def frames(*pieces: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if fault:
        raise fault


def receipt_of(run: Run) -> Receipt:
    signed = Signed.FromString(run.record.receipt)
    return verify_receipt(signed, task=run.task, run_id=run.record.run_id, state=run.station.state)


async def opened(run: Run, lung: World, reader: str = "Alpha", *, kind: str = "RESULT") -> Opened:
    """What a receiver of the results reads."""
    source = await run.station.envelopes.open(run.record.result_digest, run.closing)
    assert source is not None
    key = lung[reader].organization_key.encryption
    expected = Expected(
        kind=EnvelopeKind.Value(f"ENVELOPE_KIND_{kind}"),
        task_id=run.record.task_id,
        sender_organization_id=run.station.organization_id,
        digest=receipt_of(run).result_digest,
        task_digest=run.task.digest,
        run_id=run.record.run_id,
        attempt=1,
    )
    public = run.station.node_key.public
    return open_envelope(
        source, genesis=lung.genesis, expected=expected, sender=lambda _: public, keys={key.key_id: key}
    )


# ---- results -----------------------------------------------------------------------------------------------------------


async def test_a_result_stands_signed_and_sealed_to_its_receivers_alone(lung: World, make_run: MakeRun):
    run = await make_run()
    await run.write_result("application/json", frames(b"[1,", b"2]"))
    assert run.ended.is_set()
    receipt = receipt_of(run)
    assert receipt.outcome == RunState.RUN_STATE_COMPLETED
    assert receipt.result_receivers == [lung["Alpha"].address]
    assert receipt.bytes_out == run.record.result_size_bytes > 0
    result = await opened(run, lung)
    assert (result.content(), result.context.content_type) == (b"[1,2]", "application/json")
    with pytest.raises(EnvelopeRejected):
        await opened(run, lung, "Gamma")
    standing = await run.station.journal.transact(lambda db: records.get_run(db, *run.record.key))
    assert standing == run.record


async def test_a_large_result_goes_sealed_to_a_file_and_not_into_the_journal(lung: World, make_run: MakeRun):
    run = await make_run()
    piece = os.urandom(1 << 20)
    await run.write_result("application/octet-stream", frames(piece, piece, b"end"))
    [file] = (run.station.directory / "outbox").iterdir()
    assert file.name == run.record.result_digest.hex()
    assert piece[:1000] not in file.read_bytes()
    assert (await opened(run, lung)).content() == piece + piece + b"end"


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, (1 << 20) + 1])
async def test_results_of_every_size_come_back(lung: World, make_run: MakeRun, size: int):
    run = await make_run()
    given = os.urandom(size)
    await run.write_result("application/octet-stream", frames(given))
    assert (await opened(run, lung)).content() == given


async def test_the_same_result_again_is_answered_the_same_and_another_one_is_refused(make_run: MakeRun):
    run = await make_run()
    await run.write_result("application/json", frames(b"1"))
    first = run.record
    await run.write_result("application/json", frames(b"1"))
    assert run.record == first
    for again in (
        run.write_result("application/json", frames(b"2")),
        run.write_result("text/plain", frames(b"1")),
        run.write_failure("no", 0),
    ):
        with pytest.raises(FolkmootError) as refusal:
            await again
        assert refusal.value.reason == ErrorReason.ERROR_REASON_RESULT_WRITTEN
    assert run.record == first


@pytest.mark.parametrize("size", [10, 3 << 20])
async def test_a_result_whose_stream_breaks_off_is_none(make_run: MakeRun, size: int):
    run = await make_run()
    with pytest.raises(FolkmootError, match="broken"):
        await run.write_result(
            "application/json", frames(bytes(size), fault=FolkmootError(ErrorReason.ERROR_REASON_MALFORMED, "broken"))
        )
    assert not run.record.ended
    assert list((run.station.directory / "outbox").iterdir()) == []
    await run.write_result("application/json", frames(b"whole"))
    assert run.record.ended


async def test_a_result_of_a_caller_that_goes_away_is_none(make_run: MakeRun):
    run, reached = await make_run(), asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield bytes(1 << 20)
        reached.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(run.write_result("application/json", stalls()))
    await reached.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await run.write_result("application/json", frames(b"whole"))
    assert receipt_of(run).outcome == RunState.RUN_STATE_COMPLETED


async def test_a_result_beyond_the_policys_limit_is_refused(make_run: MakeRun, make_station: MakeStation):
    station = make_station(policy=POLICY_WITH_SMALL_RESULTS)
    run = await make_run(station=station)
    with pytest.raises(FolkmootError) as refusal:
        await run.write_result("application/json", frames(bytes(1000), bytes(1000)))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_LARGE
    assert not run.record.ended


POLICY_WITH_SMALL_RESULTS = """
runtimes = ["container"]
[[allow]]
images = ["*"]
initiators = ["*"]
[limits]
result_bytes = 1999
"""


async def test_a_failure_is_sealed_and_the_receipt_says_nothing_of_it(lung: World, make_run: MakeRun):
    run = await make_run()
    await run.write_failure("patient 7 has no age", ErrorReason.ERROR_REASON_COLUMN_NOT_FOUND)
    receipt = receipt_of(run)
    assert (receipt.outcome, receipt.reason) == (RunState.RUN_STATE_FAILED, 0)
    failure = Failure.FromString((await opened(run, lung, kind="FAILURE")).content())
    assert (failure.message, failure.reason) == ("patient 7 has no age", ErrorReason.ERROR_REASON_COLUMN_NOT_FOUND)
    await run.write_failure("patient 7 has no age", ErrorReason.ERROR_REASON_COLUMN_NOT_FOUND)
    with pytest.raises(FolkmootError):
        await run.write_failure("another", 0)


async def test_a_result_stands_whatever_comes_after(make_run: MakeRun):
    run = await make_run()
    await run.write_result("application/json", frames(b"1"))
    standing = await run.end(CANCELLED)
    assert standing.state == RunState.RUN_STATE_COMPLETED


async def test_a_crash_says_why_and_shows_the_last_output_to_receivers_only(lung: World, make_run: MakeRun):
    run = await make_run()
    await run.end(crashed(Exit(ExitClass.EXIT_CLASS_ERROR, 3, "Traceback: secret"), run.record))
    receipt = receipt_of(run)
    assert (receipt.outcome, receipt.exit_class) == (RunState.RUN_STATE_CRASHED, ExitClass.EXIT_CLASS_ERROR)
    assert b"secret" not in run.record.receipt
    failure = Failure.FromString((await opened(run, lung, kind="FAILURE")).content())
    assert "exited with code 3" in failure.message
    assert "secret" in failure.message


# ---- input -------------------------------------------------------------------------------------------------------------


async def test_the_context_is_what_was_signed_and_sealed(lung: World, make_run: MakeRun):
    run = await make_run()
    run.input = await open_input(run.station, run.task, run.closing)
    context = await run.context()
    assert context.input.function == "mean"
    assert context.input.arguments_json == '{"column": "age"}'
    assert context.organization.name == "Beta"
    assert [peer.name for peer in context.members] == ["Alpha", "Beta", "Gamma"]
    assert context.initiator.name == "Alpha"
    whole = b"".join([piece async for piece in run.read_input(0)])
    assert whole[context.attachments_offset :] == b""
    assert b"".join([piece async for piece in run.read_input(4)]) == whole[4:]
    with pytest.raises(FolkmootError):
        await anext(run.read_input(len(whole) + 1))


async def test_an_input_that_was_made_for_another_task_is_rejected(lung: World, make_run: MakeRun):
    _, _, envelope = sealed_task(lung)
    replayed = assign(
        lung, inputs=[TaskInputRef(envelope_digest=inspect(BytesSource(envelope)).digest, size_bytes=len(envelope))]
    )
    replayed.assign.input_envelope = envelope
    run = await make_run(replayed)
    with pytest.raises(EnvelopeRejected) as rejection:
        await open_input(run.station, run.task, run.closing)
    assert "task_id" in rejection.value.cause_text


@pytest.mark.parametrize(
    "fault", ["flipped", "exchanged", "another of the same task", "sealed to others", "no task input", "endless head"]
)
async def test_an_input_that_is_not_as_it_was_signed_is_rejected(lung: World, make_run: MakeRun, fault: str):
    match fault:
        case "flipped":
            frame = assign(lung)
            envelope = bytearray(frame.assign.input_envelope)
            envelope[-250] ^= 1
            frame.assign.input_envelope = bytes(envelope)
        case "exchanged":
            frame = assign(lung)
            frame.assign.input_envelope = sealed_task(lung)[2]
        case "another of the same task":
            frame = assign(lung)
            [spec] = [TaskSpec.FromString(signed.body) for signed in frame.assign.chain.specs]
            frame.assign.input_envelope = sealed_task(lung, task_id=spec.task_id)[2]
        case "sealed to others":
            frame = assign(lung, sealed_to=("Gamma",))
        case "no task input":
            frame = assign(lung, data=b"\0\0\0\2\xff\xff")
        case _:
            frame = assign(lung, data=b"\x7f\xff\xff\xffshort")
    run = await make_run(frame)
    with pytest.raises(EnvelopeRejected):
        await open_input(run.station, run.task, run.closing)


# ---- log and progress --------------------------------------------------------------------------------------------------


def lines(first: int, *texts: str) -> LogLines:
    return LogLines(first_sequence=first, lines=[LogLine(level="info", text=text) for text in texts])


def logged(run: Run, lung: World, envelope: bytes, sequence: int) -> LogLines:
    key = lung["Alpha"].organization_key.encryption
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_LOG,
        task_id=run.record.task_id,
        sender_organization_id=run.station.organization_id,
        task_digest=run.task.digest,
        run_id=run.record.run_id,
        attempt=1,
        sequence=sequence,
    )
    public = run.station.node_key.public
    read = open_envelope(
        BytesSource(envelope), genesis=lung.genesis, expected=expected, sender=lambda _: public, keys={key.key_id: key}
    )
    return LogLines.FromString(read.content())


async def test_lines_are_gathered_sealed_and_numbered(lung: World, make_run: MakeRun, sent: Sent):
    run = await make_run()
    await run.log(lines(1, "a", "b"))
    await run.log(lines(2, "b", "c"))
    await run.reports.flush()
    await run.log(lines(4, "d"))
    await run.reports.flush()
    updates = [frame.run_update for frame in sent]
    assert [len(update.log_envelopes) for update in updates] == [1, 1]
    first = logged(run, lung, updates[0].log_envelopes[0], 1)
    second = logged(run, lung, updates[1].log_envelopes[0], 2)
    assert (first.first_sequence, [line.text for line in first.lines]) == (1, ["a", "b", "c"])
    assert (second.first_sequence, [line.text for line in second.lines]) == (4, ["d"])
    [standing] = await run.station.journal.transact(lambda db: records.attempts_of(db, run.record.run_id))
    assert (standing.log_sequence, standing.log_lines) == (2, 4)
    assert standing.bytes_out == sum(len(update.log_envelopes[0]) for update in updates)


async def test_a_talkative_algorithm_costs_few_envelopes_and_none_is_too_large(
    lung: World, make_run: MakeRun, sent: Sent
):
    run = await make_run()
    await run.log(lines(1, *["x" * 16_000] * 40))
    envelopes = [envelope for frame in sent for envelope in frame.run_update.log_envelopes]
    assert all(len(envelope) <= INLINE_BYTES for envelope in envelopes)
    read = [logged(run, lung, envelope, at) for at, envelope in enumerate(envelopes, start=1)]
    assert sum(len(part.lines) for part in read) == 40
    assert [part.first_sequence for part in read] == [1, *(1 + 8 * at for at in range(1, len(read)))]


async def test_lines_reach_the_server_soon_without_a_flush(
    make_run: MakeRun, sent: Sent, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reports, "GATHER_SECONDS", 0.0)
    run = await make_run()
    await run.log(lines(1, "a"))
    await until(lambda: bool(sent))
    assert sent[0].run_update.log_envelopes


@pytest.mark.parametrize("asked_by", ["time", "a call"])
async def test_lines_on_their_way_are_told_though_the_run_ends(
    asked_by: str, make_run: MakeRun, sent: Sent, monkeypatch: pytest.MonkeyPatch
):
    """Whatever gathered them is cancelled when the run ends, while the journal still counts what leaves."""
    monkeypatch.setattr(reports, "GATHER_SECONDS", 0.0)
    if asked_by == "a call":
        monkeypatch.setattr(reports, "GATHER_LINES", 1)
    run = await make_run()
    counting, counted, count = asyncio.Event(), asyncio.Event(), run.count_report

    async def slow(departure: egress.Departure, **counters: int) -> None:
        counting.set()
        await counted.wait()
        await count(departure, **counters)

    monkeypatch.setattr(run, "count_report", slow)
    call = asyncio.create_task(run.log(lines(1, "a")))
    await counting.wait()
    call.cancel()
    closing = asyncio.create_task(run.reports.close())
    await asyncio.sleep(0)
    counted.set()
    await closing
    assert [len(frame.run_update.log_envelopes) for frame in sent] == [1]


async def test_progress_is_a_fraction_for_the_server_and_sealed_words_for_receivers(make_run: MakeRun, sent: Sent):
    run = await make_run()
    await run.report_progress(0.25, "first")
    await run.report_progress(0.5, "secret words")
    await run.reports.flush()
    [frame] = sent
    assert frame.run_update.fraction == 0.5
    assert frame.run_update.progress_envelope
    assert b"secret" not in frame.SerializeToString()


async def test_a_run_that_has_ended_says_no_more(make_run: MakeRun, sent: Sent):
    run = await make_run()
    await run.log(lines(1, "before the end"))
    await run.write_result("application/json", frames(b"1"))
    assert [len(frame.run_update.log_envelopes) for frame in sent] == [1], "what was said before is sent before"
    await run.log(lines(2, "after the end"))
    await run.reports.flush()
    assert len(sent) == 1


async def test_a_long_wait_is_visible_and_a_short_one_is_not(make_run: MakeRun, sent: Sent, monkeypatch):
    run = await make_run()
    async with run.waiting_for_others():
        pass
    assert sent == []
    monkeypatch.setattr(reports, "VISIBLE_AFTER_SECONDS", 0.0)
    async with run.waiting_for_others():
        await until(lambda: bool(sent))
    assert sent[0].run_update.waiting.reason == WaitReason.WAIT_REASON_OTHERS
    assert not sent[1].run_update.HasField("waiting")


# ---- messages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def siblings(lung: World) -> ServerFrame:
    return assign(lung, receivers=SIBLINGS, grant=Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS))


async def test_a_message_is_sealed_to_its_receiver_journaled_and_sent(
    lung: World, make_run: MakeRun, siblings: ServerFrame, sent: Sent
):
    run = await make_run(siblings)
    request = SendMessageRequest(organization_id=lung["Gamma"].address, sequence=1, content=b"secret")
    await run.send_message(request)
    await run.send_message(request)
    [frame] = sent
    assert frame.peer_message.sequence == 1
    assert b"secret" not in frame.SerializeToString()
    [kept] = await run.station.journal.transact(message_records.unaccepted_outgoing)
    assert kept == frame.peer_message


async def test_calls_that_overtake_each_other_are_put_in_order(
    lung: World, make_run: MakeRun, siblings: ServerFrame, sent: Sent
):
    run, gamma = await make_run(siblings), lung["Gamma"].address
    requests = [SendMessageRequest(organization_id=gamma, sequence=number) for number in (3, 1, 4, 2)]
    await asyncio.gather(*map(run.send_message, requests))
    assert [frame.peer_message.sequence for frame in sent] == [1, 2, 3, 4]


async def test_messages_leave_together_as_many_as_there_is_room_for(
    lung: World, make_run: MakeRun, siblings: ServerFrame, sent: Sent, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "MOST_UNACCEPTED", 4)
    run = await make_run(siblings)
    alpha, gamma = lung["Alpha"].address, lung["Gamma"].address
    requests = [SendMessageRequest(organization_id=gamma, sequence=n, content=b"%d" % n) for n in range(1, 7)]
    assert await run.send_messages(requests) == 4
    assert await run.send_messages([SendMessageRequest(organization_id=alpha, sequence=1), *requests[4:]]) == 1
    waiting = asyncio.create_task(run.send_messages(requests[4:]))
    accepted = [
        Accepted(from_run_id=each.from_run_id, to_run_id=each.to_run_id, sequence=each.sequence)
        for each in (frame.peer_message for frame in sent[:2])
    ]
    await run.station.journal.transact(partial(message_records.accept_outgoing, accepted=accepted))
    run.messages.accepted()
    async with asyncio.timeout(10):
        assert await waiting == 2
    assert [frame.peer_message.sequence for frame in sent] == [1, 2, 3, 4, 1, 5, 6]
    assert await run.station.journal.transact(partial(message_records.count_unaccepted, run_id=run.record.run_id)) == 5
    await run.station.journal.transact(egress.verify)


async def test_of_messages_that_leave_together_none_does_if_one_is_refused(
    lung: World, make_run: MakeRun, siblings: ServerFrame, sent: Sent
):
    run, gamma = await make_run(siblings), lung["Gamma"].address
    first, third = (SendMessageRequest(organization_id=gamma, sequence=number) for number in (1, 3))
    with pytest.raises(FolkmootError, match="the next message is 2"):
        await run.send_messages([first, third])
    with pytest.raises(FolkmootError, match="can message Alpha, Gamma"):
        await run.send_messages([first, SendMessageRequest(organization_id=lung["Beta"].address, sequence=1)])
    assert sent == []
    assert await run.send_messages([first]) == 1


async def test_messages_wait_for_room_and_then_say_who_does_not_read(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "MOST_UNACCEPTED", 1)
    monkeypatch.setattr(messages, "UNREAD_SECONDS", 0.1)
    run, gamma = await make_run(siblings), lung["Gamma"].address
    requests = [SendMessageRequest(organization_id=gamma, sequence=number) for number in (1, 2)]
    assert await run.send_messages(requests) == 1
    with pytest.raises(FolkmootError, match="Gamma has not read") as refusal:
        await run.send_messages(requests[1:])
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_MANY


async def test_a_message_without_the_one_before_is_refused(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "OVERTAKEN_SECONDS", 0.01)
    run = await make_run(siblings)
    with pytest.raises(FolkmootError, match="the next message is 1") as refusal:
        await run.send_message(SendMessageRequest(organization_id=lung["Gamma"].address, sequence=2))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_INVALID_FIELD


async def test_a_sibling_that_never_reads_ends_the_senders_patience_and_holds_up_nobody_else(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "MOST_UNACCEPTED", 2)
    monkeypatch.setattr(messages, "UNREAD_SECONDS", 0.1)
    run, gamma = await make_run(siblings), lung["Gamma"].address
    await run.send_message(SendMessageRequest(organization_id=gamma, sequence=1))
    with pytest.raises(FolkmootError, match="Gamma has not read") as refusal:
        await run.send_message(SendMessageRequest(organization_id=gamma, sequence=2))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_MANY
    await run.send_message(SendMessageRequest(organization_id=lung["Alpha"].address, sequence=1))


@pytest.mark.parametrize(
    ("organization", "reason"), [("Beta", "ORGANIZATION_NOT_FOUND"), ("nobody", "ORGANIZATION_NOT_FOUND")]
)
async def test_messages_go_to_siblings_only(
    lung: World, make_run: MakeRun, siblings: ServerFrame, organization: str, reason: str
):
    run = await make_run(siblings)
    address = lung[organization].address if organization in lung.organizations else organization
    with pytest.raises(FolkmootError, match="can message Alpha, Gamma") as refusal:
        await run.send_message(SendMessageRequest(organization_id=address, sequence=1))
    assert refusal.value.reason_name == reason


async def test_messages_need_the_tasks_grant(lung: World, make_run: MakeRun):
    run = await make_run(assign(lung, receivers=SIBLINGS))
    for attempt in (
        run.send_message(SendMessageRequest(organization_id=lung["Gamma"].address, sequence=1)),
        anext(aiter(run.receive_messages({}))),
    ):
        with pytest.raises(FolkmootError) as refusal:
            await attempt
        assert refusal.value.reason == ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED


async def test_messages_stop_when_the_policy_takes_its_word_back(lung: World, make_run: MakeRun, siblings: ServerFrame):
    run = await make_run(siblings)
    policy = run.station.policy_file
    policy._path.write_text(policy._path.read_text().replace("messages = true", "messages = false"))
    policy.reload()
    with pytest.raises(FolkmootError) as refusal:
        await run.send_message(SendMessageRequest(organization_id=lung["Gamma"].address, sequence=1))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED


async def arrive(run: Run, *messages: Any) -> None:
    for each in messages:
        await run.station.journal.transact(partial(message_records.insert_incoming, message=each))
        run.messages.arrived(each, None)


async def test_messages_come_in_order_and_a_waiting_reader_is_woken(
    lung: World, make_run: MakeRun, siblings: ServerFrame
):
    run = await make_run(siblings)
    await run.slot.take()
    stream = run.receive_messages({})
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await arrive(run, message(lung, siblings, sequence=1), message(lung, siblings, sequence=2))
    async with asyncio.timeout(10):
        first, second = await waiting, await anext(stream)
    assert [(each.organization_id, each.sequence, each.content) for each in (first, second)] == [
        (lung["Alpha"].address, 1, b"secret"),
        (lung["Alpha"].address, 2, b"secret"),
    ]
    await stream.aclose()


async def test_all_that_has_come_is_taken_at_once_and_again_if_the_answer_was_lost(
    lung: World, make_run: MakeRun, siblings: ServerFrame
):
    run, alpha = await make_run(siblings), lung["Alpha"].address
    await arrive(run, *(message(lung, siblings, sequence=number) for number in (1, 2)))
    for _ in range(2):
        assert [each.sequence for each in await run.take_messages({})] == [1, 2]
    await arrive(run, message(lung, siblings, sequence=3))
    assert [each.sequence for each in await run.take_messages({alpha: 2})] == [3]
    assert [each.sequence for each in await run.take_messages({alpha: 1})] == [2, 3]


async def test_messages_are_taken_up_to_a_mebibyte_at_once(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "TAKEN_BYTES", 8)
    run, alpha = await make_run(siblings), lung["Alpha"].address
    await arrive(run, *(message(lung, siblings, sequence=number) for number in (1, 2, 3)))
    assert [each.sequence for each in await run.take_messages({})] == [1, 2]
    assert [each.sequence for each in await run.take_messages({alpha: 2})] == [3]


async def test_what_was_received_is_forgotten_by_and_by(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "FORGOTTEN_EVERY", 2)
    run, alpha = await make_run(siblings), lung["Alpha"].address
    await arrive(run, *(message(lung, siblings, sequence=number) for number in (1, 2, 3)))

    async def kept() -> list[int]:
        of_run = partial(message_records.incoming_of, to_run_id=run.record.run_id)
        return [each.sequence for each in await run.station.journal.transact(of_run)]

    await run.take_messages({alpha: 1})
    assert await kept() == [1, 2, 3]
    await run.take_messages({alpha: 2})
    assert await kept() == [3]


async def test_a_message_is_opened_once(
    lung: World, make_run: MakeRun, siblings: ServerFrame, monkeypatch: pytest.MonkeyPatch
):
    run, came = await make_run(siblings), message(lung, siblings, sequence=1)
    await run.station.journal.transact(partial(message_records.insert_incoming, message=came))
    content = await check_message(run.station, run.task, came)
    run.messages.arrived(came, content)
    monkeypatch.setattr(messages, "open_journaled", None)
    [taken] = await run.take_messages({})
    assert taken.content == b"secret"


async def test_a_cursor_goes_on_where_it_was(lung: World, make_run: MakeRun, siblings: ServerFrame):
    run = await make_run(siblings)
    await arrive(run, message(lung, siblings, sequence=1), message(lung, siblings, sequence=2))
    stream = run.receive_messages({lung["Alpha"].address: 1})
    assert (await anext(stream)).sequence == 2
    await stream.aclose()


async def test_a_missing_message_is_reported_and_never_skipped(lung: World, make_run: MakeRun, siblings: ServerFrame):
    run = await make_run(siblings)
    await arrive(run, message(lung, siblings, sequence=1), message(lung, siblings, sequence=3))
    stream = run.receive_messages({})
    assert (await anext(stream)).sequence == 1
    with pytest.raises(FolkmootError) as gap:
        await anext(stream)
    assert gap.value.reason == ErrorReason.ERROR_REASON_MESSAGE_GAP


async def test_a_run_that_waits_for_a_message_lends_its_slot(lung: World, make_run: MakeRun, siblings: ServerFrame):
    run = await make_run(siblings)
    await run.slot.take()
    stream = run.receive_messages({})
    waiting = asyncio.ensure_future(anext(stream))
    await until(lambda: run.station.slots.free == 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    run.slot.close()


# ---- readers who go ----------------------------------------------------------------------------------------------------


async def test_a_result_waits_while_a_receiver_has_no_key_and_is_sealed_to_its_next_one(
    lung: World, make_run: MakeRun, sent: Sent
):
    run = await make_run()
    alpha = lung["Alpha"]
    key_ids = [alpha.organization_key.encryption.key_id]
    lung.append(revoke_key_entry(lung.state, key_ids, governance_key=alpha.governance_key, now=lung.now))
    run.station.replica.state = lung.state
    writing = asyncio.create_task(run.write_result("text/plain", frames(b"12.5")))
    await until(lambda: any(frame.run_update.waiting.reason == WaitReason.WAIT_REASON_KEY for frame in sent))
    assert not run.record.ended
    alpha.organization_key = organization("Alpha anew").organization_key
    claim = alpha.organization_key.claim(alpha.address, 2, lung.now)
    lung.append(publish_key_entry(lung.state, claim, governance_key=alpha.governance_key, now=lung.now))
    run.station.replica.state = lung.state
    run.station.moved.notify()
    async with asyncio.timeout(10):
        await writing
    assert (await opened(run, lung)).content() == b"12.5"


async def test_a_run_whose_reader_has_left_ends_without_telling_anything(lung: World, make_run: MakeRun):
    run = await make_run()
    lung.append(leave_entry(lung.state, governance_key=lung["Alpha"].governance_key, now=lung.now))
    run.station.replica.state = lung.state
    run.require_allowed()
    with pytest.raises(OrganizationNotFound):
        await run.write_result("text/plain", frames(b"secret"))
    await run.log(LogLines(first_sequence=1, lines=[LogLine(text="secret")]))
    await run.write_failure("secret", 0)
    assert (run.record.state, run.record.result_digest) == (RunState.RUN_STATE_FAILED, b"")
