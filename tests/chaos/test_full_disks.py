"""The disk of a node, or of the server, is full while work goes on: whoever asks is told, and with room everything goes on.

Nothing that was promised is lost, nothing is there by halves, nothing is executed twice.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import AsyncClient, AsyncTask
from folkmoot.trust import FolkmootError
from tests.chaos import truth
from tests.chaos.disks import empty, fill, small_disk
from tests.chaos.stage import Stage, stage
from tests.polling import until

ORGANIZATIONS = ("Alpha", "Beta")
LARGE_BYTES = 3 << 20
NO_ROOM = ("no room on the disk", "DISK_FULL")
pytestmark = [pytest.mark.needs_mounts, pytest.mark.timeout(120)]


@asynccontextmanager
async def on_small_disks(
    folder: Path, *, node: bool = False, server: bool = False
) -> AsyncIterator[tuple[Stage, Path]]:
    """A collaboration, of which Beta's node or the server keeps its state on a small disk; afterwards all must be true."""
    async with stage(folder, *ORGANIZATIONS, settings="slots = 4", hurried=True, start=False) as playing:
        disk = playing.net.node_folder("Beta") / "state" if node else folder / "server"
        kept = (
            {path.relative_to(disk): path.read_bytes() for path in disk.rglob("*") if path.is_file()} if server else {}
        )
        with ExitStack() as stack:
            stack.enter_context(small_disk(disk, mebibytes=24))
            for path, content in kept.items():
                (disk / path).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                (disk / path).write_bytes(content)
                (disk / path).chmod(0o600)
            settings = playing.net.node_folder("Beta") / "node.toml"
            settings.write_text(
                f"reserve_disk_bytes = 0\n{settings.read_text()}"
            )  # It would refuse work before its disk is full.
            for name in ("server", *ORGANIZATIONS):
                await playing.start(name)
            yield playing, disk
            await at_rest(playing)


async def at_rest(playing: Stage) -> None:
    stations = truth.stations_of({name: playing.net.node_folder(name) for name in ORGANIZATIONS})
    open_ = "SELECT 1 FROM runs WHERE committed_at_us = 0"
    await until(
        lambda: not any(truth.rows(each.journal, open_) or [*truth.left_at(each)] for each in stations), "all at rest"
    )
    for name in (*ORGANIZATIONS, "server"):
        await playing.stop(name)
    wrong = truth.wrong(playing.folder / "server", stations, truth.executions_in([playing.net.folder / "notes"]))
    assert not wrong, "\n".join(wrong)


async def create(playing: Stage, client: AsyncClient, function: str, **arguments: Any) -> AsyncTask:
    return await client.tasks.create(
        image="process:tests.algorithms.stormy",
        function=function,
        arguments={"notes": str(playing.net.folder / "notes")} | arguments,
        organizations=list(ORGANIZATIONS),
    )


async def begun(playing: Stage, number: int) -> None:
    notes = playing.net.folder / "notes"
    await until(lambda: notes.exists() and len(notes.read_text().splitlines()) == number, f"{number} runs have begun")


async def told(playing: Stage, name: str, *words: str) -> None:
    await until(lambda: any(word in playing.said(name) for word in words), f"{name} says {words}")


async def completed(task: AsyncTask, value: object) -> None:
    for result in await task.wait(progress=False):
        assert result.proven
        assert result.value == value


async def test_a_result_waits_until_its_node_has_room(tmp_path: Path):
    async with on_small_disks(tmp_path, node=True) as (playing, disk), playing.net.client("Alpha") as client:
        task = await create(playing, client, "plain", number=21, seconds=1.0)
        await begun(playing, 2)
        fill(disk)
        await told(playing, "Beta", *NO_ROOM)
        empty(disk)
        await completed(task, 42)


async def test_a_large_result_waits_until_its_node_has_room(tmp_path: Path):
    async with on_small_disks(tmp_path, node=True) as (playing, disk), playing.net.client("Alpha") as client:
        task = await create(playing, client, "large", size_bytes=LARGE_BYTES, seed=1, seconds=1.0)
        await begun(playing, 2)
        fill(disk)
        await told(playing, "Beta", *NO_ROOM)
        assert not list(disk.rglob("*.part"))
        empty(disk)
        async for result in task.results():
            assert result.size_bytes == LARGE_BYTES


async def test_a_run_that_comes_to_a_node_without_room_is_taken_when_there_is_some(tmp_path: Path):
    async with on_small_disks(tmp_path, node=True) as (playing, disk), playing.net.client("Alpha") as client:
        fill(disk)
        task = await create(playing, client, "plain", number=4)
        await told(playing, "Beta", *NO_ROOM)
        empty(disk)
        await completed(task, 8)


async def test_a_node_without_room_that_is_killed_goes_on_when_there_is_some(tmp_path: Path):
    async with on_small_disks(tmp_path, node=True) as (playing, disk), playing.net.client("Alpha") as client:
        task = await create(playing, client, "plain", number=4, seconds=1.0)
        await begun(playing, 2)
        fill(disk)
        await told(playing, "Beta", *NO_ROOM)
        await playing.kill("Beta")
        await playing.launch("Beta")
        await asyncio.sleep(1.0)
        empty(disk)
        if playing.processes["Beta"].returncode is not None:  # It needs room to start, and says so.
            assert any(word in playing.said("Beta") for word in NO_ROOM)
            await playing.start("Beta")
        await completed(task, 8)


async def test_a_server_without_room_says_so_and_has_lost_nothing_when_there_is_some(tmp_path: Path):
    async with on_small_disks(tmp_path, server=True) as (playing, disk), playing.net.client("Alpha") as client:
        task = await create(playing, client, "plain", number=21, seconds=1.0)
        await begun(playing, 2)
        fill(disk)
        with pytest.raises(FolkmootError) as refused:
            await create(playing, client, "plain", number=1)
        assert refused.value.reason_name == "DISK_FULL"
        await told(playing, "Beta", "run.not_delivered")
        empty(disk)
        await completed(task, 42)
        await completed(await create(playing, client, "plain", number=2), 4)


async def test_a_large_result_waits_until_the_server_has_room(tmp_path: Path):
    async with on_small_disks(tmp_path, server=True) as (playing, disk), playing.net.client("Alpha") as client:
        task = await create(playing, client, "large", size_bytes=LARGE_BYTES, seed=1, seconds=1.0)
        await begun(playing, 2)
        fill(disk)
        await told(playing, "Beta", "run.not_delivered")
        empty(disk)
        async for result in task.results():
            assert result.size_bytes == LARGE_BYTES
