"""People at the station: what they decide holds, whatever dies meanwhile, and before they have decided nothing has left."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from folkmoot.client import AsyncTask, RunState
from folkmoot.transport import error_from_rpc
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.task_pb2 import ApprovalSubject
from tests.integration.client.conftest import Hub
from tests.integration.node.station.people import Person, at_station, verified_egress
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
    return error_from_rpc(caught.value).reason


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
        assert (shown.function, shown.purpose, shown.labels) == ("answer", "to learn", ["patients"])
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
