"""PayloadService: envelopes that are too large to ride along, part by part."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

import grpc.aio
from sqlalchemy import Connection

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.audit.usage import Fetched
from folkmoot.server.core import Core
from folkmoot.server.payloads.parts import PayloadDamaged, part_bytes, part_count
from folkmoot.server.payloads.stores import PayloadStore
from folkmoot.server.store import payload_rows, removal_rows
from folkmoot.server.store.payload_rows import Place
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.store.task_tables import payloads as payload_table
from folkmoot.server.tasks.deletion import Removals
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.transport.timeouts import HEARTBEAT_SECONDS, IDLE_SECONDS
from folkmoot.trust import BytesSource, EnvelopeRejected, Malformed, Source, inspect
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceServicer

Answer = TypeVar("Answer")
Context = grpc.aio.ServicerContext[Any, Any]

LARGEST_BYTES = 1 << 40
READERS = 32
"""Threads that wait for the store: of their own, so that a slow one keeps nobody else waiting."""


class PayloadService(PayloadServiceServicer):
    """Takes and hands out sealed bytes."""

    def __init__(self, core: Core, store: PayloadStore, removals: Removals, fetched: Fetched) -> None:
        self._core = core
        self._fetched = fetched
        self._store = store
        self._removals = removals
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="payload-readers")
        self._finishing: defaultdict[bytes, set[asyncio.Task[None]]] = defaultdict(set)
        """Parts of which all has come, by envelope."""

    # ---- up --------------------------------------------------------------------------------------------------------

    async def ListMissingParts(
        self, request: payloads.ListMissingPartsRequest, _rpc: Context
    ) -> payloads.ListMissingPartsResponse:
        digest, size_bytes = request.envelope_digest, request.size_bytes
        if size_bytes > LARGEST_BYTES:
            text = f"A payload has at most {LARGEST_BYTES} bytes, not {size_bytes}"
            raise FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)
        sender, now, quota = _organization(), self._core.clock(), self._core.quota
        wanted = await self._core.store.write(
            lambda connection: payload_rows.begin(
                connection, digest, size_bytes, sender_organization_id=sender, now=now, quota=quota
            )
        )
        missing = await self._missing(digest, size_bytes) if wanted else []
        if wanted and not missing:
            await self._complete(digest)
        return payloads.ListMissingPartsResponse(missing_parts=missing, part_size_bytes=PART_BYTES)

    async def _missing(self, digest: bytes, size_bytes: int) -> list[int]:
        """Return which parts are to be sent; one that is all here, though its sender may not know it, is waited for."""
        if finishing := self._finishing.get(digest):
            await asyncio.wait(finishing)
        there = await self._store.parts(digest, part_count(size_bytes))
        return [number for number in range(part_count(size_bytes)) if number not in there]

    async def UploadPart(
        self, request: AsyncIterator[payloads.UploadPartRequest], rpc: Context
    ) -> payloads.UploadPartResponse:
        part = _PartStream(request, lambda: rpc.send_initial_metadata(()))
        try:
            await self._take(part)
        except FolkmootError:
            await part.drain()
            raise
        return payloads.UploadPartResponse()

    async def _take(self, part: "_PartStream") -> None:
        header = await part.header()
        digest, number = header.envelope_digest, header.part_number
        row = await self._row(digest)
        if row is None or row.deleted_at is not None or row.sender_organization_id != _organization():
            raise payload_rows.not_found(digest, "Nobody of your organization has begun to upload this payload")
        if number >= part_count(row.size_bytes):
            raise Malformed(f"A payload of {row.size_bytes} bytes has no part {number}")
        if row.completed_at is not None:
            await part.drain()
            return
        await self._finish(part, digest, asyncio.create_task(self._store_part(part, row, number)))
        is_last = number == part_count(row.size_bytes) - 1  # of many, not each asks which ones are there
        if is_last and not await self._missing(digest, row.size_bytes):
            await self._complete(digest)

    async def _finish(self, part: "_PartStream", digest: bytes, storing: "asyncio.Task[None]") -> None:
        """Wait until a part is stored. If its sender goes when all of it is here, it is stored nevertheless."""
        part.when_all_came = lambda: self._finishing[digest].add(storing)
        storing.add_done_callback(lambda _: self._forget_finishing(digest, storing))
        try:
            await asyncio.shield(storing)
        except asyncio.CancelledError:
            if not part.has_come:
                storing.cancel()
                await asyncio.wait([storing])
            raise

    def _forget_finishing(self, digest: bytes, storing: "asyncio.Task[None]") -> None:
        self._finishing[digest].discard(storing)
        if not self._finishing[digest]:
            del self._finishing[digest]
        if not storing.cancelled():
            storing.exception()  # whoever sent it is told, if he is still there

    async def _store_part(self, part: "_PartStream", row: AnyRow, number: int) -> None:
        digest, expected_bytes = bytes(row.envelope_digest), part_bytes(row.size_bytes, number)
        try:
            await self._store.write_part(
                digest, number, part.frames(), lambda size, found: part.check(size, found, expected_bytes)
            )
        except FileNotFoundError:
            if await self._is_begun(digest):
                raise
        else:
            if await self._is_begun(digest):
                return
        now = self._core.clock()
        await self._core.store.write(lambda connection: removal_rows.came_too_late(connection, row, now=now))
        self._removals.hurry()
        found = await self._row(digest)
        if found is None or found.deleted_at is not None:
            raise payload_rows.not_found(digest, "The upload was given up meanwhile; begin it again")

    async def _is_begun(self, digest: bytes) -> bool:
        """Whether parts of an envelope have a place: it was not given up, and did not ride along meanwhile."""
        row = await self._row(digest)
        return row is not None and row.deleted_at is None and not row.inline

    async def _complete(self, digest: bytes) -> None:
        """Take a payload whose parts are all there for complete, if it is what its name says.

        Parts arrive side by side, at several instances, so that more than one may find itself the last.
        """
        row = await self._row(digest)
        if row is None or row.deleted_at is not None:
            raise payload_rows.not_found(digest, "The upload was given up meanwhile; begin it again")
        if row.completed_at is not None:
            return
        try:
            place = await self._in_reader(self._inspect, digest, row.size_bytes)
        except FileNotFoundError as error:
            raise payload_rows.not_found(digest, "The upload was given up meanwhile; begin it again") from error
        except (EnvelopeRejected, PayloadDamaged) as error:
            if isinstance(error, PayloadDamaged):
                self._damaged(digest, error)
            await self._give_up(digest)
            raise
        now = self._core.clock()
        failpoint("server.payload.checked")
        data = {"envelope_digest": digest.hex(), "size_bytes": row.size_bytes}
        record = events.prepare(intent="payload.upload", data=data, now=now)

        def work(connection: Connection) -> None:
            if payload_rows.complete(connection, digest, place, now=now):
                record(connection)

        await self._core.store.write(work)

    async def _give_up(self, digest: bytes) -> None:
        """Forget an upload that turned out to be something else; whoever wants it begins anew."""
        now = self._core.clock()
        here = (payload_table.c.envelope_digest == digest, payload_table.c.completed_at.is_(None))
        await self._core.store.write(
            lambda connection: removal_rows.delete_payloads(connection, *here, now=now, quota=self._core.quota)
        )
        await self._removals.remove(digest)

    def _inspect(self, digest: bytes, size_bytes: int) -> Place:
        # Checked by what is read itself: the name is the hash of the trailer, which has the header's.
        with self._store.open(digest, size_bytes, checked=False) as source:
            inspected = inspect(source)
        if inspected.digest != digest:
            raise EnvelopeRejected("the parts make up another envelope than they were named for")
        return Place.of(inspected)

    async def _in_reader(self, work: Callable[..., Answer], *arguments: object) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work, *arguments)

    async def _row(self, digest: bytes) -> AnyRow | None:
        return await self._core.store.read(lambda connection: payload_rows.find(connection, digest))

    # ---- down ------------------------------------------------------------------------------------------------------

    async def DownloadPayload(
        self, request: payloads.DownloadPayloadRequest, _rpc: Context
    ) -> AsyncIterator[payloads.DownloadPayloadResponse]:
        digest = request.envelope_digest
        row = await self._readable(digest)
        if row.inline:
            small = await self._core.store.read(lambda connection: payload_rows.inline_bytes(connection, digest))
            if small is None:
                await self._readable(digest)  # it was deleted meanwhile
                return
            async for data in self._counted(BytesSource(small), request.offset):
                yield payloads.DownloadPayloadResponse(data=data)
            return
        with self._store.open(digest, row.size_bytes) as source:
            try:
                async for data in self._counted(source, request.offset):
                    yield payloads.DownloadPayloadResponse(data=data)
            except FileNotFoundError as error:
                await self._readable(digest)  # deleted meanwhile?
                raise self._damaged(
                    digest, PayloadDamaged(f"a part of {digest.hex()} is gone from the store")
                ) from error
            except PayloadDamaged as error:
                raise self._damaged(digest, error) from error

    async def _counted(self, source: Source, offset: int) -> AsyncIterator[bytes]:
        async for data in self._frames(source, offset):
            self._fetched.count(_organization(), len(data))
            yield data

    async def _frames(self, source: Source, offset: int) -> AsyncIterator[bytes]:
        """Yield frames from an offset on; the next one is read while one is sent. An empty one says: it is still to come."""
        reading = asyncio.ensure_future(self._in_reader(source.read_at, offset, FRAME_BYTES))
        try:
            while True:
                while not (await asyncio.wait([reading], timeout=HEARTBEAT_SECONDS))[0]:
                    yield b""
                if not (frame := await reading):
                    return
                offset += len(frame)
                reading = asyncio.ensure_future(self._in_reader(source.read_at, offset, FRAME_BYTES))
                yield frame
        finally:
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.exception()  # nobody waits for that frame any more

    async def _readable(self, digest: bytes) -> AnyRow:
        row = await self._row(digest)
        if row is None or row.completed_at is None or not payload_rows.may_read(row, _organization()):
            raise payload_rows.not_found(digest, "There is no such payload for you, or not all of it")
        if row.deleted_at is not None:
            raise payload_rows.deleted(digest, row.deleted_at)
        return row

    def _damaged(self, digest: bytes, error: PayloadDamaged) -> PayloadDamaged:
        """Have the operator know: nobody else can mend it."""
        self._core.log.error("payload.damaged", envelope_digest=digest.hex(), cause=error.message)
        return error


def _organization() -> str:
    organization_id = context.caller().organization_id
    if not organization_id:
        text = "Your organization belongs to no collaboration yet, so that it has no payloads"
        raise FolkmootError(ErrorReason.ERROR_REASON_NOT_ALLOWED, text)
    return organization_id


class _PartStream:
    """The messages of one UploadPart: a header, bytes, the digest of the bytes. Silence ends it, duration doesn't."""

    def __init__(
        self, messages: AsyncIterator[payloads.UploadPartRequest], say_that_all_came: Callable[[], Awaitable[None]]
    ) -> None:
        self._messages = messages
        self._say_that_all_came = say_that_all_came
        self._digest = b""
        self.has_come = False
        """Whether all of it is here, and what its sender says it is."""
        self.when_all_came: Callable[[], None] = lambda: None

    async def header(self) -> payloads.PartHeader:
        message = await self._next()
        if message is None or not message.HasField("header"):
            raise Malformed("A part begins with its header")
        return message.header

    async def frames(self) -> AsyncIterator[bytes]:
        size_bytes = 0
        while (message := await self._next()) is not None:
            if self._digest or message.WhichOneof("frame") not in ("data", "digest"):
                raise Malformed("After a part's header come its bytes and then, last, its digest")
            if message.HasField("digest"):
                self._digest = message.digest
                continue
            size_bytes += len(message.data)
            if len(message.data) > FRAME_BYTES or size_bytes > PART_BYTES:
                raise Malformed(f"A frame has at most {FRAME_BYTES} bytes, a part {PART_BYTES}")
            yield message.data

    async def check(self, size_bytes: int, digest: bytes, expected_bytes: int) -> None:
        """Raise MALFORMED unless the part is as long as it must be and what its sender says it is; else tell him that it came."""
        if size_bytes != expected_bytes:
            raise Malformed(f"The part has {size_bytes} bytes, and must have {expected_bytes}")
        if digest != self._digest:
            raise Malformed("The part's bytes are not those that its digest names")
        self.has_come = True
        self.when_all_came()
        with suppress(asyncio.InvalidStateError, grpc.aio.BaseError, grpc.RpcError):  # he may be gone
            await self._say_that_all_came()

    async def drain(self) -> None:
        """Read what still comes of the part: a call that is answered earlier looks to its sender like a fault of gRPC."""
        size_bytes = 0
        while size_bytes <= PART_BYTES and (message := await self._next()) is not None:
            size_bytes += len(message.data)

    async def _next(self) -> payloads.UploadPartRequest | None:
        try:
            # A read that times out ends the whole call, which here is what is wanted.
            async with asyncio.timeout(IDLE_SECONDS):
                return await anext(self._messages, None)
        except TimeoutError as error:
            raise Malformed(f"The part broke off: nothing came for {IDLE_SECONDS:.0f} seconds") from error
