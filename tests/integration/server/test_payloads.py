"""Large envelopes: uploaded part by part, resumed at a part, handed out to those whom they are for."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.server.payloads import parts
from folkmoot.server.payloads.folder import FolderStore
from folkmoot.server.payloads.uploads import forget_abandoned
from folkmoot.server.store import payload_rows, removal_rows
from folkmoot.server.store.task_tables import payloads as payload_table
from folkmoot.server.tasks.deletion import Removals
from folkmoot.transport import RemoteError
from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.transport.payloads import download, upload
from folkmoot.trust import BytesSource
from folkmoot.v1 import payload_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.harness import Metadata, reason, refused, server
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import SealedTask, task
from tests.polling import until


def large_task(hub: Hub, size_bytes: int = 2 * PART_BYTES + 5) -> tuple[SealedTask, bytes]:
    """Return a task whose input is of three parts, and the input's name."""
    sealed = task(hub.lung, ("Beta",), content=os.urandom(size_bytes))
    return sealed, sealed.spec.inputs[0].envelope_digest


async def put(hub: Hub, sealed: SealedTask, metadata: Metadata | None = None) -> None:
    digest = sealed.spec.inputs[0].envelope_digest
    await upload(hub.server.payloads, BytesSource(sealed.envelope), digest, metadata=lambda: metadata or hub.ada)


async def get(hub: Hub, digest: bytes, metadata: Metadata, offset: int = 0) -> bytes:
    return b"".join(
        [data async for data in download(hub.server.payloads, digest, offset=offset, metadata=lambda: metadata)]
    )


async def missing(hub: Hub, sealed: SealedTask, metadata: Metadata | None = None) -> list[int]:
    request = pb.ListMissingPartsRequest(
        envelope_digest=sealed.spec.inputs[0].envelope_digest, size_bytes=len(sealed.envelope)
    )
    answer = await hub.server.payloads.ListMissingParts(request, metadata=metadata or hub.ada)
    assert answer.part_size_bytes == PART_BYTES
    return list(answer.missing_parts)


def part(sealed: SealedTask, number: int, **changes: Any) -> AsyncIterator[pb.UploadPartRequest]:
    """Return the messages of one part; `changes` spoil them."""
    data = changes.get("data", sealed.envelope[number * PART_BYTES : (number + 1) * PART_BYTES])
    header = pb.PartHeader(envelope_digest=sealed.spec.inputs[0].envelope_digest, part_number=number)

    async def messages() -> AsyncIterator[pb.UploadPartRequest]:
        yield pb.UploadPartRequest(header=header)
        size = changes.get("frame_bytes", FRAME_BYTES)
        for offset in range(0, len(data), size):
            yield pb.UploadPartRequest(data=data[offset : offset + size])
        if changes.get("whole", True):
            yield pb.UploadPartRequest(digest=changes.get("digest", hashlib.sha256(data).digest()))

    return messages()


async def send(hub: Hub, messages: AsyncIterator[pb.UploadPartRequest], metadata: Metadata | None = None) -> None:
    await hub.server.payloads.UploadPart(messages, metadata=metadata or hub.ada)


# ---- up and down ---------------------------------------------------------------------------------------------------


async def test_a_large_input_is_uploaded_named_by_a_task_and_downloaded_by_its_node(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    beta = await hub.node("Beta")
    assert await get(hub, digest, beta) == sealed.envelope
    assert await get(hub, digest, beta, offset=PART_BYTES - 3) == sealed.envelope[PART_BYTES - 3 :]
    assert await get(hub, digest, beta, offset=len(sealed.envelope)) == b""
    [event] = await hub.server.events("payload.upload")
    assert digest.hex() in event.data


async def test_a_large_result_is_uploaded_and_then_committed(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    request = sealed.commit("Beta", content=os.urandom(PART_BYTES))
    digest, envelope = _result(request)
    request.envelope = b""
    beta = await hub.node("Beta")
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=beta))) == "PAYLOAD_NOT_FOUND"
    await upload(hub.server.payloads, BytesSource(envelope), digest, metadata=lambda: beta)
    assert reason(await refused(first_frame(hub, digest, hub.ada))) == "PAYLOAD_NOT_FOUND"  # nobody's yet
    run = (await hub.tasks.CommitRun(request, metadata=beta)).run
    assert run.state == RunState.RUN_STATE_COMPLETED
    assert run.result_size_bytes == len(envelope)
    assert await get(hub, digest, hub.ada) == envelope


