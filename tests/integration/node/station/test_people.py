"""People at the station: what they decide holds, whatever dies meanwhile, and before they have decided nothing has left."""

import asyncio
import hashlib
import random
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest

from folkmoot.client import AsyncTask, RunState, Subtasks
from folkmoot.node.link.attachment import Link
from folkmoot.node.people.admin import serve_people
from folkmoot.node.proxy.sockets import ADMIN_SOCKET_NAME
from folkmoot.transport import error_from_rpc
from folkmoot.v1 import proxy_service_pb2 as proxy
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1 import task_pb2
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision, Encryption
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.task_pb2 import ApprovalSubject, Receipt
from tests.integration.client.conftest import Hub
from tests.integration.client.hub import hub_of
from tests.integration.node.station.people import Person, at_station, records_of_egress, verified_egress
from tests.integration.node.station.stations import POLICY, Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask, only
from tests.polling import until

AWAITING, HELD = task_pb2.RUN_STATE_AWAITING_APPROVAL, task_pb2.RUN_STATE_HELD
APPROVED = f'approval = "every_run"\n{POLICY}'
FIRST_USE = f'approval = "first_use"\n{POLICY}'
LOOKED_AT = f'release = "held"\n{POLICY}'
SECRET = "the-mean-of-the-secret-column-is-fortytwo"


async def answer(algorithm: Algorithm) -> None:
    await algorithm.result({"of": algorithm.context.organization.name, "says": SECRET})


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine({"answer": answer})
    yield made
    await made.close()


@pytest.fixture
def beta(hub: Hub) -> Path:
    return hub.folder / "station-Beta"


@asynccontextmanager
async def beta_at_work(stations: Stations, engine: Engine, folder: Path, policy: str = POLICY) -> AsyncIterator[Person]:
    async with stations.station("Beta", engine=engine, policy=policy), at_station(folder) as person:
        yield person


async def refusal(call: object) -> ErrorReason.ValueType:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return ErrorReason.ValueType(error_from_rpc(caught.value).reason)


async def state_at_server(task: AsyncTask) -> str:
    [run] = await task.runs
    return str(run.state)


def server_has(hub: Hub, text: str) -> bool:
    """Whether a text stands anywhere in what the server keeps: its database, its payload folder."""
    files = [path for path in (hub.folder / "server").rglob("*") if path.is_file()]
    assert files
    return any(text.encode() in path.read_bytes() for path in files)


# ---- approval --------------------------------------------------------------------------------------------------------


