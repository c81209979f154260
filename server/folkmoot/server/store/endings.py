"""Endings: runs that the server itself ends, and what the end of a run means for tasks that depend on it.

All in the transaction of whatever ended the run, so that a dependant is delivered with the last result it waited for,
or cancelled with the first failure.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, select, update

from folkmoot.server.store import deliveries, links, runs, scratch, session_rows
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import IS_PENDING, peer_messages, task_dependencies
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.server.tasks.states import Run, State, Verdict
from folkmoot.v1.errors_pb2 import ErrorReason


def end(
    connection: Connection,
    pending: Sequence[Run],
    state: State,
    reason: ErrorReason.ValueType,
    *,
    now: datetime,
    touched: Touched,
) -> None:
    """End runs that no node has accepted, or can end. A node that is just about to accept one is told that it is not wanted."""
    runs.move(connection, pending, touched, state=state, reason=reason, ended_at=now)
    deliveries.cancel(connection, pending, touched)
    settle(connection, {run.task_id for run in pending}, now=now, touched=touched)


def settle(connection: Connection, task_ids: Iterable[str], *, now: datetime, touched: Touched) -> None:
    """Start or cancel what depends on tasks of which a run has just ended, and what depends on that in turn."""
    moved = deque(task_ids)
    while moved:
        _forget_messages(connection, moved[0], touched)
        for dependant in _blocked_by(connection, moved.popleft()):
            match states.verdict(_states_before(connection, dependant)):
                case Verdict.START:
                    _unblock(connection, dependant)
                    waiting = runs.where(connection, run_table.c.task_id == dependant)
                    deliveries.assign(connection, [run for run in waiting if run.state == states.PENDING], touched)
                    touched.task(dependant)
                case Verdict.FAIL:
                    _unblock(connection, dependant)
                    fail(connection, dependant, now=now, touched=touched)
                    moved.append(dependant)
                case Verdict.WAIT:
                    pass


def _forget_messages(connection: Connection, task_id: str, touched: Touched) -> None:
    """Drop messages to runs that have ended: nobody reads them any more, and nobody needs to wait until somebody does."""
    pairs = _UNREADABLE.rows(connection, {"of_task": task_id})
    for row in pairs:
        _FORGET_MESSAGES.each(connection, [{"reader": row.to_run_id}])
        if row.sender_link_id is not None:
            touched.link(row.sender_link_id)


_SENDER = run_table.alias("senders")
_UNREADABLE = Prepared(
    select(peer_messages.c.to_run_id, _SENDER.c.link_id.label("sender_link_id"))
    .distinct()
    .join_from(run_table, peer_messages, peer_messages.c.to_run_id == run_table.c.run_id)
    .join(_SENDER, _SENDER.c.run_id == peer_messages.c.from_run_id)
    .where(run_table.c.task_id == bindparam("of_task"), run_table.c.state >= int(states.COMPLETED))
)
_FORGET_MESSAGES = Prepared(delete(peer_messages).where(peer_messages.c.to_run_id == bindparam("reader")))


def fail(connection: Connection, task_id: str, *, now: datetime, touched: Touched) -> None:
    """Cancel the runs of a task whose dependencies can't be completed any more. No node was told of them."""
    pending = runs.where(connection, run_table.c.task_id == task_id, run_table.c.state == states.PENDING)
    reason = ErrorReason.ERROR_REASON_DEPENDENCY_FAILED
    runs.move(connection, pending, touched, state=states.CANCELLED, reason=reason, ended_at=now)


def _blocked_by(connection: Connection, task_id: str) -> list[str]:
    return [row.task_id for row in _BLOCKED_BY.rows(connection, {"ended_task_id": task_id})]


_BLOCKED_BY = Prepared(
    select(task_table.c.task_id)
    .join(task_dependencies, task_dependencies.c.task_id == task_table.c.task_id)
    .where(task_dependencies.c.depends_on_task_id == bindparam("ended_task_id"), task_table.c.blocked)
)


def _states_before(connection: Connection, task_id: str) -> list[State]:
    before = (
        select(run_table.c.state)
        .join(task_dependencies, task_dependencies.c.depends_on_task_id == run_table.c.task_id)
        .where(task_dependencies.c.task_id == task_id)
    )
    return list(connection.scalars(before))


def _unblock(connection: Connection, task_id: str) -> None:
    connection.execute(update(task_table).where(task_table.c.task_id == task_id).values(blocked=False))


# ---- the server's own endings --------------------------------------------------------------------------------------


def are_late(connection: Connection, *, now: datetime) -> bool:
    """Whether there are runs that no node has accepted in time."""
    return connection.execute(_late(now).limit(1)).first() is not None


def expire(connection: Connection, *, now: datetime, touched: Touched, most: int) -> None:
    """End runs that no node has accepted in time, the oldest first. What waited for files or dataframes did not find these."""
    expired = [runs.run_of(row) for row in connection.execute(_late(now).limit(most))]
    lost = [run for run in expired if scratch.out_of_reach(connection, run)]
    end(connection, lost, states.EXPIRED, ErrorReason.ERROR_REASON_SCRATCH_LOST, now=now, touched=touched)
    rest = [run for run in expired if run not in lost]
    unread = [run for run in rest if session_rows.out_of_reach(connection, run)]
    end(connection, unread, states.EXPIRED, ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND, now=now, touched=touched)
    rest = [run for run in rest if run not in unread]
    end(connection, rest, states.EXPIRED, ErrorReason.ERROR_REASON_TASK_EXPIRED, now=now, touched=touched)


def _late(now: datetime) -> Select[*tuple[Any, ...]]:
    late = select(*runs.DECISIVE).where(IS_PENDING, run_table.c.expires_at <= now)
    return late.order_by(run_table.c.expires_at)


def cancel_tree(connection: Connection, task_id: str, *, now: datetime, touched: Touched) -> None:
    """Cancel a task and all below it: what no node has ends here, for the rest nodes are asked, while there are such."""
    below = select(task_table.c.task_id).where(task_table.c.task_id == task_id).cte("below", recursive=True)
    below = below.union_all(select(task_table.c.task_id).join(below, task_table.c.parent_task_id == below.c.task_id))
    found = runs.where(connection, run_table.c.task_id.in_(select(below.c.task_id)))
    asked = [run for run in found if states.cancel(run) is states.Cancel.ASKS_NODE]
    abandoned = runs.where(connection, links.abandoned(), run_table.c.run_id.in_([run.run_id for run in asked]))
    asked = [run for run in asked if run not in abandoned]
    runs.move(connection, asked, touched, cancelling=True)
    deliveries.cancel(connection, asked, touched)
    ended = abandoned + [run for run in found if states.cancel(run) is states.Cancel.ENDS]
    end(connection, ended, states.CANCELLED, ErrorReason.ERROR_REASON_CANCELLED, now=now, touched=touched)
