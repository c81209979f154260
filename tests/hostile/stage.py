"""Who is lied to: a collaboration of three hospitals at a real server, with a liar in front of each of them.

stage.before("Beta")          what stands between Beta's node and the server
stage.before("client")        what stands between Alpha's researcher and the server
stage.client                  that researcher
await stage.ask("Beta")       have Beta compute something; the task
await stage.journaled(...)    what a node's journal says of a run that has ended
await stage.works()           everybody computes and is believed, now that nobody lies
"""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from folkmoot.client import AsyncClient
from folkmoot.client.results import Result
from folkmoot.client.task import AsyncTask
from folkmoot.node.app import RunningNode, serve
from folkmoot.node.config import load_config
from folkmoot.node.journal import records
from folkmoot.node.journal.records import RunRecord
from folkmoot.trust import vote_entry
from folkmoot.v1.ledger_pb2 import Decision, Encryption
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, Run, TaskSpec
from folkmoot.v1.task_service_pb2 import GetRunRequest
from tests.builders import World, organization
from tests.hostile.liar import Liar, lying
from tests.integration.harness import PASSWORD, utc_now
from tests.integration.network import LABEL, RESEARCHER, Network, network
from tests.polling import until

ORGANIZATIONS = ("Alpha", "Beta", "Gamma")
AGES = {"Alpha": [40.0], "Beta": [50.0, 60.0], "Gamma": [70.0, 90.0]}
HONEST = "process:tests.algorithms.honest"
GREEDY = "process:tests.algorithms.greedy"


