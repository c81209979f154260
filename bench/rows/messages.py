"""Messages: from one run to its sibling at another organization, sealed, journaled at both nodes, stored at the server.

One way is half of there and back, as the algorithms see it: `send` called to `receive` returned. The rate is that of messages of
1 KiB sent without waiting for each, until the sibling has had all of them and its answer is there.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence

from bench.context import Context
from bench.limits import messages
from bench.report import Row, at_least, at_most
from bench.rows._samples import REST_SECONDS, spread
from bench.rows._stage import Station, calm, stage

REPETITIONS = 5
ROUNDS = 100
BURST = 3000
SIZE_BYTES = 1024
SIBLINGS = Station(image="process:bench.algorithms.siblings", warm_workers=1)


def measure(context: Context) -> list[Row]:
    limit = messages.measure(payload_bytes=SIZE_BYTES)
    latencies, rates = asyncio.run(_measure(context))
    return [
        Row(
            "messages: one way",
            limit.latency.unit,
            statistics.median(latencies),
            limit.latency.value,
            (at_most(10),),
            note=f"half of there and back, medians of {ROUNDS}; {spread(latencies)}",
        ),
        Row(
            "messages: rate",
            limit.rate.unit,
            statistics.median(rates),
            limit.rate.value,
            (at_least(1000),),
            note=f"{BURST} of {SIZE_BYTES} bytes, until the last is received and answered; {spread(rates)}",
        ),
    ]


async def _measure(context: Context) -> tuple[Sequence[float], Sequence[float]]:
    latencies, rates = [], []
    arguments = {"rounds": ROUNDS, "burst": BURST, "size_bytes": SIZE_BYTES}
    async with stage(SIBLINGS, parent=context.folder) as playing, playing.client() as client:
        for _ in range(1 + REPETITIONS):
            await asyncio.sleep(REST_SECONDS)
            await calm()
            task = await client.tasks.create(
                image=playing.station.image,
                function="converse",
                arguments=arguments,
                organizations=playing.names[:2],
                messages=True,
            )
            [(latency, rate)] = [result.value async for result in task.results() if result.value]
            latencies.append(latency)
            rates.append(rate)
    return latencies[1:], rates[1:]
