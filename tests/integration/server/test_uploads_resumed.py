"""Uploads over connections that are cut at any byte: what was there is not sent again, and what comes is what was sent."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot.transport.channel import ServerAddress, open_channel
from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.transport.payloads import download, upload
from folkmoot.trust import BytesSource
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from tests.builders import world
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.integration.harness import Clock, server, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task

PARTS = 3
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


@pytest.mark.parametrize(
    "cut_at",
    [1, 5_000, PART_BYTES // 2, PART_BYTES + FRAME_BYTES, 2 * PART_BYTES + 77, PARTS * PART_BYTES + 100],
)
async def test_after_a_cut_at_any_byte_only_what_was_on_its_way_is_sent_again(
    hub: Hub, between: FaultyProxy, cut_at: int
) -> None:
    sealed = task(hub.lung, ("Beta",), content=os.urandom(PARTS * PART_BYTES))
    digest, size_bytes = sealed.spec.inputs[0].envelope_digest, len(sealed.envelope)
    between.cut_after_bytes_up = cut_at
    channel = open_channel(ServerAddress(f"127.0.0.1:{between.port}", None, insecure=True))
    async with channel:
        stub = PayloadServiceStub(channel)
        await upload(stub, BytesSource(sealed.envelope), digest, metadata=lambda: hub.ada)
        assert between.cuts == 1
        # The part that was on its way, and the one before it if that was not durable yet.
        lost = PART_BYTES if cut_at < PART_BYTES else 2 * PART_BYTES
        assert between.bytes_up < (size_bytes + lost) * OVERHEAD
        await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
        between.cut_after_bytes_down = cut_at
        came = [data async for data in download(stub, digest, metadata=lambda: hub.ada)]
    assert b"".join(came) == sealed.envelope
    assert between.cuts == 2
