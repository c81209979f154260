"""Sessions under strain: silence, a full window, two instances, and what a stream survives."""

import asyncio
from typing import Any

import grpc.aio
import pytest

from folkmoot.server.context import Caller
from folkmoot.server.core import NodeKey
from folkmoot.server.nodes import dispatch, link, window
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.nodes.link import LinkSession
from folkmoot.server.rpc import task_service
from folkmoot.server.wakers.local import LocalWaker
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.admin_service_pb2 import Connection
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Heartbeat, NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import WaitReason
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Stream, attached, hello
from tests.integration.server.sealed import task
from tests.polling import until


async def next_frame(call: Any) -> ServerFrame:
    """Return the next frame of a stream, heartbeats included."""
    return (await call.read()).frame


async def test_a_stream_lives_on_through_heartbeats(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_service, "HEARTBEAT_SECONDS", 0.05)
    call = hub.tasks.Attach(metadata=await hub.node("Beta"))
    node_id = hub.lung["Beta"].nodes["beta-1"].fingerprint
    await call.write(pb.AttachRequest(frame=hello(hub.lung, node_id)))
    assert (await next_frame(call)).HasField("welcome")
    for _ in range(3):  # a read that was given up after an interval would have ended the stream
        assert (await next_frame(call)).HasField("heartbeat")
    await hub.create(task(hub.lung, ("Beta",)))
    while (frame := await next_frame(call)).HasField("heartbeat"):
        pass
    assert frame.HasField("assign")
    call.cancel()


@pytest.mark.parametrize("form", [Stream, Poll])
async def test_a_node_that_has_fallen_silent_is_away(hub: Hub, form: type, monkeypatch: pytest.MonkeyPatch) -> None:
    async with attached(hub.server, hub.lung, "Beta", form=form) as beta:
        monkeypatch.setattr(dispatch, "HEARTBEAT_SECONDS", 0.0)
        await hub.server.running.dispatch.sweep()
        await hub.settled()
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
        monkeypatch.undo()
        with pytest.raises((EOFError, grpc.aio.AioRpcError)):
            await beta.link.receive()


async def test_a_node_that_waits_in_exchange_is_not_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async with attached(hub.server, hub.lung, "Beta", form=Poll) as beta:
        monkeypatch.setattr(dispatch, "HEARTBEAT_SECONDS", 0.0)
        monkeypatch.setattr(dispatch, "SWEEP_SECONDS", 3600.0)
        session = hub.server.running.dispatch.find(caller(hub), beta.link.session_id)
        request = pb.ExchangeRequest(session_id=beta.link.session_id, wait_milliseconds=60_000)
        waiting = asyncio.ensure_future(hub.tasks.Exchange(request, metadata=await hub.node("Beta")))
        await until(session.turn.locked)
        await hub.server.running.dispatch.sweep()
        await hub.create(task(hub.lung, ("Beta",)))
        assert len((await waiting).frames) == 1


async def test_no_more_is_under_way_than_the_window_allows(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW", 2)
    made = [task(hub.lung, ("Beta",)) for _ in range(5)]
    for each in made:
        await hub.create(each)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        told = [(await beta.next("assign")).run_id for _ in range(2)]
        hub.lung.add_node("Gamma", "gamma-2")
        await hub.server.append(hub.lung.entries[-1], hub.admins["Gamma"])
        await beta.next("ledger_head")  # and no third assignment before it
        await beta.acknowledge()
        told += [(await beta.next("assign")).run_id for _ in range(2)]
        await beta.acknowledge()
        told.append((await beta.next("assign")).run_id)
    assert told == [each.run_id("Beta") for each in made]


async def test_a_stream_without_hello_is_given_up(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_service, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(link, "HEARTBEAT_SECONDS", 0.01)
    call = hub.tasks.Attach(metadata=await hub.node("Beta"))
    assert reason(await refused(call.read())) == "PROTOCOL_VIOLATION"


# ---- several instances ---------------------------------------------------------------------------------------------


def caller(hub: Hub) -> Caller:
    beta = hub.lung["Beta"]
    return Caller(
        options.CALLER_NODE,
        organization_id=beta.address,
        node_id=beta.nodes["beta-1"].fingerprint,
        genesis=hub.lung.genesis,
    )


async def begun(hub: Hub, instance: Dispatch) -> LinkSession:
    session = instance.open(caller(hub))
    await session.handle([hello(hub.lung, caller(hub).node_id)])
    return session


async def test_a_session_of_one_instance_ends_when_the_node_attaches_to_another(hub: Hub) -> None:
    core = hub.server.running.core
    here, there = Dispatch(core, LocalWaker()), Dispatch(core, LocalWaker())
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    older = await begun(hub, here)
    assert [frame.WhichOneof("frame") for frame in await older.next_frames(0)] == ["welcome", "assign"]
    newer = await begun(hub, there)
    assert newer.epoch == older.epoch + 1
    with pytest.raises(FolkmootError) as refused:
        await older.handle([NodeFrame(acknowledged=1, heartbeat=Heartbeat())])
    assert refused.value.reason == ErrorReason.ERROR_REASON_SESSION_REPLACED
    assert await hub.state(sealed, "Beta") == "PENDING"
    older.end()
    await here.settle()
    key = NodeKey(hub.lung.genesis, caller(hub).node_id)
    assert (await there.connections([key]))[key].connection == Connection.CONNECTION_ONLINE
    newer.end()
    await there.settle()
    assert (await there.connections([key]))[key].connection == Connection.CONNECTION_AWAY


async def test_a_stream_that_breaks_off_before_its_welcome_leaves_the_node_away(hub: Hub) -> None:
    instance = Dispatch(hub.server.running.core, LocalWaker())
    session = instance.open(caller(hub))
    beginning = asyncio.create_task(session.handle([hello(hub.lung, caller(hub).node_id)]))
    await asyncio.sleep(0)
    session.end()
    await beginning
    await instance.settle()
    key = NodeKey(hub.lung.genesis, caller(hub).node_id)
    assert (await instance.connections([key]))[key].connection == Connection.CONNECTION_AWAY
