"""Retention: inputs, results and logs of tasks that have ended go when they are old enough, as the settings say.

Specs and receipts stay. A task has ended when the last of its runs has; a payload can't be older than that is ago unless its task
ended later, so that what is looked at is what goes, and the few of tasks that go on for very long.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, or_, select

from folkmoot.server.audit import events
from folkmoot.server.core import Core
from folkmoot.server.store import removal_rows
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.removal_rows import Deleted
from folkmoot.server.store.task_tables import HAS_LOGS, IS_KEPT, AnyRow, payloads, runs
from folkmoot.server.tasks.deletion import ENVELOPE_KINDS, Removals
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.task_service_pb2 import PayloadKind

AT_ONCE = 200

Key = tuple[Any, ...]
Step = Callable[[Connection, Key | None], tuple[Deleted, Key | None]]
"""Deletes of the next few behind a key what is old enough; returns how much that was, and the next key if there may be more."""


async def forget_aged(core: Core, removals: Removals) -> None:
    """Delete what is older than the settings keep it."""
    config, now = core.config, core.clock()
    days = {
        PayloadKind.PAYLOAD_KIND_INPUT: config.retention_input_days,
        PayloadKind.PAYLOAD_KIND_RESULT: config.retention_result_days,
    }
    for asked, kept_days in days.items():
        for kind in ENVELOPE_KINDS[asked] if kept_days else ():
            await _forget(core, asked, _payloads(core, kind, before=now - timedelta(days=kept_days), now=now))
    if config.retention_log_days:
        before = now - timedelta(days=config.retention_log_days)
        await _forget(core, PayloadKind.PAYLOAD_KIND_LOG, _logs(before, now))
    removals.hurry()


async def _forget(core: Core, kind: PayloadKind.ValueType, step: Step) -> None:
    author = events.author(now=core.clock())

    def recorded(connection: Connection, key: Key | None) -> Key | None:
        gone, following = step(connection, key)
        if gone.envelopes:
            data = {"kind": PayloadKind.Name(kind), "envelopes": gone.envelopes, "size_bytes": gone.size_bytes}
            author("payload.expire", data)(connection)
        return following

    key = await core.store.write(lambda connection: recorded(connection, None))
    while key is not None and not core.draining.is_set():
        key = await core.store.write(lambda connection: recorded(connection, key))  # noqa: B023


def _payloads(core: Core, kind: EnvelopeKind.ValueType, *, before: datetime, now: datetime) -> Step:
    order = (payloads.c.created_at, payloads.c.envelope_digest)

    def step(connection: Connection, key: Key | None) -> tuple[Deleted, Key | None]:
        wanted = select(*order, payloads.c.task_id).where(
            IS_KEPT, payloads.c.kind == kind, payloads.c.created_at < before, *_behind(order, key)
        )
        rows = connection.execute(wanted.order_by(*order).limit(AT_ONCE)).all()
        old = [row.envelope_digest for row in rows if _ended_before(connection, row.task_id, before)]
        named = payloads.c.envelope_digest.in_(old)
        gone = removal_rows.delete_payloads(connection, named, now=now, quota=core.quota) if old else Deleted()
        return gone, _following(rows)

    return step


def _logs(before: datetime, now: datetime) -> Step:
    order = (runs.c.ended_at, runs.c.run_id)

    def step(connection: Connection, key: Key | None) -> tuple[Deleted, Key | None]:
        wanted = select(*order, runs.c.task_id).where(HAS_LOGS, runs.c.ended_at < before, *_behind(order, key))
        rows = connection.execute(wanted.order_by(*order).limit(AT_ONCE)).all()
        old = [row.run_id for row in rows if _ended_before(connection, row.task_id, before)]
        return removal_rows.delete_logs(connection, old, now=now), _following(rows)

    return step


def _behind(order: Sequence[ColumnElement[Any]], key: Key | None) -> tuple[ColumnElement[bool], ...]:
    if key is None:
        return ()
    (first, second), (first_key, second_key) = order, key
    return (or_(first > first_key, and_(first == first_key, second > second_key)),)


def _following(rows: Sequence[AnyRow]) -> Key | None:
    return tuple(rows[-1][:2]) if len(rows) == AT_ONCE else None


def _ended_before(connection: Connection, task_id: str, before: datetime) -> bool:
    """Whether all runs of a task had ended before a time; no runs are no task."""
    here = {"of_task": task_id}
    return _ANY_RUN.row(connection, here) is not None and _LATER.row(connection, here | {"before": before}) is None


_ANY_RUN = Prepared(select(runs.c.run_id).where(runs.c.task_id == bindparam("of_task")).limit(1))
_LATER = Prepared(
    select(runs.c.run_id)
    .where(
        runs.c.task_id == bindparam("of_task"), or_(runs.c.ended_at.is_(None), runs.c.ended_at >= bindparam("before"))
    )
    .limit(1)
)
