"""Several instances of the server on one PostgreSQL: whoever is at one of them need not know that there are others."""

import asyncio
import dataclasses
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import Connection, select

from folkmoot.server import instances
from folkmoot.server.app import serve
from folkmoot.server.config import Config
from folkmoot.server.instances import SILENT_LOOKS, Watch
from folkmoot.server.store import instance_rows, links
from folkmoot.server.store.task_tables import node_links
from folkmoot.transport.status import error_from_rpc
from folkmoot.v1 import auth_service_pb2, key_service_pb2, link_pb2
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.harness import CHEAP, Server, server
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Station, Stream, attached, hello
from tests.integration.server.places import Place, first_instance
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_checks import ask, question
from tests.polling import until
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres


@pytest.fixture(autouse=True)
def database() -> str:
    """All of these share a PostgreSQL."""
    return "postgresql"


@pytest.fixture
async def place(tmp_path: Path, postgresql: Cluster) -> AsyncIterator[Place]:
    async with first_instance(tmp_path / "data", postgresql.url(str(tmp_path))) as place:
        yield place


@pytest.fixture
async def there(place: Place) -> AsyncIterator[Hub]:
    async with place.instance() as hub:
        yield hub


@pytest.fixture
def here(place: Place) -> Hub:
    return place.here


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances of this process take others for dead within seconds."""
    monkeypatch.setattr(instances, "SILENT_LOOKS", 3)


# ---- who calls ---------------------------------------------------------------------------------------------------------


async def test_a_token_of_one_is_good_at_the_other_until_it_is_logged_out(here: Hub, there: Hub) -> None:
    who = auth_service_pb2.WhoAmIRequest()
    assert (await there.server.auth.WhoAmI(who, metadata=here.ada)).username == "ada@alpha"
    await here.server.auth.Logout(auth_service_pb2.LogoutRequest(), metadata=here.ada)

    async def is_refused() -> bool:
        try:
            await there.server.auth.WhoAmI(who, metadata=here.ada)
        except grpc.aio.AioRpcError:
            return True
        return False

    await until(is_refused)


# ---- ledgers -----------------------------------------------------------------------------------------------------------


async def test_an_entry_at_one_is_seen_at_the_other_by_the_next_call_and_by_who_watches(here: Hub, there: Hub) -> None:
    watching = there.server.keys.WatchLedger(
        key_service_pb2.WatchLedgerRequest(genesis=there.lung.genesis), metadata=there.admins["Beta"].metadata
    )
    seen = list((await watching.read()).entries)
    assert seen == here.lung.entries
    for number in range(2, 5):
        here.lung.add_node("Beta", f"beta-{number}")
        entry = here.lung.entries[-1]
        await here.server.append(entry, here.admins["Beta"])
        await there.node("Beta", f"beta-{number}")  # authenticates by what was appended a moment ago, elsewhere
        assert list((await watching.read()).entries) == [entry]
    watching.cancel()


async def test_an_entry_that_is_brought_to_both_at_once_has_one_place(here: Hub, there: Hub) -> None:
    here.lung.add_node("Beta", "beta-2")
    entry, position = here.lung.entries[-1], here.lung.state.position
    both = await asyncio.gather(*(hub.server.append(entry, hub.admins["Beta"]) for hub in (here, there) * 3))
    assert {each.hash for each in both} == {position.hash}


async def test_who_comes_second_with_another_entry_is_told(here: Hub, there: Hub) -> None:
    """Each instance gets another entry for the same place, at the same time."""
    rival = dataclasses.replace(here.lung, entries=list(here.lung.entries), organizations=dict(here.lung.organizations))
    here.lung.add_node("Beta", "beta-2")
    rival.add_node("Gamma", "gamma-2")
    outcomes = await asyncio.gather(
        here.server.append(here.lung.entries[-1], here.admins["Beta"]),
        there.server.append(rival.entries[-1], there.admins["Gamma"]),
        return_exceptions=True,
    )
    refusals = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert len(refusals) == 1
    assert error_from_rpc(refusals[0]).reason_name == "LEDGER_HEAD_MOVED"


# ---- tasks and nodes ---------------------------------------------------------------------------------------------------


async def test_a_task_made_at_one_is_executed_by_a_node_of_the_other(here: Hub, there: Hub) -> None:
    async with attached(there.server, there.lung, "Beta") as beta:
        sealed = task(here.lung, ("Beta",))
        await here.create(sealed)
        assert (await beta.accept()).run_id == sealed.run_id("Beta")
        await here.until(sealed, "Beta", "ASSIGNED")
        line, _ = sealed.seal("Beta", content=b"a line")
        log = here.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=sealed.run_id("Beta")), metadata=here.ada)
        await beta.send(
            run_update=link_pb2.RunUpdate(
                run_id=sealed.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_RUNNING, log_envelopes=[line]
            )
        )
        assert (await log.read()).envelope == line
        log.cancel()
        watching = asyncio.create_task(here.until(sealed, "Beta", "COMPLETED"))
        await there.commit(sealed, "Beta")
        await watching


async def test_a_node_that_attaches_elsewhere_ends_its_older_session_here(here: Hub, there: Hub) -> None:
    sealed = task(here.lung, ("Beta",))
    async with attached(here.server, here.lung, "Beta") as older, attached(there.server, there.lung, "Beta") as newer:
        with pytest.raises(grpc.aio.AioRpcError, match="SESSION_REPLACED"):
            await older.next("assign")
        await here.create(sealed)
        assert (await newer.accept()).run_id == sealed.run_id("Beta")


async def test_a_node_at_the_other_is_asked_whether_it_would_accept(here: Hub, there: Hub) -> None:
    async with attached(there.server, there.lung, "Beta") as beta:
        asking = ask(here, question(here))
        check = await beta.next("check")
        accepted = link_pb2.Verdict(forecast=link_pb2.FORECAST_ACCEPTED)
        await beta.send(checked=link_pb2.Checked(check_id=check.check_id, verdict=accepted))
        [of_beta, *_] = await asking
        assert of_beta.forecast == link_pb2.FORECAST_ACCEPTED


async def test_wake_ups_that_are_lost_cost_seconds_and_nothing_else(place: Place) -> None:
    """Neither instance tells the other of anything."""
    async with (
        place.instance(waker="local") as here,
        place.instance(waker="local") as there,
        attached(there.server, there.lung, "Beta") as beta,
    ):
        sealed = task(here.lung, ("Beta",))
        await here.create(sealed)
        assert (await beta.accept()).run_id == sealed.run_id("Beta")
        await here.until(sealed, "Beta", "ASSIGNED")


# ---- instances that die, pause, restart ----------------------------------------------------------------------------------


def test_only_who_shows_no_life_for_so_many_looks_is_taken_for_dead() -> None:
    watch = Watch()
    for look in range(SILENT_LOOKS):
        assert watch.look({"silent": 7, "slow": look // 2, "alive": look}) == []
    assert watch.look({"silent": 7, "slow": SILENT_LOOKS // 2, "alive": 99, "new": 0}) == ["silent"]


@pytest.mark.usefixtures("impatient")
async def test_nodes_of_an_instance_that_was_killed_are_away(place: Place, here: Hub) -> None:
    async with place.process() as (there, process), attached(there.server, there.lung, "Beta"):
        assert await place.connection(here, "Beta") == "ONLINE"
        process.kill()

        async def is_away() -> bool:
            return await place.connection(here, "Beta") == "AWAY"

        await until(is_away)


@pytest.mark.usefixtures("impatient")
async def test_an_instance_that_was_paused_does_nothing_for_sessions_that_others_took_over(
    place: Place, here: Hub
) -> None:
    first, second = task(here.lung, ("Beta",)), task(here.lung, ("Beta",))
    async with place.process() as (there, process):
        station, call = await station_at(there, "Beta")
        await here.create(first)
        await station.accept()
        await here.until(first, "Beta", "ASSIGNED")
        process.send_signal(signal.SIGSTOP)

        async def is_away() -> bool:
            return await place.connection(here, "Beta") == "AWAY"

        await until(is_away)
        held = [(first.run_id("Beta"), "RUNNING")]
        async with attached(here.server, here.lung, "Beta", acknowledged=1, held=held) as newer:
            await here.create(second)
            # What the node told the older session is read there when the instance goes on.
            late = link_pb2.RunUpdate(run_id=first.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_DELIVERING)
            await station.send(run_update=late)
            process.send_signal(signal.SIGCONT)
            with pytest.raises((grpc.aio.AioRpcError, EOFError)):
                await read_on(station)
            assert (await newer.accept()).run_id == second.run_id("Beta")
            assert await here.state(first, "Beta") == "ASSIGNED"  # and not what the older session was told late
        # It serves on, under another name.
        async with attached(there.server, there.lung, "Gamma") as gamma:
            third = task(here.lung, ("Gamma",))
            await here.create(third)
            assert (await gamma.accept()).run_id == third.run_id("Gamma")
        del call


async def test_what_a_buried_instance_is_told_counts_for_nothing_before_the_node_is_anywhere_else(here: Hub) -> None:
    sealed, core = task(here.lung, ("Beta",)), here.server.running.core
    async with attached(here.server, here.lung, "Beta") as beta:
        await here.create(sealed)
        await beta.accept()
        await here.until(sealed, "Beta", "ASSIGNED")

        def bury(connection: Connection) -> None:
            [(me, beat)] = instance_rows.beats(connection).items()
            assert instance_rows.bury(connection, me, beat, now=core.clock())

        await core.store.write(bury)
        late = link_pb2.RunUpdate(run_id=sealed.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_RUNNING)
        await beta.send(run_update=late)
        with pytest.raises(grpc.aio.AioRpcError, match="SESSION_REPLACED"):
            await read_on(beta)
    assert await here.state(sealed, "Beta") == "ASSIGNED"


async def test_a_node_that_attaches_while_its_instance_is_buried_attaches_again(
    here: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session in a name that nobody knows any more would never be ended for it: its node would be online for ever."""
    core, mine = here.server.running.core, here.server.running.dispatch.instances
    inside, buried = threading.Event(), threading.Event()
    attach = links.attach

    def slowly(*arguments: Any, **more: Any) -> Any:
        inside.set()
        buried.wait(20)
        return attach(*arguments, **more)

    monkeypatch.setattr(links, "attach", slowly)
    stream = Stream(here.tasks, await here.node("Beta"))
    await stream.send(hello(here.lung, here.lung["Beta"].nodes["beta-1"].fingerprint))
    await asyncio.to_thread(inside.wait, 20)
    former = mine.id
    await core.store.write(lambda connection: instance_rows.leave(connection, former))
    await mine.look()
    assert mine.id != former
    buried.set()
    with pytest.raises(grpc.aio.AioRpcError, match="SESSION_REPLACED"):
        await read_on(Station(stream))
    await here.settled()
    standing = select(node_links.c.away_since).where(node_links.c.attached_at.is_not(None))
    assert await core.store.read(lambda connection: connection.scalar(standing)) is not None


