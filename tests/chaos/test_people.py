"""Nodes killed while people at the station decide: whoever is asked is asked again, what was decided holds, and nothing leaves twice.

Each node is a process of its own, killed without a word; what was decided stands in its journal alone.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc.aio
import pytest

from folkmoot.client import AsyncClient, AsyncTask, Result, RunState
from folkmoot.v1 import task_pb2
from folkmoot.v1.ledger_pb2 import Decision
from tests.chaos.stage import Stage, stage
from tests.integration.network import POLICY
from tests.integration.node.station.people import Person, at_station, verified_egress
from tests.polling import until

AWAITING, HELD = task_pb2.RUN_STATE_AWAITING_APPROVAL, task_pb2.RUN_STATE_HELD
DECIDED, LAST_WORD, DROPPED = "node.approval.journaled=kill", "node.result.held=kill", "node.result.dropped=kill"
pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def playing(folder: Path, terms: str) -> AsyncIterator[tuple[Stage, AsyncClient]]:
    async with stage(folder, "Alpha", "Beta", policy=f"{terms}\n{POLICY}", start=False) as opened:
        await opened.start("server")
        async with opened.net.client("Alpha") as client:
            yield opened, client


async def ask(client: AsyncClient) -> AsyncTask:
    return await client.tasks.create(
        image="process:tests.algorithms.honest", function="double", arguments={"number": 21}, organizations=["Beta"]
    )


async def only(task: AsyncTask) -> Result:
    [result] = await task.wait(progress=False)
    return result


@asynccontextmanager
async def person_at(opened: Stage) -> AsyncIterator[Person]:
    async with at_station(opened.net.node_folder("Beta")) as person:
        yield person


async def dead(opened: Stage) -> None:
    """Wait until the node has died of what it was to die of, and bury it."""
    await until(lambda: opened.processes["Beta"].returncode is not None, "Beta is dead")
    await opened.kill("Beta")


async def test_killed_while_a_run_awaits_approval_and_again_right_after_it(tmp_path: Path):
    async with playing(tmp_path, 'approval = "every_run"') as (opened, client):
        await opened.start("Beta")
        task = await ask(client)
        async with person_at(opened) as person:
            waiting = await person.waiting(AWAITING)
        await opened.kill("Beta")
        await opened.start("Beta", failpoints=DECIDED)
        async with person_at(opened) as person:
            assert (await person.waiting(AWAITING)).run_id == waiting.run_id
            with suppress(grpc.aio.AioRpcError):
                await person.approve(waiting.run_id)
        await dead(opened)
        await opened.start("Beta")
        result = await only(task)
        assert (result.value, result.state) == (42, RunState.COMPLETED)
        async with person_at(opened) as person:
            assert len((await person.show(waiting.run_id)).approvals) == 1


async def test_killed_with_a_held_result_and_again_right_after_its_release(tmp_path: Path):
    async with playing(tmp_path, 'release = "held"') as (opened, client):
        beta = opened.net.node_folder("Beta")
        await opened.start("Beta", failpoints=LAST_WORD)
        task = await ask(client)
        await dead(opened)
        assert verified_egress(beta) == 0
        await opened.start("Beta", failpoints=DECIDED)
        async with person_at(opened) as person:
            held = await person.waiting(HELD)
            assert (await person.look(held.run_id))[1] == b"42"
            with suppress(grpc.aio.AioRpcError):
                await person.release(held.run_id)
        await dead(opened)
        assert verified_egress(beta) == 0
        await opened.start("Beta")
        assert (await only(task)).value == 42
        assert verified_egress(beta) == 1


async def test_killed_while_a_withheld_result_is_dropped(tmp_path: Path):
    async with playing(tmp_path, 'release = "held"') as (opened, client):
        beta = opened.net.node_folder("Beta")
        await opened.start("Beta", failpoints=DROPPED)
        task = await ask(client)
        async with person_at(opened) as person:
            held = await person.waiting(HELD)
            with suppress(grpc.aio.AioRpcError):
                await person.release(held.run_id, decision=Decision.DECISION_DECLINE)
        await dead(opened)
        await opened.start("Beta")
        assert (await only(task)).state == RunState.REFUSED
        assert verified_egress(beta) == 0
        assert not list((opened.net.state_directory("Beta") / "outbox").iterdir())
