"""Container runs on one node: what the node adds to one, and how long many take side by side.

The overhead is everything between the opened input, where the row of the delivery ends, and the container's removal by the engine: the
image looked up, the run journaled, its socket bound, the container created, checked, started, its algorithm served, the result
sealed, signed for and brought to the server, the exit awaited. Of many runs, sealed and signed beforehand, all of it counts from the
first call of CreateTask on. The limits run the same image with the same confinement, and nothing but the import of grpc; half of
them are measured before ours and half after.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.context import Context
from bench.limits import containers
from bench.limits.common import scratch_folder
from bench.report import Row, ratio_at_most
from bench.rows._image import NoImage, least_image
from bench.rows._noting_node import OPENED, REMOVED
from bench.rows._prepared import Prepared
from bench.rows._samples import REST_SECONDS, spread
from bench.rows._stage import Process, Stage, Station, calm, stage
from folkmoot.client import AsyncClient
from folkmoot.node.proxy.ports import Limits, RunStart
from folkmoot.node.runtimes.hardening import SECCOMP_PROFILE, Confinement, host_config_of
from folkmoot.v1.task_pb2 import Image

RUNS = 32
REPETITIONS = {1: 10, RUNS: 4}
NAMES = {1: "run overhead", RUNS: f"{RUNS} runs on one node"}
BUDGETS = {1: 1.15, RUNS: 1.2}
LOOK_SECONDS = 0.05
GIVE_UP_SECONDS = 120.0


def measure(context: Context) -> list[Row]:
    try:
        image = f"local:{context.image}" if context.image else least_image()
    except NoImage as error:
        return [Row.skipped(name, str(error)) for name in NAMES.values()]
    return asyncio.run(_measure(context, image))


async def _measure(context: Context, image: str) -> list[Row]:
    before = await asyncio.to_thread(_limits, image)
    noting = ("-m", "bench.rows._noting_node")
    station = Station(runtime="docker", image=image, slots=RUNS, command=noting)
    async with stage(station, parent=context.folder) as playing, playing.client() as client:
        taken = {runs: await _samples(playing, client, runs) for runs in NAMES}
    after = await asyncio.to_thread(_limits, image)
    return [_row(runs, taken[runs], before[runs] + after[runs]) for runs in NAMES]


def _row(runs: int, taken: Sequence[float], limit: Sequence[float]) -> Row:
    return Row(
        NAMES[runs],
        "ms",
        statistics.median(taken),
        statistics.median(limit),
        (ratio_at_most(BUDGETS[runs]),),
        peers="" if runs == 1 else "vantage6: one at a time",
        note=f"{spread(taken)}; limit {spread(limit)}",
    )


def _limits(image: str) -> Mapping[int, tuple[float, ...]]:
    """The engine alone, by how many at once."""
    name = image.removeprefix("local:")
    with scratch_folder() as folder:
        config = _host_config(name, folder)
        return {
            runs: containers.measure(name, config, containers=runs, repetitions=times // 2).samples
            for runs, times in REPETITIONS.items()
        }


def _host_config(image: str, folder: Path) -> Mapping[str, Any]:
    """What a node asks of the engine for a run within the limits that a policy gives of itself."""
    start = RunStart(
        run_name="",
        run_id="",
        task_id="",
        attempt=1,
        image=Image(),
        image_id=image,
        module="",
        socket_directory=folder,
        scratch=None,
        limits=Limits(memory_bytes=1 << 30, cpu_millis=1000, run_time_seconds=3600),
    )
    return host_config_of(start, Confinement(seccomp=SECCOMP_PROFILE.read_text()))


async def _samples(playing: Stage, client: AsyncClient, runs: int) -> Sequence[float]:
    """Milliseconds of so many runs at one node, side by side, until the last container is removed."""
    node = playing.processes[playing.names[0].lower()]
    prepared = await Prepared.by(client, playing, playing.names[:1])
    taken = []
    for _ in range(1 + REPETITIONS[runs]):
        await asyncio.sleep(REST_SECONDS)
        await calm()
        taken.append(await _milliseconds(client, prepared, node, runs))
    return taken[1:]


async def _milliseconds(client: AsyncClient, prepared: Prepared, node: Process, runs: int) -> float:
    session, said = client.connection.session, len(node.said())
    requests = [prepared.request() for _ in range(runs)]
    began = time.time_ns()
    await asyncio.gather(*(session.call(session.tasks.CreateTask, request) for request in requests))
    gives_up = time.monotonic() + GIVE_UP_SECONDS
    while len(removed := _moments(node.said()[said:], REMOVED)) < runs:
        if time.monotonic() > gives_up:
            raise RuntimeError(f"only {len(removed)} of {runs} containers were removed")
        await asyncio.sleep(LOOK_SECONDS)
    if runs == 1:
        [began] = _moments(node.said()[said:], OPENED)
    return (max(removed) - began) / 1e6


def _moments(said: str, word: str) -> list[int]:
    """When the node has said a word, in nanoseconds."""
    return [int(line.split()[2]) for line in said.splitlines() if line.startswith(f"{word} ")]
