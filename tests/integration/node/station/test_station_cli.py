"""The commands of people at the station, against a running node: what they print, what they end with."""

import asyncio
import json
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from folkmoot.cli.exits import Exit, exit_code
from folkmoot.node.cli import node
from folkmoot.node.proxy.sockets import ADMIN_SOCKET_NAME
from folkmoot.trust import FolkmootError
from folkmoot.v1 import task_pb2
from folkmoot.v1.link_pb2 import ApprovalMode, Availability
from tests.integration.client.conftest import Hub
from tests.integration.node.station.people import Person, at_station
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask, only
from tests.integration.node.station.test_people import APPROVED, LOOKED_AT
from tests.polling import until

SECRET = "forty-two"
LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[")
"""How the node's log begins, which runs in this process and tells on the same stream."""


async def answer(algorithm: Algorithm) -> None:
    await algorithm.result({"says": SECRET, "steers": "\x1b[2J"})


async def data(algorithm: Algorithm) -> None:
    await algorithm.write("application/octet-stream", bytes(range(256)))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine({"answer": answer, "data": data})
    yield made
    await made.close()


@pytest.fixture
def config(hub: Hub) -> Path:
    return hub.folder / "station-Beta" / "node.toml"


async def run(*arguments: str | Path) -> tuple[int, str]:
    """Invoke `folkmoot node` beside the loop, in which the node runs; what it ends with, and what it prints."""
    result = await asyncio.to_thread(CliRunner().invoke, node, list(map(str, arguments)))
    if isinstance(result.exception, FolkmootError):
        return exit_code(result.exception), f"{result.exception.reason_name}: {result.exception}"
    assert isinstance(result.exception, SystemExit | None), result.exception
    said = [line for line in result.output.splitlines(keepends=True) if not LOGGED.match(line)]
    return result.exit_code, "".join(said)


async def test_a_run_is_listed_shown_approved_and_its_end_is_in_the_books(
    hub: Hub, stations: Stations, engine: Engine, config: Path
):
    async with stations.station("Beta", engine=engine, policy=APPROVED), at_station(config.parent) as person:
        task = await ask(hub, "Beta", purpose="to learn")
        waiting = await person.waiting(task_pb2.RUN_STATE_AWAITING_APPROVAL)
        code, listed = await run("runs", config, "--waiting")
        assert (code, waiting.run_id in listed, "to learn" in listed) == (0, True, True)
        _, as_json = await run("runs", config, "--waiting", "--json")
        assert [each["run_id"] for each in json.loads(as_json)] == [waiting.run_id]
        _, shown = await run("show", config, waiting.run_id[:22])
        for text in ("awaiting approval", "process:examples.average", "patients", "Alpha", "answer"):
            assert text in shown
        code, decided = await run("approve-run", config, waiting.run_id, "--as", "staff:7")
        assert code == 0
        assert "staff:7 approved that it starts" in decided
        assert "awaiting" not in decided
        await only(task)
        assert await run("runs", config, "--waiting") == (0, "(nothing waits)\n")
        code, egress = await run("egress", config, "--verify")
        assert (code, waiting.run_id in egress, "1 record, whole and in order" in egress) == (0, True, True)
        assert egress.rstrip().endswith("Alpha"), "receivers are told by name"
        _, totals = await run("egress", config, "--totals", "task", "--json")
        [total] = json.loads(totals)
        assert (total["task"], total["envelopes"]) == (task.id, 1)
        code, status = await run("status", config)
        assert "running, attached since" in status
    _, stopped = await run("status", config, "--json")
    assert [each["running"] for each in json.loads(stopped)] == [False]


async def test_a_held_result_is_looked_at_on_the_screen_and_in_a_private_file(
    hub: Hub, stations: Stations, engine: Engine, config: Path, tmp_path: Path
):
    async with stations.station("Beta", engine=engine, policy=LOOKED_AT), at_station(config.parent) as person:
        await ask(hub, "Beta")
        held = await person.waiting(task_pb2.RUN_STATE_HELD)
        _, listed = await run("runs", config, "--waiting")
        assert re.search(r"held +release", listed)
        code, looked = await run("look", config, held.run_id)
        assert (code, SECRET in looked, "\x1b" in looked) == (0, True, False)
        file = tmp_path / "result"
        await run("look", config, held.run_id, "--output", file)
        assert SECRET in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        code, withheld = await run("withhold", config, held.run_id)
        assert (code, "declined that its result leaves" in withheld) == (0, True)
        _, listed = await run("runs", config)
        assert "refused: RELEASE_DECLINED" in listed
        task = await ask(hub, "Beta", function="data")
        other = await person.waiting(task_pb2.RUN_STATE_HELD)
        code, said = await run("look", config, other.run_id)
        assert (code, "256 bytes" in said, "--output" in said) == (Exit.USAGE, True, True)
        await run("release", config, other.run_id)
        assert (await only(task)).value == bytes(range(256))


async def test_pause_holds_runs_back_and_drain_waits_for_what_runs(
    hub: Hub, stations: Stations, engine: Engine, config: Path
):
    async with stations.station("Beta", engine=engine), at_station(config.parent) as person:
        _, paused = await run("pause", config)
        assert "paused" in paused
        task = await ask(hub, "Beta")

        async def waits() -> bool:
            return any("PAUSED" in str(each.reason).upper() for each in await task.why())

        await until(waits)
        assert not engine.started
        _, draining = await run("drain", config, "--wait")
        assert "draining" in draining
    async with stations.station("Beta", engine=engine), at_station(config.parent) as person:
        assert await _draining(person)
        assert not engine.started
        await run("resume", config)
        await only(task)


async def test_drain_waits_until_what_computes_has_ended_and_is_delivered(
    hub: Hub, stations: Stations, engine: Engine, config: Path
):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await algorithm.result(1)

    engine.functions = {"answer": slow}
    async with stations.station("Beta", engine=engine), at_station(config.parent) as person:
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        draining = asyncio.create_task(run("drain", config, "--wait", "--json"))
        await until(lambda: _draining(person))
        assert not draining.done()
        go_on.set()
        code, said = await draining
        [status] = json.loads(said)
        assert (code, status.get("undelivered", 0), status.get("open_runs", 0)) == (0, 0, 0)
        assert (await only(task)).value == 1


async def _draining(person: Person) -> bool:
    return (await person.status()).availability == Availability.AVAILABILITY_DRAINING


async def test_sighup_puts_the_policy_in_force_and_ends_no_node(stations: Stations):
    """A real signal to a real process. A policy that can't be read changes nothing."""
    config = stations.configure("Beta")
    policy, command = config.parent / "policy.toml", ("-m", "folkmoot.cli", "node", "start", str(config))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        await until((config.parent / "state" / ADMIN_SOCKET_NAME).exists)
        async with at_station(config.parent) as person:

            async def asks_people() -> bool:
                return (await person.status()).policy.approval == ApprovalMode.APPROVAL_MODE_EVERY_RUN

            assert not await asks_people()
            policy.write_text(APPROVED)
            process.send_signal(signal.SIGHUP)
            await until(asks_people)
            policy.write_text("approval = ")
            process.send_signal(signal.SIGHUP)
            while b"node.policy_not_reloaded" not in await process.stderr.readline():
                assert process.returncode is None
            assert await asks_people()
    finally:
        process.terminate()
        await process.wait()


async def test_without_a_node_the_commands_say_what_to_start(hub: Hub, stations: Stations, config: Path):
    stations.configure("Beta")
    code, said = await run("runs", config)
    assert (code, "folkmoot node start" in said) == (Exit.UNREACHABLE, True)
