"""Rows of what is deleted: marked first, in the transaction that decides it; then their bytes go; then the rows.

A row that is marked is nobody's payload any more, whatever is still in the payload store. Until the bytes are gone the row says
so (`remove_at`); whoever removes them puts that off for others meanwhile, so that one instance does it, and another one if
that dies over it. What a task that is still there has named keeps its row, to say what became of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, ColumnElement, Connection, bindparam, case, delete, func, literal, null, select, update

from folkmoot.server.payloads.quotas import Quota
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import Instant
from folkmoot.server.store.task_tables import (
    IS_KEPT,
    IS_OPEN,
    IS_TO_REMOVE,
    IS_UNNAMED,
    AnyRow,
    deleted_tasks,
    payloads,
    peer_messages,
    run_logs,
    runs,
    scratch_bindings,
    task_dependencies,
    task_labels,
)
from folkmoot.server.store.task_tables import tasks as task_table


@dataclass(frozen=True, slots=True)
class Deleted:
    """What has gone."""

    envelopes: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Deleted") -> "Deleted":
        return Deleted(self.envelopes + other.envelopes, self.size_bytes + other.size_bytes)


# ---- payloads ------------------------------------------------------------------------------------------------------


def delete_payloads(connection: Connection, *conditions: ColumnElement[bool], now: datetime, quota: Quota) -> Deleted:
    """Delete the payloads that meet the conditions: from here on they are not there, and their bytes are to go."""
    in_store = case((payloads.c.envelope.is_(None), literal(now, Instant())), else_=null())
    marked = update(payloads).where(IS_KEPT, *conditions).values(deleted_at=now, remove_at=in_store, envelope=None)
    gone = connection.execute(marked.returning(payloads.c.sender_organization_id, payloads.c.size_bytes)).all()
    for row in gone:
        quota.give_back(connection, row.sender_organization_id, row.size_bytes)
    return Deleted(len(gone), sum(row.size_bytes for row in gone))


def delete_logs(connection: Connection, run_ids: Sequence[str], *, now: datetime) -> Deleted:
    """Delete logs and progress of runs."""
    gone = Deleted()
    for run_id in run_ids:
        here = {"of_run": run_id}
        row = _LOG_SIZE.row(connection, here)
        gone += Deleted(row.envelopes, int(row.size_bytes or 0))
        _DELETE_LOG.each(connection, [here])
        _NOTE_LOG_DELETED.each(connection, [here | {"deleted_at": now}])
    return gone


_SIZES: tuple[Any, ...] = (
    func.count(run_logs.c.position).label("envelopes"),
    func.sum(func.length(run_logs.c.envelope)).label("size_bytes"),
)
_LOG_SIZE = Prepared(select(*_SIZES).where(run_logs.c.run_id == bindparam("of_run")))
_DELETE_LOG = Prepared(delete(run_logs).where(run_logs.c.run_id == bindparam("of_run")))
_NOTE_LOG_DELETED = Prepared(
    update(runs)
    .where(runs.c.run_id == bindparam("of_run"))
    .values(logs_deleted_at=bindparam("deleted_at"), progress_envelope=b"")
)


# ---- tasks ---------------------------------------------------------------------------------------------------------


def below(task_id: str) -> CTE:
    """Select a task and all below it."""
    found = select(task_table.c.task_id).where(task_table.c.task_id == task_id).cte("below", recursive=True)
    return found.union_all(select(task_table.c.task_id).join(found, task_table.c.parent_task_id == found.c.task_id))


def tree(connection: Connection, task_id: str) -> list[str]:
    """Return a task and all below it, by id."""
    return list(connection.scalars(select(below(task_id).c.task_id)))


def has_open_runs(connection: Connection, task_id: str) -> bool:
    """Whether anything of a task or below it has not ended."""
    here = runs.c.task_id.in_(select(below(task_id).c.task_id))
    return connection.execute(select(runs.c.run_id).where(here, IS_OPEN).limit(1)).first() is not None


def dependants(connection: Connection, task_ids: Sequence[str]) -> list[str]:
    """Return the tasks that depend on one of a tree and are none of it themselves."""
    found = (row.task_id for task_id in task_ids for row in _DEPENDANTS.rows(connection, {"on_task": task_id}))
    return sorted(set(found) - set(task_ids))


_DEPENDANTS = Prepared(
    select(task_dependencies.c.task_id).where(task_dependencies.c.depends_on_task_id == bindparam("on_task"))
)


def delete_tasks(connection: Connection, task_ids: Sequence[str], *, now: datetime, quota: Quota) -> None:
    """Delete tasks with all that is theirs, and see to it that the same signed tasks do not come back."""
    jobs = set()
    for task_id in task_ids:
        delete_payloads(connection, payloads.c.task_id == task_id, now=now, quota=quota)
        here = {"of_task": task_id}
        jobs.add(_JOB.row(connection, here).job_id)
        for statement in _OF_A_TASK:
            statement.each(connection, [here])
        _NOTE_DELETED.each(connection, [{"task_id": task_id, "deleted_at": now}])
    for job_id in jobs:
        _FORGET_SCRATCH.each(connection, [{"of_job": job_id}])


_RUNS_OF_TASK = select(runs.c.run_id).where(runs.c.task_id == bindparam("of_task"))
_POSITION = select(task_table.c.position).where(task_table.c.task_id == bindparam("of_task"))
_JOB = Prepared(select(task_table.c.job_id).where(task_table.c.task_id == bindparam("of_task")))
_OF_A_TASK = tuple(
    Prepared(statement)
    for statement in (
        delete(run_logs).where(run_logs.c.run_id.in_(_RUNS_OF_TASK)),
        delete(peer_messages).where(peer_messages.c.to_run_id.in_(_RUNS_OF_TASK)),
        delete(runs).where(runs.c.task_id == bindparam("of_task")),
        delete(task_dependencies).where(task_dependencies.c.task_id == bindparam("of_task")),
        delete(task_labels).where(task_labels.c.position.in_(_POSITION)),
        delete(payloads).where(
            payloads.c.task_id == bindparam("of_task"),
            payloads.c.deleted_at.is_not(None),
            payloads.c.remove_at.is_(None),
        ),
        delete(task_table).where(task_table.c.task_id == bindparam("of_task")),
    )
)
_NOTE_DELETED = Prepared(
    deleted_tasks.insert().values(task_id=bindparam("task_id"), deleted_at=bindparam("deleted_at"))
)
_FORGET_SCRATCH = Prepared(
    delete(scratch_bindings).where(
        scratch_bindings.c.job_id == bindparam("of_job"),
        ~select(task_table.c.position).where(task_table.c.job_id == bindparam("of_job")).exists(),
    )
)


def was_deleted(connection: Connection, task_id: str) -> bool:
    """Whether a task of that id was deleted not long ago."""
    return _WAS_DELETED.row(connection, {"task_id": task_id}) is not None


_WAS_DELETED = Prepared(select(deleted_tasks.c.task_id).where(deleted_tasks.c.task_id == bindparam("task_id")))


def forget_deleted_tasks(connection: Connection, before: datetime) -> None:
    """Forget which tasks were deleted before a time: nobody's signature on them is good any more."""
    connection.execute(delete(deleted_tasks).where(deleted_tasks.c.deleted_at < before))


