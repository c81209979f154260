"""Sessions at real nodes: dataframes stay where they were left, stand or fall with their run, and are read by the rules of their data."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import pytest_asyncio

from folkmoot.client import AsyncSession, AsyncTask, Result, Subtasks
from folkmoot.node.app import RunningNode
from folkmoot.transport import RemoteError
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import TaskInput
from tests.integration.client.hub import Hub, hub_of
from tests.integration.node.station.conftest import stations_of
from tests.integration.node.station.people import at_station
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask, only
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = """
runtimes = ["process"]
[[allow]]
images = ["process:examples.*"]
initiators = ["*"]
labels = ["patients"]
subtasks = true
dataframes = true
[dataframes]
report = "columns"
"""
OTHER_LABELS = POLICY.replace('labels = ["patients"]', 'labels = ["scans"]')
NO_DATAFRAMES = POLICY.replace("dataframes = true", "dataframes = false")
HELD = POLICY.replace("dataframes = true", 'dataframes = true\nrelease = "held"')


def ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


async def write(algorithm: Algorithm, content: bytes, digest: bytes | None = None) -> int:
    async def frames() -> AsyncIterator[pb.WriteDataframeRequest]:
        for at in range(0, len(content), 1 << 20):
            yield pb.WriteDataframeRequest(data=content[at : at + (1 << 20)])
        yield pb.WriteDataframeRequest(digest=digest or hashlib.sha256(content).digest())

    return (await algorithm.stub.WriteDataframe(frames(), wait_for_ready=True)).rows


async def refusal(algorithm: Algorithm, content: bytes, digest: bytes | None = None) -> str:
    try:
        await write(algorithm, content, digest)
    except grpc.aio.AioRpcError as error:
        return (error.details() or "").partition(":")[0]
    return ""


async def table(algorithm: Algorithm, label: str) -> pa.Table:
    content = b""
    async for frame in algorithm.stub.ReadTable(pb.ReadTableRequest(label=label)):
        content += frame.data
    return pa.ipc.open_stream(content).read_all()


async def clean(algorithm: Algorithm) -> None:
    """Leaves the rows from an age on."""
    patients = await table(algorithm, "patients")
    kept = patients.filter(pc.greater_equal(patients["age"], algorithm.arguments.get("age", 0)))
    await algorithm.result(await write(algorithm, ipc(kept)))


async def count(algorithm: Algorithm) -> None:
    """Counts the rows of every dataframe, read as tables of their names."""
    listed = await algorithm.stub.ListTables(pb.ListTablesRequest())
    counted = {name: (await table(algorithm, name)).num_rows for name in algorithm.context.dataframes}
    await algorithm.result({"rows": counted, "tables": [one.label for one in listed.tables]})


async def derive(algorithm: Algorithm) -> None:
    """Leaves what it reads of another dataframe."""
    [name] = algorithm.context.dataframes
    await algorithm.result(await write(algorithm, ipc(await table(algorithm, name))))


async def fail(algorithm: Algorithm) -> None:
    """Leaves something, and fails."""
    await write(algorithm, ipc(pa.table({"age": [1]})))
    await algorithm.stub.WriteFailure(pb.WriteFailureRequest(message="no"))


async def attack(algorithm: Algorithm) -> None:
    """Tries what is no dataframe, then leaves one, twice, and tells what was said to it."""
    good = ipc(pa.table({"age": [1, 2]}))
    said = {
        "malformed": await refusal(algorithm, b"nonsense" * 100),
        "cut off": await refusal(algorithm, good[:200]),
        "more behind": await refusal(algorithm, good + b"more"),
        "another digest": await refusal(algorithm, good, bytes(32)),
        "huge": await refusal(algorithm, ipc(pa.table({"noise": [bytes([i % 256]) * 1000 for i in range(3000)]}))),
        "same names": await refusal(algorithm, ipc(pa.table({"age": [1], "AGE": [2]}))),
    }
    first, last = await write(algorithm, ipc(pa.table({"age": [0]}))), await write(algorithm, good)
    await algorithm.result(said | {"first": first, "last": last})
    await asyncio.sleep(0)
    said["after the result"] = await refusal(algorithm, good)


async def curious(algorithm: Algorithm) -> None:
    """Tries to read and to leave what its task does not name."""
    said = {}
    for label in ("cleaned", "../cleaned", "patients"):
        try:
            await table(algorithm, label)
        except grpc.aio.AioRpcError as error:
            said[label] = (error.details() or "").partition(":")[0]
    said["leave"] = await refusal(algorithm, ipc(pa.table({"age": [1]})))
    await algorithm.result(said)


async def spread(algorithm: Algorithm) -> None:
    """A central function: has Beta clean, under the name that its own task leaves; then under another."""
    head = TaskInput(function="clean", arguments_json='{"age": 50}').SerializeToString()
    content = len(head).to_bytes(4, "big") + head
    said: list[object] = []
    for name in (algorithm.context.leaves_dataframe, "another"):
        wish = pb.SubtaskHead(
            key=name,
            organization_ids=[algorithm.address("Beta")],
            labels=algorithm.context.labels,
            inputs=[pb.SubtaskInput(size_bytes=len(content))],
            leaves_dataframe=name,
        )
        frames = [pb.CreateSubtaskRequest(head=wish), pb.CreateSubtaskRequest(data=content)]
        try:
            task_id = (await algorithm.stub.CreateSubtask(iter_of(frames), wait_for_ready=True)).task_id
            said += [value async for value in algorithm.results(task_id)]
        except grpc.aio.AioRpcError as error:
            said.append((error.details() or "").partition(":")[0])
    await algorithm.result(said)


async def iter_of(frames: list[pb.CreateSubtaskRequest]) -> AsyncIterator[pb.CreateSubtaskRequest]:
    for frame in frames:
        yield frame


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """One server for all tests: each has a session of its own, and ends what it has begun."""
    async with hub_of(tmp_path_factory.mktemp("hub"), "Alpha", "Beta", "Gamma") as made:
        made.clients = {}
        yield made


@pytest.fixture(scope="module")
def stations(hub: Hub) -> Iterator[Stations]:
    yield from stations_of(hub)


@pytest_asyncio.fixture(loop_scope="module")
async def engine() -> AsyncIterator[Engine]:
    functions = (clean, count, derive, fail, attack, curious, spread)
    made = Engine({each.__name__: each for each in functions})
    yield made
    await made.close()


async def asked(hub: Hub, function: str, *organizations: str, **changes: Any) -> AsyncTask:
    return await ask(hub, *organizations, function=function, **changes)


async def cleaned(hub: Hub, session: AsyncSession, *organizations: str, **changes: Any) -> list[Result]:
    """Have patients left as `cleaned`."""
    usual: dict[str, Any] = {"session": session, "leaves": "cleaned"}
    task = await asked(hub, "clean", *(organizations or ("Beta",)), **(usual | changes))
    async with asyncio.timeout(30):
        results = await task.wait(progress=False)
    assert {one.state for one in results} == {"COMPLETED"}, results
    return results


async def counted(hub: Hub, session: AsyncSession, *names: str, **changes: Any) -> Result:
    task = await asked(hub, "count", "Beta", session=session, dataframes=names, labels=[], **changes)
    return await only(task)


def reason(result: Result) -> str:
    return ErrorReason.Name(ErrorReason.ValueType(result.reason)).removeprefix("ERROR_REASON_")


def told(result: Result) -> tuple[str, int] | None:
    """What a run's receipt tells of the dataframe that it left."""
    assert result.receipt
    left = result.receipt.dataframe
    return (left.name, left.rows) if result.receipt.HasField("dataframe") else None