async def test_a_run_waits_for_a_person_and_its_approval_reaches_the_researchers_proof(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta", arguments={"column": "age"}, purpose="to learn")
        waiting = await person.waiting(AWAITING)
        shown = await person.show(waiting.run_id[:20])
        assert (shown.function, shown.purpose, *shown.labels) == ("answer", "to learn", "patients")
        assert "age" in shown.arguments_json
        assert [peer.name for peer in shown.initiators] == ["Alpha"]
        assert shown.image_id
        await until(lambda: _is(task, "AWAITING_APPROVAL"))
        assert not engine.started
        decided = await person.approve(waiting.run_id, by="uid:4711")
        assert [each.approved_by for each in decided.approvals] == ["uid:4711"]
        assert (await only(task)).value["of"] == "Beta"
        ended = await person.show(waiting.run_id)
        assert ended.state == task_pb2.RUN_STATE_COMPLETED
        assert ended.HasField("delivered_at")
        [run] = await task.runs
        assert [(one.subject, one.approved, one.approved_by) for one in run.approvals] == [("run", True, "uid:4711")]


async def _is(task: AsyncTask, state: str) -> bool:
    return await state_at_server(task) == state


async def test_a_declined_run_is_refused_and_never_starts(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        run = await person.waiting(AWAITING)
        await person.decline(run.run_id)
        result = await only(task)
    assert (result.state, result.reason) == (RunState.REFUSED, ErrorReason.ERROR_REASON_APPROVAL_DECLINED)
    assert result.proven
    assert not engine.started


async def test_the_first_decision_stands(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        run = await person.waiting(AWAITING)
        await person.decline(run.run_id, by="uid:1")
        again = await person.approve(run.run_id, by="uid:2")
        assert [(each.approved_by, each.decision) for each in again.approvals] == [("uid:1", Decision.DECISION_DECLINE)]
        assert (await only(task)).state == RunState.REFUSED


async def test_an_image_is_approved_once_where_the_policy_asks_for_its_first_use(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async with beta_at_work(stations, engine, beta, FIRST_USE) as person:
        first = await ask(hub, "Beta")
        await person.approve((await person.waiting(AWAITING)).run_id)
        await only(first)
        assert (await only(await ask(hub, "Beta"))).value["of"] == "Beta"


async def test_a_waiting_run_is_cancelled_by_who_asked(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        run = await person.waiting(AWAITING)
        await task.cancel()
        assert (await only(task)).state == RunState.CANCELLED
        await until(lambda: _ended(person, run.run_id))
        assert await refusal(person.approve(run.run_id)) == ErrorReason.ERROR_REASON_NOT_WAITING
    assert not engine.started


async def _ended(person: Person, run_id: str) -> bool:
    return (await person.show(run_id)).HasField("ended_at")


async def test_a_node_that_dies_while_a_run_waits_still_asks(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        before = await person.waiting(AWAITING)
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        run = await person.waiting(AWAITING)
        assert run.run_id == before.run_id
        await person.approve(run.run_id)
        assert (await only(task)).value["of"] == "Beta"
    assert len(engine.started) == 1


@pytest.mark.parametrize(("policy", "state"), [(APPROVED, AWAITING), (LOOKED_AT, HELD)], ids=["approval", "release"])
async def test_what_a_run_waits_for_is_known_after_it_was_told_to_nobody(
    hub: Hub,
    stations: Stations,
    engine: Engine,
    beta: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    state: task_pb2.RunState.ValueType,
):
    """The link was cut when it began to wait: who attaches again says it again."""
    with monkeypatch.context() as silence:
        silence.setattr(Link, "send", lambda *_: None)
        async with beta_at_work(stations, engine, beta, policy) as person:
            task = await ask(hub, "Beta")
            await person.waiting(state)
            assert not await _waits_for_approval(task)
    async with beta_at_work(stations, engine, beta, policy):
        await until(lambda: _waits_for_approval(task))
        assert await _is(task, task_pb2.RunState.Name(state).removeprefix("RUN_STATE_"))


async def _waits_for_approval(task: AsyncTask) -> bool:
    return "APPROVAL" in [each.reason for each in await task.why()]


async def test_nothing_that_waits_for_no_decision_takes_one(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta) as person:
        await only(await ask(hub, "Beta"))
        [run] = await person.runs()
        not_waiting = ErrorReason.ERROR_REASON_NOT_WAITING
        assert await refusal(person.approve(run.run_id)) == not_waiting
        assert await refusal(person.release(run.run_id)) == not_waiting
        assert await refusal(person.look(run.run_id)) == not_waiting
        assert await refusal(person.stub.HoldRun(pb.HoldRunRequest(run_id=run.run_id))) == not_waiting
        assert await refusal(person.show("no such run")) == ErrorReason.ERROR_REASON_RUN_NOT_FOUND


# ---- release ---------------------------------------------------------------------------------------------------------


async def test_nothing_of_a_held_result_leaves_before_its_release(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        await until(lambda: _is(task, "HELD"))
        assert (held.bytes_out, held.held_bytes > len(SECRET)) == (0, True)
        media_type, content = await person.look(held.run_id)
        assert media_type == "application/json"
        assert SECRET.encode() in content
        assert verified_egress(beta) == 0
        await person.release(held.run_id)
        result = await only(task)
        assert result.value["says"] == SECRET
        assert result.proven
        ended = await person.show(held.run_id)
        assert [each.subject for each in ended.approvals] == [ApprovalSubject.APPROVAL_SUBJECT_RELEASE]
        assert await refusal(person.look(held.run_id)) == ErrorReason.ERROR_REASON_NOT_WAITING
    assert verified_egress(beta) == 1


async def test_a_withheld_result_is_gone(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        await person.release(held.run_id, decision=Decision.DECISION_DECLINE)
        result = await only(task)
        assert (result.state, result.reason) == (RunState.REFUSED, ErrorReason.ERROR_REASON_RELEASE_DECLINED)
        assert await refusal(person.look(held.run_id)) == ErrorReason.ERROR_REASON_NOT_WAITING
    assert verified_egress(beta) == 0


async def test_neither_log_nor_progress_nor_failure_of_a_held_run_leaves_unseen(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async def talk_and_fail(algorithm: Algorithm) -> None:
        line = proxy.LogLine(text=SECRET)
        await algorithm.stub.Log(proxy.LogRequest(log=proxy.LogLines(first_sequence=1, lines=[line])))
        await algorithm.stub.ReportProgress(proxy.ReportProgressRequest(fraction=0.42, text=SECRET))
        await asyncio.sleep(0)
        await algorithm.stub.WriteFailure(proxy.WriteFailureRequest(message=SECRET))

    engine.functions = {"answer": talk_and_fail}
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        await until(lambda: _is(task, "HELD"))
        [run] = await task.runs
        assert run.fraction == 0
        assert [line async for line in task.logs("Beta")] == []
        assert verified_egress(beta) == 0
        _, content = await person.look(held.run_id)
        assert SECRET.encode() in content
        await person.release(held.run_id)
        result = await only(task)
        assert result.state == RunState.FAILED
        assert SECRET in str(result.failure)


async def test_a_person_holds_what_the_policy_would_let_go(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await answer(algorithm)

    engine.functions = {"answer": slow}
    async with beta_at_work(stations, engine, beta) as person:
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        [run] = await person.runs()
        await person.stub.HoldRun(pb.HoldRunRequest(run_id=run.run_id))
        go_on.set()
        held = await person.waiting(HELD)
        assert verified_egress(beta) == 0
        await person.release(held.run_id)
        assert (await only(task)).value["says"] == SECRET


async def test_a_result_that_is_on_its_way_when_it_is_to_be_held_is_written_again(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def halting(algorithm: Algorithm) -> None:
        async def frames() -> AsyncIterator[proxy.WriteResultRequest]:
            yield proxy.WriteResultRequest(head=proxy.ResultHead(content_type="application/json"))
            yield proxy.WriteResultRequest(data=b"4")
            writing.set()
            await go_on.wait()
            yield proxy.WriteResultRequest(data=b"2")
            yield proxy.WriteResultRequest(digest=hashlib.sha256(b"42").digest())

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await algorithm.stub.WriteResult(frames(), wait_for_ready=True)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await algorithm.result(42)

    engine.functions = {"answer": halting}
    async with beta_at_work(stations, engine, beta) as person:
        task = await ask(hub, "Beta")
        await asyncio.wait_for(writing.wait(), 30)
        [run] = await person.runs()
        await person.stub.HoldRun(pb.HoldRunRequest(run_id=run.run_id))
        go_on.set()
        held = await person.waiting(HELD)
        assert await person.look(held.run_id) == ("application/json", b"42")
        await person.release(held.run_id)
        assert (await only(task)).value == 42


async def test_a_large_held_result_is_looked_at_and_leaves_as_it_was_written(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    content = random.Random(1).randbytes(5 << 20)

    async def large(algorithm: Algorithm) -> None:
        await algorithm.write("application/octet-stream", content)

    engine.functions = {"answer": large}
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        assert held.held_bytes == len(content)
        assert await person.look(held.run_id) == ("application/octet-stream", content)
        await person.release(held.run_id)
        assert (await only(task)).value == content
        [outbox] = (beta / "state").glob("*/outbox")
        assert len(list(outbox.iterdir())) == 1


async def test_of_a_large_result_that_is_withheld_no_file_is_left(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async def large(algorithm: Algorithm) -> None:
        await algorithm.write("application/octet-stream", bytes(1 << 20))

    engine.functions = {"answer": large}
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        [outbox] = (beta / "state").glob("*/outbox")
        assert len(list(outbox.iterdir())) == 2
        await person.release(held.run_id, decision=Decision.DECISION_DECLINE)
        assert (await only(task)).state == RunState.REFUSED
        assert not list(outbox.iterdir())


async def test_a_held_result_is_cancelled_by_who_asked_for_it(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, LOOKED_AT) as person:
        task = await ask(hub, "Beta")
        held = await person.waiting(HELD)
        await task.cancel()
        assert (await only(task)).state == RunState.CANCELLED
        await until(lambda: _ended(person, held.run_id))
        assert await refusal(person.release(held.run_id)) == ErrorReason.ERROR_REASON_NOT_WAITING
        assert await refusal(person.look(held.run_id)) == ErrorReason.ERROR_REASON_NOT_WAITING
    assert verified_egress(beta) == 0


async def test_a_person_cancels_a_run_in_the_stations_name(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        waiting = await person.waiting(AWAITING)
        await person.stub.CancelStationRun(pb.CancelStationRunRequest(run_id=waiting.run_id))
        result = await only(task)
        assert (result.state, bool(result.proven)) == (RunState.CANCELLED, True)
        assert (await person.show(waiting.run_id)).rule == "station"


async def test_the_policy_is_asked_again_when_it_has_changed_while_a_run_waits(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    async with beta_at_work(stations, engine, beta, APPROVED) as person:
        task = await ask(hub, "Beta")
        await person.waiting(AWAITING)
        (beta / "policy.toml").write_text(POLICY)
        await person.stub.ReloadPolicy(pb.ReloadPolicyRequest())
        assert (await only(task)).value["of"] == "Beta"
        (beta / "policy.toml").write_text("approval = 7")
        assert (
            await refusal(person.stub.ReloadPolicy(pb.ReloadPolicyRequest())) == ErrorReason.ERROR_REASON_INVALID_FIELD
        )


# ---- the socket, the lists -------------------------------------------------------------------------------------------


async def test_nobody_else_can_open_the_socket(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta):
        assert stat.S_IMODE((beta / "state" / ADMIN_SOCKET_NAME).stat().st_mode) == 0o600


async def test_nobody_else_can_open_the_socket_at_any_moment_and_folders_made_meanwhile_can_be_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While it is made, the process makes every file like that: other threads make folders."""
    modes: dict[str, int] = {}

    def add_insecure_port(self: grpc.aio.Server, address: str) -> int:
        port = bind(self, address)
        (tmp_path / "folder").mkdir(mode=0o700)
        modes.update({path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()})
        return port

    server = type(grpc.aio.server())
    bind = server.add_insecure_port
    monkeypatch.setattr(server, "add_insecure_port", add_insecure_port)
    async with serve_people([], tmp_path, datetime.now(UTC)):
        assert modes == {ADMIN_SOCKET_NAME: 0o700, "folder": 0o700}
        assert stat.S_IMODE((tmp_path / ADMIN_SOCKET_NAME).stat().st_mode) == 0o600


async def test_what_breaks_the_contract_is_refused(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta) as person:
        for request in (
            person.stub.DecideRun(pb.DecideRunRequest(run_id="x", decision=Decision.DECISION_UNSPECIFIED)),
            person.stub.DecideRun(pb.DecideRunRequest(decision=Decision.DECISION_APPROVE)),
            person.stub.GetStationRun(pb.GetStationRunRequest(run_id="x" * 37)),
            person.stub.SetAvailability(pb.SetAvailabilityRequest(availability=17)),  # type: ignore[arg-type]
        ):
            assert await refusal(request) == ErrorReason.ERROR_REASON_INVALID_FIELD
        page = pb.ListStationRunsRequest(page_token="not one")
        assert await refusal(person.stub.ListStationRuns(page)) == ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID
        elsewhere = pb.ListEgressRequest(collaboration="nowhere")
        assert await refusal(person.stub.ListEgress(elsewhere)) == ErrorReason.ERROR_REASON_COLLABORATION_NOT_FOUND


async def test_runs_are_listed_page_by_page_the_newest_first(hub: Hub, stations: Stations, engine: Engine, beta: Path):
    async with beta_at_work(stations, engine, beta) as person:
        tasks = [await ask(hub, "Beta") for _ in range(5)]
        for task in tasks:
            await only(task)
        token, listed = "", []
        while True:
            page = await person.stub.ListStationRuns(pb.ListStationRunsRequest(page_size=2, page_token=token))
            listed += [run.task_id for run in page.runs]
            if not (token := page.next_page_token):
                break
        assert listed == [task.id for task in reversed(tasks)]
        egress = await person.stub.ListEgress(pb.ListEgressRequest(after_sequence=3))
        assert (len(egress.records), egress.last_sequence) == (2, 5)
        status = await person.status()
        assert (status.open_runs, status.node_name, status.HasField("attached_since")) == (0, "beta-1", True)
        assert status.availability == Availability.AVAILABILITY_OPEN


# ---- what the server sees --------------------------------------------------------------------------------------------


async def test_before_the_release_nothing_of_the_result_is_at_the_server_even_where_payloads_are_plain(tmp_path: Path):
    made = Engine({"answer": answer})
    try:
        async with hub_of(tmp_path, "Alpha", "Beta", encryption=Encryption.ENCRYPTION_PLAIN) as hub:
            stations, folder = Stations(hub), tmp_path / "station-Beta"
            async with (
                stations.station("Beta", engine=made, policy=LOOKED_AT, encryption="plain"),
                at_station(folder) as person,
            ):
                task = await ask(hub, "Beta")
                held = await person.waiting(HELD)
                await until(lambda: _is(task, "HELD"))
                assert not server_has(hub, SECRET)
                await person.release(held.run_id)
                assert (await only(task)).value["says"] == SECRET
                assert server_has(hub, SECRET)
    finally:
        await made.close()


# ---- what has left ---------------------------------------------------------------------------------------------------


async def test_every_kind_of_envelope_that_leaves_is_recorded_and_adds_up_to_the_receipts(
    hub: Hub, stations: Stations, engine: Engine, beta: Path
):
    alpha_engine = Engine({"central": central, "answer": answer})
    async with (
        stations.station("Alpha", engine=alpha_engine),
        stations.station("Beta", engine=engine),
    ):
        task = await ask(hub, "Alpha", "Gamma", function="central", subtasks=Subtasks(depth=1, number=2), messages=True)
        async for result in task.results():
            assert result.value == [f"{SECRET} of Beta"]
            break
        receipt = Receipt.FromString((await task._get()).runs[0].receipt.body)
    left = records_of_egress(hub.folder / "station-Alpha")
    kinds = {EnvelopeKind.Name(record.kind).removeprefix("ENVELOPE_KIND_") for record in left}
    assert kinds == {"INPUT", "LOG", "PROGRESS", "MESSAGE", "RESULT"}
    assert sum(record.size_bytes for record in left) == receipt.bytes_out
    assert verified_egress(hub.folder / "station-Alpha") == len(left)
    assert verified_egress(beta) == 1
    await alpha_engine.close()


async def central(algorithm: Algorithm) -> None:
    """Say and send something of every kind."""
    line = proxy.LogLine(text="I begin")
    await algorithm.stub.Log(proxy.LogRequest(log=proxy.LogLines(first_sequence=1, lines=[line])))
    await algorithm.stub.ReportProgress(proxy.ReportProgressRequest(fraction=0.5, text="half"))
    await algorithm.send("Gamma", "hello")
    subtask = await algorithm.subtask("answer", key="one", organizations=["Beta"])
    values = [f"{value['says']} of {value['of']}" async for value in algorithm.results(subtask)]
    await algorithm.result(values)
