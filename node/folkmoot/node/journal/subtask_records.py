"""What the journal knows of subtasks: what their runs called them, their signed chains, their inputs.

As in `records`, every function is a change, or a query, for `Journal.transact`.
"""

import dataclasses
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.node.journal.records import KEY, RunRecord, StoredEnvelope, put_envelope
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, kw_only=True)
class SubtaskRecord:
    """A subtask, as the journal has it: what its run called it, its signed chain, the envelopes of its inputs."""

    key: str
    task_id: str
    request_digest: bytes
    chain: bytes
    inputs: bytes
    created: int = 0

    @property
    def input_digests(self) -> tuple[bytes, ...]:
        """The envelopes of its inputs."""
        return tuple(self.inputs[at : at + 32] for at in range(0, len(self.inputs), 32))


_SUBTASK_COLUMNS = tuple(item.name for item in dataclasses.fields(SubtaskRecord))
_SELECT_SUBTASK = f"SELECT {', '.join(_SUBTASK_COLUMNS)} FROM subtasks WHERE {KEY}"  # noqa: S608 - our own names


def subtask_by_key(connection: sqlite3.Connection, run: RunRecord, key: str) -> SubtaskRecord | None:
    """A run's subtask, by what the run calls it."""
    row = connection.execute(f"{_SELECT_SUBTASK} AND key = ?", (*run.key, key)).fetchone()
    return SubtaskRecord(**dict(row)) if row else None


def subtask_by_task(connection: sqlite3.Connection, run: RunRecord, task_id: str) -> SubtaskRecord | None:
    """A run's subtask, by its id."""
    row = connection.execute(f"{_SELECT_SUBTASK} AND task_id = ?", (*run.key, task_id)).fetchone()
    return SubtaskRecord(**dict(row)) if row else None


def count_subtasks(connection: sqlite3.Connection, run: RunRecord) -> int:
    """How many subtasks a run has created."""
    (number,) = connection.execute(f"SELECT count(*) FROM subtasks WHERE {KEY}", run.key).fetchone()  # noqa: S608
    return int(number)


def insert_subtask(
    connection: sqlite3.Connection,
    run: RunRecord,
    subtask: SubtaskRecord,
    inputs: Sequence[StoredEnvelope],
    departures: Sequence[Departure],
    *,
    granted: int,
) -> None:
    """Let a subtask stand, and its sealed inputs leave, if its run may have another one. Raises TOO_MANY."""
    if count_subtasks(connection, run) >= granted:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_TOO_MANY, f"this run may create {granted} subtasks, and has created them"
        )
    for envelope in inputs:
        if envelope.inline is not None:
            put_envelope(connection, envelope.digest, envelope.inline)
    connection.execute(
        f"INSERT INTO subtasks (run_id, attempt, {', '.join(_SUBTASK_COLUMNS)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (*run.key, *dataclasses.astuple(subtask)),
    )
    egress.leave(connection, run.key, run.task_id, departures)


def subtask_created(connection: sqlite3.Connection, task_id: str) -> None:
    """Note that the server has a subtask."""
    connection.execute("UPDATE subtasks SET created = 1 WHERE task_id = ?", (task_id,))
