"""Payload stores: one conformance class for all of them."""

import asyncio
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from folkmoot.server.payloads.folder import UNFINISHED_SECONDS, FolderStore
from folkmoot.server.payloads.parts import PayloadDamaged
from folkmoot.server.payloads.stores import PayloadStore
from folkmoot.transport.limits import PART_BYTES

DIGEST = bytes(range(32))


class WrongError(Exception):
    pass


async def frames(*pieces: bytes, then: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if then is not None:
        raise then


async def accept(_size: int, _digest: bytes) -> None:
    pass


async def refuse(_size: int, _digest: bytes) -> None:
    raise WrongError


async def write(store: PayloadStore, number: int, *pieces: bytes) -> None:
    await store.write_part(DIGEST, number, frames(*pieces), accept)


def read(store: PayloadStore, size_bytes: int, offset: int, length: int) -> bytes:
    with store.open(DIGEST, size_bytes) as source:
        return source.read_at(offset, length)


class PayloadStoreConformance:
    """What every payload store promises."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterable[PayloadStore]:
        raise NotImplementedError

    async def test_parts_are_read_as_one_from_any_place(self, store: PayloadStore) -> None:
        whole = os.urandom(2 * PART_BYTES + 1000)
        await write(store, 2, whole[2 * PART_BYTES :])
        await write(store, 0, whole[:100], whole[100:PART_BYTES])
        await write(store, 1, whole[PART_BYTES : 2 * PART_BYTES])
        with store.open(DIGEST, len(whole)) as source:
            assert source.size_bytes == len(whole)
            for offset, length in (
                (0, 10),
                (PART_BYTES - 5, 10),
                (PART_BYTES, 7),
                (len(whole) - 3, 100),
                (0, len(whole)),
            ):
                assert source.read_at(offset, length) == whole[offset : offset + length]
            assert source.read_at(len(whole), 10) == b""

    async def test_only_whole_parts_are_there(self, store: PayloadStore) -> None:
        assert await store.parts(DIGEST) == frozenset()
        await write(store, 3, b"whole")
        with pytest.raises(ConnectionError):
            await store.write_part(DIGEST, 1, frames(b"half", then=ConnectionError()), accept)
        assert await store.parts(DIGEST) == {3}

    async def test_what_came_is_checked_before_it_counts(self, store: PayloadStore) -> None:
        told: list[tuple[int, bytes]] = []

        async def note(size: int, digest: bytes) -> None:
            told.append((size, digest))

        await store.write_part(DIGEST, 0, frames(b"ab", b"c"), note)
        assert told == [(3, hashlib.sha256(b"abc").digest())]

    async def test_a_part_that_is_refused_leaves_the_one_before(self, store: PayloadStore) -> None:
        await write(store, 0, b"right")
        with pytest.raises(WrongError):
            await store.write_part(DIGEST, 0, frames(b"wrong"), refuse)
        assert read(store, 5, 0, 5) == b"right"

    async def test_a_part_that_breaks_off_leaves_the_one_before(self, store: PayloadStore) -> None:
        await write(store, 0, b"right")
        with pytest.raises(ConnectionError):
            await store.write_part(DIGEST, 0, frames(b"wr", then=ConnectionError()), accept)
        assert read(store, 5, 0, 5) == b"right"

    async def test_a_part_whose_upload_is_cancelled_leaves_the_one_before(self, store: PayloadStore) -> None:
        await write(store, 0, b"right")
        begun = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"wrong"
            begun.set()
            await asyncio.Event().wait()

        upload = asyncio.create_task(store.write_part(DIGEST, 0, endless(), accept))
        await begun.wait()
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert read(store, 5, 0, 5) == b"right"

    async def test_two_uploads_of_a_part_do_each_other_no_harm(self, store: PayloadStore) -> None:
        pieces = [os.urandom(100_000) for _ in range(20)]
        await asyncio.gather(*(write(store, 0, *pieces) for _ in range(4)))
        assert read(store, 2_000_000, 0, 2_000_000) == b"".join(pieces)

    async def test_what_is_removed_is_gone(self, store: PayloadStore) -> None:
        await write(store, 0, b"abc")
        await store.remove(DIGEST)
        await store.remove(DIGEST)
        assert await store.parts(DIGEST) == frozenset()
        with pytest.raises(FileNotFoundError):
            read(store, 3, 0, 3)

    async def test_a_store_that_works_says_so(self, store: PayloadStore) -> None:
        await store.check()
        assert await store.parts(DIGEST) == frozenset()

    async def test_it_is_older_than_what_comes_later(self, store: PayloadStore) -> None:
        assert await store.is_older(DIGEST, datetime.now(UTC))
        await write(store, 0, b"abc")
        assert not await store.is_older(DIGEST, datetime.now(UTC) - timedelta(minutes=1))
        assert await store.is_older(DIGEST, datetime.now(UTC) + timedelta(minutes=1))


class TestFolderStore(PayloadStoreConformance):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterable[FolderStore]:
        store = FolderStore(tmp_path / "payloads")
        yield store
        store.close()

    async def test_nothing_unfinished_stays_behind(self, store: FolderStore, tmp_path: Path) -> None:
        await write(store, 0, b"right")
        with pytest.raises(WrongError):
            await store.write_part(DIGEST, 0, frames(b"wrong"), refuse)
        files = [path.name for path in (tmp_path / "payloads").rglob("*") if path.is_file()]
        assert files == ["00000"]

    async def test_what_a_killed_process_left_unfinished_goes_and_what_comes_in_now_stays(
        self, store: FolderStore, tmp_path: Path
    ) -> None:
        await write(store, 0, b"right")
        [part] = (tmp_path / "payloads").rglob("00000")
        left = part.with_name("00001.0123456789abcdef")
        left.write_bytes(b"half")
        begun, going_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"slow"
            begun.set()
            await going_on.wait()

        foreign = tmp_path / "payloads" / "us" / "reports" / "2020.csv"
        foreign.parent.mkdir(parents=True)
        foreign.write_text("somebody else's")
        upload = asyncio.create_task(store.write_part(DIGEST, 2, slow(), accept))
        await begun.wait()
        await store.remove_unfinished()
        going_on.set()
        await upload
        assert not left.exists()
        assert foreign.exists()
        assert await store.parts(DIGEST) == {0, 2}

    async def test_where_files_can_not_be_locked_age_says_what_is_left_unfinished(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_locks(descriptor: int, operation: int) -> None:
            raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(fcntl, "flock", no_locks)
        await write(store, 0, b"right")
        [part] = (tmp_path / "payloads").rglob("00000")
        old, new = part.with_name("00001.0123456789abcdef"), part.with_name("00001.fedcba9876543210")
        for left in (old, new):
            left.write_bytes(b"half")
        long_ago = time.time() - UNFINISHED_SECONDS - 1
        os.utime(old, (long_ago, long_ago))
        await store.remove_unfinished()
        assert (old.exists(), new.exists(), part.exists()) == (False, True, True)

    async def test_a_part_whose_file_is_tidied_away_before_it_is_locked_gets_another(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lock, removed = fcntl.flock, list[Path]()

        def too_late(descriptor: int, operation: int) -> None:
            if not removed:
                [unfinished] = (tmp_path / "payloads").rglob("00000.*")
                unfinished.unlink()
                removed.append(unfinished)
            lock(descriptor, operation)

        monkeypatch.setattr(fcntl, "flock", too_late)
        await write(store, 0, b"right")
        assert removed
        assert await store.parts(DIGEST) == {0}

    @pytest.mark.parametrize("harm", ["a byte", "its end", "all", "its hash"])
    async def test_a_part_that_was_damaged_where_it_rests_is_never_served(
        self, store: FolderStore, tmp_path: Path, harm: str
    ) -> None:
        await write(store, 0, bytes(PART_BYTES))
        await write(store, 1, b"the end")
        [part] = (tmp_path / "payloads").rglob("00000")
        content = bytearray(part.read_bytes())
        if harm == "a byte":
            content[PART_BYTES // 2] ^= 1
        if harm == "its hash":
            content[-1] ^= 1
        part.write_bytes(bytes({"its end": content[:-1000], "all": bytearray()}.get(harm, content)))
        with pytest.raises(PayloadDamaged):
            read(store, PART_BYTES + 7, 0, 10)
        assert read(store, PART_BYTES + 7, PART_BYTES, 7) == b"the end"

    async def test_a_part_of_a_release_that_stored_no_hashes_is_read_as_it_is(
        self, store: FolderStore, tmp_path: Path
    ) -> None:
        await write(store, 0, b"abc")
        [part] = (tmp_path / "payloads").rglob("00000")
        part.write_bytes(b"old")
        assert read(store, 3, 0, 3) == b"old"

    async def test_a_part_is_on_disk_before_it_has_its_name_and_its_name_before_it_is_told(
        self, store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        folder = tmp_path / "payloads" / DIGEST.hex()[:2] / DIGEST.hex()
        await write(store, 1, b"so that the folders are there")

        def note(owner: object, name: str, step: str) -> None:
            real = getattr(owner, name)

            def noted(*arguments: object) -> object:
                steps.append(step)
                return real(*arguments)

            monkeypatch.setattr(owner, name, noted)

        note(Path, "replace", "named")
        note(os, "fdatasync", "bytes on disk")
        note(os, "fsync", "name on disk")
        await write(store, 0, b"abc")
        steps.append("told")
        assert steps == ["bytes on disk", "named", "name on disk", "told"]
        assert (folder / "00000").read_bytes() == b"abc" + hashlib.sha256(b"abc").digest()
