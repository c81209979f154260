"""Limits of a crowd: bare unary calls per second, and many bare streams, each on a TLS connection of its own.

The server echoes, and pushes one frame into every stream when it is told to; it authenticates nobody and stores nothing.
What is measured of the streams: their handshakes, the memory of one that waits, and one frame into all of them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio

from bench.limits.common import (
    Child,
    Figure,
    TlsFiles,
    announce_ready,
    make_tls_files,
    print_figures,
    resident_mebibytes,
    scratch_folder,
)

SERVICE = "limit"
IN_FLIGHT = 64
STREAMS = 1000
AT_ONCE = 1000
"""How many connect at the same moment."""
HANDSHAKES = 3
"""How often all of them connect."""
OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
"""Channels with equal arguments share one connection unless told not to."""

Channel = grpc.aio.Channel
Item = TypeVar("Item")


@dataclass(frozen=True)
class Limits:
    """What bare programs reach."""

    calls: Figure
    handshakes: Figure
    memory: Figure
    push: Figure


def measure(*, streams: int = STREAMS, calls: int = 10_000, repetitions: int = 5) -> Limits:
    """Measure them all at one server after the other."""
    with scratch_folder() as folder:
        tls = make_tls_files(folder)
        with Child("-m", "bench.limits.crowd", "--serve", str(folder)) as server:
            port = int(server.ready["port"])
            rates = asyncio.run(_rates(port, tls.trusted, calls, repetitions))
        with Child("-m", "bench.limits.crowd", "--serve", str(folder)) as server:
            port, pid = int(server.ready["port"]), int(server.ready["pid"])
            seconds, kibibytes, pushes = asyncio.run(_streams(port, pid, tls.trusted, streams, repetitions))
    return Limits(
        Figure("calls", "calls/s", rates),
        Figure("reconnect storm", "s", seconds, {"connections": streams}),
        Figure("idle nodes", "KiB", (kibibytes,), {"streams": streams}),
        Figure("fan-out", "ms", pushes, {"streams": streams}),
    )


async def in_flight(call: Callable[[], Awaitable[object]], number: int, requests: int) -> float:
    """Return how many calls a second are answered, `number` of them under way at a time."""
    waiting = iter(range(requests))

    async def work() -> None:
        for _ in waiting:
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(number)))
    return requests / (time.perf_counter() - began)


async def in_lots(items: Sequence[Item], do: Callable[[Item], Awaitable[object]]) -> None:
    """Do something for all of them, as many at once as neither side gives up waiting for on a small machine."""
    for first in range(0, len(items), AT_ONCE):
        await asyncio.gather(*(do(item) for item in items[first : first + AT_ONCE]))


def open_channels(
    target: str, trusted: bytes, number: int, options: Sequence[tuple[str, int | str]] = ()
) -> list[Channel]:
    """Open channels, each with a connection of its own."""
    credentials = grpc.ssl_channel_credentials(trusted)
    return [grpc.aio.secure_channel(target, credentials, options=[*options, OWN_CONNECTION]) for _ in range(number)]


async def _rates(port: int, trusted: bytes, calls: int, repetitions: int) -> tuple[float, ...]:
    async with AsyncExitStack() as stack:
        [channel] = open_channels(f"localhost:{port}", trusted, 1)
        await stack.enter_async_context(channel)
        echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/Echo")
        await in_flight(lambda: echo(b"x" * 32), IN_FLIGHT, calls // 10)
        return tuple([await in_flight(lambda: echo(b"x" * 32), IN_FLIGHT, calls) for _ in range(repetitions)])


async def _streams(
    port: int, pid: int, trusted: bytes, number: int, repetitions: int
) -> tuple[tuple[float, ...], float, tuple[float, ...]]:
    before = resident_mebibytes(pid)
    began = time.perf_counter()
    channels = await _connected(port, trusted, number)
    seconds = [time.perf_counter() - began]
    streams: list[Any] = []

    async def attach(channel: Channel) -> None:
        stream: Any = channel.stream_stream(f"/{SERVICE}/Attach")()
        await stream.write(b"hello")
        await stream.read()
        streams.append(stream)

    await in_lots(channels, attach)
    kibibytes = (resident_mebibytes(pid) - before) * 1024 / number
    push: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channels[0].unary_unary(f"/{SERVICE}/Push")
    pushes = []
    for _ in range(repetitions):
        began = time.perf_counter()
        pushing = asyncio.ensure_future(push(b"x" * 256))
        await asyncio.gather(*(stream.read() for stream in streams))
        pushes.append((time.perf_counter() - began) * 1e3)
        await pushing
    for stream in streams:
        stream.cancel()
    while len(seconds) < HANDSHAKES:
        await asyncio.gather(*(channel.close() for channel in channels))
        began = time.perf_counter()
        channels = await _connected(port, trusted, number)
        seconds.append(time.perf_counter() - began)
    await asyncio.gather(*(channel.close() for channel in channels))
    return tuple(seconds), kibibytes, tuple(pushes)


async def _connected(port: int, trusted: bytes, number: int) -> list[Channel]:
    channels = open_channels(f"localhost:{port}", trusted, number)
    await in_lots(channels, lambda channel: channel.channel_ready())
    return channels


async def _serve(folder: Path) -> None:
    waiting: list[asyncio.Queue[bytes]] = []

    async def echo(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    async def push(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        for queue in waiting:
            queue.put_nowait(request)
        return b""

    async def attach(
        requests: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        waiting.append(queue)
        yield await anext(requests)
        while True:
            yield await queue.get()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    methods: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Push": grpc.unary_unary_rpc_method_handler(push),
        "Attach": grpc.stream_stream_rpc_method_handler(attach),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([TlsFiles.within(folder).pair]))
    await server.start()
    announce_ready(port=port, pid=os.getpid())
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2])))
    else:
        limits = measure()
        print_figures(limits.calls, limits.handshakes, limits.memory, limits.push)
