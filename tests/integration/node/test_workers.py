"""Plain processes: workers that wait for a run, what they are given, and that nothing of them stays."""

import asyncio
import dataclasses
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from folkmoot.algorithm.source import tree_hash
from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.service import Proxy
from folkmoot.node.runtimes.process import ProcessRuntime
from folkmoot.node.runtimes.worker import Worker
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import task_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.integration.node.conftest import LIMITS, NODE, Place, exit_of, make_place
from tests.integration.node.fakes import FakeRun

SAMPLE = "tests.integration.node.sample"


def silent(_: str) -> None:
    """Nobody listens."""


@pytest.fixture
async def warm(directory: Path) -> AsyncIterator[Place]:
    place = make_place("process", directory, "", warm_workers=2)
    await place.runtime.adopt()
    await place.runtime._warm.started()
    yield place
    await place.clean()


@pytest.fixture
async def cold(directory: Path) -> AsyncIterator[Place]:
    place = make_place("process", directory, "")
    await place.runtime.adopt()
    yield place
    await place.clean()


def process_of(place: Place, run_name: str) -> psutil.Process:
    return psutil.Process(place.runtime._workers[run_name].pid)


class TestWarmWorkers:
    async def test_run_goes_to_a_worker_that_waits(self, warm: Place):
        waiting = set(warm.runtime._workers)
        run = await warm.run("result")
        assert run.run_name in waiting
        assert (await run.result)[1] == b"xxxx"
        assert (await exit_of(warm.runtime, run.run_name)).code == 0

    async def test_each_serves_one_run_and_another_takes_its_place(self, warm: Place):
        names = []
        for _ in range(4):
            run = await warm.run("result")
            await run.result
            names.append(run.run_name)
            await warm.runtime._warm.started()
        assert len(set(names)) == 4
        assert len(warm.runtime._workers) == 6

    async def test_worker_gets_the_run_s_memory_limit(self, warm: Place):
        run = await warm.run("memory", limits=dataclasses.replace(LIMITS, memory_bytes=128 << 20))
        assert (await exit_of(warm.runtime, run.run_name)).exit_class == pb.EXIT_CLASS_OUT_OF_MEMORY

    async def test_dead_worker_is_passed_over(self, warm: Place):
        for name in list(warm.runtime._workers):
            warm.runtime._workers[name].kill()
            await warm.runtime._workers[name].ended()
        assert (await (await warm.run("result")).result)[1] == b"xxxx"

    async def test_more_runs_than_workers_start_cold(self, warm: Place):
        runs = [await warm.run("result") for _ in range(5)]
        assert len({(await run.result)[1] for run in runs}) == 1

    async def test_workers_without_a_run_end_with_the_node(self, warm: Place, directory: Path):
        run = await warm.run("forever")
        await run.progress.get()
        await warm.runtime._warm.started()
        waiting = [process_of(warm, name) for name in set(warm.runtime._workers) - {run.run_name}]
        running = process_of(warm, run.run_name)
        await warm.runtime.close()
        assert running.is_running()
        assert not [process for process in waiting if process.is_running() and process.status() != "zombie"]
        assert {path.name for path in directory.iterdir()} == {run.run_name, "workers"}

    async def test_workers_without_a_run_are_not_adopted(self, warm: Place, directory: Path):
        """The node was killed: its next process can't know what they have seen."""
        waiting = list(warm.runtime._workers.values())
        again = ProcessRuntime(directory, node=NODE, proxy=Proxy())
        assert await again.adopt() == frozenset()
        assert not [worker for worker in waiting if worker.alive]

    async def test_another_node_s_workers_are_left_alone(self, warm: Place, directory: Path):
        assert await ProcessRuntime(directory, node="another", proxy=Proxy()).adopt() == frozenset()
        assert all(worker.alive for worker in warm.runtime._workers.values())


