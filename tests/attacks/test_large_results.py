"""A result of two gigabytes: it ends at the policy's limit, and the node neither grows nor keeps any of it."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import grpc
import grpc.aio
import psutil
import pytest
import structlog

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.service import Proxy
from folkmoot.transport import error_from_rpc
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.trust import FolkmootError
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub
from tests.integration.node.conftest import directory
from tests.unit.node.conftest import MakeStation, lung, make_station
from tests.unit.node.test_runs import POLICY_WITH_SMALL_RESULTS, MakeRun, make_run, sent

__all__ = ["directory", "lung", "make_run", "make_station", "sent"]

MIB = 1 << 20
RUN = "0123456789ab"
LIMIT = 200 * MIB


def write(socket: Path, frames: Iterator[pb.WriteResultRequest]) -> None:
    """Write a result as the toolkit does: grpc's asynchronous client would not always hear why it may not go on writing."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            ProxyServiceStub(channel).WriteResult(frames)
        except grpc.RpcError as error:
            raise error_from_rpc(cast("grpc.aio.AioRpcError", error)) from None


async def test_a_result_of_two_gigabytes_ends_at_the_limit_in_little_memory(
    make_run: MakeRun, make_station: MakeStation, directory: Path
):
    policy = POLICY_WITH_SMALL_RESULTS.replace("1999", str(LIMIT))
    assert policy != POLICY_WITH_SMALL_RESULTS
    run = await make_run(station=make_station(policy=policy))
    proxy, tables, node = Proxy(), SourceTables({}), psutil.Process()
    produced, largest = 0, 0

    def frames() -> Iterator[pb.WriteResultRequest]:
        nonlocal produced, largest
        yield pb.WriteResultRequest(head=pb.ResultHead(content_type="application/octet-stream"))
        data, digest = bytes(FRAME_BYTES), hashlib.sha256()
        while produced < 2 << 30:
            produced += len(data)
            largest = max(largest, node.memory_info().rss)
            digest.update(data)
            yield pb.WriteResultRequest(data=data)
        yield pb.WriteResultRequest(digest=digest.digest())

    await proxy.open(run, tables, directory / RUN)
    before = node.memory_info().rss
    try:
        with pytest.raises(FolkmootError) as told, structlog.testing.capture_logs() as logs:
            await asyncio.to_thread(write, directory / RUN / "proxy.sock", frames())
    finally:
        await proxy.close(RUN)
        await tables.close()
    assert told.value.reason == ErrorReason.ERROR_REASON_TOO_LARGE
    [refused] = [each for each in logs if each["event"] == "proxy.refused"]
    assert (refused["call"], refused["reason"]) == ("WriteResult", "ERROR_REASON_TOO_LARGE")
    assert LIMIT < produced < 2 * LIMIT
    assert largest - before < 100 * MIB
    assert list((run.station.directory / "outbox").iterdir()) == []
    assert not run.record.ended
