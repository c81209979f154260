"""Instances: sealed tasks per second by two instances of the server on one PostgreSQL, against one of them alone.

The clients are as many in both cases, and spread over the instances. The database is a private one on the same machine, and
has its share of the cores. That no task is lost is counted in it at the end.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping

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
    one, two = (statistics.median(rates[number]) for number in (1, 2))
    note = f"{CLIENTS} clients; one: {one:.0f} tasks/s, {spread(rates[1])}; two: {two:.0f} tasks/s, {spread(rates[2])}"
    return [Row("instances", "x", two / one, 2.0, (at_least(1.3),), note=note)]


async def _rates(context: Context, running: Cluster) -> Mapping[int, list[float]]:
    database = running.url("instances")
    rates: dict[int, list[float]] = {1: [], 2: []}
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
                    measured = await rate(client, requests, targets=targets[:number], clients=CLIENTS)
                    if repetition:  # the first time warms up
                        rates[number].append(measured)
        finally:
            await another.stop()
    _check_none_is_lost(database)
    return rates


def _check_none_is_lost(database: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM tasks").fetchone()
    expected = TASKS * 2 * (1 + REPETITIONS)
    if row is None or row[0] != expected:
        raise RuntimeError(f"{expected} tasks were answered as stored, and {row} are there")
