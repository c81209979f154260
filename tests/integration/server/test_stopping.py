"""A server that stops waits for what is under way, and not for who reads nothing."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio

from folkmoot.transport.channel import CHANNEL_OPTIONS
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub
from tests.builders import world
from tests.integration.harness import server, utc_now
from tests.integration.server.links import PATIENCE_SECONDS, Stream, hello
from tests.integration.server.sealed import task

MORE_THAN_A_CONNECTION_HOLDS = 60


async def test_a_node_that_reads_nothing_does_not_keep_a_server_from_stopping(tmp_path: Path) -> None:
    async with server(tmp_path / "data", drain_seconds=600.0, calls_per_second=0.0) as s:
        lung = world(now=utc_now())
        account = (await s.publish(lung))["Alpha"].organization_account_id
        ada = await s.user("ada@alpha", account, ["Researcher"])
        trusted = grpc.ssl_channel_credentials(s.running.certificate_authority)
        options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(s.running.address, trusted, options=options) as channel:
            link = Stream(TaskServiceStub(channel), await s.node_metadata(lung, "Beta", "beta-1"))
            await link.send(hello(lung, lung["Beta"].nodes["beta-1"].fingerprint))
            for _ in range(MORE_THAN_A_CONNECTION_HOLDS):
                await s.tasks.CreateTask(task(lung, ("Beta",), content=bytes(200_000)).request(), metadata=ada.metadata)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await s.running.stop()
