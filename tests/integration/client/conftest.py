"""A server with a published collaboration, clients of its members, their admins, and the `folkmoot` command."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.trust import dump_signing_key
from tests.integration.client.admins import Admins, Ended
from tests.integration.client.hub import Hub, hub_of
from tests.integration.harness import PASSWORD
from tests.json_shapes import check_shape

__all__ = ["Command", "Ended", "Gathered", "Hub"]

Command: TypeAlias = Callable[..., Coroutine[Any, Any, Ended]]
Gathered: TypeAlias = Callable[..., AbstractAsyncContextManager[Admins]]


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    async with hub_of(tmp_path, "Alpha", "Beta", "Gamma") as made:
        yield made


@pytest.fixture
def gathered(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gathered:
    """Brings organizations together: `async with gathered("Alpha", "Beta", quorum=...) as admins`."""

    @asynccontextmanager
    async def gather(*organizations: str, **terms: Any) -> AsyncIterator[Admins]:
        async with hub_of(tmp_path, *organizations, **terms) as hub:
            yield Admins(hub, capsys, monkeypatch)

    return gather


@pytest.fixture
def folkmoot(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs the command in a thread, as a user of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("FOLKMOOT_PASSWORD", PASSWORD)

    async def command(*arguments: str, user: str = "user") -> Ended:
        config = tmp_path / f"{user}.toml"
        code = await asyncio.to_thread(run, ["--config", str(config), *arguments])
        captured = capsys.readouterr()
        if code == Exit.OK:
            check_shape(arguments, captured.out)
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
