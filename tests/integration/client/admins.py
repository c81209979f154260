"""Admins of the members at their own machines: each with a profile, keys and state of its own, all with the `folkmoot` command."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.trust import dump_organization_key, dump_signing_key
from tests.builders import Organization
from tests.integration.client.hub import Hub
from tests.integration.harness import PASSWORD, Server, server
from tests.json_shapes import check_shape


class Terminal(io.StringIO):
    """Where a person types: what can't be taken back is asked there, and nowhere else."""

    def isatty(self) -> bool:
        return True


@dataclass
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


@dataclass
class Admins:
    """Runs commands as the admin of an organization; `hub` is where they meet."""

    hub: Hub
    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    strangers: dict[str, Organization] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.monkeypatch.setenv("FOLKMOOT_PASSWORD", PASSWORD)

    def folder(self, name: str) -> Path:
        return self.hub.folder / f"machine-{name}"

    def profile(self, name: str) -> Path:
        """The profile file of an organization's admin, written at first."""
        folder = self.folder(name)
        path = folder / "config.toml"
        if not path.exists():
            folder.mkdir()
            owner = self.strangers.get(name) or self.hub.lung[name]
            (folder / "governance.pem").write_bytes(dump_signing_key(owner.governance_key))
            (folder / "organization.pem").write_bytes(dump_organization_key(owner.organization_key))
            (folder / "ca.pem").write_bytes(self.hub.server.running.certificate_authority or b"")
            values = {
                "server": self.hub.server.running.address,
                "certificate_authority": folder / "ca.pem",
                "username": f"admin@{name.lower()}",
                "collaboration": self.hub.lung.state.reference,
                "organization_key": folder / "organization.pem",
                "governance_key": folder / "governance.pem",
                "state_directory": folder / "state",
            }
            path.write_text("".join(f'{key} = "{value}"\n' for key, value in values.items()))
        return path

    async def try_to(self, name: str, *arguments: str, typed: str = "") -> Ended:
        """Run a command, whatever comes of it; `typed` is what the admin types."""
        profile = self.profile(name)
        self.monkeypatch.setattr("sys.stdin", Terminal(typed))
        self.capsys.readouterr()
        code = await asyncio.to_thread(run, ["--config", str(profile), *arguments])
        captured = self.capsys.readouterr()
        if code == Exit.OK:
            check_shape(arguments, captured.out)
        return Ended(code, captured.out, captured.err)

    async def __call__(self, name: str, *arguments: str, typed: str = "") -> Ended:
        """Run a command that succeeds."""
        ended = await self.try_to(name, *arguments, typed=typed)
        assert ended.code == Exit.OK, ended
        return ended

    async def members(self, name: str) -> list[str]:
        return [one["name"] for one in (await self(name, "collaboration", "members", "--json")).json]


@asynccontextmanager
async def restarted(hub: Hub) -> AsyncIterator[Server]:
    """The hub's server again, from what is in its folder now, at the same address."""
    async with server(hub.folder / "server", listen=hub.server.running.address) as running:
        yield running
