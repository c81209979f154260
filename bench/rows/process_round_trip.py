"""Process round trip and central function: the process runtime, its workers ready, from `tasks.create` to opened results.

The row of the central function is its warm one; a pool of warm containers does not exist yet.
"""

from __future__ import annotations

import asyncio
import statistics

from bench.context import Context
from bench.limits import process_round_trip
from bench.report import Row, ratio_at_most
from bench.rows._round_trips import central_function, round_trip
from bench.rows._samples import samples, spread
from bench.rows._stage import Station, stage

REPETITIONS = 20
WARM_WORKERS = 2
"""Two: the node that executes the central function executes a partial one, too."""


def measure(context: Context) -> list[Row]:
    return asyncio.run(_measure(context))


async def _measure(context: Context) -> list[Row]:
    before = await asyncio.to_thread(process_round_trip.measure, repetitions=100)
    async with stage(Station(warm_workers=WARM_WORKERS), parent=context.folder) as playing, playing.client() as client:
        trips = await samples(lambda: round_trip(client, playing), repetitions=REPETITIONS)
        centrals = await samples(lambda: central_function(client, playing), repetitions=REPETITIONS)
    after = await asyncio.to_thread(process_round_trip.measure, repetitions=100)
    limit, trip = statistics.median(before.samples + after.samples), statistics.median(trips)
    return [
        Row(
            "process round trip",
            "ms",
            trip,
            limit,
            (ratio_at_most(2),),
            note=f"sealed, 3 nodes, workers ready; {spread(trips)}",
        ),
        Row(
            "central function (process, warm)",
            "ms",
            statistics.median(centrals),
            2 * trip,
            (ratio_at_most(1.3),),
            peers="vantage6: polls 1 to 300 s",
            note="its limit is two process round trips of this run; warm workers are processes here, "
            f"since there is no warm pool of containers yet; {spread(centrals)}",
        ),
    ]