# ---- bytes ---------------------------------------------------------------------------------------------------------


def due(connection: Connection, now: datetime, *, most: int) -> list[bytes]:
    """Return the payloads whose bytes are to go and that nobody is about to remove."""
    waiting = select(payloads.c.envelope_digest).where(IS_TO_REMOVE, payloads.c.remove_at <= now)
    return [bytes(digest) for digest in connection.scalars(waiting.order_by(payloads.c.remove_at).limit(most))]


def claim(connection: Connection, digest: bytes, *, now: datetime, until: datetime) -> bool:
    """Take the removal of a payload's bytes upon oneself, until a time; False if somebody else has."""
    free = update(payloads).where(payloads.c.envelope_digest == digest, IS_TO_REMOVE, payloads.c.remove_at <= now)
    return connection.execute(free.values(remove_at=until)).rowcount == 1


def removed(connection: Connection, digest: bytes, *, until: datetime) -> None:
    """Note that a payload's bytes are gone, unless the removal was somebody else's by then."""
    mine = (payloads.c.envelope_digest == digest, payloads.c.remove_at == until)
    is_told_of = select(task_table.c.position).where(task_table.c.task_id == payloads.c.task_id).exists()
    connection.execute(
        delete(payloads).where(*mine, payloads.c.deleted_at.is_not(None), (payloads.c.readers == "") | ~is_told_of)
    )
    connection.execute(update(payloads).where(*mine).values(remove_at=None))


# ---- uploads -------------------------------------------------------------------------------------------------------


def begun_before(connection: Connection, before: datetime) -> list[bytes]:
    """Return the uploads that were begun before a time and are not complete."""
    return _unnamed(connection, before, payloads.c.completed_at.is_(None))


def unnamed_since(connection: Connection, before: datetime) -> list[bytes]:
    """Return the payloads that were complete before a time and that no task and no result has named since."""
    return _unnamed(connection, before, payloads.c.completed_at < before)


def _unnamed(connection: Connection, before: datetime, condition: ColumnElement[bool]) -> list[bytes]:
    found = select(payloads.c.envelope_digest).where(IS_UNNAMED, payloads.c.created_at < before, condition)
    return [bytes(digest) for digest in connection.scalars(found)]


def came_too_late(connection: Connection, begun: AnyRow, *, now: datetime) -> None:
    """See to it that a part goes that came when its upload had been given up, or what it is of had been sent along."""
    here = payloads.c.envelope_digest == begun.envelope_digest
    in_row = payloads.c.envelope.is_not(None)
    row = connection.execute(select(payloads.c.deleted_at, in_row.label("inline")).where(here)).one_or_none()
    if row is None:
        left = {column.name: getattr(begun, column.name) for column in payloads.c if column is not payloads.c.envelope}
        connection.execute(payloads.insert().values(left | {"deleted_at": now, "remove_at": now}))
    elif row.inline or row.deleted_at is not None:
        connection.execute(update(payloads).where(here).values(remove_at=now))


def abandon(connection: Connection, digest: bytes, before: datetime, *, now: datetime, quota: Quota) -> bool:
    """Delete what nothing has named and of which nothing came since a time; tell whether it was still so."""
    is_finished = payloads.c.completed_at.is_(None) | (payloads.c.completed_at < before)
    here = (payloads.c.envelope_digest == digest, IS_UNNAMED, payloads.c.created_at < before, is_finished)
    return bool(delete_payloads(connection, *here, now=now, quota=quota).envelopes)
