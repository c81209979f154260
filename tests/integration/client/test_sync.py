"""The synchronous client: from threads, from scripts that just end."""

import asyncio
import subprocess
import sys

from folkmoot.client import Client
from tests.integration.client.conftest import Hub


async def test_plain_calls_from_a_thread(hub: Hub):
    def look() -> list[str]:
        with Client(**hub.arguments("Alpha")) as client:
            return [one.name for one in client.organizations]

    assert await asyncio.to_thread(look) == ["Alpha", "Beta", "Gamma"]


async def test_script_that_just_ends_leaves_quietly(hub: Hub):
    arguments = {name: str(value) for name, value in hub.arguments("Alpha").items()}
    script = f"from folkmoot.client import Client\nclient = Client(**{arguments!r})\nprint(len(client.organizations))\n"
    command = [sys.executable, "-W", "error", "-c", script]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3\n", "")
