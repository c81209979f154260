"""The journal: what the station has promised, in one SQLite file.

Promises: what `transact` returned from is on disk (WAL, synchronous=FULL) and survives the end of the process and of the machine. One
thread owns the connection; it commits what is queued as a group, without waiting for more. If a change of a group fails, the group is
rolled back and each change runs alone, so changes must be repeatable and touch nothing but the connection. Where the disk is full, a
change is undone and its caller gets DiskFull; the journal goes on when there is room.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from folkmoot.transport.storage import disk_full, told_if_full
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

_Result = TypeVar("_Result")
_Outcome: TypeAlias = tuple["asyncio.Future[Any]", Any, BaseException | None]

MAX_GROUP = 64

SCHEMA = (
    # Version 1
    """
    CREATE TABLE link (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        acknowledged INTEGER NOT NULL
    ) STRICT;
    INSERT INTO link VALUES (1, 0);

    CREATE TABLE runs (
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        task_id TEXT NOT NULL,
        job_id TEXT NOT NULL,
        task_digest BLOB NOT NULL,
        chain BLOB NOT NULL,
        policy_digest BLOB NOT NULL,
        input_digest BLOB NOT NULL,
        memory_bytes INTEGER NOT NULL,
        cpu_millis INTEGER NOT NULL,
        run_time_seconds INTEGER NOT NULL,
        result_limit_bytes INTEGER NOT NULL,
        accepted_at_us INTEGER NOT NULL,
        state INTEGER NOT NULL,
        run_name TEXT NOT NULL DEFAULT '',
        image_id TEXT NOT NULL DEFAULT '',
        started_at_us INTEGER NOT NULL DEFAULT 0,
        scratch INTEGER NOT NULL DEFAULT 0,
        cancelled INTEGER NOT NULL DEFAULT 0,
        log_sequence INTEGER NOT NULL DEFAULT 0,
        log_lines INTEGER NOT NULL DEFAULT 0,
        progress_sequence INTEGER NOT NULL DEFAULT 0,
        bytes_out INTEGER NOT NULL DEFAULT 0,
        content_digest BLOB NOT NULL DEFAULT x'',
        result_digest BLOB NOT NULL DEFAULT x'',
        result_size_bytes INTEGER NOT NULL DEFAULT 0,
        receipt BLOB NOT NULL DEFAULT x'',
        ended_at_us INTEGER NOT NULL DEFAULT 0,
        committed_at_us INTEGER NOT NULL DEFAULT 0,
        forgotten INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run_id, attempt)
    ) STRICT;
    CREATE INDEX runs_by_commit ON runs (committed_at_us);
    CREATE INDEX runs_with_scratch ON runs (job_id) WHERE scratch = 1;

    CREATE TABLE envelopes (
        digest BLOB PRIMARY KEY,
        data BLOB NOT NULL
    ) STRICT;

    CREATE TABLE subtasks (
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        key TEXT NOT NULL,
        task_id TEXT NOT NULL UNIQUE,
        request_digest BLOB NOT NULL,
        chain BLOB NOT NULL,
        inputs BLOB NOT NULL,
        created INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run_id, attempt, key)
    ) STRICT;

    CREATE TABLE outgoing_messages (
        from_run_id TEXT NOT NULL,
        to_run_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        content_digest BLOB NOT NULL,
        frame BLOB NOT NULL,
        accepted INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (from_run_id, to_run_id, sequence)
    ) STRICT;
    CREATE INDEX outgoing_messages_not_accepted ON outgoing_messages (from_run_id, to_run_id, sequence) WHERE accepted = 0;

    CREATE TABLE incoming_messages (
        to_run_id TEXT NOT NULL,
        from_run_id TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        envelope BLOB NOT NULL,
        PRIMARY KEY (to_run_id, from_run_id, sequence)
    ) STRICT;
    """,
    # Version 2: people at the station, and what leaves
    """
    ALTER TABLE runs ADD COLUMN image_signers TEXT NOT NULL DEFAULT '';
    ALTER TABLE runs ADD COLUMN hold INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN held_state INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN held_exit_class INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN held_bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN look_digest BLOB NOT NULL DEFAULT x'';
    ALTER TABLE runs ADD COLUMN unrecorded_bytes INTEGER NOT NULL DEFAULT 0;
    UPDATE runs SET unrecorded_bytes = bytes_out;
    CREATE INDEX runs_by_acceptance ON runs (accepted_at_us, run_id, attempt);

    CREATE TABLE approvals (
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        subject INTEGER NOT NULL,
        decision INTEGER NOT NULL,
        signed BLOB NOT NULL,
        PRIMARY KEY (run_id, attempt, subject)
    ) STRICT;

    CREATE TABLE approved_images (
        image_id TEXT PRIMARY KEY
    ) STRICT;

    CREATE TABLE availability (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        availability INTEGER NOT NULL
    ) STRICT;
    INSERT INTO availability VALUES (1, 1);

    CREATE TABLE egress (
        sequence INTEGER PRIMARY KEY,
        record BLOB NOT NULL
    ) STRICT;
    """,
    # Version 3: everything that a policy gives to a run, and the organization that it is counted for
    """
    ALTER TABLE runs ADD COLUMN pids INTEGER NOT NULL DEFAULT 256;
    ALTER TABLE runs ADD COLUMN scratch_bytes INTEGER NOT NULL DEFAULT 10737418240;
    ALTER TABLE runs ADD COLUMN temporary_bytes INTEGER NOT NULL DEFAULT 67108864;
    ALTER TABLE runs ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN minimum_rows INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN initiator_id TEXT NOT NULL DEFAULT '';
    CREATE INDEX runs_by_initiator ON runs (initiator_id, accepted_at_us);
    """,
    # Version 4: what has left, by organization and time
    """
    ALTER TABLE egress ADD COLUMN initiator_id TEXT NOT NULL DEFAULT '';
    ALTER TABLE egress ADD COLUMN left_at_us INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE egress ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX egress_by_initiator ON egress (initiator_id, left_at_us);
    """,
    # Version 5: dataframes of sessions
    """
    CREATE TABLE dataframes (
        session_id TEXT NOT NULL,
        name TEXT NOT NULL,
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        file TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        told BLOB NOT NULL,
        lineage TEXT NOT NULL,
        stands INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (run_id, attempt)
    ) STRICT;
    CREATE UNIQUE INDEX dataframes_standing ON dataframes (session_id, name) WHERE stands = 1;

    CREATE TABLE dataframe_reads (
        run_id TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        name TEXT NOT NULL,
        file TEXT NOT NULL,
        lineage TEXT NOT NULL,
        PRIMARY KEY (run_id, attempt, name)
    ) STRICT;

    CREATE TABLE dropped_sessions (
        session_id TEXT PRIMARY KEY
    ) STRICT;
    """,
)
"""One script per version of the schema, in order; PRAGMA user_version counts those that have run. Released ones never change."""


class Journal:
    """The open journal. Its thread ends with `close`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with told_if_full():
            self._connection = open_connection(path)
        self._queue: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"journal {path.name}", daemon=True)
        self._thread.start()

    async def transact(self, change: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Run a change, or a query, in the journal's thread; return when it is durable."""
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._queue.put((change, future))
        return await future

    async def close(self) -> None:
        """Finish what is queued, and close the file."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        open_ = True
        while open_:
            group = [self._queue.get()]
            while len(group) < MAX_GROUP and not self._queue.empty():
                group.append(self._queue.get())
            open_ = None not in group
            _resolve(_run_group(self._connection, [change for change in group if change is not None]))
        self._connection.close()


_Change: TypeAlias = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


def open_connection(path: Path) -> sqlite3.Connection:
    """Open a journal, bringing its schema up to date; refuse one that a later release has written."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(SCHEMA):
        connection.close()
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INTERNAL,
            f"{path} was written by a later release (schema {version}, this one knows {len(SCHEMA)}): install that release",
        )
    for number, script in enumerate(SCHEMA[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
    path.chmod(0o600)
    return connection


def read_only(path: Path) -> sqlite3.Connection:
    """Open a journal to read it; a node may be writing it."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return connection


def _run_group(connection: sqlite3.Connection, group: list[_Change]) -> list[_Outcome]:
    """Run changes in one transaction; if one fails, each in its own."""
    try:
        results = _run_together(connection, group)
    except Exception as error:  # noqa: BLE001 - whatever a change raises is its caller's
        if len(group) == 1:
            return [(group[0][1], None, disk_full(error) or error)]
        return [outcome for change in group for outcome in _run_group(connection, [change])]
    return [(future, result, None) for (_, future), result in zip(group, results, strict=True)]


def _run_together(connection: sqlite3.Connection, group: list[_Change]) -> list[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        results = [change(connection) for change, _ in group]
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _resolve(outcomes: list[_Outcome]) -> None:
    """Wake up those who wait, each loop once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        by_loop.setdefault(outcome[0].get_loop(), []).append(outcome)
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, mine)
        except RuntimeError:
            continue  # The loop is closed: nobody waits any more, and what was committed stands.


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.cancelled():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
