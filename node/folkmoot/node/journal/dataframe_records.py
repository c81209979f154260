"""What the journal knows of dataframes: which stand, which wait for their run's end, which run reads which, and what is not wanted.

A dataframe is written while its run goes on, and stands from the moment when the run's end is journaled as COMPLETED: in that step it
takes the place of the one of its name. What a run reads is fixed before it starts: though another one takes its place, the file stays as
long as the run. As in `records`, every function is a change, or a query, for `Journal.transact`.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from folkmoot.node.journal.records import FIRST_TERMINAL, KEY, RunRecord
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import DataframeLeft, RunState, SessionUse, TaskChain, TaskSpec

_COLUMNS = "session_id, name, run_id, attempt, file, size_bytes, told, lineage"


@dataclass(frozen=True)
class StoredDataframe:
    """A dataframe of this station."""

    session_id: str
    name: str
    run_id: str
    """The run that left it, or is to leave it."""
    attempt: int
    file: str
    size_bytes: int
    left: DataframeLeft
    """Its rows and columns, all of them, whatever the policy lets receipts tell."""
    lineage: tuple[str, ...]
    """The labels that it was made from, by whatever way."""


def put_pending(connection: sqlite3.Connection, dataframe: StoredDataframe) -> None:
    """Let a dataframe wait for its run's end; one that the run has written before is forgotten."""
    connection.execute(f"DELETE FROM dataframes WHERE {KEY} AND stands = 0", (dataframe.run_id, dataframe.attempt))  # noqa: S608
    values = (
        dataframe.session_id,
        dataframe.name,
        dataframe.run_id,
        dataframe.attempt,
        dataframe.file,
        dataframe.size_bytes,
        dataframe.left.SerializeToString(deterministic=True),
        json.dumps(dataframe.lineage),
    )
    connection.execute(f"INSERT INTO dataframes ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)  # noqa: S608


def pending(connection: sqlite3.Connection, key: tuple[str, int]) -> StoredDataframe | None:
    """What a run is to leave, unless its session is not wanted any more."""
    wanted = "session_id NOT IN (SELECT session_id FROM dropped_sessions)"
    return next(iter(_select(connection, f"WHERE {KEY} AND stands = 0 AND {wanted}", *key)), None)


def settle(connection: sqlite3.Connection, record: RunRecord) -> None:
    """Let what a run has written stand if it has completed, in the place of what stood there; else forget it. It reads no more."""
    left = pending(connection, record.key) if record.state == RunState.RUN_STATE_COMPLETED else None
    if left is not None:
        connection.execute(
            "DELETE FROM dataframes WHERE session_id = ? AND name = ? AND stands = 1", (left.session_id, left.name)
        )
        connection.execute(f"UPDATE dataframes SET stands = 1 WHERE {KEY}", record.key)  # noqa: S608 - our own name
    connection.execute(f"DELETE FROM dataframes WHERE {KEY} AND stands = 0", record.key)  # noqa: S608
    connection.execute(f"DELETE FROM dataframe_reads WHERE {KEY}", record.key)  # noqa: S608


def standing(connection: sqlite3.Connection) -> list[StoredDataframe]:
    """All dataframes that tasks can read."""
    return _select(connection, "WHERE stands = 1")


def begin_reading(connection: sqlite3.Connection, key: tuple[str, int], session: SessionUse) -> list[StoredDataframe]:
    """Fix which dataframes a run reads, and return them; raise DATAFRAME_NOT_FOUND. What was fixed before stays."""
    known = {dataframe.name: dataframe for dataframe in reads(connection, key)}
    if known.keys() == set(session.dataframes):
        return [known[name] for name in session.dataframes]
    found = {each.name: each for each in standing(connection) if each.session_id == session.session_id}
    for name in session.dataframes:
        if name not in found:
            raise dataframe_not_found(name)
        values = (*key, name, found[name].file, json.dumps(found[name].lineage))
        connection.execute("INSERT OR REPLACE INTO dataframe_reads VALUES (?, ?, ?, ?, ?)", values)
    return [found[name] for name in session.dataframes]


def reads(connection: sqlite3.Connection, key: tuple[str, int]) -> list[StoredDataframe]:
    """The dataframes that a run reads, as far as what it takes to read them."""
    rows = connection.execute(f"SELECT * FROM dataframe_reads WHERE {KEY}", key).fetchall()  # noqa: S608 - our own name
    return [
        StoredDataframe("", row["name"], "", 0, row["file"], 0, DataframeLeft(), tuple(json.loads(row["lineage"])))
        for row in rows
    ]


def lineage_of_scratch(connection: sqlite3.Connection, job_id: str) -> set[str]:
    """The labels that files of a job at this station may be made from: those of all its runs that have shared them."""
    labels: set[str] = set()
    runs = connection.execute("SELECT run_id, attempt, chain FROM runs WHERE job_id = ? AND scratch = 1", (job_id,))
    for row in runs.fetchall():
        spec = TaskSpec.FromString(TaskChain.FromString(row["chain"]).specs[-1].body)
        labels.update(spec.labels, *(each.lineage for each in reads(connection, (row["run_id"], row["attempt"]))))
        labels.update(*(each.lineage for each in _select(connection, f"WHERE {KEY}", row["run_id"], row["attempt"])))
    return labels


def taken_bytes(connection: sqlite3.Connection, session_id: str, *, besides: tuple[str, int]) -> int:
    """What dataframes of a session take here, besides what one run has written itself."""
    (taken,) = connection.execute(
        "SELECT coalesce(sum(size_bytes), 0) FROM dataframes WHERE session_id = ? AND NOT (run_id = ? AND attempt = ?)",
        (session_id, *besides),
    ).fetchone()
    return int(taken)


def drop(connection: sqlite3.Connection, session_id: str, name: str) -> None:
    """Forget a dataframe; without a name, all of a session's, whose runs leave nothing here from now on."""
    if name:
        connection.execute(
            "DELETE FROM dataframes WHERE session_id = ? AND name = ? AND stands = 1", (session_id, name)
        )
        return
    connection.execute("DELETE FROM dataframes WHERE session_id = ?", (session_id,))
    connection.execute("INSERT OR IGNORE INTO dropped_sessions VALUES (?)", (session_id,))


def drop_all(connection: sqlite3.Connection) -> None:
    """Forget every dataframe: the node takes part in nothing any more."""
    connection.execute("DELETE FROM dataframes")
    connection.execute("DELETE FROM dataframe_reads")


def unwanted(connection: sqlite3.Connection, files: Iterable[str]) -> list[str]:
    """Those of these files that no dataframe and no run needs."""
    forget_reads = f"DELETE FROM dataframe_reads WHERE (run_id, attempt) IN (SELECT run_id, attempt FROM runs WHERE state >= {FIRST_TERMINAL})"  # noqa: S608
    connection.execute(forget_reads)
    kept = {
        file for (file,) in connection.execute("SELECT file FROM dataframes UNION SELECT file FROM dataframe_reads")
    }
    return [file for file in files if file not in kept]


def dataframe_not_found(name: str) -> FolkmootError:
    """The error of a dataframe that is not here."""
    text = f"the session has no dataframe {name!r} at this node"
    return FolkmootError(ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND, text, metadata={"name": name})


def _select(connection: sqlite3.Connection, condition: str, *values: object) -> list[StoredDataframe]:
    rows: Sequence[sqlite3.Row] = connection.execute(
        f"SELECT {_COLUMNS} FROM dataframes {condition}",  # noqa: S608 - our own names
        values,
    ).fetchall()
    return [
        StoredDataframe(
            row["session_id"],
            row["name"],
            row["run_id"],
            row["attempt"],
            row["file"],
            row["size_bytes"],
            DataframeLeft.FromString(row["told"]),
            tuple(json.loads(row["lineage"])),
        )
        for row in rows
    ]
