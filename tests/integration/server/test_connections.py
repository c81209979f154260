"""How connections live and end: probes, age, a server that stops while streams of every kind are open."""

import asyncio
import hashlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from folkmoot.transport import keepalive
from folkmoot.transport.channel import CHANNEL_OPTIONS, SERVER_OPTIONS
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import task_service_pb2 as pb
from tests.builders import world
from tests.integration.harness import reason, refused, server, utc_now
from tests.integration.network import network
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import task
from tests.integration.test_restore import TABLE, average
from tests.polling import until

# ---- probes --------------------------------------------------------------------------------------------------------

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
PING = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8)
PING_KIND, GOAWAY_KIND, ACKNOWLEDGED = 6, 7, 1
PINGS = 20


def answers_to_many_pings(port: int) -> tuple[int, bool]:
    """Ping without a pause, as no client of ours does; return how many were answered, and whether it said GOAWAY or hung up."""
    answered = 0
    with socket.create_connection(("127.0.0.1", port), 20) as connection, connection.makefile("rb") as frames:
        try:
            connection.sendall(PREFACE + SETTINGS)
            for sent in range(PINGS, 4 * PINGS, PINGS):
                connection.sendall(PING * PINGS)
                while answered < sent:
                    head = frames.read(9)
                    if len(head) < 9 or head[3] == GOAWAY_KIND:
                        return answered, True
                    frames.read(int.from_bytes(head[:3]))
                    answered += head[3] == PING_KIND and head[4] == ACKNOWLEDGED
        except ConnectionError:
            return answered, True
    return answered, False


@pytest.mark.parametrize(
    ("options", "expected"), [(SERVER_OPTIONS, (3 * PINGS, False)), ((), None)], ids=["ours", "default"]
)
async def test_nobody_is_thrown_out_for_too_many_pings(options, expected):
    bare = grpc.aio.server(options=options)
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    try:
        answered, thrown_out = await asyncio.to_thread(answers_to_many_pings, port)
    finally:
        await bare.stop(None)
    if expected:
        assert (answered, thrown_out) == expected
    else:
        assert thrown_out, "a server without our options throws out, else this test would show nothing"


FROZEN_SERVER = """
import time, grpc, concurrent.futures
server = grpc.server(concurrent.futures.ThreadPoolExecutor())
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
time.sleep(600)
"""


async def test_peer_that_froze_is_noticed_by_its_silence():
    """With the options of every channel, only sooner: a call that waits is not left waiting."""
    command = (sys.executable, "-c", FROZEN_SERVER)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    target = f"127.0.0.1:{int(await process.stdout.readline())}"
    options = tuple({**dict(CHANNEL_OPTIONS), **dict(keepalive.probing(1.0, 0.5))}.items())
    try:
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            await channel.channel_ready()
            process.send_signal(signal.SIGSTOP)
            call: Any = channel.unary_unary("/a/b")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"")
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    finally:
        process.kill()
        await process.wait()


# ---- age -----------------------------------------------------------------------------------------------------------


async def test_watch_ends_politely_when_it_is_too_old(tmp_path: Path):
    async with server(tmp_path, max_connection_age_minutes=0.01) as s:
        lung = world(now=utc_now())
        await s.publish(lung)
        async with attached(s, lung, "Beta") as beta:
            error = await refused(beta.link.receive())
        assert (reason(error), error.code) == ("SHUTTING_DOWN", grpc.StatusCode.UNAVAILABLE)
        assert not await s.events("node.denied")


async def aged(channel: grpc.aio.Channel) -> None:
    """Wait until the server has told that the connection is as old as connections get."""
    async with asyncio.timeout(20):
        while (state := channel.get_state()) == grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(state)


