"""Waiting for a registry that does not answer: tried again, ever more rarely, until patience ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar

import structlog

from folkmoot.registry import RegistryUnreachable

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

Tell: TypeAlias = Callable[[str], None]
"""Says in a few words, for people, how far something is that is waited for."""

log = structlog.get_logger()

_Answer = TypeVar("_Answer")


async def while_unreachable(
    attempt: Callable[[], Awaitable[_Answer]], *, patience_seconds: float, tell: Tell
) -> _Answer:
    """Attempt something until a registry answers. What it answers counts; RegistryUnreachable is raised when patience ends."""
    gives_up_at, pause_seconds, attempts = time.monotonic() + patience_seconds, FIRST_PAUSE_SECONDS, 0
    while True:
        try:
            return await attempt()
        except RegistryUnreachable as error:
            attempts += 1
            remaining = gives_up_at - time.monotonic()
            if remaining <= 0:
                raise
            log.warning("registry.unreachable", attempts=attempts, detail=str(error))
            tell(f"the registry can't be reached; tried {'once' if attempts == 1 else f'{attempts} times'}")
        await asyncio.sleep(min(pause_seconds, remaining))
        pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
