"""Subtasks: within the signed grant and the policy, once per key, and results believed only for what a node has signed."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from folkmoot.node.journal import records, subtask_records
from folkmoot.node.proxy.runs import Run
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    FolkmootError,
    LedgerFork,
    LedgerStale,
    TaskNotProven,
    VerifiedTask,
    digest,
    inspect,
    open_envelope,
    seal_bytes,
    sign_receipt,
    timestamp,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import LedgerPosition
from folkmoot.v1.proxy_service_pb2 import Failure, RunResult, SubtaskHead, SubtaskInput
from folkmoot.v1.task_pb2 import Dependency, ExitClass, Grant, Image, LocalImage, RunState, TaskChain, TaskSpec
from folkmoot.v1.task_pb2 import Run as Told
from folkmoot.v1.task_service_pb2 import CreateTaskRequest, GetRunResponse, GetTaskResponse, WatchTaskResponse
from tests.builders import NOW, World
from tests.unit.node.assignments import assign, content
from tests.unit.node.conftest import MakeStation
from tests.unit.node.test_runs import MakeRun, make_run, sent

__all__ = ["make_run", "sent"]

CENTRAL = Grant(subtask_depth=1, subtask_number=2)


@dataclass
class FakeServer:
    """Stands in for a station's connection: notes what is asked, answers what it was told to."""

    created: list[CreateTaskRequest] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    uploaded: dict[bytes, bytes] = field(default_factory=dict)
    ends: list[WatchTaskResponse] = field(default_factory=list)
    chain: TaskChain = field(default_factory=TaskChain)
    fault: Exception | None = None

    @property
    def tasks(self) -> Any:
        return SimpleNamespace(
            CreateTask=self._create,
            CancelTask=self._cancel,
            WatchTask=self._watch,
            GetTask=self._task,
            GetRun=self._run,
        )

    def metadata(self) -> tuple[()]:
        return ()

    async def authenticated(self) -> None: ...
    async def close(self) -> None: ...

    async def call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        return await make()

    async def upload(self, source: Any, digest: bytes) -> None:
        self.uploaded[digest] = source.read_at(0, source.size_bytes)

    async def _create(self, request: CreateTaskRequest, **_: Any) -> None:
        if self.fault:
            raise self.fault
        self.created.append(request)

    async def _cancel(self, request: Any, **_: Any) -> None:
        self.cancelled.append(request.task_id)

    def _watch(self, request: Any, **_: Any) -> Any:
        return _Call([each for each in self.ends if each.run.revision > request.after_revision])

    async def _task(self, request: Any, **_: Any) -> GetTaskResponse:
        return GetTaskResponse(chain=self.chain)

    async def _run(self, request: Any, **_: Any) -> GetRunResponse:
        [end] = [each for each in self.ends if each.run.run_id == request.run_id]
        return GetRunResponse(run=end.run, result_envelope=end.result_envelope)


class _Call:
    def __init__(self, responses: list[WatchTaskResponse]) -> None:
        self._responses = responses

    async def __aiter__(self) -> AsyncIterator[WatchTaskResponse]:
        for response in self._responses:
            yield response

    def cancel(self) -> None: ...


@pytest.fixture
def hub() -> FakeServer:
    return FakeServer()


@pytest.fixture
async def central(lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer) -> Run:
    station = make_station(connection=hub)
    return await make_run(assign(lung, labels=["patients"], grant=CENTRAL), station)


def head(lung: World, *organizations: str, key: str = "1", **changes: Any) -> tuple[SubtaskHead, bytes]:
    data = content("partial")
    addresses = [lung[each].address for each in organizations or ("Alpha", "Gamma")]
    usual = {"key": key, "organization_ids": addresses, "inputs": [SubtaskInput(size_bytes=len(data))]}
    return SubtaskHead(**(usual | changes)), data


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def create(run: Run, lung: World, *organizations: str, **changes: Any) -> str:
    wish, data = head(lung, *organizations, **changes)
    return await run.create_subtask(wish, stream(data))


def created_task(hub: FakeServer, lung: World) -> VerifiedTask:
    return verify_task(hub.created[-1].chain, lung.state, now=NOW)


# ---- creating ------------------------------------------------------------------------------------------------------------------


