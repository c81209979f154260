"""Cold round trip: a fresh container at each of three nodes, from `tasks.create` to three opened results.

The limit runs the same image, with nothing but the import of grpc; half of it is measured before ours and half after.
"""

from __future__ import annotations

import asyncio
import statistics

from bench.context import Context
from bench.limits import cold_round_trip
from bench.report import Row, ratio_at_most
from bench.rows._image import NoImage, least_image
from bench.rows._round_trips import round_trip
from bench.rows._samples import samples, spread
from bench.rows._stage import Station, stage

REPETITIONS = 10
NAME = "cold round trip"


def measure(context: Context) -> list[Row]:
    try:
        image = f"local:{context.image}" if context.image else least_image()
    except NoImage as error:
        return [Row.skipped(NAME, str(error))]
    return [asyncio.run(_measure(context, image))]


async def _measure(context: Context, image: str) -> Row:
    engine_name = image.removeprefix("local:")
    before = await asyncio.to_thread(cold_round_trip.measure, engine_name, repetitions=REPETITIONS // 2)
    station = Station(runtime="docker", image=image)
    async with stage(station, parent=context.folder) as playing, playing.client() as client:
        taken = await samples(lambda: round_trip(client, playing), repetitions=REPETITIONS)
    after = await asyncio.to_thread(cold_round_trip.measure, engine_name, repetitions=REPETITIONS // 2)
    limit = before.samples + after.samples
    return Row(
        NAME,
        "ms",
        statistics.median(taken),
        statistics.median(limit),
        (ratio_at_most(1.3),),
        peers="vantage6 2,690 ms, Flower 5,000 ms",
        note=f"sealed, 3 nodes, a fresh container each; {spread(taken)}; limit {spread(limit)}",
        detail=dict(before.detail),
    )
