"""Delivery: from the call of CreateTask to the moment when the node holds the task, verified, and its input, decrypted.

That moment is the node's own: `started_at` of the receipt that it signs, taken after it has verified the task, decided
it by its policy, journaled it, opened the input and found the image and a slot; it is therefore somewhat late, never
early. Both clocks are this machine's. The nodes have warm workers, so that nothing is started in the measured span.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.context import Context
from bench.limits import delivery
from bench.report import Row, at_most
from bench.rows._prepared import Prepared
from bench.rows._samples import REST_SECONDS, spread
from bench.rows._stage import Station, calm, stage
from folkmoot.client import AsyncClient
from folkmoot.v1.task_pb2 import Receipt
from folkmoot.v1.task_service_pb2 import CreateTaskRequest, WatchTaskRequest

REPETITIONS = 40
WARM_UP = 5


def measure(context: Context) -> list[Row]:
    limit = delivery.measure(repetitions=500)
    taken = asyncio.run(_milliseconds(context))
    return [
        Row(
            "delivery",
            limit.unit,
            statistics.median(taken),
            limit.value,
            (at_most(5),),
            peers="vantage6 64 ms",
            note="CreateTask called to started_at of the node's receipt: task verified, input decrypted; "
            f"sealed and signed beforehand; {spread(taken)}",
        )
    ]


async def _milliseconds(context: Context) -> list[float]:
    async with stage(Station(warm_workers=1), parent=context.folder) as playing, playing.client() as client:
        prepared = await Prepared.by(client, playing, playing.names[:1])
        taken = []
        for _ in range(WARM_UP + REPETITIONS):
            request = prepared.request()
            await asyncio.sleep(REST_SECONDS)
            await calm()
            called_at = time.time_ns()
            taken.append((await _started_at(client, request) - called_at) / 1e6)
    return taken[WARM_UP:]


async def _started_at(client: AsyncClient, request: CreateTaskRequest) -> int:
    """Create a task for one organization, wait for its end; return when its node started it, in nanoseconds."""
    session = client.connection.session
    created = await session.call(session.tasks.CreateTask, request)

    async def watch() -> WatchTaskRequest:
        return WatchTaskRequest(task_id=created.task.task_id)

    async for change in session.follow(session.tasks.WatchTask, watch):
        if change.run.HasField("receipt"):
            receipt = Receipt.FromString(change.run.receipt.body)
            if receipt.HasField("started_at"):
                return receipt.started_at.ToNanoseconds()
    raise RuntimeError(f"the run of task {created.task.task_id} never started")