@dataclass
class Stage:
    """A collaboration at work, and who lies to it."""

    net: Network
    client: AsyncClient
    liars: dict[str, Liar]
    server_folder: Path
    """The data folder of the real server."""

    @property
    def world(self) -> World:
        return self.net.world

    def before(self, party: str) -> Liar:
        return self.liars[party]

    def node(self, organization: str) -> RunningNode:
        return self.net.nodes[organization]

    # ---- who has seen nothing yet ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def fresh_client(self, **changes: Any) -> AsyncIterator[AsyncClient]:
        """Alpha's researcher at a machine that has not seen the ledger yet."""
        folder = self.net.node_folder("Alpha")
        wish: dict[str, Any] = {
            "server": self.net.target,
            "username": RESEARCHER.format("alpha"),
            "password": PASSWORD,
            "certificate_authority": folder / "ca.pem",
            "organization_key": folder / "organization.pem",
            "state_directory": Path(tempfile.mkdtemp(dir=folder)),
        }
        async with AsyncClient(str(self.world.state.reference), **(wish | changes)) as opened:
            yield opened

    @asynccontextmanager
    async def fresh_node(self, organization: str, **changes: Any) -> AsyncIterator[RunningNode]:
        """An organization's node, with the same keys, on a machine that has not seen the ledger yet; the usual one rests meanwhile."""
        await self.net.stop_node(organization)
        folder = self.net.node_folder(organization)
        config = load_config(folder / "node.toml")
        blocks = tuple(replace(each, **changes) for each in config.collaboration)
        fresh = replace(config, state_directory=Path(tempfile.mkdtemp(dir=folder)), collaboration=blocks)
        try:
            async with serve(fresh) as node:
                self.net.nodes[organization] = node
                yield node
        finally:
            await self.net.start_node(organization)

    # ---- a ledger that grows ---------------------------------------------------------------------------------------

    async def append(self, organization: str, entry: Signed, *, seen_by: Sequence[str] = ORGANIZATIONS[1:]) -> None:
        """Bring an entry to the real server, as an organization's admin, and wait until the nodes have seen it."""
        self.world.append(entry)
        await self.net.server.append(entry, self.net.server.users[f"admin@{organization.lower()}"])
        for each in seen_by:
            await self.has_seen(each)

    async def admit(self, name: str) -> None:
        """Have the members vote another organization in; it has no node."""
        applicant, admin = organization(name), await self.net.server.organization_admin(name)
        request = self.world.join_request(applicant, now=utc_now())
        await self.net.server.submit_join_request(request, admin)
        for voter in ORGANIZATIONS:
            if not self.world.state.is_member(applicant.address):
                key, approve = self.world[voter].governance_key, Decision.DECISION_APPROVE
                vote = vote_entry(self.world.state, request, approve, governance_key=key, now=utc_now())
                await self.append(voter, vote)
        self.world.organizations[name] = applicant

    async def has_seen(self, organization: str) -> None:
        """Wait until a node knows the whole ledger."""
        (running,) = self.node(organization).stations
        await until(lambda: running.station.state.position == self.world.state.position, f"{organization} has seen it")

    # ---- honest work -----------------------------------------------------------------------------------------------

    async def ask(self, *organizations: str, function: str = "double", **changes: Any) -> AsyncTask:
        """Have organizations compute."""
        wish: dict[str, Any] = {"image": HONEST, "arguments": {"number": 21}, "labels": [LABEL]}
        return await self.client.tasks.create(function=function, organizations=organizations, **(wish | changes))

    async def result(self, task: AsyncTask, organization: str) -> Result:
        """What the client knows of an organization's run."""
        (found,) = [each for each in await task.wait(progress=False) if each.organization == organization]
        return found

    async def works(self, *organizations: str) -> None:
        """Everybody computes and is believed, now that nobody lies."""
        results = await (await self.ask(*(organizations or ("Beta", "Gamma")))).wait(progress=False)
        assert [(each.value, bool(each.proven)) for each in results] == [(42, True)] * len(results)

    # ---- what is stored --------------------------------------------------------------------------------------------

    def run_id(self, task: AsyncTask, organization: str) -> str:
        address = self.world[organization].address
        (run_id,) = [each.run_id for each in task.spec.receivers if each.organization_id == address]
        return run_id

    async def record(self, organization: str, run_id: str, attempt: int = 1) -> RunRecord | None:
        """What a node's journal says of a run."""
        (running,) = self.node(organization).stations
        return await running.station.journal.transact(lambda db: records.get_run(db, run_id, attempt))

    async def journaled(self, organization: str, run_id: str, attempt: int = 1) -> "Journaled":
        """What a node's journal says of a run, once it has ended there."""

        async def ended() -> bool:
            record = await self.record(organization, run_id, attempt)
            return record is not None and record.ended

        await until(ended, f"the run ends at {organization}")
        record = await self.record(organization, run_id, attempt)
        assert record is not None
        return Journaled(record)

    async def delivered(self, organization: str, run_id: str) -> None:
        """Wait until a node knows that the server has a run's end."""

        async def committed() -> bool:
            record = await self.record(organization, run_id)
            return record is not None and record.committed_at_us > 0

        await until(committed, f"{organization} has delivered {run_id}")

    async def at_the_server(self, run_id: str) -> Run:
        """What the real server stores of a run."""
        root = await self.net.server.root()
        answer = await self.net.server.tasks.GetRun(GetRunRequest(run_id=run_id), metadata=root.metadata)
        return answer.run


@dataclass(frozen=True)
class Journaled:
    """A run that has ended at a node."""

    record: RunRecord

    @property
    def receipt(self) -> Receipt:
        return Receipt.FromString(Signed.FromString(self.record.receipt).body)

    @property
    def spec(self) -> TaskSpec:
        return TaskSpec.FromString(self.record.task_chain().specs[-1].body)


@asynccontextmanager
async def stage(
    folder: Path, *, encryption: Encryption.ValueType = Encryption.ENCRYPTION_SEALED, warm_workers: int = 1
) -> AsyncIterator[Stage]:
    """Found the collaboration, and start everybody behind a liar of his own."""
    data = {name: pd.DataFrame({"age": ages}) for name, ages in AGES.items()}
    settings = f"warm_workers = {warm_workers}\nslots = 2"
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(
            network(folder, data=data, encryption=encryption, settings=settings, start=False)
        )
        liars = {
            party: await net.stack.enter_async_context(lying(net.server, folder / "server"))
            for party in (*ORGANIZATIONS[1:], "client")
        }
        for name in ORGANIZATIONS[1:]:
            path = net.node_folder(name) / "node.toml"
            path.write_text(path.read_text().replace(net.target, liars[name].target))
            await net.start_node(name)
        net.target = liars["client"].target
        client = await stack.enter_async_context(net.client("Alpha"))
        yield Stage(net, client, liars, folder / "server")
