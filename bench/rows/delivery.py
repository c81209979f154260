"""Delivery: from the call of CreateTask to the moment when the node holds the task, verified, and its input, decrypted.

The node's process notes that moment itself: it has verified the task, decided it by its policy, journaled it, and opened
the input. Both clocks are this machine's. A warm worker waits at the node, so that nothing is started meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import time

from bench.context import Context
from bench.limits import delivery
from bench.report import Row, at_most
from bench.rows._noting_node import OPENED
from bench.rows._prepared import Prepared
from bench.rows._samples import REST_SECONDS, spread
from bench.rows._stage import Process, Station, calm, stage
from folkmoot.client import AsyncClient
from folkmoot.v1.task_service_pb2 import CreateTaskRequest

REPETITIONS = 40
WARM_UP = 5
NOTING = Station(warm_workers=1, command=("-m", "bench.rows._noting_node"))


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
            note="CreateTask called to input opened at the node: task verified, allowed, journaled, input decrypted; "
            f"sealed and signed beforehand; {spread(taken)}",
        )
    ]


async def _milliseconds(context: Context) -> list[float]:
    async with stage(NOTING, parent=context.folder) as playing, playing.client() as client:
        prepared = await Prepared.by(client, playing, playing.names[:1])
        node = playing.processes[playing.names[0].lower()]
        taken = []
        for _ in range(WARM_UP + REPETITIONS):
            request = prepared.request()
            await asyncio.sleep(REST_SECONDS)
            await calm()
            called_at = time.time_ns()
            taken.append((await _opened_at(client, request, node) - called_at) / 1e6)
    return taken[WARM_UP:]


async def _opened_at(client: AsyncClient, request: CreateTaskRequest, node: Process) -> int:
    """Create a task for one organization, wait for its end; return when its node had opened the input, in nanoseconds."""
    session = client.connection.session
    created = await session.call(session.tasks.CreateTask, request)
    task = await client.tasks.get(created.task.task_id)
    await task.wait(progress=False)
    for line in node.said().splitlines():
        match line.split():
            case [word, task_id, moment] if word == OPENED and task_id == task.id:
                return int(moment)
    raise RuntimeError(f"the node never opened the input of task {task.id}")