async def test_a_subtask_is_signed_by_the_node_and_verifies_as_receivers_verify_it(
    lung: World, central: Run, hub: FakeServer
):
    task_id = await create(central, lung, labels=["patients"], name="part")
    task = created_task(hub, lung)
    spec = task.spec
    assert (spec.task_id, spec.name, list(spec.labels)) == (task_id, "part", ["patients"])
    assert spec.parent.run_id == central.record.run_id
    assert spec.initiator.organization_id == lung["Beta"].address
    assert spec.result_receivers == [lung["Beta"].address]
    assert spec.expires_at == central.task.spec.expires_at
    [envelope] = hub.created[0].envelopes
    key = lung["Gamma"].organization_key.encryption
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task_id,
        sender_organization_id=lung["Beta"].address,
        digest=task.input(lung["Gamma"].address).envelope_digest,
    )
    public = lung["Beta"].nodes["beta-1"].public
    opened = open_envelope(
        BytesSource(envelope), genesis=lung.genesis, expected=expected, sender=lambda _: public, keys={key.key_id: key}
    )
    assert opened.content() == content("partial")


async def test_each_organization_can_have_an_input_of_its_own(lung: World, central: Run, hub: FakeServer):
    first, second = content("partial", part=1), content("partial", part=22)
    inputs = [
        SubtaskInput(organization_ids=[lung[name].address], size_bytes=len(data))
        for name, data in (("Alpha", first), ("Gamma", second))
    ]
    wish, _ = head(lung, inputs=inputs)
    whole = first + second
    await central.create_subtask(wish, stream(whole[:10], whole[10:]))
    task = created_task(hub, lung)
    sizes = [task.input(lung[name].address).envelope_digest for name in ("Alpha", "Gamma")]
    assert sizes == [inspect(BytesSource(envelope)).digest for envelope in hub.created[0].envelopes]
    assert sizes[0] != sizes[1]


async def test_large_inputs_are_uploaded_before(lung: World, central: Run, hub: FakeServer):
    data = content("partial") + os.urandom(500_000)
    wish, _ = head(lung, inputs=[SubtaskInput(size_bytes=len(data))])
    await central.create_subtask(wish, stream(data))
    assert list(hub.created[0].envelopes) == []
    assert list(hub.uploaded) == [created_task(hub, lung).input(lung["Alpha"].address).envelope_digest]


async def test_the_same_key_is_the_same_subtask_and_another_wish_is_refused(lung: World, central: Run, hub: FakeServer):
    first = await create(central, lung)
    assert await create(central, lung) == first
    assert len(hub.created) == 1
    with pytest.raises(FolkmootError) as refusal:
        await create(central, lung, "Gamma")
    assert refusal.value.reason == ErrorReason.ERROR_REASON_REPEAT_DIFFERS


async def test_a_subtask_is_journaled_before_the_server_hears_of_it(lung: World, central: Run, hub: FakeServer):
    hub.fault = ConnectionError("killed here")
    with pytest.raises(ConnectionError):
        await create(central, lung)
    kept = await central.station.journal.transact(lambda db: subtask_records.subtask_by_key(db, central.record, "1"))
    assert kept is not None
    assert not kept.created
    hub.fault = None
    assert await create(central, lung) == kept.task_id
    assert hub.created[0].chain.SerializeToString() == kept.chain


async def test_no_more_subtasks_than_granted(lung: World, central: Run):
    for key in ("1", "2"):
        await create(central, lung, key=key)
    with pytest.raises(FolkmootError) as refusal:
        await create(central, lung, key="3")
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TOO_MANY


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"labels": ["staff"]}, "GRANT_LABELS"),
        ({"grant": CENTRAL}, "GRANT_DEPTH"),
        ({"image": Image(local=LocalImage(id=f"sha256:{'b' * 64}"))}, "GRANT_IMAGES"),
    ],
    ids=["label", "depth", "image"],
)
async def test_what_goes_beyond_the_grant_is_refused_here_and_never_sent(
    lung: World, central: Run, hub: FakeServer, changes: dict, rule: str
):
    with pytest.raises(FolkmootError) as refusal:
        await create(central, lung, **changes)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED
    assert refusal.value.metadata["rule"] == rule
    assert hub.created == []


async def test_a_task_without_the_grant_creates_nothing(lung: World, make_run: MakeRun):
    run = await make_run(assign(lung))
    with pytest.raises(FolkmootError) as refusal:
        await create(run, lung)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED


async def test_subtasks_stop_when_the_policy_takes_its_word_back(lung: World, central: Run):
    policy = central.station.policy_file
    policy._path.write_text(policy._path.read_text().replace("subtasks = true", "subtasks = false"))
    policy.reload()
    with pytest.raises(FolkmootError) as refusal:
        await create(central, lung)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED


