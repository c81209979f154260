"""docs/sessions.md as it stands there: its policy, its algorithm over real sockets, its Python and its commands."""

import asyncio
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from folkmoot.algorithm.context import Context
from folkmoot.algorithm.functions import functions_of
from folkmoot.algorithm.log import RunLog
from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.values import decode_input, encode
from folkmoot.cli.app import folkmoot
from folkmoot.client import Client
from folkmoot.node.proxy.ports import RunStart
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import Engine, Stations
from tests.markdown import REPOSITORY, blocks

POLICY, ALGORITHM, RESEARCHER, COMMANDS = (
    text for language, text in blocks((REPOSITORY / "docs/sessions.md").read_text()) if language
)
MADE = "client = Client("


@dataclass
class Toolkit(Engine):
    """Runs the functions of a module as its container would: by the toolkit, over the run's socket."""

    async def execute(self, start: RunStart) -> None:
        await asyncio.to_thread(self.compute, f"unix:{start.socket_directory}/proxy.sock")

    def compute(self, address: str) -> None:
        proxy = Proxy(address)
        run = proxy.context()
        function, arguments = decode_input(b"".join(proxy.read_input(0)))
        call: Any = self.functions[function]
        result = encode(call(Context(proxy, run, RunLog(proxy)), **arguments))
        proxy.write_result(result.content_type, result.content)


@pytest.fixture
def cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "cohort.py").write_text(ALGORITHM)
    monkeypatch.syspath_prepend(str(tmp_path / "module"))
    monkeypatch.delitem(sys.modules, "cohort", raising=False)
    return importlib.import_module("cohort")


async def test_the_guides_session_is_made_used_shown_and_deleted(
    hub: Hub, stations: Stations, cohort: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    engine = Toolkit({name: function.call for name, function in functions_of(cohort).items()})
    given = hub.arguments("Alpha")

    def research() -> dict[str, Any]:
        lines = [line for line in RESEARCHER.splitlines() if not line.startswith(MADE)]
        printed: list[str] = []
        with Client(**given) as client:
            names: dict[str, Any] = {"client": client, "print": lambda *of: printed.append(" ".join(map(str, of)))}
            exec("\n".join(lines), names)
        return names | {"printed": printed}

    async with (
        stations.station("Alpha", engine=engine, policy=POLICY),
        stations.station("Beta", engine=engine, policy=POLICY),
    ):
        names = await asyncio.to_thread(research)
        assert (names["left"], names["mean"]) == ([2, 2], 55.0)
        assert sorted(names["printed"]) == ["[1, 1]", "cleaned Alpha 2", "cleaned Beta 2"]
        for name, value in {
            "COLLABORATION": given["collaboration"],
            "SERVER": given["server"],
            "CERTIFICATE_AUTHORITY": given["certificate_authority"],
            "USERNAME": given["username"],
            "PASSWORD": given["password"],
            "ORGANIZATION_KEY": given["organization_key"],
            "STATE_DIRECTORY": given["state_directory"],
        }.items():
            monkeypatch.setenv(f"FOLKMOOT_{name}", str(value))
        told = []
        for command in COMMANDS.splitlines():
            words = [
                word.replace("_", " ") for word in command.replace("patients from 50 on", "patients_from_50_on").split()
            ]
            ended = await asyncio.to_thread(CliRunner().invoke, folkmoot, [word.strip('"') for word in words[1:]])
            assert ended.exit_code == 0, ended.output
            told.append(ended.output)
    assert ["cleaned" in told[0], "Beta" in told[1], "is deleted" in told[2], "is deleted" in told[3]] == [True] * 4
    await engine.close()