def _result(request: Any) -> tuple[bytes, bytes]:
    from folkmoot.v1.task_pb2 import Receipt

    return Receipt.FromString(request.receipt.body).result_digest, request.envelope


async def test_a_small_envelope_is_downloaded_like_a_large_one(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    digest = sealed.spec.inputs[0].envelope_digest
    assert await get(hub, digest, await hub.node("Beta"), offset=7) == sealed.envelope[7:]


async def test_organizations_that_neither_sent_nor_receive_it_get_nothing(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    for stranger in (hub.researchers["Gamma"].metadata, await hub.node("Gamma")):
        assert reason(await refused(first_frame(hub, digest, stranger))) == "PAYLOAD_NOT_FOUND"
    assert reason(await refused(first_frame(hub, bytes(32), hub.ada))) == "PAYLOAD_NOT_FOUND"


async def first_frame(hub: Hub, digest: bytes, metadata: Metadata) -> None:
    request = pb.DownloadPayloadRequest(envelope_digest=digest)
    async for _ in hub.server.payloads.DownloadPayload(request, metadata=metadata):
        return


# ---- resumed -------------------------------------------------------------------------------------------------------


async def test_an_upload_goes_on_at_the_part_where_it_broke_off(hub: Hub) -> None:
    sealed, _ = large_task(hub)
    assert await missing(hub, sealed) == [0, 1, 2]
    await send(hub, part(sealed, 1))
    error = await refused(send(hub, part(sealed, 0, whole=False)))
    assert reason(error) == "MALFORMED"
    assert await missing(hub, sealed) == [0, 2]
    await send(hub, part(sealed, 0))
    await send(hub, part(sealed, 0))  # once more does no harm
    await send(hub, part(sealed, 2))
    assert await missing(hub, sealed) == []
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)


async def test_parts_that_arrive_last_side_by_side_complete_a_payload_once(hub: Hub) -> None:
    sealed, _ = large_task(hub)
    await missing(hub, sealed)
    await send(hub, part(sealed, 0))
    await send(hub, part(sealed, 1))
    await asyncio.gather(*(send(hub, part(sealed, 2)) for _ in range(8)))
    assert len(await hub.server.events("payload.upload")) == 1


async def test_parts_survive_a_restart(tmp_path: Any, hub: Hub) -> None:
    sealed, _ = large_task(hub)
    await missing(hub, sealed)
    await send(hub, part(sealed, 0))
    await hub.server.channel.close()
    await hub.server.running.stop(0.0)
    async with server(tmp_path / "data") as again:
        hub.server = again
        ada = (await again.log_in("ada@alpha")).metadata
        assert await missing(hub, sealed, ada) == [1, 2]
        await put(hub, sealed, ada)
        await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=ada)


async def test_an_upload_that_nobody_goes_on_with_for_a_day_is_forgotten(tmp_path: Path, hub: Hub) -> None:
    sealed, digest = large_task(hub)
    store = FolderStore(tmp_path / "data" / "payloads")
    await missing(hub, sealed)
    await send(hub, part(sealed, 1))
    whole, _ = large_task(hub)
    await put(hub, whole)
    core = hub.server.running.core
    await forget_abandoned(core, store, Removals(core, store))
    assert await missing(hub, sealed) == [0, 2]
    hub.clock.ahead += timedelta(days=1, minutes=1)
    await forget_abandoned(core, store, Removals(core, store))
    assert await store.parts(digest) == frozenset()
    store.close()
    again = (await hub.server.log_in("ada@alpha")).metadata
    assert await missing(hub, whole, again) == []
    assert await missing(hub, sealed, again) == [0, 1, 2]
    await put(hub, sealed, again)