async def test_an_organization_that_is_no_member_is_named_with_those_that_are(lung: World, central: Run):
    wish, data = head(lung)
    wish.organization_ids[0] = "z" * 56
    with pytest.raises(FolkmootError, match="Alpha, Beta, Gamma") as refusal:
        await central.create_subtask(wish, stream(data))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_ORGANIZATION_NOT_FOUND


async def test_inputs_that_are_shorter_than_said_make_no_subtask(lung: World, central: Run, hub: FakeServer):
    wish, data = head(lung)
    with pytest.raises(FolkmootError) as refusal:
        await central.create_subtask(wish, stream(data[:-1]))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_MALFORMED
    assert hub.created == []


async def test_a_subtask_can_depend_on_an_earlier_one_and_on_no_other(lung: World, central: Run, hub: FakeServer):
    first = await create(central, lung)
    await create(central, lung, key="2", depends_on=[first])
    assert [each.task_id for each in created_task(hub, lung).spec.depends_on] == [first]
    with pytest.raises(FolkmootError) as refusal:
        await create(central, lung, key="3", depends_on=[central.record.task_id])
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TASK_NOT_FOUND


async def test_only_own_subtasks_are_cancelled_and_watched(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    await central.cancel_subtask(task_id)
    assert hub.cancelled == [task_id]
    for attempt in (
        central.cancel_subtask(central.record.task_id),
        anext(aiter(central.watch_subtask(central.record.task_id, 0))),
    ):
        with pytest.raises(FolkmootError) as refusal:
            await attempt
        assert refusal.value.reason == ErrorReason.ERROR_REASON_TASK_NOT_FOUND


# ---- results -------------------------------------------------------------------------------------------------------------------


def end(
    lung: World,
    task: VerifiedTask,
    executor: str,
    *,
    revision: int,
    data: bytes = b'{"mean": 1}',
    receipt: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    signer: str | None = None,
) -> WatchTaskResponse:
    """How a run ended, as its node signs it; changes make it what a liar could send."""
    address = lung[executor].address
    [run_id] = [each.run_id for each in task.spec.receivers if each.organization_id == address]
    failed = (receipt or {}).get("outcome", RunState.RUN_STATE_COMPLETED) != RunState.RUN_STATE_COMPLETED
    kind = EnvelopeKind.ENVELOPE_KIND_FAILURE if failed else EnvelopeKind.ENVELOPE_KIND_RESULT
    usual: dict[str, Any] = {
        "genesis": lung.genesis,
        "kind": kind,
        "task_digest": task.digest,
        "task_id": task.spec.task_id,
        "run_id": run_id,
        "attempt": 1,
        "sender_organization_id": address,
        "content_type": "application/json",
        "created_at": timestamp(NOW),
        "ledger_sequence": lung.state.position.sequence,
        "ledger_hash": lung.state.position.hash,
    }
    node = lung[signer or executor].nodes[f"{(signer or executor).lower()}-1"]
    sealed = seal_bytes(
        data,
        context=EnvelopeContext(**(usual | (context or {}))),
        receivers=lung.state.receivers(task.spec.result_receivers),
        key=node,
        random=os.urandom,
    )
    signed = sign_receipt(
        lung.receipt(task, executor, **({"result_digest": sealed.digest} | (receipt or {}))),
        lung[executor].nodes[f"{executor.lower()}-1"],
    )
    told = Told(run_id=run_id, state=RunState.RUN_STATE_COMPLETED, receipt=signed, revision=revision)
    return WatchTaskResponse(run=told, result_envelope=sealed.envelope)


async def watched(run: Run, task_id: str, after_revision: int = 0) -> list[RunResult | bytes]:
    return [frame async for frame in run.watch_subtask(task_id, after_revision)]


async def test_results_come_verified_and_decrypted_each_behind_its_run(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    task = created_task(hub, lung)
    hub.ends = [end(lung, task, "Alpha", revision=4), end(lung, task, "Gamma", revision=6, data=b"2")]
    first, one, second, two = await watched(central, task_id)
    assert isinstance(first, RunResult)
    assert isinstance(second, RunResult)
    assert (first.organization.name, first.size_bytes, one) == ("Alpha", 11, b'{"mean": 1}')
    assert first.proven
    assert (second.organization.name, second.revision, two) == ("Gamma", 6, b"2")
    assert len(await watched(central, task_id, after_revision=4)) == 2


async def test_a_failure_is_told_with_what_the_algorithm_said(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung, "Alpha")
    failure = Failure(message="no such column", reason=ErrorReason.ERROR_REASON_COLUMN_NOT_FOUND)
    crashed = {"outcome": RunState.RUN_STATE_CRASHED, "exit_class": ExitClass.EXIT_CLASS_ERROR}
    hub.ends = [
        end(lung, created_task(hub, lung), "Alpha", revision=1, data=failure.SerializeToString(), receipt=crashed)
    ]
    [told] = await watched(central, task_id)
    assert isinstance(told, RunResult)
    assert (told.state, told.failure, told.proven) == (RunState.RUN_STATE_CRASHED, "no such column", True)
    assert told.reason == ErrorReason.ERROR_REASON_COLUMN_NOT_FOUND


@pytest.mark.parametrize(
    "lie",
    [
        "another run's result",
        "another task's result",
        "a result sealed by another organization's node",
        "another result than the receipt's",
        "a receipt of another run",
        "a refusal that another organization's node signed",
        "an end without a receipt",
        "a flipped byte",
    ],
)
async def test_a_result_that_is_not_this_runs_is_rejected(lung: World, central: Run, hub: FakeServer, lie: str):
    task_id = await create(central, lung)
    task = created_task(hub, lung)
    told = end(lung, task, "Alpha", revision=1)
    match lie:
        case "another run's result":
            told = end(
                lung, task, "Alpha", revision=1, context={"run_id": end(lung, task, "Gamma", revision=1).run.run_id}
            )
        case "another task's result":
            told = end(lung, task, "Alpha", revision=1, context={"task_digest": bytes(32)})
        case "a result sealed by another organization's node":
            told = end(lung, task, "Alpha", revision=1, signer="Gamma")
        case "another result than the receipt's":
            told.result_envelope = end(lung, task, "Alpha", revision=1).result_envelope
        case "a receipt of another run":
            told.run.receipt.CopyFrom(end(lung, task, "Gamma", revision=1).run.receipt)
        case "a refusal that another organization's node signed":
            refused = {"outcome": RunState.RUN_STATE_REFUSED, "reason": ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED}
            receipt = lung.receipt(task, "Alpha", **refused, result_digest=b"", result_receivers=[])
            gamma = lung["Gamma"].nodes["gamma-1"]
            receipt.node_id = gamma.fingerprint
            told.run.receipt.CopyFrom(sign_receipt(receipt, gamma))
        case "an end without a receipt":
            told.run.ClearField("receipt")
        case _:
            envelope = bytearray(told.result_envelope)
            envelope[-250] ^= 1
            told.result_envelope = bytes(envelope)
    hub.ends = [told]
    with pytest.raises(EnvelopeRejected):
        await watched(central, task_id)


async def test_that_nobody_ran_it_is_the_servers_word(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung, "Alpha")
    told = end(lung, created_task(hub, lung), "Alpha", revision=1)
    told.run.ClearField("receipt")
    told.run.state = RunState.RUN_STATE_EXPIRED
    hub.ends = [told]
    [result] = await watched(central, task_id)
    assert isinstance(result, RunResult)
    assert (result.state, result.proven) == (RunState.RUN_STATE_EXPIRED, False)


# ---- dependencies --------------------------------------------------------------------------------------------------------------


async def test_nothing_but_a_dependency_of_the_same_job_is_read(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer
):
    earlier = lung.task("Alpha", ["Gamma"], result_receivers=[lung["Beta"].address])
    hub.chain = TaskChain(specs=[earlier])
    task = verify_task(hub.chain, lung.state, now=NOW)
    hub.ends = [end(lung, task, "Gamma", revision=1, data=b"earlier")]
    station = make_station(connection=hub)
    depends_on = [Dependency(task_id=task.spec.task_id, task_digest=task.digest)]
    run = await make_run(assign(lung, depends_on=depends_on), station)
    with pytest.raises(TaskNotProven):
        [_ async for _ in run.read_dependency(task.spec.task_id)]  # of another job
    with pytest.raises(FolkmootError) as refusal:
        [_ async for _ in run.read_dependency(run.record.task_id)]
    assert refusal.value.reason == ErrorReason.ERROR_REASON_TASK_NOT_FOUND


async def test_a_dependency_of_the_job_gives_what_was_sealed_to_this_organization(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer
):
    for readers, expected in ((["Beta"], [b"earlier"]), (["Alpha"], [])):
        earlier = lung.task("Alpha", ["Gamma"], result_receivers=[lung[each].address for each in readers])
        hub.chain = TaskChain(specs=[earlier])
        task = verify_task(hub.chain, lung.state, now=NOW)
        hub.ends = [end(lung, task, "Gamma", revision=1, data=b"earlier")]
        depends_on = [Dependency(task_id=task.spec.task_id, task_digest=task.digest)]
        later = assign(lung, job_id=task.spec.job_id, depends_on=depends_on)
        run = await make_run(later, make_station("Beta", connection=hub))
        frames = [frame async for frame in run.read_dependency(task.spec.task_id)]
        assert [frame for frame in frames if isinstance(frame, bytes)] == expected
        await run.station.journal.transact(lambda db: records.acknowledge(db, 0))  # each is its station's first


# ---- what others have seen of the ledger ---------------------------------------------------------------------------------------

ANOTHER_ENTRY = LedgerPosition(sequence=2, hash=bytes(32))


async def test_a_receipt_made_on_another_history_is_a_fork(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    hub.ends = [end(lung, created_task(hub, lung), "Alpha", revision=1, receipt={"ledger_position": ANOTHER_ENTRY})]
    with pytest.raises(LedgerFork):
        await watched(central, task_id)
    assert central.station.fork is None, "it is one signer's word"


async def test_a_receipt_made_on_entries_that_the_server_withholds_is_stale(
    lung: World, central: Run, hub: FakeServer, monkeypatch: pytest.MonkeyPatch
):
    task_id = await create(central, lung)
    asked: list[str] = []

    async def catch_up() -> None:
        asked.append("and got nothing")

    monkeypatch.setattr(central.station, "catch_up", catch_up)
    withheld = LedgerPosition(sequence=lung.state.position.sequence + 1, hash=bytes(32))
    refused = {"outcome": RunState.RUN_STATE_REFUSED, "reason": ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED}
    nothing: dict[str, Any] = {"result_digest": b"", "result_receivers": [], "input_digest": b"", "image_id": ""}
    receipt = refused | nothing | {"ledger_position": withheld}
    hub.ends = [end(lung, created_task(hub, lung), "Alpha", revision=1, receipt=receipt)]
    with pytest.raises(LedgerStale, match="Alpha has seen"):
        await watched(central, task_id)
    assert asked


async def test_a_receipt_that_nobody_has_signed_shows_no_fork(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    forged = end(lung, created_task(hub, lung), "Alpha", revision=1, receipt={"ledger_position": ANOTHER_ENTRY})
    forged.run.receipt.signature = bytes(64)
    hub.ends = [forged]
    with pytest.raises(EnvelopeRejected):
        await watched(central, task_id)
    assert central.station.fork is None


async def test_a_result_made_on_another_history_is_a_fork(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    context = {"ledger_sequence": lung.state.position.sequence, "ledger_hash": bytes(32)}
    hub.ends = [end(lung, created_task(hub, lung), "Alpha", revision=1, context=context)]
    with pytest.raises(LedgerFork):
        await watched(central, task_id)


async def test_a_dependency_made_on_another_history_is_a_fork(
    lung: World, make_run: MakeRun, make_station: MakeStation, hub: FakeServer
):
    earlier = lung.task("Alpha", ["Gamma"], ledger_position=ANOTHER_ENTRY)
    hub.chain = TaskChain(specs=[earlier])
    depends_on = [Dependency(task_id=TaskSpec.FromString(earlier.body).task_id, task_digest=digest(earlier.body))]
    run = await make_run(assign(lung, depends_on=depends_on), make_station("Beta", connection=hub))
    with pytest.raises(LedgerFork):
        [_ async for _ in run.read_dependency(depends_on[0].task_id)]
    assert run.station.fork is None, "it is one signer's word"


async def test_a_result_of_a_node_that_was_revoked_since_is_read(lung: World, central: Run, hub: FakeServer):
    task_id = await create(central, lung)
    hub.ends = [end(lung, created_task(hub, lung), "Alpha", revision=1)]
    lung.revoke_node("Alpha", "alpha-1")
    central.station.replica.state = lung.state
    hub.ends.append(end(lung, created_task(hub, lung), "Gamma", revision=2))
    frames = await watched(central, task_id)
    assert [frame.organization.name for frame in frames if isinstance(frame, RunResult)] == ["Alpha", "Gamma"]
