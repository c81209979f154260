"""The calls by hand of docs/operators.md, run as they stand there against a running server."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.integration.harness import PASSWORD, ROOT, server
from tests.markdown import REPOSITORY, blocks, section


async def test_documented_calls_are_answered(tmp_path: Path):
    guide = section((REPOSITORY / "docs/operators.md").read_text(), "Ask it by hand")
    [commands] = [text for language, text in blocks(guide) if language == "sh"]
    async with server(tmp_path / "server") as opened:
        await opened.root()
        (tmp_path / "ca.pem").write_bytes(opened.running.certificate_authority or b"")
        said = await run(commands.replace("localhost:7443", opened.running.address).replace("operator", ROOT), tmp_path)
    services, health, info, events = said.split("\n\n")
    assert "folkmoot.v1.TaskService" in services
    assert json.loads(health)["status"] == "SERVING"
    assert json.loads(info)["version"]
    assert "server.setup" in {event["intent"] for event in json.loads(events)["events"]}


async def run(commands: str, folder: Path) -> str:
    """Run the commands in the folder; return what they printed, with an empty line behind each command."""
    separated = commands.replace("\nbuf ", "\necho; buf ")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", separated),
        cwd=folder,
        env={
            **os.environ,
            "FOLKMOOT_PASSWORD": PASSWORD,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()
