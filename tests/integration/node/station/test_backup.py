"""A server restored from yesterday's backup is healed by its nodes and clients: nothing runs twice, nothing is lost."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from folkmoot.node.journal import records
from folkmoot.v1.key_service_pb2 import GetLedgerRequest
from folkmoot.v1.task_pb2 import RunState
from folkmoot.v1.task_service_pb2 import CreateTaskRequest, GetRunRequest
from tests.builders import world
from tests.integration.client.conftest import Hub
from tests.integration.harness import User, server, utc_now
from tests.integration.node.station.stations import Engine, Stations
from tests.integration.node.station.test_faults import answer, ask
from tests.polling import until


@asynccontextmanager
async def restarted(hub: Hub, data: Path) -> AsyncIterator[None]:
    """The hub's server again, at the same address, with what is in the folder."""
    async with server(data, listen=hub.server.running.address) as running:
        running.users = {name: User(**vars(user)) for name, user in hub.server.users.items()}
        hub.server = running
        yield


async def test_a_restored_server_learns_of_ended_runs_and_lost_ledger_entries_again(tmp_path: Path):
    data, backup = tmp_path / "server", tmp_path / "backup"
    lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
    async with server(data) as first:
        hub = Hub(first, lung, tmp_path)
        await first.publish(lung)
    shutil.copytree(data, backup)
    engine, stations, stack = Engine({"answer": answer}), Stations(hub), AsyncExitStack()
    async with restarted(hub, data):
        node = await stack.enter_async_context(stations.station("Beta", engine=engine))
        lung.now = utc_now()
        lung.add_node("Gamma", "gamma-2")
        await hub.server.append(lung.entries[-1], await hub.server.log_in("admin@gamma"))
        task = await ask(hub, "Beta")
        async with asyncio.timeout(30):
            [result] = await task.wait(progress=False)
        journal = node.stations[0].station.journal

        async def committed() -> bool:
            return not await journal.transact(records.uncommitted_runs)

        await until(committed)
        await hub.opened.pop().close()
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    async with restarted(hub, data):
        await until(lambda: node.stations[0].link.is_attached)
        admin = await hub.server.log_in("admin@alpha")
        request = GetLedgerRequest(genesis=lung.genesis)

        async def ledger_is_whole() -> bool:
            batches = [batch async for batch in hub.server.keys.GetLedger(request, metadata=admin.metadata)]
            return sum(len(batch.entries) for batch in batches) == len(lung.entries)

        await until(ledger_is_whole)
        [record] = await journal.transact(lambda db: records.recent_runs(db, 9))
        envelope = await journal.transact(lambda db: records.get_envelope(db, record.input_digest))
        again = CreateTaskRequest(chain=record.task_chain(), envelopes=[envelope or b""])
        await hub.server.tasks.CreateTask(again, metadata=admin.metadata)

        async def known_again() -> bool:
            run = await hub.server.tasks.GetRun(GetRunRequest(run_id=record.run_id), metadata=admin.metadata)
            return (
                run.run.state == RunState.RUN_STATE_COMPLETED and run.run.receipt.SerializeToString() == record.receipt
            )

        await until(known_again)
        await stack.aclose()
    assert result.value == {"of": "Beta"}
    assert len(engine.started) == 1
    await engine.close()
