"""A server with a collaboration of three organizations, each with a researcher and a node."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import Run, RunState
from tests.builders import World, world
from tests.integration.harness import Clock, Metadata, Server, User, server, utc_now
from tests.integration.server.sealed import SealedTask


@dataclass
class Hub:
    """The server, the collaboration, and who calls."""

    server: Server
    lung: World
    clock: Clock
    admins: dict[str, User]
    researchers: dict[str, User]

    @property
    def tasks(self) -> Any:
        return self.server.tasks

    @property
    def ada(self) -> Metadata:
        """A researcher of Alpha."""
        return self.researchers["Alpha"].metadata

    async def node(self, organization: str, name: str = "") -> Metadata:
        return await self.server.node_metadata(self.lung, organization, name or f"{organization.lower()}-1")

    async def create(self, sealed: SealedTask, metadata: Metadata | None = None) -> pb.CreateTaskResponse:
        return await self.tasks.CreateTask(sealed.request(), metadata=metadata or self.ada)

    async def commit(self, sealed: SealedTask, organization: str, outcome: str = "COMPLETED", **changes: Any) -> Run:
        request = sealed.commit(organization, outcome, **changes)
        answer = await self.tasks.CommitRun(request, metadata=await self.node(organization))
        return answer.run

    async def run(self, sealed: SealedTask, organization: str) -> Run:
        request = pb.GetRunRequest(run_id=sealed.run_id(organization))
        return (await self.tasks.GetRun(request, metadata=self.ada)).run

    async def state(self, sealed: SealedTask, organization: str) -> str:
        return RunState.Name((await self.run(sealed, organization)).state).removeprefix("RUN_STATE_")

    async def settled(self) -> None:
        """Wait until the server has done what frames that it has read ask for, and has noted which sessions have ended."""
        await self.server.running.core.store.write(lambda _connection: None)
        dispatch = self.server.running.dispatch
        passing = [each for each in dispatch._under_way if _name(each) in ("handle", "_note_away")]
        if passing:
            await asyncio.wait(passing)

    async def until(self, sealed: SealedTask, organization: str, state: str) -> Run:
        """Wait, without polling, until a run is in a state."""
        wanted = RunState.Value(f"RUN_STATE_{state}")
        watching = self.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=self.ada)
        async for change in watching:
            if change.run.run_id == sealed.run_id(organization) and change.run.state == wanted:
                watching.cancel()
                return change.run
        raise AssertionError(f"the run never was {state}")


def _name(work: asyncio.Task[None]) -> str:
    return getattr(work.get_coro(), "__name__", "")


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    clock = Clock()
    async with server(tmp_path / "data", clock=clock) as running:
        lung = world(now=utc_now())
        admins = await running.publish(lung)
        researchers = {
            name: await running.user(f"ada@{name.lower()}", admin.organization_account_id, ["Researcher"])
            for name, admin in admins.items()
        }
        yield Hub(running, lung, clock, admins, researchers)
