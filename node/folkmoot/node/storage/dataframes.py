"""Dataframes that runs leave at this station for later tasks of their session: one Parquet file each.

    sessions/                       0700
    └── SESSION_ID/
        └── RUN_ID-ATTEMPT-….parquet     nothing that an algorithm says is part of a path

Promises: a file has its name when all of it was checked and is on disk; it counts when the journal names it, and stands when its run has
COMPLETED. The one before is removed after that, so that a node which is killed has the one or the other, never none and never half of one.
What nothing names is removed at the next start.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import structlog

from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.node.data.writing import Checked
from folkmoot.node.journal import dataframe_records
from folkmoot.node.journal.database import Journal
from folkmoot.node.journal.dataframe_records import StoredDataframe
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.proxy.bridge import consume_in_thread
from folkmoot.node.storage.envelopes import part_file
from folkmoot.transport.durable import sync_folder
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.storage import told_if_full
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import DataframeLeft, SessionUse, TaskSpec

MOST_TOLD_BYTES = 64 << 10
"""Of columns in a receipt; a dataframe with more is told without them."""

_UUID = re.compile(r"[0-9a-f-]{36}")

log = structlog.get_logger()


class Dataframes:
    """The dataframes of a station. What stands is in memory too, so that the policy can be asked about it."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._folder = directory / "sessions"
        self._journal = journal
        self._standing: dict[tuple[str, str], StoredDataframe] = {}
        self._writing: set[str] = set()
        self._dropping: set[asyncio.Task[None]] = set()

    # ---- what stands ----

    async def load(self) -> None:
        """Read from the journal what stands; for a station's start, and after every change."""
        standing = await self._journal.transact(dataframe_records.standing)
        self._standing = {(each.session_id, each.name): each for each in standing}

    def find(self, session: SessionUse) -> Sequence[StoredDataframe] | None:
        """What a task would read; None if something of it is not here."""
        found = [self._standing.get((session.session_id, name)) for name in session.dataframes]
        return None if None in found else [each for each in found if each is not None]

    # ---- a run's ----

    async def begin_reading(self, record: RunRecord, spec: TaskSpec) -> Sequence[StoredDataframe]:
        """Fix what a run reads, for as long as it goes on; raise DATAFRAME_NOT_FOUND."""
        if not spec.session.dataframes:
            return ()
        fix = partial(dataframe_records.begin_reading, key=record.key, session=spec.session)
        return await self._journal.transact(fix)

    def sources(
        self, read: Iterable[StoredDataframe], session_id: str, *, queryable: Collection[str]
    ) -> dict[str, Source]:
        """Where the tables are that a run reads, by name; those may be queried that were made from queryable labels alone."""
        folder = self._of(session_id)
        return {
            each.name: Source(
                kind=SourceKind.PARQUET, path=folder / each.file, queries=set(each.lineage) <= set(queryable)
            )
            for each in read
        }

    async def write(
        self, record: RunRecord, spec: TaskSpec, checked: Checked, *, lineage: Iterable[str]
    ) -> StoredDataframe:
        """Write what is checked to a file of its own; `put` makes it count. Raises what checking does, and DISK_FULL."""
        session_id, name = spec.session.session_id, spec.session.leaves
        folder, file = self._of(session_id), f"{record.run_id}-{record.attempt}-{os.urandom(4).hex()}.parquet"
        self._writing.add(file)
        try:
            size_bytes = await consume_in_thread(aiter(checked), lambda pieces: _write(folder, file, pieces))
        except BaseException:
            self._writing.discard(file)
            raise
        scratch = partial(dataframe_records.lineage_of_scratch, job_id=record.job_id)
        shared = await self._journal.transact(scratch) if spec.scratch else set()
        made_from = tuple(sorted({*lineage, *shared}))
        return StoredDataframe(
            session_id, name, record.run_id, record.attempt, file, size_bytes, checked.left, made_from
        )

    async def put(self, dataframe: StoredDataframe) -> None:
        """Let a written dataframe wait for its run's end."""
        await self._journal.transact(lambda connection: dataframe_records.put_pending(connection, dataframe))
        failpoint("node.dataframe.journaled")
        await self.discard(dataframe)

    async def discard(self, dataframe: StoredDataframe) -> None:
        """Be done with writing a dataframe: if it does not count, its file goes, as does the one that it is in the place of."""
        self._writing.discard(dataframe.file)
        await self._tidy(dataframe.session_id)

    async def room_bytes(self, record: RunRecord, session_id: str, most_bytes: int) -> int:
        """What a run's dataframe may take, where a session's may take so much; raise TOO_LARGE if that is nothing."""
        taken = partial(dataframe_records.taken_bytes, session_id=session_id, besides=record.key)
        room = most_bytes - await self._journal.transact(taken)
        if room <= 0:
            text = (
                f"the session's dataframes take all of the {most_bytes} bytes that the node's policy gives: delete some"
            )
            raise FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)
        return room

    async def pending(self, record: RunRecord) -> StoredDataframe | None:
        """What a run leaves if it completes."""
        return await self._journal.transact(lambda connection: dataframe_records.pending(connection, record.key))

    async def settled(self, session_id: str) -> None:
        """Follow the end of a run, which is journaled: what it left stands, what it read or replaced may go."""
        failpoint("node.dataframe.settled")
        await self.load()
        await self._tidy(session_id)

    # ---- what is not wanted ----

    def drop_soon(self, session_id: str, name: str) -> None:
        """Follow a deletion, which is journaled: what stood (without a name: all) is not read any more, and its files go."""
        for key in [key for key in self._standing if key[0] == session_id and name in ("", key[1])]:
            del self._standing[key]
        dropping = asyncio.create_task(self._drop(session_id))
        self._dropping.add(dropping)
        dropping.add_done_callback(self._dropping.discard)

    async def _drop(self, session_id: str) -> None:
        failpoint("node.dataframe.dropped")
        await self.load()
        await self._tidy(session_id)

    async def close(self) -> None:
        """Finish removing what is not wanted any more."""
        await asyncio.gather(*self._dropping, return_exceptions=True)

    async def drop_all(self) -> None:
        """Delete everything: the node takes part in nothing any more."""
        await self._journal.transact(dataframe_records.drop_all)
        await self.clear_leftovers()

    async def clear_leftovers(self) -> None:
        """Remove what nothing names, and read what stands; for a station's start, and its end."""
        await self.load()
        await asyncio.to_thread(self._remove_unfinished)
        for session_id in await asyncio.to_thread(self._sessions):
            await self._tidy(session_id)

    async def _tidy(self, session_id: str) -> None:
        """Remove the files of a session that nothing needs."""
        folder = self._of(session_id)
        there = [file for file in await asyncio.to_thread(_files, folder) if file not in self._writing]
        gone = await self._journal.transact(lambda connection: dataframe_records.unwanted(connection, there))
        if gone:
            await asyncio.to_thread(_remove, folder, gone)
            log.info("dataframes.removed", session_id=session_id, files=len(gone))

    def _remove_unfinished(self) -> None:
        for unfinished in self._folder.glob("*/*.part"):
            unfinished.unlink(missing_ok=True)

    def _sessions(self) -> list[str]:
        there = self._folder.iterdir() if self._folder.exists() else ()
        return [path.name for path in there if _UUID.fullmatch(path.name)]

    def _of(self, session_id: str) -> Path:
        if not _UUID.fullmatch(session_id):
            raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"{session_id!r} is no session id")
        return self._folder / session_id


