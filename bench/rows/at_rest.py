"""At rest: what a server and a node take while nothing happens, and how long a server needs until it serves.

Memory is that of the process (VmRSS) with three nodes attached and a client gone, after a second without work. The time
is that of a server that was there before, from the spawn to the line that says where it serves.
"""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from bench.context import Context
from bench.limits import at_rest
from bench.limits.common import resident_mebibytes
from bench.report import Row, at_most
from bench.rows._samples import spread
from bench.rows._stage import Station, calm, stage, start_server

STARTS = 5
REST_SECONDS = 1.0


def measure(context: Context) -> list[Row]:
    server_limit = at_rest.measure("server at rest", at_rest.SERVER_MODULES)
    node_limit = at_rest.measure("node at rest", at_rest.NODE_MODULES)
    server, nodes, starts = asyncio.run(_measure(context))
    return [
        Row(
            "at rest: server memory",
            "MiB",
            server,
            server_limit.memory.value,
            (at_most(110),),
            peers="vantage6 248, Flower 285",
            note="with 3 nodes attached; the limit imports grpc and SQLAlchemy",
        ),
        Row(
            "at rest: server start",
            "s",
            statistics.median(starts),
            server_limit.start.value / 1e3,
            (at_most(1.5),),
            peers="vantage6 1.3 + 3.7 s",
            note=f"spawn to serving; {spread(starts)}",
        ),
        Row(
            "at rest: node memory",
            "MiB",
            statistics.median(nodes),
            node_limit.memory.value,
            (at_most(100),),
            peers="vantage6 116, Flower 284",
            note=f"runtime docker, attached; {spread(nodes)}; the limit imports grpc and sqlite3",
        ),
    ]


async def _measure(context: Context) -> tuple[float, list[float], list[float]]:
    async with stage(Station(runtime="docker"), parent=context.folder) as playing:
        await asyncio.sleep(REST_SECONDS)
        memory = {name: resident_mebibytes(process.pid) for name, process in playing.processes.items()}
        server = memory.pop("server")
        for process in playing.processes.values():
            await process.stop()
        starts = [await _start_seconds(playing.folder) for _ in range(1 + STARTS)]
    return server, list(memory.values()), starts[1:]


async def _start_seconds(folder: Path) -> float:
    await calm()
    server = await start_server(folder)
    await server.stop()
    return server.seconds_to_ready
