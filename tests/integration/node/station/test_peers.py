"""Several nodes of one organization: each run is one node's, what is fenced counts no more, and files stay where they are."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import AsyncTask, Proof, Result
from folkmoot.node.app import RunningNode
from folkmoot.node.journal import records
from folkmoot.node.link import reports
from folkmoot.server.core import NodeKey
from folkmoot.v1.admin_service_pb2 import Connection
from folkmoot.v1.link_pb2 import Availability
from tests.builders import world
from tests.chaos.stage import Wire
from tests.integration.client.hub import Hub
from tests.integration.harness import Clock, server, utc_now
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask
from tests.polling import until


@dataclass
class Peers:
    """Beta's two nodes, each behind a wire of its own, and what they execute."""

    hub: Hub
    clock: Clock
    engine: Engine
    stations: Stations
    wires: list[Wire] = field(default_factory=list)

    def node(self, number: int, **changes: Any) -> AbstractAsyncContextManager[RunningNode]:
        wire = self.wires[number - 1]
        place = {"place": f"-{number}", "node": f"beta-{number}", "server": f"127.0.0.1:{wire.port}"}
        return self.stations.station("Beta", engine=self.engine, **(place | changes))

    def node_id(self, number: int) -> str:
        return self.hub.lung["Beta"].nodes[f"beta-{number}"].fingerprint

    async def away(self, number: int) -> None:
        """Cut a node off for so long that the server gives its runs to the other one, if it may."""
        self.wires[number - 1].cut()

        async def noticed() -> bool:
            key = NodeKey(self.hub.lung.genesis, self.node_id(number))
            known = await self.hub.server.running.dispatch.connections([key])
            return known[key].connection == Connection.CONNECTION_AWAY

        await until(noticed)
        self.clock.ahead += timedelta(minutes=1)
        await self.hub.server.running.dispatch.sweep()


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    clock = Clock()
    async with server(tmp_path / "server", clock=clock, reassign_after_minutes=0) as running:
        lung = world(("Alpha", "Beta"), now=utc_now())
        await running.publish(lung)
        lung.add_node("Beta", "beta-2")
        await running.append(lung.entries[-1], running.users["admin@beta"])
        hub = Hub(running, lung, tmp_path)
        made = Peers(hub, clock, Engine({}), Stations(hub))
        listening = []
        for _ in range(2):
            wire = Wire(int(running.running.address.rpartition(":")[2]))
            listening.append(await asyncio.start_server(wire.connected, "127.0.0.1", 0))
            wire.port = listening[-1].sockets[0].getsockname()[1]
            made.wires.append(wire)
        yield made
        await made.engine.close()
        for each, wire in zip(listening, made.wires, strict=True):
            each.close()
            wire.cut()
        for client in hub.opened:
            await client.close()
    for sockets in tmp_path.glob("station-*/sockets.txt"):
        shutil.rmtree(Path(sockets.read_text()))


async def only(task: AsyncTask) -> Result:
    async with asyncio.timeout(40):
        [result] = await task.wait(progress=False)
    return result


@asynccontextmanager
async def computing(peers: Peers) -> AsyncIterator[Callable[[int], Awaitable[Algorithm]]]:
    """Have algorithms wait for the test; gives the function that waits for the algorithm of an attempt."""
    begun: dict[int, asyncio.Future[Algorithm]] = {
        each: asyncio.get_running_loop().create_future() for each in (1, 2, 3)
    }

    async def compute(algorithm: Algorithm) -> None:
        begun[algorithm.context.attempt].set_result(algorithm)
        await asyncio.Event().wait()

    peers.engine.functions = {"answer": compute}
    yield lambda attempt: asyncio.wait_for(begun[attempt], 40)


async def test_late_result_from_fenced_attempt(peers: Peers, caplog: pytest.LogCaptureFixture):
    """Both nodes live, and the network between them and the server parts: one attempt counts, whichever ends first."""
    async with computing(peers) as algorithm, peers.node(1) as first:
        task = await ask(peers.hub, "Beta", max_attempts=2)
        cut_off = await algorithm(1)
        async with peers.node(2):
            await peers.away(1)
            anew = await algorithm(2)
            await cut_off.result("of the first attempt")
            await anew.result("of the second attempt")
            with caplog.at_level(logging.ERROR, "folkmoot.client"):
                result = await only(task)
            assert (result.value, result.proven) == ("of the second attempt", Proof.PROVEN)
            assert caplog.messages == [], "two nodes, each with an attempt of its own, are no lie"
            peers.wires[0].mend()
            journal = first.stations[0].station.journal

            async def dropped() -> bool:
                [known] = await journal.transact(lambda db: records.attempts_of(db, result.run_id))
                return bool(known.committed_at_us)

            await until(dropped)
    [run] = await task.runs
    assert (run.attempt, run.node_id) == (2, peers.node_id(2))
    assert (await only(task)).value == "of the second attempt"


async def test_fenced_attempt_is_ended_when_its_node_returns(peers: Peers):
    async with computing(peers) as algorithm, peers.node(1), peers.node(2):
        task = await ask(peers.hub, "Beta", max_attempts=2)
        await algorithm(1)
        [before] = await task.runs
        gone = 1 if before.node_id == peers.node_id(1) else 2
        await peers.away(gone)
        anew = await algorithm(2)
        former = peers.engine.started[0].run_name
        peers.wires[gone - 1].mend()
        await until(lambda: former in peers.engine.stopped)
        await anew.result(2)
        assert (await only(task)).value == 2
    assert len(peers.engine.started) == 2


