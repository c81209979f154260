"""Last night's database is put back, and the day since is not lost: nodes and clients give it back to the server.

Since the backup members have voted, one was admitted, one has rotated its key, and tasks have finished. The server knows
none of it any more. Entries of the ledger prove themselves, results are with their nodes, tasks with who made them.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncClient, Subtasks
from folkmoot.client.results import Proof
from folkmoot.transport import Keyring, RemoteError, Replica
from folkmoot.trust import State, replay
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_service_pb2 import GetTaskRequest
from tests.algorithms.stepwise import BEGUN, GO
from tests.builders import organization, organization_key
from tests.integration.harness import User, server
from tests.integration.network import RESEARCHER, Network, network
from tests.polling import until

TABLE = pd.DataFrame({"age": [40, 50, 60]})


@dataclass
class Night:
    """A collaboration at work, and a backup of its server."""

    net: Network
    data: Path
    copy: Path

    def back_up(self) -> None:
        """Take a backup while the server works."""
        assert command("backup", "--data", str(self.data), str(self.copy)) == Exit.OK

    async def restore(self) -> None:
        """Lose the server, put the backup back, start it at the same address."""
        net, users = self.net, self.net.server.users
        await net.server.channel.close()
        await net.server.running.stop()
        shutil.rmtree(self.data)
        assert command("restore", "--data", str(self.data), str(self.copy)) == Exit.OK
        net.server = await net.stack.enter_async_context(server(self.data, listen=net.target))
        net.server.users.update(users)

    async def bring(self, *entries: Signed, by: str = "Alpha") -> None:
        for entry in entries:
            await self.net.server.append(entry, self.admin(by))

    def admin(self, name: str) -> User:
        return self.net.server.users[f"admin@{name.lower()}"]

    async def entries(self, by: User) -> list[Signed]:
        """The ledger as the server has it."""
        request = keys.GetLedgerRequest(genesis=self.net.world.genesis)
        return [
            entry
            async for batch in self.net.server.keys.GetLedger(request, metadata=by.metadata)
            for entry in batch.entries
        ]

    async def receipts(self, task_ids: Sequence[str]) -> dict[str, bytes]:
        """What the nodes signed of each run, as the server has it."""
        user = await self.net.server.log_in(RESEARCHER.format("alpha"))
        found: dict[str, bytes] = {}
        for task_id in task_ids:
            answer = await self.net.server.tasks.GetTask(GetTaskRequest(task_id=task_id), metadata=user.metadata)
            found |= {run.run_id: run.receipt.SerializeToString() for run in answer.runs}
        return found


def command(*arguments: str) -> int:
    """Run `folkmoot server …`; return its exit code."""
    return run(["server", *arguments])


@asynccontextmanager
async def night(folder: Path) -> AsyncIterator[Night]:
    async with network(folder, data=dict.fromkeys(("Alpha", "Beta", "Gamma"), TABLE)) as net:
        yield Night(net, folder / "server", folder / "backup")


async def average(client: AsyncClient, organizations: Sequence[str]):
    return await client.tasks.create(
        image="process:examples.average",
        function="partial_average",
        organizations=organizations,
        arguments={"column": "age"},
        labels=["patients"],
    )


async def test_the_day_since_the_backup_comes_back(tmp_path: Path) -> None:
    async with night(tmp_path) as at, at.net.client("Alpha") as client:
        net, lung = at.net, at.net.world
        delta_admin = await net.server.organization_admin("Delta")
        before = await average(client, ["Beta", "Gamma"])
        await before.wait(progress=False)
        under_way = await client.tasks.create(
            image="process:tests.algorithms.stepwise",
            function="step",
            organizations=["Beta"],
            arguments={"number": 21},
            scratch=True,
        )
        scratch = net.state_directory("Beta") / "scratch" / under_way.job_id / "files"
        await until((scratch / BEGUN).exists, "Beta computes")
        at.back_up()

        # The day: Delta is voted in, Beta rotates, what was under way ends, new tasks are made and end.
        delta = organization("Delta")
        request = lung.join_request(delta)
        await net.server.submit_join_request(request, delta_admin)
        await at.bring(lung.vote("Alpha", request), lung.vote("Beta", request))
        lung.organizations["Delta"] = delta
        rotated = organization_key("Beta rotated")
        Keyring.load(net.node_folder("Beta") / "organization.pem").add(rotated)
        lung.rotate("Beta", rotated)
        await at.bring(lung.entries[-1])
        (scratch / GO).touch()
        since = await average(client, ["Beta", "Gamma"])
        results = [result.value for result in await since.wait(progress=False)]
        assert (await under_way.wait(progress=False))[0].value == 42
        unread = await average(client, ["Gamma"])
        task_ids = [task.id for task in (before, under_way, since, unread)]
        await until(lambda: _completed(unread), "Gamma has ended its run")
        receipts = await at.receipts(task_ids)

        await at.restore()

        # The ledger is whole again, without anybody's doing; nobody has seen another one.
        await until(lambda: _is_whole(at), "the nodes have given the ledger back")
        assert [entry.body for entry in await at.entries(at.admin("Beta"))] == [entry.body for entry in lung.entries]
        # The account of who joined since is nobody's, until its admin proves the governance key again.
        await net.server.submit_join_request(request, delta_admin)
        me = await net.server.auth.WhoAmI(auth.WhoAmIRequest(), metadata=delta_admin.metadata)
        assert me.organization_id == delta.address
        assert replay(await at.entries(delta_admin)).position == lung.state.position

        # What was under way at the backup has ended, with the receipt that its node signed then.
        again = await client.tasks.get(under_way.id)
        [result] = await again.wait(progress=False)
        assert (result.value, result.proven) == (42, Proof.PROVEN)
        # What was made since comes back from who made it, the results from the nodes that have them.
        assert [result.value for result in await since.wait(progress=False)] == results
        await until(lambda: _completed(since), "the nodes have given their results again")
        assert [result.proven for result in await unread.wait(progress=False)] == [Proof.PROVEN]
        assert await at.receipts(task_ids) == receipts
        assert (scratch / BEGUN).read_text().split() == [under_way.spec.receivers[0].run_id]

        for name in net.nodes:
            folder = net.state_directory(name)
            agrees = partial(_ends_at, folder, lung.state)
            await until(agrees, f"{name}'s node has the same newest entry")

        # And the next day begins.
        fresh = await average(client, ["Beta"])
        assert [result.proven for result in await fresh.wait(progress=False)] == [Proof.PROVEN]


async def test_task_that_only_the_server_knew_is_gone(tmp_path: Path) -> None:
    """Its creator's process is gone, too: nobody has it, and whoever asks for it is told so."""
    async with night(tmp_path) as at:
        at.back_up()
        async with at.net.client("Alpha") as client:
            task = await average(client, ["Gamma"])
            await task.wait(progress=False)
        await at.restore()
        async with at.net.client("Alpha") as client:
            with pytest.raises(RemoteError) as refusal:
                await client.tasks.get(task.id)
            assert refusal.value.reason_name == "TASK_NOT_FOUND"


