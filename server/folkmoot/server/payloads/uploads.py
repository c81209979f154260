"""Uploads that nobody finishes, and payloads that nothing names: they go some time after the last of them came.

Whoever still wants to upload such an envelope begins again, and loses nothing but time.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from folkmoot.server.core import Core
from folkmoot.server.payloads.retention import forget_aged
from folkmoot.server.payloads.stores import PayloadStore
from folkmoot.server.store import removal_rows
from folkmoot.server.tasks.deletion import Removals

ABANDONED_AFTER = timedelta(days=1)
UNNAMED_AFTER = timedelta(days=7)
"""So long a signed task may still come for which an input was uploaded, and a node may be away with its result's receipt."""
FORGOTTEN_AFTER = timedelta(days=8)
"""A signed task is good for 7 days: after that nobody can send again one that was deleted."""
EVERY_SECONDS = 3600.0

Find = Callable[[Connection, datetime], list[bytes]]


async def keep_tidy(core: Core, store: PayloadStore, removals: Removals) -> None:
    """Forget what is abandoned and what is old, now and every hour, until the server is about to stop."""
    while not core.draining.is_set():
        try:
            await store.remove_unfinished()
            await core.store.write(core.quota.recount)
            await forget_abandoned(core, store, removals)
            await forget_aged(core, removals)
            before = core.clock() - FORGOTTEN_AFTER
            await core.store.write(lambda connection: removal_rows.forget_deleted_tasks(connection, before))  # noqa: B023
        except Exception:
            core.log.exception("payloads.not_tidied")
        await core.pause(EVERY_SECONDS)


async def forget_abandoned(core: Core, store: PayloadStore, removals: Removals) -> None:
    """Forget uploads of which nothing came for a day, and what is complete and was named by nothing for a week."""
    await _forget(core, store, removals, removal_rows.begun_before, ABANDONED_AFTER)
    await _forget(core, store, removals, removal_rows.unnamed_since, UNNAMED_AFTER)


async def _forget(core: Core, store: PayloadStore, removals: Removals, find: Find, after: timedelta) -> None:
    now = core.clock()
    before = now - after
    for digest in await core.store.read(lambda connection: find(connection, before)):

        def abandon(connection: Connection, digest: bytes = digest) -> bool:
            return removal_rows.abandon(connection, digest, before, now=now, quota=core.quota)

        if await store.is_older(digest, before) and await core.store.write(abandon):
            await removals.remove(digest)
            core.log.info("uploads.abandoned", envelope_digest=digest.hex())
