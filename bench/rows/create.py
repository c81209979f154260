"""Create: sealed tasks for three organizations per second, by eight clients at once.

The tasks are sealed and signed beforehand: what is measured is the server, from the request to the answer that the task
is stored. The nodes are admitted and away, so that deliveries are queued for them and nothing else happens meanwhile.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice

import grpc
import grpc.aio

from bench.context import Context
from bench.limits import create
from bench.report import Row, at_least, ratio_at_least
from bench.rows._prepared import Prepared
from bench.rows._samples import spread
from bench.rows._stage import Station, calm, stage
from folkmoot.client import AsyncClient
from folkmoot.transport import CHANNEL_OPTIONS, timeouts
from folkmoot.v1.task_service_pb2 import CreateTaskRequest

CLIENTS = 8
TASKS = 800
REPETITIONS = 5
_CREATE_TASK = "/folkmoot.v1.TaskService/CreateTask"


def measure(context: Context) -> list[Row]:
    limit = create.measure(submitters=CLIENTS, for_seconds=0.5)
    rates = asyncio.run(_rates(context))
    return [
        Row(
            "create",
            limit.unit,
            statistics.median(rates),
            limit.value,
            (at_least(800), ratio_at_least(0.25)),
            peers="vantage6 41/s",
            note=f"tasks for 3 organizations, sealed and signed beforehand, {CLIENTS} clients, {TASKS} tasks; "
            f"{spread(rates)}; limit {spread(limit.samples)}",
            detail=dict(limit.detail),
        )
    ]


async def _rates(context: Context) -> list[float]:
    rates = []
    async with stage(Station(attached=False), parent=context.folder) as playing, playing.client() as client:
        prepared = await Prepared.by(client, playing, playing.names)
        for _ in range(1 + REPETITIONS):
            requests = [prepared.request() for _ in range(TASKS)]
            await calm()
            rates.append(await rate(client, requests))
    return rates[1:]


async def rate(
    client: AsyncClient, requests: Sequence[CreateTaskRequest], *, targets: Sequence[str] = (), clients: int = CLIENTS
) -> float:
    """Tasks per second, each client with a connection of its own, one call after the other.

    `targets` are the instances of the server, in turn; without any, it is the client's. Clients send bytes that were made
    beforehand and leave the answers as they come, because what they take of the processor is not the server's.
    """
    metadata, waiting = client.connection.session.metadata(), iter([each.SerializeToString() for each in requests])
    instances = targets or [client.connection.session.address.target]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(_channel(client, target)) for target in islice(cycle(instances), clients)
        ]
        await asyncio.gather(*(channel.channel_ready() for channel in channels))

        async def send(channel: grpc.aio.Channel) -> None:
            create_task: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_CREATE_TASK)
            for request in waiting:
                await create_task(request, metadata=metadata, timeout=timeouts.CALL_SECONDS)

        began = time.perf_counter()
        await asyncio.gather(*(send(channel) for channel in channels))
        return len(requests) / (time.perf_counter() - began)


def _channel(client: AsyncClient, target: str) -> grpc.aio.Channel:
    address = client.connection.session.address
    credentials = grpc.ssl_channel_credentials(address.certificate_authority)
    # Channels with equal arguments share one connection unless told not to.
    options = (*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    return grpc.aio.secure_channel(target, credentials, options=options)
