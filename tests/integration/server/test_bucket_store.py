"""Payloads in a real object store over real connections: what every store promises, and what may go wrong on the way there."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path

import pytest

from folkmoot.server.observation import logs
from folkmoot.server.payloads.bucket import BucketStore
from folkmoot.server.payloads.parts import HASH_BYTES
from folkmoot.server.payloads.stores import open_store
from folkmoot.server.rpc import payload_service
from folkmoot.transport import timeouts
from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.payload_service_pb2 import DownloadPayloadRequest
from folkmoot.v1.task_service_pb2 import DeleteTaskRequest
from tests.builders import world
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.integration.harness import Clock, reason, refused, server, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task
from tests.integration.server.test_payloads import get, late_part_leaves_nothing, missing, put
from tests.polling import until
from tests.s3 import S3, environment, s3
from tests.unit.server.test_payload_store import DIGEST, PayloadStoreConformance, accept, frames, read, write

pytestmark = [pytest.mark.needs_s3, pytest.mark.timeout(120)]


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket("payloads")
        yield running


@pytest.fixture
def url(objects: S3, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of this test's own in the bucket."""
    for name, value in objects.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://payloads/{os.urandom(4).hex()}"


@pytest.fixture
async def proxy(objects: S3, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultyProxy]:
    """What stands between the server and the store."""
    async with faulty_proxy(objects.port) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{between.port}")
        yield between


class TestBucketStore(PayloadStoreConformance):
    @pytest.fixture
    def store(self, url: str, tmp_path: Path) -> Iterator[BucketStore]:
        store = BucketStore.at(url, spool=tmp_path / "spool")
        yield store
        store.close()

    async def test_nothing_stays_on_the_servers_own_disk(self, store: BucketStore, tmp_path: Path) -> None:
        await write(store, 0, b"abc")
        assert read(store, 3, 0, 3) == b"abc"
        assert list((tmp_path / "spool").iterdir()) == []


# ---- at the start --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket", "secret", "said"),
    [
        ("payloads", "wrong", "check its credentials"),
        ("nobodys", "testing", "no such bucket"),
    ],
    ids=["wrong credentials", "no bucket"],
)
async def test_a_server_says_at_its_start_why_it_can_not_use_the_bucket(
    url: str, objects: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: str, secret: str, said: str
) -> None:
    for name, value in environment(objects.endpoint, secret).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FolkmootError, match=said):
        async with server(tmp_path / "data", payloads=f"s3://{bucket}/prefix"):
            pass


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://host/x", "s3:", "payloads"),
        *("file://host/x", "file:///", "file:////", "file:///srv/../etc", "file:///srv/%2e%2e/etc"),
        *(
            "s3://bucket/a/../../other",
            "s3://bucket/%2E%2E/other",
            "s3://bucket/x?endpoint=http://elsewhere",
            "s3://b/x#y",
        ),
    ],
)
def test_an_url_that_is_no_store_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(FolkmootError, match="payloads"):
        open_store(url, tmp_path)


def test_credentials_in_an_url_are_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(FolkmootError, match="credentials") as refusal:
        open_store("s3://AKIAKEY:topsecret@bucket/prefix", tmp_path)
    assert "topsecret" not in str(refusal.value)


# ---- on the way ----------------------------------------------------------------------------------------------------


@pytest.fixture
def log() -> StringIO:
    return StringIO()


@pytest.fixture
def through(proxy: FaultyProxy, url: str, tmp_path: Path, log: StringIO) -> Iterator[BucketStore]:
    """A store whose connections the proxy may harm."""
    store = BucketStore.at(url, spool=tmp_path / "spool", log=logs.make("info", log))
    yield store
    store.close()


@pytest.mark.parametrize("cut_at", [1, 200, FRAME_BYTES, PART_BYTES - 1, PART_BYTES + 400])
async def test_a_part_whose_connection_is_cut_at_any_byte_is_put_whole_or_not_at_all(
    through: BucketStore, proxy: FaultyProxy, cut_at: int
) -> None:
    whole = os.urandom(PART_BYTES)
    proxy.cut_after_bytes_up = cut_at
    await write(through, 0, whole)  # the next try succeeds
    assert proxy.cuts == 1
    assert await asyncio.to_thread(read, through, PART_BYTES, 0, PART_BYTES) == whole


