"""Uploads that nobody finishes: what came of them goes a day after the last of it came.

Whoever still wants to upload such an envelope begins again, and loses nothing but time.
"""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

from folkmoot.server.core import Core
from folkmoot.server.payloads import PayloadStore
from folkmoot.server.store import payload_rows

ABANDONED_AFTER = timedelta(days=1)
EVERY_SECONDS = 3600.0


async def keep_tidy(core: Core, store: PayloadStore) -> None:
    """Forget abandoned uploads, now and every hour, until the server is about to stop."""
    await store.remove_unfinished()
    while not core.draining.is_set():
        try:
            await forget_abandoned(core, store)
        except Exception:
            core.log.exception("uploads.not_tidied")
        with suppress(TimeoutError):
            await asyncio.wait_for(core.draining.wait(), EVERY_SECONDS)


async def forget_abandoned(core: Core, store: PayloadStore) -> None:
    """Forget the uploads that were begun, and of which nothing came for a day."""
    before = core.clock() - ABANDONED_AFTER
    begun = await core.store.read(lambda connection: payload_rows.begun_before(connection, before))
    for digest in begun:
        if await store.is_older(digest, before) and await _abandon(core, digest, before):
            await store.remove(digest)
            core.log.info("uploads.abandoned", envelope_digest=digest.hex())


async def _abandon(core: Core, digest: bytes, before: datetime) -> bool:
    return await core.store.write(lambda connection: payload_rows.abandon_begun(connection, digest, before))
