"""Tables: `ctx.table(...).arrow()` in a run of the process runtime, of a Parquet file that is 1 GB as Arrow.

The time is the algorithm's: from asking for the table to having it as a whole. Memory is what the node takes meanwhile above
nothing, and with it the process that it reads the file by: the peaks of both together, the libraries' own pages counted.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from contextlib import suppress

import psutil

from bench.context import Context
from bench.limits import tables
from bench.limits.common import peak_resident_mebibytes, reset_peak
from bench.limits.parquet import ROWS, table
from bench.report import Row, at_most, ratio_at_least
from bench.rows._samples import REST_SECONDS, spread
from bench.rows._stage import Station, calm, stage
from folkmoot.client import AsyncClient

REPETITIONS = 5
LIMITS = "memory_bytes = 8589934592"
READER = "folkmoot.node.data.reader"
LOOK_SECONDS = 0.05


def measure(context: Context) -> list[Row]:
    path = table()
    limit = tables.measure(path)
    station = Station(image="process:bench.algorithms.tables", warm_workers=1, patients=str(path), limits=LIMITS)
    rates, memory = asyncio.run(_measure(context, station))
    return [
        Row(
            "tables",
            limit.unit,
            statistics.median(rates),
            limit.value,
            (ratio_at_least(0.4),),
            note=f"Parquet of {limit.detail['arrow_mb']:,.0f} MB as Arrow; {spread(rates)}; limit {spread(limit.samples)}",
            detail=dict(limit.detail),
        ),
        Row(
            "tables: memory of node and reader",
            "MiB",
            max(memory),
            None,
            (at_most(256),),
            note=f"peak resident memory of both; {spread(memory)}",
        ),
    ]


async def _measure(context: Context, station: Station) -> tuple[Sequence[float], Sequence[float]]:
    rates, memory = [], []
    async with stage(station, parent=context.folder) as playing, playing.client() as client:
        node = psutil.Process(playing.processes[playing.names[0].lower()].pid)
        for _ in range(1 + REPETITIONS):
            await asyncio.sleep(REST_SECONDS)
            await calm()
            reset_peak(node.pid)
            reading = asyncio.create_task(_read(client, station.image, playing.names[0]))
            reader_mebibytes = await _reader_peak(node, reading)
            size_bytes, seconds = reading.result()
            rates.append(size_bytes / 1e6 / seconds)
            memory.append(peak_resident_mebibytes(node.pid) + reader_mebibytes)
    return rates[1:], memory


async def _read(client: AsyncClient, image: str, organization: str) -> tuple[int, float]:
    """Let one run read the table; return its size as Arrow, and the seconds."""
    task = await client.tasks.create(image=image, function="read", organizations=[organization], labels=["patients"])
    [result] = [result async for result in task.results()]
    rows, size_bytes, seconds = result.value
    if rows != ROWS:
        raise RuntimeError(f"the table has {ROWS} rows, not {rows}")
    return size_bytes, seconds


async def _reader_peak(node: psutil.Process, reading: asyncio.Task[tuple[int, float]]) -> float:
    """Wait for a read, and return the most memory that a process held by which the node read, in MiB."""
    peak = 0.0
    while not reading.done():
        await asyncio.sleep(LOOK_SECONDS)
        for child in node.children():
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, OSError, LookupError):
                if READER in child.cmdline():
                    peak = max(peak, peak_resident_mebibytes(child.pid))
    return peak
