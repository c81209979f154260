"""Waiting for a file descriptor without a thread."""

import asyncio


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read: a pipe has bytes or its end, a process descriptor's process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