async def test_third_attempt_begins_at_the_node_of_the_first(peers: Peers):
    async with computing(peers) as algorithm, peers.node(1):
        task = await ask(peers.hub, "Beta", max_attempts=3)
        await algorithm(1)
        async with peers.node(2):
            await peers.away(1)
            await algorithm(2)
            peers.wires[0].mend()
            await until(lambda: peers.engine.started[0].run_name in peers.engine.stopped)
            await peers.away(2)
            await (await algorithm(3)).result(3)
            result = await only(task)
    assert result.value == 3
    [run] = await task.runs
    assert (run.attempt, run.node_id) == (3, peers.node_id(1))


async def test_node_that_was_killed_with_a_fenced_attempt_ends_it_when_it_starts(peers: Peers):
    async with computing(peers) as algorithm:
        async with peers.node(1):
            task = await ask(peers.hub, "Beta", max_attempts=2)
            await algorithm(1)
        async with peers.node(2):
            peers.wires[0].cut()
            await peers.away(1)
            await (await algorithm(2)).result(2)
            assert (await only(task)).value == 2
            peers.wires[0].mend()
            async with peers.node(1):
                await until(lambda: peers.engine.started[0].run_name in peers.engine.stopped)


async def test_drain_under_load_loses_nothing(peers: Peers):
    ended: list[int] = []

    async def number(algorithm: Algorithm) -> None:
        ended.append(algorithm.arguments["number"])
        await algorithm.result(algorithm.arguments["number"])

    peers.engine.functions = {"answer": number}
    async with peers.node(1) as first, peers.node(2):

        async def made(which: int) -> AsyncTask:
            return await ask(peers.hub, "Beta", arguments={"number": which}, max_attempts=2)

        tasks = [await made(each) for each in range(10)]
        drain(first)
        tasks += [await made(each) for each in range(10, 20)]
        values = [(await only(task)).value for task in tasks]
    assert values == list(range(20))
    assert sorted(ended) == list(range(20)), "each was executed once"


async def test_what_has_begun_at_a_draining_node_stays_there(peers: Peers, monkeypatch: pytest.MonkeyPatch):
    """Also if the node had no reason yet to tell that it has begun."""
    monkeypatch.setattr(reports, "VISIBLE_AFTER_SECONDS", 3600.0)
    begun, may_end, executed = asyncio.Event(), asyncio.Event(), []

    async def long(algorithm: Algorithm) -> None:
        executed.append(algorithm.context.run_id)
        begun.set()
        await may_end.wait()
        await algorithm.result(algorithm.context.attempt)

    async def short(algorithm: Algorithm) -> None:
        await algorithm.result(algorithm.context.attempt)

    peers.engine.functions = {"answer": long, "short": short}
    async with peers.node(1) as first:
        task = await ask(peers.hub, "Beta", max_attempts=2)
        await begun.wait()
        async with peers.node(2):
            drain(first)
            other = await ask(peers.hub, "Beta", function="short", max_attempts=2)
            await only(other)  # at the second node: the server knows that the first one drains
            may_end.set()
            assert (await only(task)).value == 1
    assert len(executed) == 1


def drain(node: RunningNode) -> None:
    """Tell the server that a node is about to go."""
    for running in node.stations:
        running.station.availability = Availability.AVAILABILITY_DRAINING
        running.offer()


async def test_label_that_one_peer_offers_leads_runs_there(peers: Peers):
    async def who(algorithm: Algorithm) -> None:
        await algorithm.result(algorithm.context.attempt)

    peers.engine.functions = {"answer": who}
    imaging = '\n[collaboration.data.imaging]\nsource = "csv"\npath = "patients.csv"\n'
    policy = 'runtimes = ["process"]\n[[allow]]\nimages = ["process:examples.*"]\ninitiators = ["*"]\nlabels = ["*"]\n'
    toml = peers.stations.configure(
        "Beta", place="-2", node="beta-2", policy=policy, server=f"127.0.0.1:{peers.wires[1].port}"
    )
    async with peers.node(1, policy=policy):
        toml.write_text(toml.read_text() + imaging)
        peers.stations.keep_files = True
        async with peers.node(2, policy=policy):
            for _ in range(3):
                task = await ask(peers.hub, "Beta", labels=["imaging"])
                await only(task)
                [run] = await task.runs
                assert run.node_id == peers.node_id(2)


async def test_files_of_a_job_stay_with_their_node_over_its_restart(peers: Peers):
    async def note(algorithm: Algorithm) -> None:
        notes = Path(algorithm.context.scratch_path) / "notes"
        with notes.open("a") as file:
            file.write("x")
        await algorithm.result(notes.read_text())

    peers.engine.functions = {"answer": note}
    async with peers.node(2), peers.node(1):
        first = await ask(peers.hub, "Beta", scratch=True)
        assert (await only(first)).value == "x"
        [run] = await first.runs
        there = 1 if run.node_id == peers.node_id(1) else 2
        assert (await only(await ask(peers.hub, "Beta", scratch=True, after=[first]))).value == "xx"
        peers.wires[there - 1].cut()
        waiting = await ask(peers.hub, "Beta", scratch=True, after=[first])

        async def says_for_which() -> bool:
            return any(peers.node_id(there) in each.text for each in await waiting.why())

        await until(says_for_which)
        peers.wires[there - 1].mend()
        assert (await only(waiting)).value == "xxx"
