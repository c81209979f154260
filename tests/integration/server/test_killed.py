"""A server that is killed at the worst moments, and started again on what it has left."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from folkmoot.server.app import RunningServer
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState, WaitReason
from tests.builders import World, world
from tests.integration.harness import Clock, Server, server, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import task

COMMAND = "from folkmoot.server.cli import server; server()"


@pytest.fixture(autouse=True)
def database() -> str:
    """These are about one server with a database of its own; test_instances.py is about several that share one."""
    return "sqlite"


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def lung(data: Path) -> World:
    """A collaboration that the server of the data folder knows, with a researcher."""
    lung = world(now=utc_now())
    async with server(data) as running:
        admins = await running.publish(lung)
        await running.user("ada@alpha", admins["Alpha"].organization_account_id, ["Researcher"])
    return lung


@asynccontextmanager
async def killed(data: Path, lung: World) -> AsyncIterator[Hub]:
    """Start a server in a process of its own, and kill it at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", COMMAND, "start", "--data", data, "--listen", "127.0.0.1:0", "--log-level", "error"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        assert line.startswith("Serving on "), line
        running: Any = SimpleNamespace(
            address=line.removeprefix("Serving on ").strip(),
            certificate_authority=(data / "tls" / "ca.pem").read_bytes(),
            core=SimpleNamespace(clock=utc_now),
        )
        s = Server(cast("RunningServer", running))
        yield await hub_of(s, lung)
        process.kill()
        await s.channel.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def restarted(data: Path, lung: World) -> AsyncIterator[Hub]:
    async with server(data) as s:
        yield await hub_of(s, lung)


async def hub_of(s: Server, lung: World) -> Hub:
    return Hub(s, lung, Clock(), {}, {"Alpha": await s.log_in("ada@alpha")})


async def test_killed_after_a_task_was_created(data: Path, lung: World) -> None:
    sealed = task(lung, ("Beta",))
    async with killed(data, lung) as hub:
        await hub.create(sealed)
    async with restarted(data, lung) as hub:
        assert (
            await hub.create(sealed)
        ).task.task_id == sealed.task_id  # the retry of a client that never got an answer
        async with attached(hub.server, lung, "Beta") as beta:
            assert (await beta.accept()).run_id == sealed.run_id("Beta")
            assert beta.told[-1].sequence == 1


async def test_killed_between_acknowledgement_and_commit(data: Path, lung: World) -> None:
    sealed, next_one = task(lung, ("Beta",)), task(lung, ("Beta",))
    async with killed(data, lung) as hub:
        await hub.create(sealed)
        async with attached(hub.server, lung, "Beta") as beta:
            await beta.accept()
            await hub.until(sealed, "Beta", "ASSIGNED")
    async with restarted(data, lung) as hub:
        run = await hub.run(sealed, "Beta")
        assert run.state == RunState.RUN_STATE_ASSIGNED
        assert run.waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
        await hub.create(next_one)
        held = [(sealed.run_id("Beta"), "RUNNING")]
        async with attached(hub.server, lung, "Beta", acknowledged=1, held=held) as beta:
            assert (await beta.accept()).run_id == next_one.run_id("Beta")  # and not the one that it holds
            await hub.commit(sealed, "Beta")
        assert await hub.state(sealed, "Beta") == "COMPLETED"


async def test_killed_after_a_commit(data: Path, lung: World) -> None:
    sealed = task(lung, ("Beta",))
    request = sealed.commit("Beta")
    async with killed(data, lung) as hub:
        await hub.create(sealed)
        async with attached(hub.server, lung, "Beta") as beta:
            await beta.accept()
            first = await hub.tasks.CommitRun(request, metadata=await hub.node("Beta"))
    async with restarted(data, lung) as hub:
        assert await hub.tasks.CommitRun(request, metadata=await hub.node("Beta")) == first
        shown = await hub.tasks.GetRun(pb.GetRunRequest(run_id=sealed.run_id("Beta")), metadata=hub.ada)
        assert shown.result_envelope == request.envelope
