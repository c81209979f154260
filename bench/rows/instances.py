"""Instances: sealed tasks per second by two instances of the server on one PostgreSQL, against one of them alone.

The clients are as many in both cases, and spread over the instances. The database is a private one on the same machine, and
has its share of the cores. That no task is lost is counted in it at the end.

A second instance can use what the first one leaves idle, and no more: what all cores were busy with while one instance was
measured says how many tasks this machine can do at most, whoever does them. The limit is that, or twice one instance.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

import psutil
import psycopg

from bench.context import Context
from bench.report import Row, at_least
from bench.rows._prepared import Prepared
from bench.rows._samples import spread
from bench.rows._stage import Station, calm, serves_at, stage, start_server
from bench.rows.create import rate
from tests.postgresql import Cluster, cluster

CLIENTS = 16
TASKS = 400
REPETITIONS = 3
DURABLE = {"fsync": "on"}


def measure(context: Context) -> list[Row]:
    try:
        with cluster(DURABLE) as running:
            rates = asyncio.run(_rates(context, running))
    except FileNotFoundError:
        return [Row.skipped("instances", "there is no PostgreSQL on this machine")]
    one, two = (statistics.median(each.rate for each in rates[number]) for number in (1, 2))
    busy_one, busy_two = (statistics.median(each.busy_seconds for each in rates[number]) for number in (1, 2))
    cores = psutil.cpu_count() or 1
    most = cores / busy_one
    note = (
        f"{CLIENTS} clients; one: {one:.0f} tasks/s, {spread([each.rate for each in rates[1]])}; "
        f"two: {two:.0f} tasks/s, {spread([each.rate for each in rates[2]])}; processor time of a task, with database and "
        f"clients: {busy_one * 1e3:.1f} ms by one, {busy_two * 1e3:.1f} ms by two: {cores} cores do {most:.0f} tasks/s at most"
    )
    detail = {"processor_ms_one": busy_one * 1e3, "processor_ms_two": busy_two * 1e3, "most_per_second": most}
    return [Row("instances", "x", two / one, min(2.0, most / one), (at_least(1.3),), note=note, detail=detail)]


@dataclass(frozen=True, slots=True)
class _Rate:
    """What was measured once."""

    rate: float
    """Tasks per second."""
    busy_seconds: float
    """For how long cores were busy for a task."""


async def _rates(context: Context, running: Cluster) -> Mapping[int, list[_Rate]]:
    database = running.url("instances")
    rates: dict[int, list[_Rate]] = {1: [], 2: []}
    station = Station(attached=False, database=database)
    async with stage(station, parent=context.folder) as playing, playing.client() as client:
        another = await start_server(playing.folder, database=database, name="another")
        try:
            targets = [serves_at(playing.processes["server"]), serves_at(another)]
            prepared = await Prepared.by(client, playing, playing.names)
            for repetition in range(1 + REPETITIONS):
                for number in (1, 2):
                    requests = [prepared.request() for _ in range(TASKS)]
                    await calm()
                    busy = _busy_seconds()
                    measured = await rate(client, requests, targets=targets[:number], clients=CLIENTS)
                    if repetition:  # the first time warms up
                        rates[number].append(_Rate(measured, (_busy_seconds() - busy) / TASKS))
        finally:
            await another.stop()
    _check_none_is_lost(database)
    return rates


def _busy_seconds() -> float:
    """Return what clients, instances and database have taken of the processor: these are this process and what it started."""
    this = psutil.Process()
    times = [each.cpu_times() for each in (this, *this.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _check_none_is_lost(database: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM tasks").fetchone()
    expected = TASKS * 2 * (1 + REPETITIONS)
    if row is None or row[0] != expected:
        raise RuntimeError(f"{expected} tasks were answered as stored, and {row} are there")
