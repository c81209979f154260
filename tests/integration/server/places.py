"""Several instances of the server on one PostgreSQL, in this process and in others of their own."""

import asyncio
import dataclasses
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from folkmoot.v1 import admin_service_pb2 as admin
from tests.builders import World, world
from tests.integration.harness import Clock, Server, server, utc_now
from tests.integration.server.conftest import Hub

COMMAND = "from folkmoot.server.cli import server; server()"


@dataclass
class Place:
    """Where instances are: they share a data folder, as far as keys and certificates go, and a database."""

    data: Path
    database: str
    lung: World
    here: Hub

    def hub(self, s: Server) -> Hub:
        """Return what the hub is, at another instance."""
        return dataclasses.replace(self.here, server=s)

    @asynccontextmanager
    async def instance(self, **settings: Any) -> AsyncIterator[Hub]:
        """One more instance."""
        async with server(self.data, database=self.database, **settings) as s:
            yield self.hub(s)

    @asynccontextmanager
    async def process(self, listen: str = "127.0.0.1:0") -> AsyncIterator[tuple[Hub, asyncio.subprocess.Process]]:
        """One more instance, in a process of its own."""
        options = ("--data", self.data, "--database", self.database, "--listen", listen, "--log-level", "error")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, "start", *options, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        assert line.startswith("Serving on "), line
        running: Any = SimpleNamespace(
            address=line.removeprefix("Serving on ").strip(),
            certificate_authority=(self.data / "tls" / "ca.pem").read_bytes(),
            core=SimpleNamespace(clock=utc_now),
        )
        s = Server(running)
        try:
            yield self.hub(s), process
        finally:
            await s.channel.close()
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()

    async def connection(self, hub: Hub, organization: str) -> str:
        answer = await hub.server.admin.ListNodes(
            admin.ListNodesRequest(genesis=self.lung.genesis), metadata=hub.admins["Alpha"].metadata
        )
        address = self.lung[organization].address
        [node] = [node for node in answer.nodes if node.organization_id == address]
        return admin.Connection.Name(node.connection).removeprefix("CONNECTION_")


@asynccontextmanager
async def first_instance(data: Path, database: str, **settings: Any) -> AsyncIterator[Place]:
    """The first of several instances, with a collaboration of three organizations."""
    async with server(data, database=database, **settings) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        researchers = {
            name: await s.user(f"ada@{name.lower()}", admin.organization_account_id, ["Researcher"])
            for name, admin in admins.items()
        }
        yield Place(data, database, lung, Hub(s, lung, Clock(), admins, researchers))
