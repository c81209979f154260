"""Server or node killed without a word, the network cut: nothing is lost, nothing happens twice.

Each test kills or cuts at a known point of a run's life, which the algorithm and the files in its scratch make visible, and then
asserts the same: every run completed with a proven result, and each was executed exactly once.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot.algorithm.build import build
from folkmoot.client import AsyncClient, AsyncTask
from tests.chaos.stage import REPOSITORY, Stage, stage

ORGANIZATIONS = ("Alpha", "Beta")
pytestmark = pytest.mark.timeout(120)


VICTIMS = [
    pytest.param(["server"], id="server", marks=pytest.mark.nightly),
    pytest.param(["Beta"], id="Beta", marks=pytest.mark.nightly),
    pytest.param(["server", "Beta"], id="server-Beta"),
]
"""Each by itself in the nightly runs; both at once always."""


@pytest.fixture(scope="session")
def container_image() -> str:
    return build(REPOSITORY / "tests" / "algorithms" / "stepwise.py", base="folkmoot-base:debian12", tag="stepwise")


@pytest.fixture(params=["process", pytest.param("docker", marks=[pytest.mark.needs_docker, pytest.mark.nightly])])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def image(runtime: str, request: pytest.FixtureRequest) -> str:
    return "process:tests.algorithms.stepwise" if runtime == "process" else request.getfixturevalue("container_image")


@pytest.fixture
async def playing(tmp_path: Path, runtime: str) -> AsyncIterator[Stage]:
    async with stage(tmp_path, *ORGANIZATIONS, runtime=runtime) as opened:
        yield opened


@pytest.fixture
async def client(playing: Stage) -> AsyncIterator[AsyncClient]:
    async with playing.net.client("Alpha") as opened:
        yield opened


async def step(client: AsyncClient, image: str, number: int = 21) -> AsyncTask:
    return await client.tasks.create(
        image=image, function="step", arguments={"number": number}, organizations=list(ORGANIZATIONS), scratch=True
    )


async def completed_once(playing: Stage, task: AsyncTask, value: int = 42) -> None:
    """Everything that must be true at the end."""
    results = await task.wait(progress=False)
    assert [(result.organization, result.state) for result in results] == [
        (name, "COMPLETED") for name in ORGANIZATIONS
    ]
    assert [result.value for result in results] == [value] * len(ORGANIZATIONS)
    assert all(result.proven for result in results)
    for result in results:
        assert playing.executions(result.organization, task.job_id) == [result.run_id]


def run_id(task: AsyncTask, organization: str) -> str:
    return task.spec.receivers[ORGANIZATIONS.index(organization)].run_id


async def let_all_go(playing: Stage, task: AsyncTask) -> None:
    for organization in ORGANIZATIONS:
        await playing.begun(organization, task.job_id)
        playing.let_go(organization, task.job_id)


# ---- while runs are queued -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [pytest.param("server", marks=pytest.mark.nightly), "Beta"])
async def test_killed_while_a_run_is_queued(playing: Stage, client: AsyncClient, image: str, victim: str):
    first = await step(client, image)
    for organization in ORGANIZATIONS:
        await playing.begun(organization, first.job_id)
    second = await step(client, image, 4)  # Each node has one slot.
    await playing.kill(victim)
    await playing.start(victim)
    await let_all_go(playing, first)
    await completed_once(playing, first)
    await let_all_go(playing, second)
    await completed_once(playing, second, 8)


async def test_task_made_while_its_node_is_down(playing: Stage, client: AsyncClient, image: str):
    await playing.kill("Beta")
    task = await step(client, image)
    await playing.start("Beta")
    await let_all_go(playing, task)
    await completed_once(playing, task)


# ---- while runs compute --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victims", VICTIMS)
async def test_killed_while_a_run_computes(playing: Stage, client: AsyncClient, image: str, victims: list[str]):
    task = await step(client, image)
    await playing.begun("Beta", task.job_id)
    for victim in victims:
        await playing.kill(victim)
    for victim in victims:
        await playing.start(victim)
    await let_all_go(playing, task)
    await completed_once(playing, task)


async def test_run_that_ends_while_its_node_is_down(playing: Stage, client: AsyncClient, image: str):
    task = await step(client, image)
    await playing.begun("Beta", task.job_id)
    await playing.kill("Beta")
    playing.let_go("Beta", task.job_id)  # It writes its result to nobody, again and again, until there is somebody.
    await playing.start("Beta")
    await let_all_go(playing, task)
    await completed_once(playing, task)


# ---- when a result stands and is not delivered ---------------------------------------------------------------------


@pytest.mark.parametrize("victims", VICTIMS)
async def test_killed_with_a_result_that_is_not_delivered(
    playing: Stage, client: AsyncClient, image: str, victims: list[str]
):
    task = await step(client, image)
    await playing.begun("Beta", task.job_id)
    playing.wire.cut()
    playing.let_go("Beta", task.job_id)
    await playing.journaled("Beta", run_id(task, "Beta"), "run.ended")
    for victim in victims:
        await playing.kill(victim)
    playing.wire.mend()
    for victim in victims:
        await playing.start(victim)
    await let_all_go(playing, task)
    await completed_once(playing, task)


# ---- the network ---------------------------------------------------------------------------------------------------


async def test_network_cut_and_mended_while_runs_compute(playing: Stage, client: AsyncClient, image: str):
    task = await step(client, image)
    waiting = asyncio.create_task(task.wait(progress=False))
    for _ in range(3):
        await playing.begun("Beta", task.job_id)
        playing.wire.cut()
        await asyncio.sleep(0.2)
        playing.wire.mend()
    await let_all_go(playing, task)
    await waiting
    await completed_once(playing, task)


# ---- what is left behind -------------------------------------------------------------------------------------------


@pytest.mark.needs_docker
@pytest.mark.parametrize("runtime", ["docker"], indirect=True)
async def test_no_container_is_left_behind(playing: Stage, client: AsyncClient, image: str):
    task = await step(client, image)
    await playing.begun("Beta", task.job_id)
    await playing.kill("Beta")
    await playing.start("Beta")
    await let_all_go(playing, task)
    await completed_once(playing, task)
    loop = asyncio.get_running_loop()
    end = loop.time() + 20
    while left := containers(image):
        assert loop.time() < end, left
        await asyncio.sleep(0.1)


def containers(image: str) -> list[str]:
    command = ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={image.removeprefix('local:')}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
