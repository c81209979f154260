"""The hostile server: a real one, and in front of it whoever runs it, who reads, alters, replays, drops and invents as he likes.

    async with lying(server, data) as liar:                    # has the server's certificate and key, as its operator has
        ... a node or a client, connected to liar.target ...
        with liar.answers("Attach", lie):                      # each answer of the method passes through `lie`
            ...
        with liar.requests("CreateTask", lie): ...             # each request
        with liar.instead("CommitRun", answer): ...            # requests are answered here, and never reach the server

A lie takes a message and changes it, or returns those that go on in its place. Where nobody lies, bytes pass as they are.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from folkmoot.server import access
from folkmoot.transport.channel import SERVER_OPTIONS
from folkmoot.transport.status import abort
from folkmoot.trust import FolkmootError
from folkmoot.v1.task_service_pb2 import AttachRequest, AttachResponse
from tests.integration.harness import Server

Lie: TypeAlias = Callable[[Any], Iterable[Message] | None]
Answer: TypeAlias = Callable[[Any], Message | None]

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in access.FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
PATHS = {method.name: path for path, method in METHODS.items()}
PASSED_ON = "authorization"
END = None


@dataclass
class Liar(grpc.GenericRpcHandler):
    """A server for whoever connects here; what is behind it is the real one."""

    channel: grpc.aio.Channel
    target: str = ""
    _requests: dict[str, list[Lie]] = field(default_factory=lambda: defaultdict(list))
    _answers: dict[str, list[Lie]] = field(default_factory=lambda: defaultdict(list))
    _instead: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))

    def requests(self, method: str, lie: Lie) -> Any:
        """Lie to the server about what it is asked."""
        return _while(self._requests, method, lie)

    def answers(self, method: str, lie: Lie) -> Any:
        """Lie to who asks about what the server answers."""
        return _while(self._answers, method, lie)

    def instead(self, method: str, answer: Answer) -> Any:
        """Answer for the server, which never hears of it. None: a stream without messages. An error that `answer` raises is the answer."""
        return _while(self._instead, method, answer)

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        """What gRPC does with a call; every kind of method is a stream of bytes each way."""

        async def handle(
            requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
        ) -> AsyncIterator[bytes]:
            try:
                async for answer in self._pass_on(call, requests):
                    yield answer
            except FolkmootError as error:
                await abort(context, error)
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _pass_on(self, call: grpc.HandlerCallDetails, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        if instead := self._instead[call.method]:
            answer_for = instead[-1]
            async for request in requests:
                told = answer_for(_read(call.method, request, "input"))
                if told is not None:
                    yield told.SerializeToString()
            return
        metadata = tuple((key, value) for key, value in call.invocation_metadata if key == PASSED_ON)
        asked = self._told(call.method, requests, "input", self._requests)
        passing: Any = self.channel.stream_stream(call.method)
        stream = passing(asked, metadata=metadata)
        try:
            async for answer in self._told(call.method, stream, "output", self._answers):
                yield answer
        finally:
            stream.cancel()

    async def _told(
        self, path: str, messages: AsyncIterator[bytes], side: str, lies: dict[str, list[Lie]]
    ) -> AsyncIterator[bytes]:
        async for data in messages:
            if not lies[path]:
                yield data
                continue
            told = _alone(_read(path, data, side))
            for lie in lies[path]:
                told = [each for message in told for each in _after(lie, message)]
            for message in told:
                yield message.SerializeToString()


def _alone(message: Message) -> list[Message]:
    """The messages of a link with one frame each: lies are about frames."""
    if not isinstance(message, AttachRequest | AttachResponse):
        return [message]
    return [type(message)(frame=frame) for frame in (message.frame, *message.more)]


def _after(lie: Lie, message: Message) -> Iterable[Message]:
    """What a lie leaves of a message."""
    replaced = lie(message)
    return (message,) if replaced is None else replaced


def _read(path: str, data: bytes, side: str) -> Message:
    method = METHODS[path]
    return GetMessageClass(method.input_type if side == "input" else method.output_type).FromString(data)


@contextmanager
def _while(lies: dict[str, list[Any]], method: str, lie: Any) -> Iterator[None]:
    told = lies[PATHS[method]]
    told.append(lie)
    try:
        yield
    finally:
        told.remove(lie)


@asynccontextmanager
async def lying(server: Server, data: Path) -> AsyncIterator[Liar]:
    """Stand in front of a server, whose data folder this is."""
    tls = data / "tls"
    credentials = grpc.ssl_server_credentials(
        [((tls / "server-key.pem").read_bytes(), (tls / "server.pem").read_bytes())]
    )
    liar = Liar(server.channel)
    front = grpc.aio.server(handlers=(liar,), options=SERVER_OPTIONS)
    liar.target = f"127.0.0.1:{front.add_secure_port('127.0.0.1:0', credentials)}"
    await front.start()
    try:
        yield liar
    finally:
        await front.stop(0)
