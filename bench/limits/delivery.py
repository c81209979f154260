"""Limit of the delivery: one unary call that commits one row, then one frame on a waiting stream.

Both over TLS, on two connections, as client and node have them; the calling process is client and node at once. The
handler commits first and pushes then, so that what was pushed is stored. A call costs about 0.4 ms, a hop 0.16 ms.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
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


def measure(*, payload_bytes: int = 2048, repetitions: int = 1000) -> Figure:
    """Milliseconds from the unary call until the frame that it caused is read from the stream."""
    with scratch_folder() as folder:
        tls = make_tls_files(folder)
        with Child("-m", "bench.limits.delivery", "--serve", str(folder)) as server:
            samples = asyncio.run(_deliver(int(server.ready["port"]), tls.trusted, payload_bytes, repetitions))
    return Figure("delivery", "ms", samples, {"payload_bytes": payload_bytes})


async def _deliver(port: int, trusted: bytes, payload_bytes: int, repetitions: int) -> tuple[float, ...]:
    credentials = grpc.ssl_channel_credentials(trusted)
    # Channels with equal arguments share one connection unless told not to.
    own_connection = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.secure_channel(f"localhost:{port}", credentials, options=own_connection) as client,
        grpc.aio.secure_channel(f"localhost:{port}", credentials, options=own_connection) as node,
    ):
        attach: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = node.stream_stream(f"/{SERVICE}/Attach")
        attached = attach()
        await attached.write(b"hello")
        await attached.read()
        create: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = client.unary_unary(f"/{SERVICE}/Create")
        payload = os.urandom(payload_bytes)
        samples = []
        for _ in range(repetitions + 50):
            started = time.perf_counter()
            answer = asyncio.ensure_future(create(payload))
            await attached.read()
            samples.append((time.perf_counter() - started) * 1e3)
            await answer
        attached.cancel()
    return tuple(samples[50:])


async def _serve(folder: Path) -> None:
    database = RowStore(folder / "server.db")
    assigned: asyncio.Queue[bytes] = asyncio.Queue()

    async def create(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        database.commit(request)
        assigned.put_nowait(request)
        return b""

    async def attach(
        requests: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        yield await anext(requests)
        while True:
            yield await assigned.get()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Create": grpc.unary_unary_rpc_method_handler(create),
                    "Attach": grpc.stream_stream_rpc_method_handler(attach),
                },
            ),
        )
    )
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([TlsFiles.within(folder).pair]))
    await server.start()
    announce_ready(port=port)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2])))
    else:
        print_figures(measure())
