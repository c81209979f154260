"""What a station owes to somebody waits for room on its disk: it is done again until it is written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.storage import DiskFull

_Result = TypeVar("_Result")

log = structlog.get_logger()


async def with_room(act: Callable[[], Awaitable[_Result]], *, run_id: str) -> _Result:
    """Do something for a run that writes to the disk, again and again while that is full; it must be repeatable."""
    attempt = 0
    while True:
        try:
            return await act()
        except DiskFull as full:
            attempt += 1
            (log.debug if attempt > 1 else log.critical)(
                "node.disk_full", run_id=run_id, detail=str(full), help=full.help
            )
        await asyncio.sleep(pause_seconds(attempt))
