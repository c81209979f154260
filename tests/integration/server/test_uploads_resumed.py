"""Up and down over connections that are cut at any byte: what was there is not sent again, and what comes is what was sent."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from folkmoot.server.payloads.stores import Check
from folkmoot.transport import timeouts
from folkmoot.transport.channel import ServerAddress, open_channel
from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.transport.payloads import download, upload
from folkmoot.trust import BytesSource
from folkmoot.v1 import payload_service_pb2 as pb
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from tests.builders import world
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.integration.harness import Clock, server, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task
from tests.integration.server.test_payloads import large_task, missing, part

PARTS = 2
OVERHEAD = 1.02
"""Of frames and acknowledgements on the way, to bytes of the payload."""


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    """A server without TLS, so that what goes over its connections can be counted."""
    clock = Clock()
    async with server(tmp_path / "data", clock=clock, insecure=True) as running:
        lung = world(now=utc_now())
        admins = await running.publish(lung)
        ada = await running.user("ada@alpha", admins["Alpha"].organization_account_id, ["Researcher"])
        yield Hub(running, lung, clock, admins, {"Alpha": ada})


@pytest.fixture
async def between(hub: Hub) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(int(hub.server.running.address.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture
async def stub(between: FaultyProxy) -> AsyncIterator[Any]:
    """Calls that go through the proxy."""
    async with open_channel(ServerAddress(f"127.0.0.1:{between.port}", None, insecure=True)) as channel:
        yield PayloadServiceStub(channel)


EDGES = (1, 5_000, PART_BYTES - 1, PART_BYTES, PART_BYTES + FRAME_BYTES, 2 * PART_BYTES + 77, PARTS * PART_BYTES)
ANYWHERE = tuple(random.Random(8).randrange(1, PARTS * PART_BYTES) for _ in range(5))


async def test_after_a_cut_at_any_byte_one_part_at_most_is_sent_again_up_and_down(
    hub: Hub, between: FaultyProxy, stub: Any
) -> None:
    for cut_at in (*EDGES, *ANYWHERE):
        sealed = task(hub.lung, ("Beta",), content=os.urandom(PARTS * PART_BYTES))
        digest, size_bytes = sealed.spec.inputs[0].envelope_digest, len(sealed.envelope)
        between.cuts = between.bytes_up = between.bytes_down = 0
        between.cut_after_bytes_up = cut_at
        await upload(stub, BytesSource(sealed.envelope), digest, metadata=lambda: hub.ada)
        assert between.cuts == 1, cut_at
        assert between.bytes_up < (size_bytes + PART_BYTES) * OVERHEAD, cut_at
        await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
        between.cut_after_bytes_down = cut_at
        assert await fetched(stub, digest, hub) == sealed.envelope, cut_at
        assert between.cuts == 2, cut_at
        assert between.bytes_down < (size_bytes + PART_BYTES) * OVERHEAD, cut_at


async def fetched(stub: Any, digest: bytes, hub: Hub) -> bytes:
    return b"".join([data async for data in download(stub, digest, metadata=lambda: hub.ada)])


async def test_over_connections_that_are_all_cut_everything_gets_through_and_each_cut_costs_a_part_at_most(
    hub: Hub, between: FaultyProxy, stub: Any
) -> None:
    sealed = task(hub.lung, ("Beta",), content=os.urandom(PARTS * PART_BYTES))
    digest, size_bytes = sealed.spec.inputs[0].envelope_digest, len(sealed.envelope)
    between.cuts_again = True
    between.cut_after_bytes_up = PART_BYTES + FRAME_BYTES
    await upload(stub, BytesSource(sealed.envelope), digest, metadata=lambda: hub.ada)
    assert between.cuts >= 1
    assert between.bytes_up < (size_bytes + between.cuts * PART_BYTES) * OVERHEAD
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    between.cut_after_bytes_up, between.cut_after_bytes_down = None, PART_BYTES // 2
    between.cuts = 0
    assert await fetched(stub, digest, hub) == sealed.envelope
    assert between.cuts >= PARTS
    assert between.bytes_down < (size_bytes + between.cuts * PART_BYTES) * OVERHEAD


async def test_a_part_that_has_come_is_kept_though_its_sender_goes_before_it_is_durable(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, _ = large_task(hub)
    durable = asyncio.Event()
    store = hub.server.running.removals.store
    write_part = store.write_part

    async def slow(digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        async def came(size_bytes: int, found: bytes) -> None:
            await check(size_bytes, found)
            await durable.wait()

        await write_part(digest, number, frames, came)

    monkeypatch.setattr(store, "write_part", slow)
    await missing(hub, sealed)
    call = hub.server.payloads.UploadPart(part(sealed, 0), metadata=hub.ada)
    await call.initial_metadata()
    call.cancel()
    asked = asyncio.create_task(missing(hub, sealed))
    await hub.server.payloads.ListMissingParts(  # another envelope's uploads go on meanwhile
        pb.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=1), metadata=hub.ada
    )
    assert not asked.done()
    durable.set()
    assert await asked == [1, 2]


async def test_a_part_may_take_longer_to_become_durable_than_silence_may(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, digest = large_task(hub, FRAME_BYTES)
    loop, tries = asyncio.get_running_loop(), 0
    store = hub.server.running.removals.store
    write_part = store.write_part

    async def slow(digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        nonlocal tries
        tries += 1
        durable = asyncio.Event()

        async def came(size_bytes: int, found: bytes) -> None:
            await check(size_bytes, found)
            loop.call_later(2 * timeouts.IDLE_SECONDS, durable.set)
            await durable.wait()

        await write_part(digest, number, frames, came)

    monkeypatch.setattr(store, "write_part", slow)
    monkeypatch.setattr(timeouts, "IDLE_SECONDS", 1.0)
    await upload(hub.server.payloads, BytesSource(sealed.envelope), digest, metadata=lambda: hub.ada)
    assert tries == 1
