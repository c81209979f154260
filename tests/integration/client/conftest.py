"""A server with a published collaboration, and clients of its members."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

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
        self.opened.append(AsyncClient(**self.arguments(organization, **changes)))
        return self.opened[-1]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with server(tmp_path / "server") as running:
        lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
        await running.publish(lung)
        made = Hub(running, lung, tmp_path)
        yield made
        for client in made.opened:
            await client.close()
