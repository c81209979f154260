"""Nodes die, repeat, are lied to and stand twice in the same place: each run executes at most once, each result arrives once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from folkmoot.client import AsyncTask, Proof, Result, RunState, Subtasks
from folkmoot.node.app import RunningNode
from folkmoot.node.execution import clearing
from folkmoot.node.journal import records
from folkmoot.node.link import attachment, delivery
from folkmoot.node.link.attendance import Attendance
from folkmoot.node.link.intake import Intake
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import TaskSpec
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import POLICY, Algorithm, Engine, Stations
from tests.polling import until

IMAGE = "process:examples.average"


async def ask(hub: Hub, *organizations: str, function: str = "answer", **changes: Any) -> AsyncTask:
    usual: dict[str, Any] = {
        "image": IMAGE,
        "function": function,
        "organizations": organizations,
        "labels": ["patients"],
    }
    return await hub.client("Alpha").tasks.create(**(usual | changes))


async def answer(algorithm: Algorithm) -> None:
    await algorithm.result({"of": algorithm.context.organization.name})


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine({"answer": answer})
    yield made
    await made.close()


async def only(task: AsyncTask) -> Result:
    async with asyncio.timeout(30):
        [result] = await task.wait(progress=False)
    return result


# ---- the node dies -------------------------------------------------------------------------------------------------------


async def test_node_killed_between_journal_and_acknowledgement_executes_once(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    journaled, take = asyncio.Event(), Intake.take

    async def freeze(self: Intake, frames: list[ServerFrame]) -> int:
        await take(self, frames)
        journaled.set()
        return await asyncio.Event().wait()

    async with stations.station("Beta", engine=engine):
        monkeypatch.setattr(Intake, "take", freeze)
        task = await ask(hub, "Beta")
        await asyncio.wait_for(journaled.wait(), 30)
    monkeypatch.setattr(Intake, "take", take)
    async with stations.station("Beta", engine=engine):
        result = await only(task)
    assert (result.value, result.proven) == ({"of": "Beta"}, Proof.PROVEN)
    assert len(engine.started) == 1


async def test_node_killed_between_result_and_commit_delivers_once(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    reached, commit = asyncio.Event(), delivery._commit

    async def freeze(*_: Any) -> None:
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(delivery, "_commit", freeze)
    async with stations.station("Beta", engine=engine):
        task = await ask(hub, "Beta")
        await asyncio.wait_for(reached.wait(), 30)
    monkeypatch.setattr(delivery, "_commit", commit)
    async with stations.station("Beta", engine=engine):
        result = await only(task)
    assert result.value == {"of": "Beta"}
    assert len(engine.started) == 1


async def test_node_killed_while_a_run_computes_takes_its_process_over(hub: Hub, stations: Stations, engine: Engine):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await algorithm.result("after the restart")

    engine.functions = {"answer": slow}
    async with stations.station("Beta", engine=engine):
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
    async with stations.station("Beta", engine=engine):
        go_on.set()
        result = await only(task)
    assert result.value == "after the restart"
    assert len(engine.started) == 1


async def test_result_is_written_while_the_node_is_away_and_arrives_after_its_restart(
    hub: Hub, stations: Stations, engine: Engine
):
    computing, node_is_gone = asyncio.Event(), asyncio.Event()

    async def persistent(algorithm: Algorithm) -> None:
        computing.set()
        await node_is_gone.wait()
        await algorithm.insist({"kept": True})

    engine.functions = {"answer": persistent}
    async with stations.station("Beta", engine=engine):
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
    node_is_gone.set()
    async with stations.station("Beta", engine=engine):
        assert (await only(task)).value == {"kept": True}


async def test_run_whose_process_is_gone_after_a_restart_is_lost_and_never_started_again(
    hub: Hub, stations: Stations, engine: Engine
):
    computing = asyncio.Event()

    async def forever(algorithm: Algorithm) -> None:
        computing.set()
        await asyncio.Event().wait()

    engine.functions = {"answer": forever}
    async with stations.station("Beta", engine=engine):
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
    await engine.close()
    engine.running.clear()
    async with stations.station("Beta", engine=engine):
        result = await only(task)
    assert (result.state, result.proven) == (RunState.CRASHED, Proof.PROVEN)
    assert "lost" in (result.failure or "")
    assert len(engine.started) == 1


async def test_process_without_a_run_is_cleared_away_at_the_start(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(clearing, "AFTER_SECONDS", 0.05)
    engine.running["stray"] = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
    async with stations.station("Beta", engine=engine):
        await until(lambda: "stray" not in engine.running)


# ---- the server lies, or repeats ---------------------------------------------------------------------------------------------


def alter(monkeypatch: pytest.MonkeyPatch, change: Callable[[TaskSpec], None]) -> None:
    """Let every task be altered on its way to the nodes."""
    deliver = Attendance.deliver

    async def altered(self: Attendance, frames: list[ServerFrame]) -> int:
        for frame in frames:
            if frame.HasField("assign"):
                spec = TaskSpec.FromString(frame.assign.chain.specs[-1].body)
                change(spec)
                frame.assign.chain.specs[-1].body = spec.SerializeToString(deterministic=True)
        return await deliver(self, frames)

    monkeypatch.setattr(Attendance, "deliver", altered)


async def test_task_altered_on_its_way_is_refused_and_the_researcher_learns_why(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    def let_the_server_read(spec: TaskSpec) -> None:
        spec.purpose = "something else"

    alter(monkeypatch, let_the_server_read)
    async with stations.station("Beta", engine=engine):
        result = await only(await ask(hub, "Beta"))
    assert result.state == RunState.REFUSED
    assert result.reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
    assert engine.started == []


@pytest.mark.parametrize(
    ("policy", "reason", "rule"),
    [
        (POLICY.replace("examples", "others"), "IMAGE_NOT_ALLOWED", "allow[0].images"),
        (POLICY.replace('"*"', '"Gamma"'), "INITIATOR_NOT_ALLOWED", "allow[0].initiators"),
        (POLICY.replace('"patients"', '"staff"'), "LABEL_NOT_ALLOWED", "allow[0].labels"),
    ],
    ids=["image", "initiator", "label"],
)
async def test_what_the_policy_does_not_allow_is_refused_with_proof(
    hub: Hub, stations: Stations, engine: Engine, policy: str, reason: str, rule: str
):
    async with stations.station("Beta", engine=engine, policy=policy):
        result = await only(await ask(hub, "Beta"))
    assert (result.state, result.proven) == (RunState.REFUSED, Proof.PROVEN)
    assert result.reason == ErrorReason.Value(f"ERROR_REASON_{reason}")
    assert result.receipt is not None
    assert result.receipt.rule == rule
    assert engine.started == []


async def test_function_that_the_image_lacks_is_told_with_those_that_it_has(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine):
        result = await only(await ask(hub, "Beta", function="answr"))
    assert result.state == RunState.FAILED
    assert "answr" in (result.failure or "")
    assert "it has answer" in (result.failure or "")
    assert engine.started == []


# ---- how runs end ------------------------------------------------------------------------------------------------------------


async def test_cancelled_run_ends_its_process_and_is_proven_cancelled(hub: Hub, stations: Stations, engine: Engine):
    computing = asyncio.Event()

    async def forever(algorithm: Algorithm) -> None:
        computing.set()
        await asyncio.Event().wait()

    engine.functions = {"answer": forever}
    async with stations.station("Beta", engine=engine):
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        await task.cancel()
        result = await only(task)
        assert (result.state, result.proven) == (RunState.CANCELLED, Proof.PROVEN)
        await until(lambda: not engine.running)


async def test_run_that_waits_for_a_slot_can_be_cancelled_and_says_what_it_waits_for(
    hub: Hub, stations: Stations, engine: Engine
):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await algorithm.result(1)

    engine.functions = {"answer": slow}
    async with stations.station("Beta", engine=engine):
        first = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        second = await ask(hub, "Beta")

        async def waits_for_a_slot() -> bool:
            return "slot" in str(await second.why()).lower()

        await until(waits_for_a_slot)
        await second.cancel()
        assert (await only(second)).state == RunState.CANCELLED
        go_on.set()
        assert (await only(first)).value == 1
    assert len(engine.started) == 1


async def test_run_that_takes_too_long_is_ended(hub: Hub, stations: Stations, engine: Engine):
    async def forever(algorithm: Algorithm) -> None:
        await asyncio.Event().wait()

    engine.functions = {"answer": forever}
    async with stations.station("Beta", engine=engine, policy=POLICY + "[limits]\nrun_time_seconds = 1\n"):
        result = await only(await ask(hub, "Beta"))
    assert (result.state, result.proven) == (RunState.CRASHED, Proof.PROVEN)
    assert "1 seconds" in (result.failure or "")


async def test_process_that_exits_without_a_result_is_a_crash_with_its_last_words(
    hub: Hub, stations: Stations, engine: Engine
):
    async def broken(algorithm: Algorithm) -> None:
        raise ValueError("the last words")

    async def silent(algorithm: Algorithm) -> None:
        return

    engine.functions = {"broken": broken, "silent": silent}
    async with stations.station("Beta", engine=engine):
        told = await only(await ask(hub, "Beta", function="broken"))
        mute = await only(await ask(hub, "Beta", function="silent"))
    assert told.state == mute.state == RunState.CRASHED
    assert "the last words" in (told.failure or "")
    assert "without writing a result" in (mute.failure or "")


async def test_result_stands_although_its_process_goes_on(hub: Hub, stations: Stations, engine: Engine):
    async def lingers(algorithm: Algorithm) -> None:
        await algorithm.result("stands")
        await asyncio.Event().wait()

    engine.functions = {"answer": lingers}
    async with stations.station("Beta", engine=engine):
        assert (await only(await ask(hub, "Beta"))).value == "stands"


async def test_large_results_and_inputs_travel_as_payloads(hub: Hub, stations: Stations, engine: Engine):
    async def echo(algorithm: Algorithm) -> None:
        await algorithm.result(algorithm.arguments["text"])

    engine.functions = {"echo": echo}
    text = "x" * 600_000
    async with stations.station("Beta", engine=engine):
        result = await only(await ask(hub, "Beta", function="echo", arguments={"text": text}))
    assert result.value == text


# ---- two of one, and none ------------------------------------------------------------------------------------------------------


async def test_two_processes_with_one_node_key_take_turns_and_say_so(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    explain = attachment.Link._explain

    def listen(self: attachment.Link, error: Any, attempt: int, *, repeated: bool) -> float:
        explain(self, error, attempt, repeated=repeated)
        told.append(getattr(error, "reason_name", ""))
        return 0.5

    monkeypatch.setattr(attachment.Link, "_explain", listen)
    async with stations.station("Beta", engine=engine) as first:
        async with stations.station("Beta", engine=engine, place="elsewhere"):
            await until(lambda: "SESSION_REPLACED" in told)
        await until(lambda: first.stations[0].link.is_attached)
        assert (await only(await ask(hub, "Beta"))).value == {"of": "Beta"}
    assert len(engine.started) == 1


async def test_two_processes_never_share_a_journal(stations: Stations, engine: Engine):
    from folkmoot.trust import FolkmootError

    async with stations.station("Beta", engine=engine):
        with pytest.raises(FolkmootError, match="another process"):
            async with stations.station("Beta", engine=engine):
                pass


async def test_unary_exchange_carries_the_same_protocol(hub: Hub, stations: Stations, engine: Engine):
    async with stations.station("Beta", engine=engine, link="exchange"):
        assert (await only(await ask(hub, "Beta"))).value == {"of": "Beta"}


async def test_what_was_asked_while_the_node_was_away_is_done_when_it_is_back(
    hub: Hub, stations: Stations, engine: Engine
):
    task = await ask(hub, "Beta")
    async with stations.station("Beta", engine=engine):
        assert (await only(task)).value == {"of": "Beta"}


async def test_journal_of_an_ended_run_answers_a_repeated_assignment(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    seen: list[ServerFrame] = []
    deliver = Attendance.deliver

    async def watch(self: Attendance, frames: list[ServerFrame]) -> int:
        seen.extend(frames)
        return await deliver(self, frames)

    monkeypatch.setattr(Attendance, "deliver", watch)
    async with stations.station("Beta", engine=engine) as node:
        await only(await ask(hub, "Beta"))
        await committed(node)
        again = ServerFrame.FromString(seen[0].SerializeToString())
        again.sequence = seen[-1].sequence + 1
        intake = node_intake(node)
        await intake.take([again])
        await committed(node)
    assert len(engine.started) == 1


async def committed(node: RunningNode) -> None:
    async def everything_is() -> bool:
        return not await node.stations[0].station.journal.transact(records.uncommitted_runs)

    await until(everything_is)


def node_intake(node: RunningNode) -> Intake:
    return node.stations[0].intake


# ---- subtasks and messages -----------------------------------------------------------------------------------------------------


async def test_central_function_survives_its_node_and_creates_each_subtask_once(
    hub: Hub, stations: Stations, engine: Engine
):
    created, go_on = asyncio.Event(), asyncio.Event()

    async def central(algorithm: Algorithm) -> None:
        first = await algorithm.subtask("answer", key="1", organizations=["Beta"])
        created.set()
        await go_on.wait()
        again = await algorithm.subtask("answer", key="1", organizations=["Beta"])
        assert first == again
        await algorithm.result([json async for json in algorithm.results(again)])

    engine.functions = {"answer": answer, "central": central}
    elsewhere = Engine({"answer": answer})
    grant = {"subtasks": Subtasks(depth=1, number=2)}
    async with stations.station("Beta", engine=elsewhere):
        async with stations.station("Alpha", engine=engine):
            task = await ask(hub, "Alpha", function="central", **grant)
            await asyncio.wait_for(created.wait(), 30)
        go_on.set()
        async with stations.station("Alpha", engine=engine):
            assert (await only(task)).value == [{"of": "Beta"}]
    assert len(elsewhere.started) == 1


async def test_siblings_message_each_other_with_one_slot_at_each_node(hub: Hub, stations: Stations, engine: Engine):
    names = ["Alpha", "Beta", "Gamma"]

    async def ring(algorithm: Algorithm) -> None:
        own = names.index(algorithm.context.organization.name)
        if own:
            received = await algorithm.receive(names[own - 1])
            await algorithm.send(names[(own + 1) % 3], received + 1)
            await algorithm.result(received)
        else:
            await algorithm.send("Beta", 1)
            await algorithm.result(await algorithm.receive("Gamma"))

    engine.functions = {"ring": ring}
    async with (
        stations.station("Alpha", engine=engine),
        stations.station("Beta", engine=Engine({"ring": ring})),
        stations.station("Gamma", engine=Engine({"ring": ring})),
    ):
        task = await ask(hub, *names, function="ring", messages=True)
        other = await ask(hub, *reversed(names), function="ring", messages=True)
        for asked in (task, other):
            async with asyncio.timeout(30):
                results = {result.organization: result.value for result in await asked.wait(progress=False)}
            assert results == {"Alpha": 3, "Beta": 1, "Gamma": 2}


async def test_message_of_a_run_that_has_ended_meanwhile_is_stored_before_the_end_is_told(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    send = attachment.Link.send

    def lose_messages(self: attachment.Link, frame: NodeFrame) -> None:
        if not frame.HasField("peer_message"):
            send(self, frame)

    async def tell(algorithm: Algorithm) -> None:
        if algorithm.context.organization.name == "Beta":
            await algorithm.send("Gamma", "the last word")
            await algorithm.result("sent")
        else:
            await algorithm.result(await algorithm.receive("Beta"))

    engine.functions = {"tell": tell}
    monkeypatch.setattr(attachment.Link, "send", lose_messages)
    async with stations.station("Gamma", engine=Engine({"tell": tell})):
        async with stations.station("Beta", engine=engine) as beta:
            task = await ask(hub, "Beta", "Gamma", function="tell", messages=True)
            journal = beta.stations[0].station.journal

            async def beta_has_ended() -> bool:
                return any(record.ended for record in await journal.transact(records.uncommitted_runs))

            await until(beta_has_ended)
        monkeypatch.setattr(attachment.Link, "send", send)
        async with stations.station("Beta", engine=engine), asyncio.timeout(30):
            results = {result.organization: result.value for result in await task.wait(progress=False)}
    assert results == {"Beta": "sent", "Gamma": "the last word"}
