"""Deletion: what is asked for goes from the rows at once, in one transaction; its bytes follow, whatever crashes meanwhile.

Specs and receipts of a task whose payloads are deleted stay and still prove what happened. A deleted task is gone with all below
it; what members have exported as proof stays theirs.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.payloads.quotas import Quota
from folkmoot.server.payloads.stores import PayloadStore
from folkmoot.server.store import removal_rows, views
from folkmoot.server.store.removal_rows import Deleted
from folkmoot.server.store.task_tables import payloads, runs
from folkmoot.server.store.touched import Touched
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_service_pb2 import PayloadKind

REMOVED_WITHIN = timedelta(minutes=10)
"""So long an instance has to remove a payload's bytes before another one tries."""
AT_ONCE = 100
EVERY_SECONDS = 30.0

ENVELOPE_KINDS = {
    PayloadKind.PAYLOAD_KIND_INPUT: (EnvelopeKind.ENVELOPE_KIND_INPUT,),
    PayloadKind.PAYLOAD_KIND_RESULT: (EnvelopeKind.ENVELOPE_KIND_RESULT, EnvelopeKind.ENVELOPE_KIND_FAILURE),
}


# ---- asked for -----------------------------------------------------------------------------------------------------


def delete_payloads(
    connection: Connection,
    caller: Caller,
    task_id: str,
    kinds: Collection[PayloadKind.ValueType],
    *,
    now: datetime,
    quota: Quota,
) -> Deleted:
    """Delete sealed contents of an ended task and of all below it. Raises TASK_NOT_FOUND, TASK_NOT_ENDED."""
    _ended(connection, caller, task_id)
    wanted = set(kinds) or set(PayloadKind.values()) - {PayloadKind.PAYLOAD_KIND_UNSPECIFIED}
    below = select(removal_rows.below(task_id).c.task_id)
    sealed = [kind for each in wanted for kind in ENVELOPE_KINDS.get(each, ())]
    gone = removal_rows.delete_payloads(
        connection, payloads.c.task_id.in_(below), payloads.c.kind.in_(sealed), now=now, quota=quota
    )
    if PayloadKind.PAYLOAD_KIND_LOG in wanted:
        run_ids = list(connection.scalars(select(runs.c.run_id).where(runs.c.task_id.in_(below))))
        gone += removal_rows.delete_logs(connection, run_ids, now=now)
    return gone


def delete_task(
    connection: Connection, caller: Caller, task_id: str, *, now: datetime, quota: Quota, touched: Touched
) -> list[str]:
    """Delete an ended task with all below it; return which tasks these were, none if it was deleted before.

    Raises TASK_NOT_FOUND, TASK_NOT_ENDED, HAS_DEPENDENTS.
    """
    if removal_rows.was_deleted(connection, task_id):
        return []
    _ended(connection, caller, task_id)
    task_ids = removal_rows.tree(connection, task_id)
    if dependants := removal_rows.dependants(connection, task_ids):
        text = f"{len(dependants)} tasks depend on it, {dependants[0]} for one: delete them first"
        raise FolkmootError(ErrorReason.ERROR_REASON_HAS_DEPENDENTS, text, metadata={"task_id": dependants[0]})
    removal_rows.delete_tasks(connection, task_ids, now=now, quota=quota)
    for each in task_ids:
        touched.task(each)
    return task_ids


def _ended(connection: Connection, caller: Caller, task_id: str) -> None:
    views.find_task(connection, caller, task_id, views.DELETE)
    if removal_rows.has_open_runs(connection, task_id):
        text = f"The task {task_id}, or a task below it, has not ended: cancel it, and wait for its end"
        raise FolkmootError(ErrorReason.ERROR_REASON_TASK_NOT_ENDED, text, metadata={"task_id": task_id})


# ---- what follows --------------------------------------------------------------------------------------------------


class Removals:
    """Removes the bytes of deleted payloads. Any number of instances may do so at once."""

    def __init__(self, core: Core, store: PayloadStore) -> None:
        self._core = core
        self.store = store
        self._asked = asyncio.Event()

    def hurry(self) -> None:
        """There is something to remove."""
        self._asked.set()

    async def keep_going(self) -> None:
        """Remove what is due, until the server is about to stop."""
        while not self._core.draining.is_set():
            self._asked.clear()
            try:
                await self.remove_due()
            except Exception:
                self._core.log.exception("payloads.not_removed")
                await self._core.pause(EVERY_SECONDS)
            await self._wait()

    async def _wait(self) -> None:
        waits = [asyncio.ensure_future(each.wait()) for each in (self._asked, self._core.draining)]
        try:
            with suppress(TimeoutError):
                await asyncio.wait(waits, timeout=EVERY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def remove_due(self) -> None:
        """Remove the bytes of all payloads that are deleted."""
        while digests := await self._core.store.read(
            lambda connection: removal_rows.due(connection, self._core.clock(), most=AT_ONCE)
        ):
            for digest in digests:
                await self.remove(digest)

    async def remove(self, digest: bytes) -> None:
        """Remove a deleted payload's bytes, and then what says that they are to go."""
        now = self._core.clock()
        until = now + REMOVED_WITHIN
        if await self._core.store.write(
            lambda connection: removal_rows.claim(connection, digest, now=now, until=until)
        ):
            failpoint("server.removal.claimed")
            await self.store.remove(digest)
            failpoint("server.removal.done")
            await self._core.store.write(lambda connection: removal_rows.removed(connection, digest, until=until))
