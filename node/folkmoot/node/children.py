"""How this program starts modules of its own as child processes, as an installed package and as a one-file executable alike."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_UNPACKED = ("LD_LIBRARY_PATH", "_PYI_")
"""What tells a child of a one-file executable where its parent has unpacked it; without that it would unpack itself once more."""
_STARTED_BY_THEN_SECONDS = 2.0


def module_command(module: str) -> tuple[str, ...]:
    """The command that runs a module, of nothing but what is installed."""
    if is_one_file():
        return (sys.executable, "-m", module)
    return (sys.executable, "-I", "-m", module)


def least_environment() -> Mapping[str, str]:
    """The environment of a child that needs none."""
    if not is_one_file():
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith(_UNPACKED)}


def is_one_file() -> bool:
    """Whether this program is one executable file."""
    return getattr(sys, "frozen", False)


async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a child; options are those of `asyncio.create_subprocess_exec`. Who is cancelled meanwhile leaves none behind, and ends.

    That function, cancelled before it has connected the child's pipes, kills the child and then waits for these for ever.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*command, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _abandon(starting)
        raise


async def _abandon(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    """End a child that nobody wants any more, however far it has come."""
    await asyncio.wait((starting,), timeout=_STARTED_BY_THEN_SECONDS)
    if not starting.done():  # it was cancelled as well, when the loop ends: once more ends its waiting
        starting.cancel()
        await asyncio.wait((starting,))
    if starting.cancelled() or starting.exception() is not None:
        return
    child = starting.result()
    with suppress(ProcessLookupError):
        child.kill()
    await child.wait()