async def test_job_that_was_under_way_comes_back_with_its_subtasks(tmp_path: Path) -> None:
    """Its central function waits for a subtask that the server has lost with the task above it; neither is executed twice."""
    async with night(tmp_path) as at, at.net.client("Alpha") as client:
        net = at.net
        at.back_up()
        await net.stop_node("Beta")
        job = await client.tasks.create(
            image="process:examples.average",
            function="average",
            organizations=["Alpha"],
            arguments={"column": "age", "organizations": ["Beta", "Gamma"]},
            labels=["patients"],
            subtasks=Subtasks(),
        )
        await until(lambda: _has_tasks(client, 2), "the central function has made its subtask")

        await at.restore()
        waiting = asyncio.create_task(job.wait(progress=False))
        await until(lambda: _has_tasks(client, 2), "task and subtask are back")
        await net.start_node("Beta")
        [result] = await waiting
        assert (result.value, result.proven) == ({"average": 50, "count": 6}, Proof.PROVEN)
        assert len(await client.tasks.list()) == 2


async def test_server_that_was_restored_from_before_the_founding(tmp_path: Path) -> None:
    """No node can authenticate for a ledger that is gone; an admin's client brings all of it, the founding entry first."""
    async with night(tmp_path) as at:
        users = at.net.server.users
        async with at.net.client("Alpha", username="admin@alpha") as client:
            await client.organizations
            at.back_up()
            with sqlite3.connect(at.copy / "folkmoot.db") as database:
                for table in ("ledger_entries", "collaborations", "members", "nodes", "join_requests"):
                    database.execute(f"DELETE FROM {table}")
                database.execute("UPDATE organizations SET organization_id = NULL")
            await at.restore()
            lung = at.net.world
            await at.net.server.append(lung.entries[0], users["admin@alpha"])
            await client.organizations
        await until(lambda: _is_whole(at), "the ledger is back")


async def _has_tasks(client: AsyncClient, number: int) -> bool:
    return len(await client.tasks.list()) == number


def _ends_at(folder: Path, state: State) -> bool:
    return Replica(folder, state.reference).verified.position == state.position


async def _completed(task) -> bool:
    return str(await task.state) == "COMPLETED"


async def _is_whole(at: Night) -> bool:
    return len(await at.entries(at.admin("Alpha"))) == len(at.net.world.entries)
