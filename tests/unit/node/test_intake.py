"""Intake: an assignment is proven and decided before it is journaled, and journaled before it is acknowledged."""

import os
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from folkmoot.node.journal import message_records, records
from folkmoot.node.journal.records import ASSIGNED, RunRecord
from folkmoot.node.link.intake import Intake
from folkmoot.node.station import Station
from folkmoot.trust import (
    FolkmootError,
    LedgerFork,
    VerifiedTask,
    seal_bytes,
    serialize,
    timestamp,
    verify,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign, Cancel, PeerMessage, ServerFrame
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Grant, MessageGrant, Receipt, RunState, Scratch, TaskSpec
from tests.builders import NOW, World, organization
from tests.unit.node.assignments import assign, task_digest
from tests.unit.node.conftest import POLICY, MakeStation

REFUSED = RunState.RUN_STATE_REFUSED


@dataclass
class Taken:
    """What the intake passes on."""

    records: list[RunRecord] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    opened: list[SendMessageRequest | None] = field(default_factory=list)
    tasks: dict[str, VerifiedTask] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)

    def take_up(self, record: RunRecord) -> None:
        self.records.append(record)

    def cancel(self, run_id: str) -> None:
        self.cancelled.append(run_id)

    def task_of(self, run_id: str) -> VerifiedTask | None:
        return self.tasks.get(run_id)

    def waits(self, run_id: str) -> bool:
        return run_id in self.waiting

    def message_arrived(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        self.messages.append(message.to_run_id)
        self.opened.append(content)


async def take(station: Station, *frames: ServerFrame) -> Taken:
    taken = Taken()
    await Intake(station, taken).take(frames)
    return taken


def receipt_of(record: RunRecord, station: Station) -> Receipt:
    """What the station signed, its signature checked."""
    signed = Signed.FromString(record.receipt)
    public_key = station.node_key.public
    verify(signed, kind=SignedKind.SIGNED_KIND_RECEIPT, public_key=public_key, genesis=station.state.genesis)
    return Receipt.FromString(signed.body)


async def test_a_proven_and_allowed_run_is_journaled_with_its_input_and_acknowledged(
    lung: World, make_station: MakeStation
):
    station = make_station()
    frame = assign(lung, labels=["patients"])
    [record] = (await take(station, frame)).records
    assert (record.state, record.attempt, record.memory_bytes) == (ASSIGNED, 1, 1 << 30)
    kept = await station.journal.transact(lambda db: records.get_envelope(db, record.input_digest))
    assert kept == frame.assign.input_envelope
    assert await station.journal.transact(records.acknowledged) == 1


def altered(frame: ServerFrame, **changes: Any) -> ServerFrame:
    """What a server could make of an assignment."""
    given = Assign.FromString(frame.assign.SerializeToString())
    spec = TaskSpec.FromString(given.chain.specs[0].body)
    spec.MergeFrom(TaskSpec(**changes))
    given.chain.specs[0].body = serialize(spec)
    return ServerFrame(sequence=frame.sequence, assign=given)


@pytest.mark.parametrize(
    "changes",
    [{"purpose": "another one"}, {"labels": ["staff"]}, {"result_receivers": ["z" * 56]}, {"max_attempts": 9}],
    ids=["purpose", "labels", "receivers", "attempts"],
)
async def test_a_task_that_the_server_altered_is_refused_as_not_proven(
    lung: World, make_station: MakeStation, changes: dict
):
    station = make_station()
    frame = altered(assign(lung), **changes)
    [record] = (await take(station, frame)).records
    receipt = receipt_of(record, station)
    assert (receipt.outcome, receipt.reason) == (REFUSED, ErrorReason.ERROR_REASON_TASK_NOT_PROVEN)
    assert receipt.rule
    assert receipt.task_digest == task_digest(frame), "it names what came, not what was meant"


async def test_a_run_of_another_organization_is_refused(lung: World, make_station: MakeStation):
    station = make_station("Gamma")
    [record] = (await take(station, assign(lung, "Beta"))).records
    assert receipt_of(record, station).reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN


async def test_an_attempt_beyond_those_that_are_signed_is_refused(lung: World, make_station: MakeStation):
    station = make_station()
    [record] = (await take(station, assign(lung, attempt=2))).records
    receipt = receipt_of(record, station)
    assert (receipt.reason, receipt.rule) == (ErrorReason.ERROR_REASON_TASK_NOT_PROVEN, "MAX_ATTEMPTS")


async def test_a_task_without_specs_is_refused(lung: World, make_station: MakeStation):
    station = make_station()
    frame = ServerFrame(sequence=1, assign=Assign(run_id="x", attempt=1))
    [record] = (await take(station, frame)).records
    assert receipt_of(record, station).reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN


@pytest.mark.parametrize(
    ("policy", "reason", "rule"),
    [
        (POLICY.replace("local:sha256:*", "local:sha256:b*"), "IMAGE_NOT_ALLOWED", "allow[0].images"),
        (POLICY.replace('"*"', '"Gamma"'), "INITIATOR_NOT_ALLOWED", "allow[0].initiators"),
        (POLICY.replace('"patients"', '"staff"'), "LABEL_NOT_ALLOWED", "allow[0].labels"),
        (POLICY.replace('"container"', '"process"'), "RUNTIME_NOT_ALLOWED", "runtimes"),
        ("", "RUNTIME_NOT_ALLOWED", "runtimes"),
    ],
    ids=["image", "initiator", "label", "runtime", "empty"],
)
async def test_what_the_policy_does_not_allow_is_refused_with_reason_and_rule(
    lung: World, make_station: MakeStation, policy: str, reason: str, rule: str
):
    station = make_station(policy=policy)
    frame = assign(lung, labels=["patients"])
    [record] = (await take(station, frame)).records
    task = verify_task(frame.assign.chain, lung.state, now=NOW)
    receipt = verify_receipt(Signed.FromString(record.receipt), task=task, run_id=frame.assign.run_id, state=lung.state)
    assert receipt.outcome == REFUSED
    assert ErrorReason.Name(receipt.reason) == f"ERROR_REASON_{reason}"
    assert receipt.rule == rule
    assert receipt.policy_digest == station.policy_file.digest


async def test_a_name_that_another_organization_had_before_allows_nothing(lung: World, make_station: MakeStation):
    """Gamma, whom the data owner has named, leaves, and somebody else is admitted under its name."""
    lung.leave("Gamma")
    lung.join(replace(organization("Mallory"), name="Gamma"))
    frame = assign(lung, initiator="Gamma")
    [record] = (await take(make_station(policy=POLICY.replace('"*"', '"Gamma"')), frame)).records
    assert receipt_of(record, make_station()).reason == ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED
    by_address = make_station(policy=POLICY.replace('"*"', f'"{lung["Gamma"].address}"'))
    frame = assign(lung, initiator="Gamma", sequence=2)
    [record] = (await take(by_address, frame)).records
    assert record.state == ASSIGNED


async def test_a_name_that_an_organization_has_again_allows_it_as_before(lung: World, make_station: MakeStation):
    lung.leave("Gamma")
    lung.join(lung["Gamma"])
    [record] = (
        await take(make_station(policy=POLICY.replace('"*"', '"Gamma"')), assign(lung, initiator="Gamma"))
    ).records
    assert record.state == ASSIGNED


async def test_a_label_without_data_behind_it_is_refused(lung: World, make_station: MakeStation):
    station = make_station(policy=POLICY.replace('"patients"', '"*"'))
    [record] = (await take(station, assign(lung, labels=["staff"]))).records
    receipt = receipt_of(record, station)
    assert (receipt.reason, receipt.rule) == (ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data")


async def test_a_repeated_assignment_is_answered_with_what_stands(lung: World, make_station: MakeStation):
    station = make_station()
    frame = assign(lung)
    [first] = (await take(station, frame)).records
    done = await station.journal.transact(
        lambda db: records.end_run(db, RunRecord(**(vars(first) | {"state": RunState.RUN_STATE_COMPLETED})), None)
    )
    await station.journal.transact(lambda db: records.commit_run(db, done, NOW))
    again = ServerFrame(sequence=2, assign=frame.assign)
    [second] = (await take(station, again)).records
    assert second.state == RunState.RUN_STATE_COMPLETED
    assert second.committed_at_us == 0, "it is delivered once more"
    assert len(await station.journal.transact(lambda db: records.attempts_of(db, first.run_id))) == 1


async def test_another_attempt_of_a_run_that_was_accepted_here_is_refused(lung: World, make_station: MakeStation):
    station = make_station()
    frame = assign(lung, max_attempts=2)
    await take(station, frame)
    later = Assign.FromString(frame.assign.SerializeToString())
    later.attempt = 2
    [record] = (await take(station, ServerFrame(sequence=2, assign=later))).records
    assert record.attempt == 2
    assert receipt_of(record, station).reason == ErrorReason.ERROR_REASON_RUN_CONFLICT


def cancelled(run_id: str, *, sequence: int, attempt: int) -> ServerFrame:
    return ServerFrame(sequence=sequence, cancel=Cancel(run_id=run_id, attempt=attempt))


async def test_another_attempt_begins_where_another_node_was_given_the_one_before(
    lung: World, make_station: MakeStation
):
    station = make_station()
    frame = assign(lung, max_attempts=3)
    later = ServerFrame(sequence=3, assign=frame.assign)
    later.assign.attempt = 3
    fence = cancelled(frame.assign.run_id, sequence=2, attempt=1)
    first, third = (await take(station, frame, fence, later)).records
    assert (first.attempt, third.attempt, third.state) == (1, 3, ASSIGNED)
    known = await station.journal.transact(lambda db: records.attempts_of(db, first.run_id))
    assert [each.cancelled for each in known] == [records.FENCED, 0]


async def test_a_fence_that_comes_late_ends_no_later_attempt(lung: World, make_station: MakeStation):
    station = make_station()
    frame = assign(lung, max_attempts=2)
    run_id = frame.assign.run_id
    later = ServerFrame(sequence=3, assign=frame.assign)
    later.assign.attempt = 2
    again = cancelled(run_id, sequence=4, attempt=1)
    taken = await take(station, frame, cancelled(run_id, sequence=2, attempt=1), later, again)
    assert taken.cancelled == [run_id], "once, for the first attempt"
    known = await station.journal.transact(lambda db: records.attempts_of(db, run_id))
    assert [each.cancelled for each in known] == [records.FENCED, 0]


@pytest.mark.parametrize(
    "changes",
    [{"grant": Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)}, {"scratch": Scratch.SCRATCH_JOB}],
    ids=["messages", "files"],
)
async def test_a_run_that_shares_files_or_messages_is_never_begun_anew(
    lung: World, make_station: MakeStation, changes: dict[str, Any]
):
    station = make_station()
    [record] = (await take(station, assign(lung, attempt=2, max_attempts=2, **changes))).records
    receipt = receipt_of(record, station)
    assert (receipt.reason, receipt.rule) == (ErrorReason.ERROR_REASON_TASK_NOT_PROVEN, "MAX_ATTEMPTS")


async def test_another_attempt_of_a_run_that_was_refused_here_is_judged_anew(lung: World, make_station: MakeStation):
    station = make_station(policy="")
    frame = assign(lung, max_attempts=2)
    await take(station, frame)
    station.policy_file._path.write_text(POLICY)
    station.policy_file.reload()
    later = Assign.FromString(frame.assign.SerializeToString())
    later.attempt = 2
    [record] = (await take(station, ServerFrame(sequence=2, assign=later))).records
    assert record.state == ASSIGNED


async def test_a_delivery_that_came_before_is_skipped(lung: World, make_station: MakeStation):
    station = make_station()
    frame = assign(lung)
    await take(station, frame)
    assert (await take(station, frame)).records == []


async def test_a_gap_between_deliveries_is_a_violation_and_journals_nothing(lung: World, make_station: MakeStation):
    station = make_station()
    with pytest.raises(FolkmootError) as violation:
        await take(station, assign(lung, sequence=1), assign(lung, sequence=3))
    assert violation.value.reason == ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION
    assert await station.journal.transact(records.acknowledged) == 0


async def test_a_task_that_is_ahead_of_the_replica_is_not_acknowledged_while_the_server_cant_be_asked(
    lung: World, make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
):
    station = make_station()
    lung.add_node("Gamma", "gamma-2")
    frame = assign(lung)

    async def unreachable() -> None:
        raise FolkmootError(ErrorReason.ERROR_REASON_SHUTTING_DOWN, "nobody there")

    monkeypatch.setattr(station, "refresh", unreachable)
    with pytest.raises(FolkmootError, match="nobody there"):
        await take(station, frame)
    assert await station.journal.transact(records.acknowledged) == 0

    async def refresh() -> None:
        station.replica.state = lung.state

    monkeypatch.setattr(station, "refresh", refresh)
    [record] = (await take(station, frame)).records
    assert record.state == ASSIGNED


async def test_after_a_fork_no_new_work_is_taken_in(lung: World, make_station: MakeStation):
    station = make_station()
    station.replica.pin_fork(LedgerFork("two entries at one place"))
    [record] = (await take(station, assign(lung))).records
    assert receipt_of(record, station).reason == ErrorReason.ERROR_REASON_LEDGER_FORK


async def test_a_cancel_is_noted_before_it_is_acted_on(lung: World, make_station: MakeStation):
    station = make_station()
    frame = assign(lung)
    run_id = frame.assign.run_id
    taken = await take(station, frame, ServerFrame(sequence=2, cancel=Cancel(run_id=run_id)))
    assert taken.cancelled == [run_id]
    [record] = await station.journal.transact(records.uncommitted_runs)
    assert record.cancelled == 1


# ---- messages ----------------------------------------------------------------------------------------------------------

SIBLINGS = ("Alpha", "Beta", "Gamma")


def message(
    lung: World, frame: ServerFrame, sender: str = "Alpha", receiver: str = "Beta", *, sequence: int = 1, **changes: Any
) -> PeerMessage:
    """A message between runs of an assigned task, as a node really makes it; `changes` are of its context."""
    task = verify_task(frame.assign.chain, lung.state, now=None)
    runs = {each.organization_id: each.run_id for each in task.spec.receivers}
    address = lung[receiver].address
    usual: dict[str, Any] = {
        "genesis": lung.genesis,
        "kind": EnvelopeKind.ENVELOPE_KIND_MESSAGE,
        "task_digest": task.digest,
        "task_id": task.spec.task_id,
        "run_id": runs[lung[sender].address],
        "attempt": 1,
        "sequence": sequence,
        "sender_organization_id": lung[sender].address,
        "content_type": "application/vnd.folkmoot.message",
        "created_at": timestamp(NOW),
        "ledger_sequence": lung.state.position.sequence,
        "ledger_hash": lung.state.position.hash,
    }
    request = SendMessageRequest(organization_id=address, sequence=sequence, content=b"secret")
    sealed = seal_bytes(
        serialize(changes.pop("request", request)),
        context=EnvelopeContext(**(usual | changes)),
        receivers=lung.state.receivers([address]),
        key=lung[changes.pop("signer", sender)].nodes[f"{sender.lower()}-1"],
        random=os.urandom,
    )
    return PeerMessage(
        task_id=task.spec.task_id,
        from_run_id=runs[lung[sender].address],
        to_run_id=runs[address],
        sequence=sequence,
        envelope=sealed.envelope,
    )


@pytest.fixture
def siblings(lung: World) -> ServerFrame:
    grant = Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)
    return assign(lung, receivers=SIBLINGS, grant=grant)


