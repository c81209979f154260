"""Payload transfer: envelopes of any size, in parts, resumed where they broke off, never limited by total time.

`upload` returns when every part is durable at the server; `download` when every byte is at the sink. Both use at most a few frames
of memory. A part is sent when the server has all of the one before it, which it keeps whatever becomes of the connection, and makes
durable meanwhile: a cut at any byte costs one part at most.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import grpc
import grpc.aio

from folkmoot.transport import timeouts
from folkmoot.transport.calls import pause_after, retrying
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.v1 import payload_service_pb2, payload_service_pb2_grpc
from folkmoot.v1.payload_service_pb2 import ListMissingPartsResponse as Missing
from folkmoot.v1.payload_service_pb2 import UploadPartRequest as PartMessage

if TYPE_CHECKING:
    PartCall = grpc.aio.StreamUnaryCall[PartMessage, payload_service_pb2.UploadPartResponse]

Metadata = tuple[tuple[str, str], ...]

DURABLE_SECONDS = 10 * timeouts.IDLE_SECONDS
"""From a part's last byte until the server says that it is durable: it may keep payloads in a bucket that is far away and slow."""

MESSAGES_AHEAD = 3
"""So many frames are read and hashed before they can be sent: neither the disk nor the network waits for the other."""


class Source(Protocol):
    """Bytes that can be read anywhere; the trust package's envelope sources are such."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, length: int, /) -> bytes:
        """Those from an offset on."""


async def upload(
    stub: "payload_service_pb2_grpc.PayloadServiceAsyncStub",
    source: Source,
    envelope_digest: bytes,
    *,
    metadata: Callable[[], Metadata] = tuple,
) -> None:
    """Bring an envelope to the server, part by part; parts that are there already are not sent again.

    `metadata` gives the call metadata (the token) anew for every call. Raises RemoteError.
    """
    wish = payload_service_pb2.ListMissingPartsRequest(envelope_digest=envelope_digest, size_bytes=source.size_bytes)
    attempt = 0
    while True:
        state = await retrying(lambda: stub.ListMissingParts(wish, metadata=metadata(), timeout=timeouts.CALL_SECONDS))
        if not state.missing_parts:
            return
        calls: list[PartCall] = []
        try:
            async with aclosing(_made_ahead(_messages(source, envelope_digest, state))) as messages:
                for _ in state.missing_parts:
                    calls.append(stub.UploadPart(metadata=metadata()))
                    await _send(calls[-1], messages)
                    if len(calls) > 1:
                        await _durable(calls.pop(0))
                    attempt = 0
                await _durable(calls[0])
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            attempt += 1
            await asyncio.sleep(pause_after(attempt, error))
        finally:
            for call in calls:
                call.cancel()


async def _send(call: "PartCall", messages: AsyncIterator[PartMessage]) -> None:
    """Send a part; return when the server has all of it, as it says by the first metadata of its answer."""

    def stir() -> None:
        idle.reschedule(asyncio.get_running_loop().time() + timeouts.IDLE_SECONDS)

    try:
        async with asyncio.timeout(timeouts.IDLE_SECONDS) as idle:
            async for message in messages:
                await call.write(message)
                stir()
                if message.HasField("digest"):
                    break
            await call.done_writing()
    except asyncio.InvalidStateError as error:
        await call  # The server has ended the call: this says why.
        raise TimeoutError("the server did not want all of a part") from error
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.INTERNAL:
            raise
        # The library's own words for a connection that broke while it was written to; it knows no better status then.
        raise TimeoutError("the connection broke") from error
    async with asyncio.timeout(DURABLE_SECONDS):
        await call.initial_metadata()  # of a server that does not say so, with its answer
        if call.done():
            await call


async def _durable(call: "PartCall") -> None:
    async with asyncio.timeout(DURABLE_SECONDS):
        await call
    failpoint("upload.part_sent")


def _messages(source: Source, envelope_digest: bytes, state: Missing) -> Iterator[PartMessage]:
    """Yield the messages of all parts that are missing: of each its header, its bytes, and last its digest."""
    for number in state.missing_parts:
        header = payload_service_pb2.PartHeader(envelope_digest=envelope_digest, part_number=number)
        yield PartMessage(header=header)
        digest = hashlib.sha256()
        begin = number * state.part_size_bytes
        end = min(begin + state.part_size_bytes, source.size_bytes)
        for offset in range(begin, end, FRAME_BYTES):
            data = source.read_at(offset, min(FRAME_BYTES, end - offset))
            digest.update(data)
            yield PartMessage(data=data)
        yield PartMessage(digest=digest.digest())


async def _made_ahead(messages: Iterator[PartMessage]) -> AsyncGenerator[PartMessage, None]:
    """Yield messages that are made in a thread, a few of them before they are asked for."""
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
    coming = deque(loop.run_in_executor(thread, next, messages, None) for _ in range(MESSAGES_AHEAD))
    try:
        while (message := await coming.popleft()) is not None:
            coming.append(loop.run_in_executor(thread, next, messages, None))
            yield message
    finally:
        for each in coming:
            if not each.cancel():
                each.exception()  # nobody waits for that message any more
        thread.shutdown()  # at most one message is still being made, out of a source that may be closed next


async def download(
    stub: "payload_service_pb2_grpc.PayloadServiceAsyncStub",
    envelope_digest: bytes,
    *,
    offset: int = 0,
    metadata: Callable[[], Metadata] = tuple,
) -> AsyncIterator[bytes]:
    """Stream an envelope's bytes from an offset on, going on by itself after a cut. Raises RemoteError."""
    attempt = 0
    while True:
        request = payload_service_pb2.DownloadPayloadRequest(envelope_digest=envelope_digest, offset=offset)
        call = stub.DownloadPayload(request, metadata=metadata())
        try:
            while True:
                async with asyncio.timeout(timeouts.IDLE_SECONDS):
                    message = await call.read()
                if not isinstance(message, payload_service_pb2.DownloadPayloadResponse):
                    return
                offset += len(message.data)
                attempt = 0
                if message.data:  # else a sign of life: the server waits for what it reads from
                    yield message.data
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            attempt += 1
            await asyncio.sleep(pause_after(attempt, error))
        finally:
            call.cancel()