async def test_a_store_that_fails_again_and_again_is_told_as_unreachable_and_the_part_is_what_it_was(
    through: BucketStore, proxy: FaultyProxy
) -> None:
    await write(through, 0, b"right")
    proxy.answer(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    with pytest.raises(FolkmootError) as failure:
        await through.write_part(DIGEST, 0, frames(b"wrong"), accept)
    assert failure.value.reason_name == "PROVIDER_UNREACHABLE"
    with pytest.raises(FolkmootError, match="does not answer"):
        await through.parts(DIGEST)
    proxy.answer(b"")
    assert await asyncio.to_thread(read, through, 5, 0, 5) == b"right"


BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def test_a_store_that_asks_to_slow_down_is_asked_again(through: BucketStore, proxy: FaultyProxy) -> None:
    proxy.answer(BUSY, times=2)
    await write(through, 0, b"right")
    proxy.answer(BUSY, times=2)
    assert await through.parts(DIGEST) == {0}
    proxy.answer(BUSY, times=2)
    assert await asyncio.to_thread(read, through, 5, 0, 5) == b"right"


async def test_what_a_store_says_of_credentials_is_for_the_operator_alone(
    through: BucketStore, proxy: FaultyProxy, log: StringIO
) -> None:
    text = b"<Error><Code>ExpiredToken</Code><AWSAccessKeyId>AKIAKEY</AWSAccessKeyId></Error>"
    proxy.answer(b"HTTP/1.1 403 Forbidden\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(text), text))
    with pytest.raises(FolkmootError) as failure:
        await through.parts(DIGEST)
    assert failure.value.reason_name == "PROVIDER_UNREACHABLE"
    told = f"{failure.value} {failure.value.metadata}"
    assert not any(each in told for each in ("AKIAKEY", "payloads/", str(proxy.port), "test:tester"))
    assert "payloads.unreachable" in log.getvalue()
    assert "ExpiredToken" in log.getvalue()
    assert not any(each in log.getvalue() for each in ("AKIAKEY", "prefix="))


async def test_a_list_that_lags_behind_hides_no_part(
    through: BucketStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(through, 0, b"right")
    await write(through, 2, b"too")

    async def empty(_digest: bytes) -> dict[str, datetime]:
        return {}

    monkeypatch.setattr(through, "_listed", empty)
    assert await through.parts(DIGEST, expected=4) == {0, 2}


async def test_a_store_that_never_answers_keeps_nobody_from_stopping(
    url: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    store = BucketStore.at(url, spool=tmp_path / "spool")
    proxy.is_silent = True
    fetching = asyncio.create_task(asyncio.to_thread(read, store, 5, 0, 5))
    putting = asyncio.create_task(write(store, 0, b"never"))
    await until(lambda: proxy.connections >= 2)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    await asyncio.wait_for(asyncio.to_thread(store.close), 30)
    with pytest.raises(FolkmootError, match="does not answer"):
        await fetching
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_download_whose_connection_is_cut_goes_on(through: BucketStore, proxy: FaultyProxy) -> None:
    whole = os.urandom(2 * PART_BYTES)
    await write(through, 0, whole[:PART_BYTES])
    await write(through, 1, whole[PART_BYTES:])
    proxy.cut_after_bytes_down = PART_BYTES // 2
    with through.open(DIGEST, len(whole)) as source:
        pieces = [
            await asyncio.to_thread(source.read_at, offset, FRAME_BYTES) for offset in range(0, len(whole), FRAME_BYTES)
        ]
    assert b"".join(pieces) == whole
    assert proxy.cuts == 1


# ---- as a whole ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def hub(url: str, tmp_path: Path) -> AsyncIterator[Hub]:
    """A server that keeps payloads in the bucket, with one collaboration."""
    clock = Clock()
    async with server(tmp_path / "data", clock=clock, payloads=url) as running:
        lung = world(now=utc_now())
        admins = await running.publish(lung)
        account = admins["Alpha"].organization_account_id
        ada = await running.user("ada@alpha", account, ["Researcher", "Organization Admin"])
        yield Hub(running, lung, clock, admins, {"Alpha": ada})


async def test_a_large_payload_goes_there_comes_back_and_is_deleted(hub: Hub, objects: S3) -> None:
    before = set(objects.files())
    sealed = task(hub.lung, ("Beta",), content=os.urandom(2 * PART_BYTES + 5))
    digest = sealed.spec.inputs[0].envelope_digest
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert await get(hub, digest, await hub.node("Beta")) == sealed.envelope
    assert await get(hub, digest, hub.ada, offset=PART_BYTES + 7) == sealed.envelope[PART_BYTES + 7 :]
    assert len(set(objects.files()) - before) == 3
    await hub.commit(sealed, "Beta")
    await hub.tasks.DeleteTask(DeleteTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    removals = hub.server.running.removals
    await removals.remove_due()

    async def is_empty() -> bool:
        return await removals.store.parts(digest) == frozenset()

    await until(is_empty)


async def test_a_part_that_comes_when_its_upload_was_given_up_leaves_nothing_behind(hub: Hub) -> None:
    await late_part_leaves_nothing(hub)


async def test_a_slow_store_is_waited_for_by_who_downloads_and_by_nobody_else(
    proxy: FaultyProxy, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = task(hub.lung, ("Beta",), content=os.urandom(PART_BYTES // 2))
    digest = sealed.spec.inputs[0].envelope_digest
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    monkeypatch.setattr(payload_service, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(timeouts, "IDLE_SECONDS", 1.0)
    proxy.bytes_per_second = PART_BYTES / 5
    downloads = [asyncio.create_task(get(hub, digest, hub.ada)) for _ in range(8)]
    await until(lambda: proxy.bytes_down > PART_BYTES // 8)
    await hub.server.log_in("ada@alpha")
    assert not any(download.done() for download in downloads)
    proxy.bytes_per_second = None
    assert await asyncio.gather(*downloads) == [sealed.envelope] * 8


async def test_a_part_that_was_damaged_where_it_rests_is_found_when_it_is_read(hub: Hub, objects: S3) -> None:
    before = set(objects.files())
    sealed = task(hub.lung, ("Beta",), content=os.urandom(PART_BYTES + 5))
    digest = sealed.spec.inputs[0].envelope_digest
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    [part] = [path for path in set(objects.files()) - before if path.stat().st_size == PART_BYTES + HASH_BYTES]
    with part.open("r+b") as file:
        file.seek(PART_BYTES // 2)
        file.write(b"rotten")
    error = await refused(_download(hub, digest))
    assert reason(error) == "PAYLOAD_DAMAGED"
    assert await missing(hub, sealed) == []


async def _download(hub: Hub, digest: bytes) -> None:
    request = DownloadPayloadRequest(envelope_digest=digest)
    async for _ in hub.server.payloads.DownloadPayload(request, metadata=hub.ada):
        raise AssertionError("bytes of a damaged part were served")
