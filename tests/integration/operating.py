"""`folkmoot server …` as an operator calls it."""

import asyncio
from pathlib import Path

from folkmoot.cli.app import run


def command(*arguments: str | Path) -> int:
    """Run `folkmoot server …` and return its exit code."""
    try:
        return int(run(["server", *map(str, arguments)]))
    except SystemExit as ended:
        return int(ended.code or 0)


async def in_thread(*arguments: str | Path) -> int:
    """Run it beside what goes on in this event loop."""
    return await asyncio.to_thread(command, *arguments)
