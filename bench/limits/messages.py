"""Limit of messages between siblings: a frame on one stream, a commit, the frame on another stream; then the way back.

Both streams are over TLS on connections of their own, as two nodes have them; the calling process is both nodes. Behind the
latency, the rate: frames are written as fast as the stream takes them, and the server commits together what has come.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from bench.limits.common import (
    Child,
    Figure,
    RowStore,
    TlsFiles,
    announce_ready,
    make_tls_files,
    print_figures,
    scratch_folder,
)

SERVICE = "limit"
_Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Messages:
    """Milliseconds of one message from node to node, and messages per second."""

    latency: Figure
    rate: Figure


def measure(*, payload_bytes: int = 1024, repetitions: int = 500, burst: int = 5000) -> Messages:
    """One message at a time, then `burst` of them."""
    with scratch_folder() as folder:
        tls = make_tls_files(folder)
        with Child("-m", "bench.limits.messages", "--serve", str(folder)) as server:
            latency, rate = asyncio.run(
                _exchange(int(server.ready["port"]), tls.trusted, os.urandom(payload_bytes), repetitions, burst)
            )
    detail = {"payload_bytes": payload_bytes}
    return Messages(Figure("messages", "ms", latency, detail), Figure("message rate", "/s", (rate,), detail))


async def _exchange(
    port: int, trusted: bytes, payload: bytes, repetitions: int, burst: int
) -> tuple[tuple[float, ...], float]:
    credentials = grpc.ssl_channel_credentials(trusted)
    # Channels with equal arguments share one connection unless told not to.
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.secure_channel(f"localhost:{port}", credentials, options=own_connection) as first,
        grpc.aio.secure_channel(f"localhost:{port}", credentials, options=own_connection) as second,
    ):
        one, other = [await _attach(channel, name) for channel, name in ((first, b"0"), (second, b"1"))]
        samples = []
        for _ in range(repetitions + 50):
            started = time.perf_counter()
            await one.write(payload)
            await other.read()
            samples.append((time.perf_counter() - started) * 1e3)
        started = time.perf_counter()
        writing = asyncio.ensure_future(_write(one, payload, burst))
        for _ in range(burst):
            await other.read()
        rate = burst / (time.perf_counter() - started)
        await writing
        one.cancel()
        other.cancel()
    return tuple(samples[50:]), rate


async def _attach(channel: grpc.aio.Channel, name: bytes) -> _Stream:
    attach: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(f"/{SERVICE}/Attach")
    attached = attach()
    await attached.write(name)
    await attached.read()
    return attached


async def _write(stream: _Stream, payload: bytes, times: int) -> None:
    for _ in range(times):
        await stream.write(payload)


async def _serve(folder: Path) -> None:
    database = RowStore(folder / "server.db")
    arrived: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(1000)
    leaving: list[asyncio.Queue[bytes]] = [asyncio.Queue(), asyncio.Queue()]

    async def store() -> None:
        while True:
            together = [await arrived.get()]
            while not arrived.empty():
                together.append(arrived.get_nowait())
            database.commit_all([message for _, message in together])
            for sender, message in together:
                leaving[1 - sender].put_nowait(message)

    async def take(requests: AsyncIterator[bytes], sender: int) -> None:
        async for request in requests:
            await arrived.put((sender, request))

    async def attach(
        requests: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        sender = int(await anext(requests))
        yield b""
        taking = asyncio.create_task(take(requests, sender))
        try:
            while True:
                yield await leaving[sender].get()
        finally:
            taking.cancel()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Attach": grpc.stream_stream_rpc_method_handler(attach)}),)
    )
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([TlsFiles.within(folder).pair]))
    await server.start()
    storing = asyncio.create_task(store())
    announce_ready(port=port)
    await asyncio.wait({storing, asyncio.ensure_future(server.wait_for_termination())})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2])))
    else:
        both = measure()
        print_figures(both.latency, both.rate)