def files(node: RunningNode, session: AsyncSession) -> list[Path]:
    return sorted((node.stations[0].station.directory / "sessions" / session.id).glob("*"))


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: Hub, request: pytest.FixtureRequest) -> AsyncSession:
    return await hub.client("Alpha").sessions.create(request.node.name[:60].rstrip("_"))


# ---- left and read -------------------------------------------------------------------------------------------------


async def test_what_a_task_leaves_later_tasks_read_at_the_same_nodes(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with (
        stations.station("Alpha", engine=engine, policy=POLICY),
        stations.station("Beta", engine=engine, policy=POLICY) as beta,
    ):
        assert [one.value for one in await cleaned(hub, session, "Alpha", "Beta", arguments={"age": 50})] == [2, 2]
        result = await counted(hub, session, "cleaned")
        assert result.value == {"rows": {"cleaned": 2}, "tables": ["cleaned"]}
        [file] = files(beta, session)
        assert pq.read_table(file)["age"].to_pylist() == [50, 60]
    [dataframe] = await session.dataframes()
    assert dataframe.name == "cleaned"
    assert [(part.organization, part.rows, part.columns) for part in dataframe.parts] == [
        (name, 2, {"age": "int64", "sex": "int64"})
        for name in sorted(("Alpha", "Beta"), key=lambda n: hub.lung[n].address)
    ]
    listed = {one.name: one.info.dataframe_names async for one in hub.client("Alpha").sessions.list()}
    assert listed[session.name] == ("cleaned",)


async def test_a_dataframe_that_is_left_again_replaces_the_one_before(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY) as beta:
        await cleaned(hub, session)
        [first] = files(beta, session)
        await cleaned(hub, session, arguments={"age": 60})
        assert (await counted(hub, session, "cleaned")).value["rows"] == {"cleaned": 1}
        assert len(files(beta, session)) == 1
        assert files(beta, session) != [first]


async def test_a_run_that_fails_leaves_nothing_and_the_former_one_stands(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY) as beta:
        await cleaned(hub, session)
        before = files(beta, session)
        failed = await only(await asked(hub, "fail", "Beta", session=session, leaves="cleaned"))
        assert (failed.state, told(failed)) == ("FAILED", None)
        assert files(beta, session) == before
        assert (await counted(hub, session, "cleaned")).value["rows"] == {"cleaned": 3}


async def test_what_is_no_dataframe_is_refused_and_the_last_whole_one_counts(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    small = POLICY + "bytes_per_session = 1000000\n"
    async with stations.station("Beta", engine=engine, policy=small) as beta:
        result = await only(await asked(hub, "attack", "Beta", session=session, leaves="model"))
        assert result.value == {
            "malformed": "MALFORMED",
            "cut off": "MALFORMED",
            "more behind": "MALFORMED",
            "another digest": "MALFORMED",
            "huge": "TOO_LARGE",
            "same names": "MALFORMED",
            "first": 1,
            "last": 2,
        }
        [file] = files(beta, session)
        assert pq.read_table(file).num_rows == 2


async def test_an_algorithm_reads_and_leaves_only_what_its_task_names(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY):
        await cleaned(hub, session)
        result = await only(await asked(hub, "curious", "Beta", labels=[]))
        refused = dict.fromkeys(("cleaned", "../cleaned", "patients"), "TABLE_NOT_FOUND")
        assert result.value == refused | {"leave": "DATAFRAME_NOT_ALLOWED"}


async def test_a_subtask_leaves_what_its_parent_leaves_and_nothing_else(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with (
        stations.station("Alpha", engine=engine, policy=POLICY),
        stations.station("Beta", engine=engine, policy=POLICY),
    ):
        many = Subtasks(number=2)
        task = await asked(hub, "spread", "Alpha", session=session, leaves="cleaned", subtasks=many)
        assert (await only(task)).value == [2, "SUBTASK_NOT_ALLOWED"]
        assert (await counted(hub, session, "cleaned")).value["rows"] == {"cleaned": 2}


# ---- the data owner's rules ----------------------------------------------------------------------------------------


async def test_a_policy_without_dataframes_refuses_tasks_with_a_session(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=NO_DATAFRAMES):
        result = await only(await asked(hub, "clean", "Beta", session=session, leaves="cleaned"))
        assert (result.state, reason(result), result.rule) == (
            "REFUSED",
            "DATAFRAME_NOT_ALLOWED",
            "allow[0].dataframes",
        )


async def test_a_dataframe_made_from_labels_that_a_rule_does_not_cover_is_not_read(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    """Not even by way of another dataframe that was made from it without any label."""
    async with stations.station("Beta", engine=engine, policy=POLICY):
        await cleaned(hub, session)
        derived = await asked(hub, "derive", "Beta", session=session, dataframes=["cleaned"], leaves="twice", labels=[])
        assert (await only(derived)).value == 3
    async with stations.station("Beta", engine=engine, policy=OTHER_LABELS):
        for name in ("cleaned", "twice"):
            result = await counted(hub, session, name)
            assert (result.state, reason(result), result.rule) == ("REFUSED", "LABEL_NOT_ALLOWED", "allow[0].labels")


async def test_fewer_rows_than_the_data_owner_gives_are_not_read_from_a_dataframe_either(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY):
        await cleaned(hub, session, arguments={"age": 60})
    async with stations.station("Beta", engine=engine, policy="minimum_rows = 2\n" + POLICY):
        result = await counted(hub, session, "cleaned")
        assert result.state == "CRASHED"
        assert "TOO_FEW_ROWS" in result.failure


async def test_receipts_tell_as_much_as_the_policy_lets_them(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    for report, rows, columns in (("name", None, None), ("rows", 3, None)):
        policy = POLICY.replace('report = "columns"', f'report = "{report}"')
        async with stations.station("Beta", engine=engine, policy=policy):
            await cleaned(hub, session)
        [dataframe] = await session.dataframes()
        assert [(part.rows, part.columns) for part in dataframe.parts] == [(rows, columns)]
    async with stations.station("Beta", engine=engine, policy="minimum_rows = 2\n" + POLICY):
        [result] = await cleaned(hub, session, arguments={"age": 60})
        assert told(result) == ("cleaned", 0)  # fewer than may be read are not counted either


async def test_a_held_run_leaves_nothing_before_a_person_has_released_it(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=HELD):
        task = await asked(hub, "clean", "Beta", session=session, leaves="cleaned")

        async def held() -> bool:
            return [each.state for each in await task.runs] == ["HELD"]

        await until(held)
        early = await counted(hub, session, "cleaned")
        assert (early.state, reason(early)) == ("REFUSED", "DATAFRAME_NOT_FOUND")
        async with at_station(stations.configure("Beta", policy=HELD).parent) as people:
            await people.release(task.spec.receivers[0].run_id)
        assert told(await only(task)) == ("cleaned", 3)


async def test_a_dataframe_that_nobody_left_is_not_found(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY):
        result = await counted(hub, session, "nothing")
        assert (result.state, reason(result), result.rule) == ("REFUSED", "DATAFRAME_NOT_FOUND", "session")


# ---- whose it is, and its end --------------------------------------------------------------------------------------


async def test_another_organizations_session_can_not_be_used_or_seen(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY):
        await cleaned(hub, session)
        gamma = hub.client("Gamma")
        asking: dict[str, Any] = {"image": "process:examples.average", "function": "count", "organizations": ["Beta"]}
        for call in (
            gamma.sessions.get(session.id),
            gamma.tasks.create(**asking, session=session, dataframes=["cleaned"]),
            gamma.tasks.check(**asking, session=session, dataframes=["cleaned"]),
            gamma.sessions.delete(session),
        ):
            with pytest.raises(RemoteError) as refused:
                await call
            assert refused.value.reason_name == "SESSION_NOT_FOUND"
        shared = await hub.client("Alpha").sessions.create("for all", scope="collaboration")
        await cleaned(hub, shared)
        task = await gamma.tasks.create(**asking, session="for all", dataframes=["cleaned"])
        assert (await only(task)).value["rows"] == {"cleaned": 3}


async def test_a_deleted_session_is_gone_from_nodes_that_were_away_as_well(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Alpha", engine=engine, policy=POLICY) as alpha:
        async with stations.station("Beta", engine=engine, policy=POLICY):
            await cleaned(hub, session, "Alpha", "Beta")
        client = hub.client("Alpha")
        await client.sessions.delete(session)
        await until(lambda: not files(alpha, session))
        with pytest.raises(RemoteError) as gone:
            await asked(hub, "count", "Beta", session=session.id, dataframes=["cleaned"], labels=[])
        assert gone.value.reason_name == "SESSION_NOT_FOUND"
    async with stations.station("Beta", engine=engine, policy=POLICY) as beta:
        await until(lambda: not files(beta, session))


async def test_a_session_with_open_tasks_is_deleted_only_with_them(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    task = await asked(hub, "clean", "Beta", session=session, leaves="cleaned")
    client = hub.client("Alpha")
    with pytest.raises(RemoteError) as refused:
        await client.sessions.delete(session)
    assert refused.value.reason_name == "HAS_DEPENDENTS"
    await client.sessions.delete(session, cancel_tasks=True)
    assert (await only(task)).state == "CANCELLED"


async def test_a_dataframe_is_deleted_alone_and_not_while_a_task_uses_it(
    hub: Hub, stations: Stations, engine: Engine, session: AsyncSession
):
    async with stations.station("Beta", engine=engine, policy=POLICY) as beta:
        await cleaned(hub, session)
        await cleaned(hub, session, leaves="other")
    waiting = await asked(hub, "count", "Beta", session=session, dataframes=["cleaned"], labels=[])
    with pytest.raises(RemoteError) as refused:
        await session.delete_dataframe("cleaned")
    assert refused.value.reason_name == "HAS_DEPENDENTS"
    await waiting.cancel()
    await session.delete_dataframe("cleaned")
    assert [one.name for one in await session.dataframes()] == ["other"]
    async with stations.station("Beta", engine=engine, policy=POLICY) as beta:
        await until(lambda: len(files(beta, session)) == 1)
        assert reason(await counted(hub, session, "cleaned")) == "DATAFRAME_NOT_FOUND"
        assert (await counted(hub, session, "other")).value["rows"] == {"other": 3}


async def test_a_node_that_is_revoked_keeps_no_dataframes(engine: Engine, tmp_path: Path):
    async with hub_of(tmp_path, "Alpha", "Beta") as hub:
        session = await hub.client("Alpha").sessions.create("of a node that goes")
        async with Stations(hub).station("Beta", engine=engine, policy=POLICY) as beta:
            await cleaned(hub, session)
            hub.lung.revoke_node("Beta", "beta-1")
            await hub.server.append(hub.lung.entries[-1], hub.server.users["admin@beta"])
            await until(lambda: not files(beta, session))
        assert await session.dataframes() == ()


# ---- again ---------------------------------------------------------------------------------------------------------


async def test_a_task_is_repeated_with_changes(hub: Hub, stations: Stations, engine: Engine, session: AsyncSession):
    policy: dict[str, Any] = {"engine": engine, "policy": POLICY}
    async with stations.station("Alpha", **policy), stations.station("Beta", **policy):
        task = await asked(
            hub, "clean", "Alpha", "Beta", arguments={"age": 50}, session=session, leaves="cleaned", name="ages"
        )
        first = [one.value for one in await task.wait(progress=False)]
        again = await (await hub.client("Alpha").tasks.get(task.id)).repeat()
        assert again.id != task.id
        assert [one.value for one in await again.wait(progress=False)] == first == [2, 2]
        assert (again.spec.session, again.name) == (task.spec.session, "ages")
        changed = await again.repeat(arguments={"age": 60}, organizations=["Beta"])
        assert [one.value for one in await changed.wait(progress=False)] == [1]


async def test_a_task_whose_input_is_sealed_to_others_is_repeated_only_with_its_arguments(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine, policy=POLICY):
        task = await asked(hub, "count", "Beta")
        await only(task)
        with pytest.raises(Exception, match="sealed to those who executed it"):
            await task.repeat()
        again = await task.repeat(function="count", arguments={})
        assert (await only(again)).state == "COMPLETED"