async def test_an_incomplete_payload_is_no_input_and_can_not_be_read(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await missing(hub, sealed)
    await send(hub, part(sealed, 0))
    call = hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert reason(await refused(call)) == "PAYLOAD_NOT_FOUND"
    assert reason(await refused(first_frame(hub, digest, hub.ada))) == "PAYLOAD_NOT_FOUND"


# ---- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoiled",
    [
        {"digest": bytes(32)},
        {"data": b"too short"},
        {"data": bytes(PART_BYTES + 1)},
        {"frame_bytes": FRAME_BYTES + 1},
        {"whole": False},
    ],
    ids=["another digest", "short", "long", "large frame", "no digest"],
)
async def test_a_part_that_is_not_what_it_says_is_refused(hub: Hub, spoiled: dict[str, Any]) -> None:
    sealed, _ = large_task(hub)
    await missing(hub, sealed)
    assert reason(await refused(send(hub, part(sealed, 0, **spoiled)))) == "MALFORMED"
    assert await missing(hub, sealed) == [0, 1, 2]


async def test_an_upload_under_another_envelopes_name_is_refused_and_forgotten(hub: Hub) -> None:
    sealed, _ = large_task(hub)
    other, _ = large_task(hub)
    await missing(hub, sealed)
    for number in (0, 1):
        await send(hub, part(sealed, number, data=other.envelope[number * PART_BYTES :][:PART_BYTES]))
    error = await refused(send(hub, part(sealed, 2, data=other.envelope[2 * PART_BYTES :])))
    assert reason(error) == "ENVELOPE_REJECTED"
    assert await missing(hub, sealed) == [0, 1, 2]
    await put(hub, sealed)