async def test_a_message_that_comes_together_with_its_run_is_taken(
    lung: World, make_station: MakeStation, siblings: ServerFrame
):
    station = make_station()
    sent = message(lung, siblings)
    taken = await take(station, siblings, ServerFrame(sequence=2, peer_message=sent))
    assert taken.messages == [sent.to_run_id]
    kept = await station.journal.transact(
        lambda db: message_records.incoming_after(db, sent.to_run_id, sent.from_run_id, 0)
    )
    assert kept == [(1, sent.envelope)]


@pytest.mark.parametrize(
    "fault",
    ["another sequence", "another run", "flipped byte", "another task", "meant for another", "from an outsider's run"],
)
async def test_a_message_that_is_not_for_its_place_is_dropped(
    lung: World, make_station: MakeStation, siblings: ServerFrame, fault: str
):
    station = make_station()
    sent = message(lung, siblings)
    match fault:
        case "another sequence":
            sent.sequence = 2
        case "another run":
            sent.from_run_id = message(lung, siblings, "Gamma").from_run_id
        case "flipped byte":
            sent.envelope = sent.envelope[:-200] + bytes([sent.envelope[-200] ^ 1]) + sent.envelope[-199:]
        case "another task":
            sent = message(lung, siblings, task_digest=bytes(32))
        case "meant for another":
            other = SendMessageRequest(organization_id=lung["Gamma"].address, sequence=1, content=b"secret")
            sent = message(lung, siblings, request=other)
        case "from an outsider's run":
            sent.from_run_id = sent.task_id
    taken = await take(station, siblings, ServerFrame(sequence=2, peer_message=sent))
    assert taken.messages == []
    assert await station.journal.transact(records.acknowledged) == 2, "it is acknowledged, or it would come for ever"


async def test_a_replayed_message_does_not_replace_the_first(
    lung: World, make_station: MakeStation, siblings: ServerFrame
):
    station = make_station()
    address = lung["Beta"].address
    other = SendMessageRequest(organization_id=address, sequence=1, content=b"another one")
    first, second = message(lung, siblings), message(lung, siblings, request=other)
    assert first.envelope != second.envelope
    taken = await take(
        station,
        siblings,
        ServerFrame(sequence=2, peer_message=first),
        ServerFrame(sequence=3, peer_message=second),
    )
    kept = await station.journal.transact(
        lambda db: message_records.incoming_after(db, first.to_run_id, first.from_run_id, 0)
    )
    assert kept == [(1, first.envelope)]
    assert [each and each.content for each in taken.opened] == [b"secret", None], "nobody is told what does not stand"


async def test_a_message_to_a_run_that_is_not_here_is_dropped(
    lung: World, make_station: MakeStation, siblings: ServerFrame
):
    station = make_station()
    taken = await take(station, ServerFrame(sequence=1, peer_message=message(lung, siblings)))
    assert taken.messages == []