@pytest.mark.parametrize("grace", [(), (("grpc.max_connection_age_grace_ms", 1),)], ids=["ours", "no grace"])
async def test_calls_that_are_under_way_when_a_connection_is_too_old_end_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: keepalive.Options
):
    """A unary call that takes long, and an upload: both began before the connection was told to end, and end after."""
    ageing = keepalive.ageing
    monkeypatch.setattr(keepalive, "ageing", lambda seconds: (*ageing(seconds), *grace))
    go_on, listing, lung = asyncio.Event(), asyncio.Event(), world(nodes=False, now=utc_now())
    async with server(tmp_path) as before:
        of_alpha = (await before.publish(lung))["Alpha"].organization_account_id
        ada = await before.user("ada", of_alpha, ["Researcher"])
    async with server(tmp_path, max_connection_age_minutes=0.02) as s:
        read = s.running.core.store.read

        async def slowly(operation: Any) -> Any:
            if not go_on.is_set():
                listing.set()
                await go_on.wait()
            return await read(operation)

        sealed = task(lung, ("Beta",), content=os.urandom(FRAME_BYTES))
        content, digest = sealed.envelope, sealed.spec.inputs[0].envelope_digest
        begun = payloads.ListMissingPartsRequest(envelope_digest=digest, size_bytes=len(content))
        await s.payloads.ListMissingParts(begun, metadata=ada.metadata)

        async def messages() -> AsyncIterator[payloads.UploadPartRequest]:
            yield payloads.UploadPartRequest(header=payloads.PartHeader(envelope_digest=digest, part_number=0))
            yield payloads.UploadPartRequest(data=content[: len(content) // 2])
            await go_on.wait()
            yield payloads.UploadPartRequest(data=content[len(content) // 2 :])
            yield payloads.UploadPartRequest(digest=hashlib.sha256(content).digest())

        uploading = asyncio.ensure_future(s.payloads.UploadPart(messages(), metadata=ada.metadata))
        monkeypatch.setattr(s.running.core.store, "read", slowly)
        waiting = asyncio.ensure_future(s.tasks.ListTasks(pb.ListTasksRequest(), metadata=ada.metadata))
        await listing.wait()
        await aged(s.channel)
        if grace:
            assert (await refused(waiting)).code == grpc.StatusCode.UNAVAILABLE, "else this test would show nothing"
            go_on.set()
            await refused(uploading)
        else:
            go_on.set()
            await waiting
            await uploading
            assert not (await s.payloads.ListMissingParts(begun, metadata=ada.metadata)).missing_parts


async def test_nodes_attach_again_at_every_age_and_lose_nothing(tmp_path: Path):
    """Connections last a second here; tasks are made, computed and watched all the while."""
    data = dict.fromkeys(("Alpha", "Beta"), TABLE)
    async with network(tmp_path, data=data, max_connection_age_minutes=1 / 60) as net, net.client("Alpha") as client:

        async def attached_again(times: int) -> bool:
            return len(await net.server.events("node.attach")) >= times * len(data)

        values = []
        for round_number in (2, 3, 4):
            made = await average(client, ["Alpha", "Beta"])
            values += [result.value for result in await made.wait(progress=False)]
            await until(partial(attached_again, round_number), "both nodes have attached again")
        assert values == [values[0]] * 6
        runs = [event for event in await net.server.events() if event.intent == "run.commit"]
        assert len(runs) == len(values), "no run was executed or committed twice"


# ---- a server that stops -------------------------------------------------------------------------------------------


async def test_stop_lets_uploads_end_and_sends_everybody_else_away(hub: Hub):
    sealed = task(hub.lung, ("Beta",), content=os.urandom(FRAME_BYTES))
    small = task(hub.lung, ("Beta",))
    await hub.create(small)
    half_way, go_on = asyncio.Event(), asyncio.Event()
    content, digest = sealed.envelope, sealed.spec.inputs[0].envelope_digest

    async def messages() -> AsyncIterator[payloads.UploadPartRequest]:
        yield payloads.UploadPartRequest(header=payloads.PartHeader(envelope_digest=digest, part_number=0))
        yield payloads.UploadPartRequest(data=content[: len(content) // 2])
        half_way.set()
        await go_on.wait()
        yield payloads.UploadPartRequest(data=content[len(content) // 2 :])
        yield payloads.UploadPartRequest(digest=hashlib.sha256(content).digest())

    await hub.server.payloads.ListMissingParts(
        payloads.ListMissingPartsRequest(envelope_digest=digest, size_bytes=len(content)), metadata=hub.ada
    )
    async with attached(hub.server, hub.lung, "Gamma") as gamma:
        watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=small.task_id), metadata=hub.ada)
        await watching.read()
        uploading = asyncio.ensure_future(hub.server.payloads.UploadPart(messages(), metadata=hub.ada))
        await half_way.wait()
        await until(lambda: hub.server.running._guard._at_work == 3, "the upload has come in, too")
        stopping = asyncio.create_task(hub.server.running.stop(20.0))
        await gamma.next("drain")
        assert reason(await refused(gamma.link.receive())) == "SHUTTING_DOWN"
        assert reason(await refused(watching.read())) == "SHUTTING_DOWN"
        go_on.set()
        await uploading
        await stopping