async def test_another_size_or_another_organization_takes_no_part_in_an_upload(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await missing(hub, sealed)
    request = pb.ListMissingPartsRequest(envelope_digest=digest, size_bytes=7)
    assert reason(await refused(hub.server.payloads.ListMissingParts(request, metadata=hub.ada))) == "ID_TAKEN"
    gamma = hub.researchers["Gamma"].metadata
    assert reason(await refused(missing(hub, sealed, gamma))) == "ID_TAKEN"
    assert reason(await refused(send(hub, part(sealed, 0), gamma))) == "PAYLOAD_NOT_FOUND"


async def test_a_part_of_nothing_is_refused(hub: Hub) -> None:
    sealed, _ = large_task(hub)
    assert reason(await refused(send(hub, part(sealed, 0)))) == "PAYLOAD_NOT_FOUND"
    await missing(hub, sealed)
    assert reason(await refused(send(hub, part(sealed, 3, data=b"")))) == "MALFORMED"


async def test_a_payload_beyond_all_measure_is_refused(hub: Hub) -> None:
    request = pb.ListMissingPartsRequest(envelope_digest=bytes(32), size_bytes=1 << 41)
    assert reason(await refused(hub.server.payloads.ListMissingParts(request, metadata=hub.ada))) == "TOO_LARGE"


async def test_an_input_uploaded_for_another_task_is_refused(hub: Hub) -> None:
    from folkmoot.v1.task_pb2 import TaskInputRef
    from tests.integration.server.sealed import resigned

    sealed, digest = large_task(hub)
    await put(hub, sealed)
    spec = task(hub.lung, ("Beta",)).spec
    borrowed = resigned(sealed, task_id=spec.task_id, job_id=spec.task_id)
    assert borrowed.spec.inputs == [TaskInputRef(envelope_digest=digest, size_bytes=len(sealed.envelope))]
    call = hub.tasks.CreateTask(borrowed.request(envelope=False), metadata=hub.ada)
    assert reason(await refused(call)) == "PAYLOAD_NOT_FOUND"


# ---- at once -------------------------------------------------------------------------------------------------------


async def test_who_uploads_the_same_at_once_gets_it_there_together(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await asyncio.gather(*(put(hub, sealed) for _ in range(3)))
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert await get(hub, digest, hub.ada) == sealed.envelope
    assert len(await hub.server.events("payload.upload")) == 1


async def test_a_disk_that_is_full_in_the_middle_of_a_part_is_told_and_the_upload_goes_on_at_that_part(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, digest = large_task(hub)
    append, frames_with_room = parts.NewPart.append, iter(range(PART_BYTES // FRAME_BYTES + 2))

    def fill(self: parts.NewPart, frame: bytes) -> None:
        if next(frames_with_room, None) is None:
            append(self, frame[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, frame)

    with monkeypatch.context() as filling:
        filling.setattr(parts.NewPart, "append", fill)
        with pytest.raises(RemoteError, match="no room on its disk") as error:
            await put(hub, sealed)
    assert error.value.reason_name == "DISK_FULL"
    assert await missing(hub, sealed) == [1, 2]
    await put(hub, sealed)
    assert await get(hub, digest, hub.ada) == sealed.envelope
    folder = hub.server.running.core.config.data / "payloads"
    assert {path.name for path in folder.glob("*/*/*")} == {"00000", "00001", "00002"}


async def test_a_part_that_comes_when_its_upload_was_given_up_leaves_nothing_behind(hub: Hub) -> None:
    await late_part_leaves_nothing(hub)


async def late_part_leaves_nothing(hub: Hub) -> None:
    """Have a part come when its upload was given up, and its bytes were removed or not; look at what is left."""
    sealed, digest = large_task(hub)
    core, removals = hub.server.running.core, hub.server.running.removals
    begun, going_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[pb.UploadPartRequest]:
        async for message in part(sealed, 0):
            if message.HasField("digest"):
                begun.set()
                await going_on.wait()
            yield message

    async def is_gone() -> bool:
        return await core.store.read(lambda connection: payload_rows.find(connection, digest)) is None

    for is_forgotten in (True, False):
        begun.clear()
        going_on.clear()
        await missing(hub, sealed)
        sending = asyncio.create_task(send(hub, slow()))
        await begun.wait()
        await given_up(hub, digest, removes=is_forgotten)
        going_on.set()
        assert reason(await refused(sending)) == "PAYLOAD_NOT_FOUND"
        await until(is_gone)
        assert await removals.store.parts(digest) == frozenset()
    await put(hub, sealed)


async def given_up(hub: Hub, digest: bytes, *, removes: bool) -> None:
    """Give an upload up, as when it is abandoned; its bytes, and its row, may go at once or later."""
    core, removals = hub.server.running.core, hub.server.running.removals
    here, now = payload_table.c.envelope_digest == digest, core.clock()
    await core.store.write(lambda connection: removal_rows.delete_payloads(connection, here, now=now, quota=core.quota))
    if removes:
        await removals.remove(digest)


async def test_a_payload_that_is_deleted_while_it_is_downloaded_ends_with_what_became_of_it(hub: Hub) -> None:
    sealed, digest = large_task(hub)
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    came = 0

    async def read_on() -> None:
        nonlocal came
        async for data in download(hub.server.payloads, digest, metadata=lambda: hub.ada):
            if not came:
                await given_up(hub, digest, removes=True)
            assert data == sealed.envelope[came : came + len(data)]
            came += len(data)

    with pytest.raises(RemoteError) as failure:
        await read_on()
    assert reason(failure.value) == "PAYLOAD_NOT_FOUND"
    assert "deleted" in str(failure.value)