async def read_on(station: Station) -> None:
    while True:
        await station.link.receive()


async def station_at(hub: Hub, organization: str) -> tuple[Station, Stream]:
    """Attach a node whose stream the test keeps."""
    name = f"{organization.lower()}-1"
    stream = Stream(hub.tasks, await hub.node(organization, name))
    station = Station(stream)
    await stream.send(hello(hub.lung, hub.lung[organization].nodes[name].fingerprint))
    await station.next("welcome")
    station.told.clear()
    return station, stream


async def test_a_rolling_restart_under_load_loses_and_doubles_nothing(place: Place) -> None:
    """Both instances are replaced, one after the other, while clients create tasks and a node takes them."""
    async with AsyncExitStack() as stack:
        running = [await started(place) for _ in range(2)]
        stack.push_async_callback(lambda: stop(running))
        wanted = [task(place.lung, ("Beta",)) for _ in range(60)]
        delivered: list[str] = []
        taking = asyncio.create_task(take(place, running, delivered, len(wanted)))
        queue: list[SealedTask] = list(wanted)

        async def client(number: int) -> None:
            while queue:
                sealed = queue.pop()
                while True:  # as clients do: the same call again, at whichever instance answers
                    hub = running[number % 2]
                    number += 1
                    try:
                        await hub.create(sealed)
                        break
                    except grpc.aio.AioRpcError as error:
                        if error.code() != grpc.StatusCode.UNAVAILABLE:
                            raise

        clients = [asyncio.create_task(client(number)) for number in range(4)]
        for index in range(2):
            await until(lambda: len(queue) <= 40 - 20 * index)  # noqa: B023
            replaced, running[index] = running[index], await started(place)
            await stop([replaced])
        await asyncio.gather(*clients)
        await taking
        assert sorted(delivered) == sorted(sealed.run_id("Beta") for sealed in wanted)


