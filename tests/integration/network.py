"""A whole collaboration in this process: a real server, a real node per organization, real clients. Algorithms run in their runtime.

    async with network(tmp_path, data={"Alpha": table, ...}) as net:
        async with net.client("Alpha") as client:
            task = await client.tasks.create(image="process:examples.average", ...)

Nodes run in plain processes unless `runtime` says otherwise; policies allow everything to every member unless `policy` says otherwise.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from folkmoot.client import AsyncClient
from folkmoot.node.app import RunningNode, serve
from folkmoot.node.config import load_config
from folkmoot.trust import dump_organization_key, dump_signing_key
from folkmoot.v1.ledger_pb2 import Encryption
from tests.builders import World, world
from tests.integration.harness import PASSWORD, Server, server, utc_now

LABEL = "patients"
RESEARCHER = "researcher@{}"

POLICY = """
runtimes = ["container", "process"]
[[allow]]
images = ["*"]
initiators = ["*"]
labels = ["*"]
subtasks = true
messages = true
"""


@dataclass
class Network:
    """A collaboration at work. Nodes can be stopped and started again; their folders stay."""

    world: World
    server: Server
    folder: Path
    runtime: str
    stack: AsyncExitStack
    target: str
    nodes: dict[str, RunningNode] = field(default_factory=dict)
    _running: dict[str, AsyncExitStack] = field(default_factory=dict)

    def node_folder(self, organization: str) -> Path:
        return self.folder / organization.lower()

    def state_directory(self, organization: str) -> Path:
        """Where the node keeps journal, replica, payloads and scratch."""
        [found] = [path for path in (self.node_folder(organization) / "state").iterdir() if path.is_dir()]
        return found

    def prepare_node(self, organization: str, data: pd.DataFrame, *, policy: str = POLICY, settings: str = "") -> None:
        """Write a node's folder: keys, policy, data, node.toml."""
        folder, owner = self.node_folder(organization), self.world[organization]
        folder.mkdir()
        data.to_csv(folder / "patients.csv", index=False)
        (folder / "policy.toml").write_text(policy)
        (folder / "organization.pem").write_bytes(dump_organization_key(owner.organization_key))
        [node_key] = owner.nodes.values()
        (folder / "node.pem").write_bytes(dump_signing_key(node_key))
        for key in ("organization.pem", "node.pem"):
            (folder / key).chmod(0o600)
        authority = self.server.address.certificate_authority
        if authority is not None:
            (folder / "ca.pem").write_bytes(authority)
        (folder / "node.toml").write_text(
            f"""state_directory = "state"
runtime_directory = "run"
[[collaboration]]
collaboration = "{self.world.state.reference}"
server = "{self.target}"
{"insecure = true" if authority is None else 'certificate_authority = "ca.pem"'}
organization = "{owner.address}"
node_key = "node.pem"
organization_key = "organization.pem"
encryption = "{"sealed" if self.world.state.encryption == Encryption.ENCRYPTION_SEALED else "plain"}"
policy = "policy.toml"
runtime = "{self.runtime}"
{settings}
[collaboration.data.{LABEL}]
source = "csv"
path = "patients.csv"
"""
        )

    async def start_node(self, organization: str) -> RunningNode:
        """Start a node, also again after `stop_node`, and wait until it is attached."""
        stack = self._running[organization] = AsyncExitStack()
        node = await stack.enter_async_context(serve(load_config(self.node_folder(organization) / "node.toml")))
        self.stack.push_async_callback(stack.aclose)
        await node.attached()
        self.nodes[organization] = node
        return node

    async def stop_node(self, organization: str) -> None:
        """Stop a node as SIGTERM does; what it runs goes on."""
        await self._running[organization].aclose()
        del self.nodes[organization]

    @asynccontextmanager
    async def client(self, organization: str, **changes: str) -> AsyncIterator[AsyncClient]:
        """A client of one of the organization's researchers."""
        folder = self.node_folder(organization)
        async with AsyncClient(
            str(self.world.state.reference),
            server=self.target,
            username=changes.get("username", RESEARCHER.format(organization.lower())),
            password=changes.get("password", PASSWORD),
            certificate_authority=folder / "ca.pem" if self.server.address.certificate_authority else None,
            insecure=self.server.address.certificate_authority is None,
            organization_key=folder / "organization.pem",
            state_directory=folder / "client",
            traces=changes.get("traces", ""),
        ) as opened:
            yield opened


@asynccontextmanager
async def network(
    folder: Path,
    *,
    data: Mapping[str, pd.DataFrame],
    runtime: str = "process",
    encryption: Encryption.ValueType = Encryption.ENCRYPTION_SEALED,
    policy: str = POLICY,
    settings: str = "",
    insecure: bool = False,
    log_level: str = "warning",
    start: bool = True,
    **server_settings: Any,
) -> AsyncIterator[Network]:
    """Start a server and a node for each organization of `data`; `settings` are further lines of the nodes' blocks."""
    short = Path(tempfile.mkdtemp(prefix="fm-"))  # Sockets need short paths.
    try:
        async with AsyncExitStack() as stack:
            running = await stack.enter_async_context(
                server(folder / "server", insecure=insecure, log_level=log_level, **server_settings)
            )
            lung = world(data, now=utc_now(), encryption=encryption)
            admins = await running.publish(lung)
            net = Network(lung, running, short, runtime, stack, running.address.target)
            for name, table in data.items():
                await running.user(
                    RESEARCHER.format(name.lower()), admins[name].organization_account_id, ["Researcher"]
                )
                net.prepare_node(name, table, policy=policy, settings=settings)
                if start:
                    await net.start_node(name)
            yield net
    finally:
        shutil.rmtree(short, ignore_errors=True)
