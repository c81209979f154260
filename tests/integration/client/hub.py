"""A server with a collaboration at it, and clients of its members."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folkmoot.client import AsyncClient
from folkmoot.trust import dump_organization_key
from tests.builders import World, world
from tests.integration.harness import PASSWORD, Server, server, utc_now


@dataclass
class Hub:
    """A server, its collaboration, and what a client of it is made with."""

    server: Server
    lung: World
    folder: Path
    opened: list[AsyncClient] = field(default_factory=list)
    clients: dict[str, AsyncClient] | None = None
    """Those that tests share, by their organizations; None: each call makes one."""

    def arguments(self, organization: str, **changes: Any) -> dict[str, Any]:
        """What `AsyncClient` and `Client` take for an organization's admin; `changes` replace some."""
        authority, key = self.folder / "ca.pem", self.folder / f"{organization}.pem"
        if self.server.running.certificate_authority:
            authority.write_bytes(self.server.running.certificate_authority)
        key.write_bytes(dump_organization_key(self.lung[organization].organization_key))
        usual = {
            "collaboration": str(self.lung.state.reference),
            "server": self.server.running.address,
            "certificate_authority": authority,
            "username": f"admin@{organization.lower()}",
            "password": PASSWORD,
            "organization_key": key,
            "state_directory": self.folder / f"state-{organization}",
        }
        return usual | changes

    def client(self, organization: str, **changes: Any) -> AsyncClient:
        """A client that is closed with the test."""
        shared = self.clients if self.clients is not None and not changes else {}
        if organization not in shared:
            shared[organization] = AsyncClient(**self.arguments(organization, **changes))
            self.opened.append(shared[organization])
        return shared[organization]


@asynccontextmanager
async def hub_of(folder: Path, *organizations: str, **terms: Any) -> AsyncIterator[Hub]:
    """A server with a collaboration of these organizations; `terms` are those of `world`."""
    async with server(folder / "server") as running:
        lung = world(organizations, **({"now": utc_now()} | terms))
        await running.publish(lung)
        made = Hub(running, lung, folder)
        yield made
        for client in made.opened:
            await client.close()
