"""What went wrong elsewhere, as users of other systems have reported it for years: each as a fault that is survived here.

The numbers are those of vantage6's issues and pull requests; each test says what happened there.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot.client import AsyncClient, AsyncTask
from tests.chaos import truth
from tests.chaos.stage import Stage, stage
from tests.polling import until

ORGANIZATIONS = ("Alpha", "Beta")
LARGE_BYTES = 9 << 20
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def playing(tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage(tmp_path, *ORGANIZATIONS, settings="slots = 4", hurried=True) as opened:
        yield opened


@pytest.fixture
async def client(playing: Stage) -> AsyncIterator[AsyncClient]:
    async with playing.net.client("Alpha") as opened:
        yield opened


async def create(playing: Stage, client: AsyncClient, function: str = "plain", **arguments: object) -> AsyncTask:
    usual = {"notes": str(notes(playing))} | ({"number": 21} if function == "plain" else {})
    return await client.tasks.create(
        image="process:tests.algorithms.stormy",
        function=function,
        arguments=usual | arguments,
        organizations=list(ORGANIZATIONS),
    )


def notes(playing: Stage) -> Path:
    return playing.net.folder / "notes"


async def begun(playing: Stage, number: int) -> None:
    await until(lambda: len(truth.executions_in([notes(playing)])) == number, f"{number} runs have begun")


async def completed(task: AsyncTask, value: object = 42) -> None:
    results = await task.wait(progress=False)
    assert [(result.organization, result.state, result.value) for result in results] == [
        (name, "COMPLETED", value) for name in ORGANIZATIONS
    ]
    assert all(result.proven for result in results)


def executed_once_each(playing: Stage) -> bool:
    return set(truth.executions_in([notes(playing)]).values()) == {1}


async def test_a_node_is_not_deaf_after_its_connection_dropped(playing: Stage, client: AsyncClient):
    """#54, #840, #1372: after a drop or a restart of the server nodes stayed connected to nothing, until somebody restarted them."""
    for _ in range(5):
        playing.wire.cut()
        playing.wire.mend()
    await playing.kill("server")
    await playing.start("server")
    await completed(await create(playing, client))


async def test_a_run_is_not_killed_because_its_nodes_connection_drops(playing: Stage, client: AsyncClient):
    """#637: when the socket dropped, the task under way ended as an "unknown algorithm error"."""
    task = await create(playing, client, seconds=1.5)
    await begun(playing, 2)
    playing.wire.cut()
    await asyncio.sleep(2.5)  # Longer than either side waits for the other, and than the runs take.
    playing.wire.mend()
    await completed(task)
    assert executed_once_each(playing)


async def test_what_was_created_during_a_drop_is_what_comes_after_it(playing: Stage, client: AsyncClient):
    """#654: the node asked for the wrong set after a drop: some tasks were never fetched, others again."""
    finished = await create(playing, client, number=1)
    await completed(finished, 2)
    under_way = await create(playing, client, number=2, seconds=1.5)
    await begun(playing, 4)
    await playing.kill("Beta")
    missed = [await create(playing, client, number=number) for number in (3, 4, 5)]
    await playing.start("Beta")
    await completed(under_way, 4)
    for number, task in zip((3, 4, 5), missed, strict=True):
        await completed(task, 2 * number)
    assert executed_once_each(playing)


async def test_finished_runs_are_not_picked_up_again_after_a_restart(playing: Stage, client: AsyncClient):
    """#2371: a restarted node took completed tasks for open ones, and executed them again."""
    tasks = [await create(playing, client, number=number) for number in range(3)]
    for number, task in enumerate(tasks):
        await completed(task, 2 * number)
    for name in ("Beta", "server", "Beta"):
        await playing.kill(name)
        await playing.start(name)
    await completed(await create(playing, client, number=9), 18)
    for number, task in enumerate(tasks):
        await completed(await client.tasks.get(task.id), 2 * number)
    assert executed_once_each(playing)


async def test_a_run_is_not_started_twice_however_often_it_is_delivered(playing: Stage, client: AsyncClient):
    """#638, sync at every reconnect: a storm of reconnects had the node fetch, and start, the same task more than once."""
    task = await create(playing, client, seconds=1.0)
    for _ in range(10):
        playing.wire.cut()
        await asyncio.sleep(0.03)
        playing.wire.mend()
        await asyncio.sleep(0.05)
    await completed(task)
    assert executed_once_each(playing)


async def test_a_run_that_is_cancelled_while_its_node_is_offline_ends(playing: Stage, client: AsyncClient):
    """Kill was an event without a row: a node that was offline never heard of it, and its container went on."""
    task = await create(playing, client, seconds=30.0)
    await begun(playing, 2)
    await playing.kill("Beta")
    await task.cancel()
    await playing.start("Beta")
    assert [result.state for result in await task.wait(progress=False)] == ["CANCELLED", "CANCELLED"]
    [beta] = truth.stations_of({"Beta": playing.net.node_folder("Beta")})
    await until(lambda: not list(truth.left_at(beta)), "nothing of the run is left")


async def test_a_completed_run_is_not_told_as_killed(playing: Stage, client: AsyncClient):
    """#1045: killing a task marked runs as killed that had completed before."""
    task = await create(playing, client)
    await completed(task)
    await task.cancel()
    await completed(await client.tasks.get(task.id))


@pytest.mark.parametrize(
    "step",
    [
        "server.part.written=kill",
        pytest.param("server.commit.stored=kill", marks=pytest.mark.nightly),
        "server.payload.checked=error",
    ],
)
async def test_a_result_is_not_lost_when_its_upload_fails(playing: Stage, client: AsyncClient, step: str):
    """#2649, #1372: an upload that failed, by a 502 for example, was logged; the container was gone, and the result with it."""
    await playing.kill("server")
    await playing.start("server", failpoints=step)
    task = await create(playing, client, "large", size_bytes=LARGE_BYTES, seed=7)
    failpoint = step.partition("=")[0]
    await until(lambda: f"failpoint {failpoint}" in playing.said("server"), failpoint)
    if step.endswith("kill"):
        await playing.kill("server")
        await playing.start("server")
    results = await task.wait(progress=False)
    assert [(result.state, result.size_bytes) for result in results] == [("COMPLETED", LARGE_BYTES)] * 2
    assert executed_once_each(playing)
