"""Rows of runs: read for decisions, and moved by compare-and-set.

Every run that moves takes the next revision of its task. No two runs share one, so that it is a cursor for whoever
watches: behind a revision comes exactly what he has not seen.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import cast

from sqlalchemy import ColumnElement, Connection, bindparam, select, update

from folkmoot.server.store import usage_rows
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import AnyRow, runs
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.store.usage_rows import Counted
from folkmoot.server.tasks.states import TERMINAL, Run
from folkmoot.v1.task_pb2 import RunState

DECISIVE = (
    runs.c.run_id,
    runs.c.task_id,
    runs.c.state,
    runs.c.attempt,
    runs.c.link_id,
    runs.c.cancelling,
    runs.c.receipt,
    runs.c.attempts_allowed,
)
_LOAD = Prepared(select(*DECISIVE, runs.c.position).where(runs.c.run_id == bindparam("wanted_run_id")))
_BUMP = Prepared(
    update(task_table)
    .where(task_table.c.task_id == bindparam("moved_task_id"))
    .values(revision=task_table.c.revision + bindparam("moved_runs"))
    .returning(task_table.c.revision, task_table.c.initiator_organization_id)
)
_UNMOVED = Prepared(
    update(runs).where(
        runs.c.run_id == bindparam("moved_run_id"),
        runs.c.state == bindparam("from_state"),
        runs.c.attempt == bindparam("in_attempt"),
    )
)


def run_of(row: AnyRow) -> Run:
    """Return what decisions rest on; the row has the DECISIVE columns."""
    state = RunState.ValueType(row.state)
    receipt, allowed = row.receipt, row.attempts_allowed
    return Run(row.run_id, row.task_id, state, row.attempt, row.link_id, row.cancelling, receipt, allowed)


def where(connection: Connection, *conditions: ColumnElement[bool]) -> list[Run]:
    """Return the runs that meet the conditions, oldest first; nobody else moves them before this transaction ends."""
    rows = connection.execute(select(*DECISIVE).where(*conditions).order_by(runs.c.position).with_for_update())
    return [run_of(row) for row in rows]


def load(connection: Connection, run_ids: Iterable[str]) -> list[Run]:
    """Return the runs with these ids that there are, oldest first; nobody else moves them before this transaction ends."""
    found = (_LOAD.row(connection, {"wanted_run_id": run_id}) for run_id in dict.fromkeys(run_ids))
    return [run_of(row) for row in sorted((row for row in found if row), key=lambda row: row.position)]


def move(connection: Connection, moving: Sequence[Run], touched: Touched, **values: object) -> None:
    """Set columns of runs that still are as they were when they were read; count those that end as their initiator's.

    A run that has moved meanwhile stays as it is: whoever needs to know reads it again.
    """
    by_task: defaultdict[str, list[Run]] = defaultdict(list)
    for run in moving:
        by_task[run.task_id].append(run)
    for task_id in sorted(by_task):
        number = len(by_task[task_id])
        bumped = _BUMP.row(connection, {"moved_task_id": task_id, "moved_runs": number})
        if bumped is None:
            raise LookupError(task_id)
        rows = [
            {
                "moved_run_id": run.run_id,
                "from_state": run.state,
                "in_attempt": run.attempt,
                "revision": bumped.revision - number + index,
                **values,
            }
            for index, run in enumerate(by_task[task_id], start=1)
        ]
        _UNMOVED.each(connection, rows)
        touched.task(task_id)
        if values.get("state") in TERMINAL:
            asked = Counted(organization_id=bumped.initiator_organization_id, runs_asked_for=number)
            usage_rows.add(connection, cast("datetime", values["ended_at"]), asked)
