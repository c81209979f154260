"""Limit of the process round trip: 12 unary calls, 3 journal commits and 3 server commits, nothing else.

Three chains, one per node: three calls over a Unix socket (context, input, result) as a worker makes them to its
node, and one over TLS (commit) as a node makes it to the server. The third call commits to the node's journal, the
fourth to the server's database. The three chains run side by side, as three nodes do; `one_after_another_ms` in the
detail is the plain sum. One process serves, another calls. A single call costs about 0.4 ms, a commit about 0.15 ms.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
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

CHAINS = 3
SERVICE = "limit"
PAYLOAD = os.urandom(512)


def measure(*, repetitions: int = 200) -> Figure:
    """Milliseconds until the last of three chains of four calls is answered."""
    with scratch_folder() as folder:
        tls = make_tls_files(folder)
        with Child("-m", "bench.limits.process_round_trip", "--serve", str(folder)) as server:
            together, in_turn = asyncio.run(
                _call(folder / "node.sock", int(server.ready["port"]), tls.trusted, repetitions)
            )
    detail = {"calls": CHAINS * 4, "commits": CHAINS * 2, "one_after_another_ms": statistics.median(in_turn)}
    return Figure("process round trip", "ms", together, detail)


async def _call(
    socket: Path, port: int, trusted: bytes, repetitions: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    credentials = grpc.ssl_channel_credentials(trusted)
    async with (
        grpc.aio.insecure_channel(f"unix:{socket}") as node,
        grpc.aio.secure_channel(f"localhost:{port}", credentials) as server,
    ):
        plain: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = node.unary_unary(f"/{SERVICE}/Plain")
        journal: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = node.unary_unary(f"/{SERVICE}/Journal")
        commit: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = server.unary_unary(f"/{SERVICE}/Commit")

        async def chain(index: int) -> None:
            name = bytes([index]) + PAYLOAD
            await plain(name)
            await plain(name)
            await journal(name)
            await commit(name)

        async def one_after_another() -> None:
            for index in range(CHAINS):
                await chain(index)

        async def side_by_side() -> None:
            await asyncio.gather(*(chain(index) for index in range(CHAINS)))

        samples: list[list[float]] = []
        for round_trip in (side_by_side, one_after_another):
            taken: list[float] = []
            for _ in range(repetitions + 20):
                started = time.perf_counter()
                await round_trip()
                taken.append((time.perf_counter() - started) * 1e3)
            samples.append(taken[20:])
        return tuple(samples[0]), tuple(samples[1])


async def _serve(folder: Path) -> None:
    database = RowStore(folder / "server.db")
    journals = [RowStore(folder / f"journal{index}.db") for index in range(CHAINS)]

    async def plain(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    async def journal(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        journals[request[0]].commit(request)
        return b""

    async def commit(request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        database.commit(request)
        return b""

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Plain": grpc.unary_unary_rpc_method_handler(plain),
                    "Journal": grpc.unary_unary_rpc_method_handler(journal),
                    "Commit": grpc.unary_unary_rpc_method_handler(commit),
                },
            ),
        )
    )
    server.add_insecure_port(f"unix:{folder / 'node.sock'}")
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([TlsFiles.within(folder).pair]))
    await server.start()
    announce_ready(port=port)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2])))
    else:
        print_figures(measure())
