"""A server with a published collaboration, clients of its members, and the `folkmoot` command."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncClient
from folkmoot.trust import dump_organization_key, dump_signing_key
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


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Command = Callable[..., Coroutine[Any, Any, Ended]]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with server(tmp_path / "server") as running:
        lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
        await running.publish(lung)
        made = Hub(running, lung, tmp_path)
        yield made
        for client in made.opened:
            await client.close()


@pytest.fixture
def folkmoot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs the command in a thread, as a user of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FOLKMOOT_PASSWORD", PASSWORD)

    async def command(*arguments: str, user: str = "user") -> Ended:
        config = tmp_path / f"{user}.toml"
        code = await asyncio.to_thread(run, ["--config", str(config), *arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return command


@pytest.fixture
async def alpha(hub: Hub, folkmoot: Command, tmp_path: Path) -> Command:
    """The command as an admin of Alpha, who is logged in."""
    given = hub.arguments("Alpha")
    governance = tmp_path / "governance.pem"
    governance.write_bytes(dump_signing_key(hub.lung["Alpha"].governance_key))
    names = ("server", "certificate_authority", "username", "collaboration", "organization_key")
    options = [part for name in names for part in (f"--{name.replace('_', '-')}", str(given[name]))]
    ended = await folkmoot("login", *options, "--governance-key", str(governance))
    assert ended.code == Exit.OK, ended
    return folkmoot
