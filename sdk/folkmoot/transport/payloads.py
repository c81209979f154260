"""Payload transfer: envelopes of any size, in parts, resumed where they broke off, never limited by total time.

`upload` returns when every part is durable at the server; `download` when every byte is at the sink. Both use at most a few frames
of memory.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Protocol

import grpc
import grpc.aio

from folkmoot.transport import timeouts
from folkmoot.transport.calls import pause_after, retrying
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.v1 import payload_service_pb2, payload_service_pb2_grpc

PARTS_AT_ONCE = 2
"""While one part is made durable there, the next one is on its way: only one is, so that a cut costs that, and the one before at most."""

Metadata = tuple[tuple[str, str], ...]


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
    begin = payload_service_pb2.ListMissingPartsRequest(envelope_digest=envelope_digest, size_bytes=source.size_bytes)
    attempt, missing = 0, 0
    while True:
        state = await retrying(lambda: stub.ListMissingParts(begin, metadata=metadata(), timeout=timeouts.CALL_SECONDS))
        if not state.missing_parts:
            return
        if len(state.missing_parts) < missing:
            attempt = 0
        missing = len(state.missing_parts)
        way = asyncio.Lock()
        parts = (
            _upload_part(stub, source, envelope_digest, number, state.part_size_bytes, metadata, way)
            for number in state.missing_parts
        )
        try:
            await _side_by_side(parts)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            attempt += 1
            await asyncio.sleep(pause_after(attempt, error))


async def _side_by_side(parts: Iterator[Coroutine[Any, Any, None]]) -> None:
    """Upload parts, a few at a time; the first failure ends the others."""

    async def send() -> None:
        for part in parts:
            await part

    senders = [asyncio.create_task(send()) for _ in range(PARTS_AT_ONCE)]
    try:
        await asyncio.gather(*senders)
    finally:
        for sender in senders:
            sender.cancel()
        await asyncio.wait(senders)


async def _upload_part(
    stub: "payload_service_pb2_grpc.PayloadServiceAsyncStub",
    source: Source,
    envelope_digest: bytes,
    number: int,
    part_size_bytes: int,
    metadata: Callable[[], Metadata],
    way: asyncio.Lock,
) -> None:
    begin = number * part_size_bytes
    end = min(begin + part_size_bytes, source.size_bytes)
    digest = hashlib.sha256()

    def read(offset: int) -> bytes:
        data = source.read_at(offset, min(FRAME_BYTES, end - offset))
        digest.update(data)
        return data

    def stir() -> None:
        idle.reschedule(asyncio.get_running_loop().time() + timeouts.IDLE_SECONDS)

    async with way, asyncio.timeout(timeouts.IDLE_SECONDS) as idle:
        call = stub.UploadPart(metadata=metadata())
        try:
            header = payload_service_pb2.PartHeader(envelope_digest=envelope_digest, part_number=number)
            await call.write(payload_service_pb2.UploadPartRequest(header=header))
            for offset in range(begin, end, FRAME_BYTES):
                data = await asyncio.to_thread(read, offset)
                await call.write(payload_service_pb2.UploadPartRequest(data=data))
                stir()
            await call.write(payload_service_pb2.UploadPartRequest(digest=digest.digest()))
            await call.done_writing()
        except asyncio.InvalidStateError:
            pass  # The server has ended the call: awaiting it says why.
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INTERNAL:
                raise
            # The library's own words for a connection that broke while it was written to; it knows no better status then.
            raise TimeoutError("the connection broke") from error
    async with asyncio.timeout(timeouts.IDLE_SECONDS):
        await call
    failpoint("upload.part_sent")


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
                yield message.data
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            attempt += 1
            await asyncio.sleep(pause_after(attempt, error))
        finally:
            call.cancel()
