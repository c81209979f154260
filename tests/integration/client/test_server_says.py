"""On whose word things are shown: what a node signed is proven, the rest is marked as the server's word."""

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot.client import AsyncClient, AsyncTask, Proof, RunState
from folkmoot.v1.task_pb2 import ExitClass, Run
from folkmoot.v1.task_pb2 import RunState as Told
from tests.integration.client.conftest import Gathered, Hub
from tests.integration.stub_node import StubNode

SAID = Proof.SERVER_SAYS


async def crashed(hub: Hub) -> AsyncTask:
    """A task whose run has crashed at Beta, which has signed that."""
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        task = await hub.client("Alpha").tasks.create(
            image="process:examples.average",
            function="average",
            arguments={"column": "age"},
            organizations=["Beta"],
        )
        await (await beta.next()).crash(ExitClass.EXIT_CLASS_OUT_OF_MEMORY)
        await task.wait()
        return task


def lying(monkeypatch: pytest.MonkeyPatch, client: AsyncClient, alter: Callable[[Run], None]) -> None:
    """Let the server alter what it tells of runs."""
    call = client.connection.session.call

    async def told(method: Any, request: Any) -> Any:
        answer = await call(method, request)
        for run in getattr(answer, "runs", ()):
            alter(run)
        return answer

    monkeypatch.setattr(client.connection.session, "call", told)


async def test_how_a_run_ended_is_proven_by_its_node_whatever_the_server_calls_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    client = hub.client("Alpha")
    task = await client.tasks.get((await crashed(hub)).id)
    for claimed in (Told.RUN_STATE_CRASHED, Told.RUN_STATE_COMPLETED):
        with monkeypatch.context() as patch:
            lying(patch, client, lambda run: setattr(run, "state", claimed))  # noqa: B023
            (status,) = await task.runs
            (reason,) = await task.why()
        assert (status.state, status.proven) == (RunState.CRASHED, Proof.PROVEN)
        assert (reason.text, reason.proven) == ("crashed (OUT_OF_MEMORY)", Proof.PROVEN)


async def test_completion_that_no_node_signed_is_the_servers_word(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    task = await client.tasks.get((await crashed(hub)).id)

    def alter(run: Run) -> None:
        run.state = Told.RUN_STATE_COMPLETED
        run.ClearField("receipt")

    lying(monkeypatch, client, alter)
    (status,) = await task.runs
    (reason,) = await task.why()
    assert (status.state, status.proven) == (RunState.COMPLETED, SAID)
    assert (reason.state, reason.proven) == (RunState.COMPLETED, SAID)


async def test_lists_of_the_command_mark_the_servers_word(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        task = await crashed(admins.hub)
        (nodes, *_) = (await admins("Alpha", "collaboration", "nodes", "--json")).json
        assert nodes["server_says"] == ["online", "since"]
        table = (await admins("Alpha", "collaboration", "nodes")).output
        assert "online*" in table
        assert "* the server says; nobody signed it" in table
        (shown,) = (await admins("Alpha", "task", "show", task.id, "--json")).json
        assert (shown["state"], shown["proven"]) == ("CRASHED", "proven")
        (why,) = (await admins("Alpha", "task", "why", task.id, "--json")).json
        assert (why["state"], why["proven"]) == ("CRASHED", "proven")
        assert "state*" in (await admins("Alpha", "task", "list")).output
        assert "*" not in (await admins("Alpha", "collaboration", "members")).output
