"""A server whose answers are no messages: a clear error, never a fault."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from folkmoot.client import AsyncClient, FolkmootError
from folkmoot.client.logins import PasswordLogin
from folkmoot.client.session import Session
from folkmoot.transport import ServerAddress
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.auth_service_pb2 import LoginResponse, Tokens
from folkmoot.v1.task_service_pb2 import GetTaskRequest, WatchTaskRequest
from tests.builders import world

JUNK = b"\xff\xff\xff\xff"


class Junk(grpc.GenericRpcHandler):
    """Lets everybody in, and says nothing that makes sense afterwards."""

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method.rpartition("/")[2]

        async def answer(_request: bytes, _context: Any) -> bytes:
            known = LoginResponse(tokens=Tokens(access_token="a", refresh_token="b"))
            return known.SerializeToString() if method == "Login" else JUNK

        async def stream(_request: bytes, _context: Any) -> AsyncIterator[bytes]:
            while True:
                yield JUNK

        if method in ("GetLedger", "WatchTask"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
async def target() -> AsyncIterator[str]:
    running = grpc.aio.server(handlers=[Junk()])
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    yield f"127.0.0.1:{port}"
    await running.stop(None)


async def test_unary_answer(target: str):
    async with Session(ServerAddress(target, insecure=True), PasswordLogin("ada", "secret")) as session:
        with pytest.raises(FolkmootError, match="no message") as refused:
            await session.call(session.tasks.GetTask, GetTaskRequest())
    assert refused.value.reason == reasons.ERROR_REASON_MALFORMED


async def test_stream(target: str):
    async def request() -> WatchTaskRequest:
        return WatchTaskRequest()

    async with Session(ServerAddress(target, insecure=True), PasswordLogin("ada", "secret")) as session:
        with pytest.raises(FolkmootError, match="no message") as refused:
            async for _ in session.follow(session.tasks.WatchTask, request):
                pass
    assert refused.value.reason == reasons.ERROR_REASON_MALFORMED


async def test_ledger_without_end(target: str, tmp_path: Any):
    reference = str(world(("Alpha",), nodes=False).state.reference)
    async with AsyncClient(
        reference, server=target, username="ada", password="secret", insecure=True, state_directory=tmp_path
    ) as client:
        with pytest.raises(FolkmootError, match="can't be read") as refused:
            await client.organizations
    assert refused.value.reason == reasons.ERROR_REASON_LEDGER_ENTRY_INVALID