def told_of(dataframe: StoredDataframe, report: str, *, minimum_rows: int) -> DataframeLeft:
    """What a receipt may tell of a dataframe, by the policy's word: no row count below the least that a read may give."""
    told = DataframeLeft(name=dataframe.name)
    if report != "name" and dataframe.left.rows >= minimum_rows:
        told.rows = dataframe.left.rows
    if report == "columns" and dataframe.left.ByteSize() <= MOST_TOLD_BYTES:
        told.columns.extend(dataframe.left.columns)
    return told


def _write(folder: Path, file: str, pieces: Iterator[bytes]) -> int:
    """Write a file that is either whole or not there, also after a power cut; return its size."""
    with told_if_full():
        made = not folder.exists()
        for each in (folder.parent, folder):  # parents that mkdir makes by itself are open to all
            each.mkdir(exist_ok=True, mode=0o700)
        if made:
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
    with part_file(folder) as (part, path):
        size_bytes = sum(part.write(piece) for piece in pieces)
        part.flush()
        os.fdatasync(part.fileno())
        failpoint("node.dataframe.written")
        path.rename(folder / file)
    failpoint("node.dataframe.named")
    sync_folder(folder)
    return size_bytes


def _files(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.parquet")]


def _remove(folder: Path, files: Collection[str]) -> None:
    for file in files:
        (folder / file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are others in it
        folder.rmdir()