async def started(place: Place) -> Hub:
    config = Config(
        data=place.data, database=place.database, listen="127.0.0.1:0", log_level="warning", drain_seconds=1.0
    )
    return place.hub(Server(await serve(config, password_cost=CHEAP)))


async def stop(hubs: list[Hub]) -> None:
    for hub in hubs:
        await hub.server.running.stop()
        await hub.server.channel.close()


async def take(place: Place, running: list[Hub], delivered: list[str], number: int) -> None:
    """Be a node that attaches wherever it can and acknowledges what it gets: each delivery once, in their order."""
    acknowledged, turn = 0, 0
    while len(delivered) < number:
        turn += 1
        hub = running[turn % 2]
        try:
            async with attached(
                hub.server, place.lung, "Beta", acknowledged=acknowledged, held=held(delivered)
            ) as beta:
                while len(delivered) < number:
                    told = await beta.next("assign")
                    sequence = beta.told[-1].sequence
                    assert sequence == acknowledged + 1
                    delivered.append(told.run_id)
                    acknowledged = sequence
                    await beta.acknowledge()
        except (grpc.aio.AioRpcError, EOFError, AssertionError) as error:
            if isinstance(error, AssertionError) and "drain" not in str(error):
                raise


def held(run_ids: list[str]) -> list[tuple[str, str]]:
    return [(run_id, "RUNNING") for run_id in run_ids]


async def test_instances_that_start_at_once_on_an_empty_database_make_its_tables_once(
    tmp_path: Path, postgresql: Cluster
) -> None:
    url = postgresql.empty(f"{tmp_path.name}_empty"[-60:])
    async with AsyncExitStack() as stack:
        servers = [server(tmp_path / "data", database=url) for _ in range(3)]
        started = await asyncio.gather(*(stack.enter_async_context(each) for each in servers))
        for each in started:
            await each.auth.GetNonce(auth_service_pb2.GetNonceRequest())
    assert postgresql.execute("SELECT count(*) FROM alembic_version", database=postgresql.name_of(url)) == [(1,)]