class TestProcess:
    async def test_environment_is_clean(self, cold: Place, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("FOLKMOOT_PASSWORD", "secret")
        found = json.loads((await (await cold.run("inspect")).result)[1])
        # The last three are the shell's own.
        assert set(found["environment"]) - {"PWD", "OLDPWD", "_"} <= {
            "FOLKMOOT_PROXY",
            "HOME",
            "LANG",
            "LC_CTYPE",
            "PATH",
            "PYTHONPATH",
        }

    async def test_it_has_a_session_of_its_own(self, cold: Place):
        run = await cold.run("forever")
        pid = cold.runtime._workers[run.run_name].pid
        assert os.getsid(pid) == pid != os.getsid(0)

    async def test_nothing_of_a_removed_run_stays(self, cold: Place, directory: Path):
        run = await cold.run("forever")
        await run.progress.get()
        everything = [process_of(cold, run.run_name), *process_of(cold, run.run_name).children(recursive=True)]
        await cold.runtime.remove(run.run_name)
        psutil.wait_procs(everything, timeout=10)
        assert not [process for process in everything if process.is_running()]
        assert list((directory / "workers").iterdir()) == []

    async def test_endless_output_does_not_fill_the_disk(self, cold: Place):
        run = await cold.run("chatters", lines=200_000)
        ended = await exit_of(cold.runtime, run.run_name)
        assert len(ended.detail) <= 8192
        assert ended.detail.endswith("line 199999\n")

    async def test_command_that_is_not_there_is_not_started(self, directory: Path):
        runtime = ProcessRuntime(directory, node=NODE, proxy=Proxy(), command=["/nonexistent"])
        await runtime.adopt()
        await runtime.start(make_place("process", directory, "").start_of("0" * 12))
        assert (await exit_of(runtime, "0" * 12)).exit_class == pb.EXIT_CLASS_NOT_STARTED
        await runtime.remove("0" * 12)


async def test_process_that_got_a_dead_worker_s_number_is_left_alone(directory: Path):
    """After a restart of the machine, say: the record names a process that is somebody else's now."""
    records = directory / "workers"
    records.mkdir()
    stranger = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    worker = Worker("0" * 12, NODE, stranger.pid, started_ticks=1, out_of_memory_kills=0, assigned=True)
    worker.save(records)
    runtime = ProcessRuntime(directory, node=NODE, proxy=Proxy())
    assert await runtime.adopt() == {worker.run_name}
    assert (await exit_of(runtime, worker.run_name)).exit_class == pb.EXIT_CLASS_LOST
    await runtime.stop(worker.run_name)
    await runtime.remove(worker.run_name)
    assert stranger.returncode is None
    stranger.kill()
    assert await stranger.wait() == -signal.SIGKILL


async def test_nothing_is_left_of_what_was_being_written_when_a_node_died(directory: Path):
    records = directory / "workers"
    records.mkdir()
    for name in ("0" * 12 + ".draft", "1" * 12 + ".exit", "2" * 12 + ".out"):
        (records / name).touch()
    assert await ProcessRuntime(directory, node=NODE, proxy=Proxy()).adopt() == frozenset()
    assert not list(records.iterdir())


class TestModules:
    """The worker of the toolkit, with modules pinned by their source."""

    @pytest.fixture
    async def runtime(self, directory: Path) -> AsyncIterator[ProcessRuntime]:
        runtime = ProcessRuntime(directory, node=NODE, proxy=Proxy(), warm_workers=1)
        await runtime.adopt()
        yield runtime
        await runtime.close()

    @pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
    async def test_module_is_served_by_the_toolkit_s_worker(self, runtime: ProcessRuntime, directory: Path, warm: bool):
        if warm:
            await runtime._warm.started()
        run = FakeRun(runtime.name_run() if warm else "0" * 12, "double", number=21)
        run.module = SAMPLE
        await runtime._proxy.open(run, SourceTables({}), directory / run.run_name)
        await runtime.start(make_place("process", directory, "").start_of(run.run_name))
        assert json.loads((await run.result)[1]) == 42
        assert (await exit_of(runtime, run.run_name)).code == 0
        await runtime.remove(run.run_name)
        await runtime._proxy.close(run.run_name)

    async def test_module_with_the_pinned_source_is_prepared(self, runtime: ProcessRuntime):
        image = pb.Image(process=pb.ProcessImage(module=SAMPLE, tree_hash=tree_hash(SAMPLE)))
        prepared = await runtime.prepare(image, silent)
        assert (prepared.image_id, prepared.functions) == (tree_hash(SAMPLE).hex(), None)

    @pytest.mark.parametrize(
        "image",
        [
            pb.Image(process=pb.ProcessImage(module=SAMPLE, tree_hash=bytes(32))),
            pb.Image(process=pb.ProcessImage(module="no.such.module", tree_hash=bytes(32))),
            pb.Image(local=pb.LocalImage(id="sha256:" + "0" * 64)),
        ],
        ids=["other source", "no module", "a container's"],
    )
    async def test_module_that_is_not_exactly_there_is_not_found(self, runtime: ProcessRuntime, image: pb.Image):
        with pytest.raises(FolkmootError) as refused:
            await runtime.prepare(image, silent)
        assert refused.value.reason == ErrorReason.ERROR_REASON_IMAGE_NOT_FOUND


async def test_waiting_does_not_need_to_be_the_parent(cold: Place, directory: Path):
    run = await cold.run("patient")
    other = ProcessRuntime(directory, node=NODE, proxy=Proxy())
    await other.adopt()
    waiting = asyncio.create_task(exit_of(other, run.run_name))
    run.input = b"go"
    await run.result
    assert (await waiting).code == 0
