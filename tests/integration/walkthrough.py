"""A walk that a document shows, run as it stands there: block after block in one shell.

What a block prints is compared with what the document shows below it, where `…` stands for anything, and a line `…` for any
lines; runs of spaces count as one. Questions are answered with `y`. The port alone is replaced, because it may be taken here.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.imported import imported
from tests.integration.test_quickstart import end_session
from tests.markdown import blocks, section

WALK_PORT = 7443


@dataclass(frozen=True)
class Step:
    """Commands of the document, and what it says they print; empty where it says nothing."""

    heading: str
    commands: str
    shown: str


def steps(document: str) -> list[Step]:
    """Return the blocks of commands of the walk, each with the output that stands below it."""
    found: list[Step] = []
    for part in section(document, "The walk\n").split("\n### ")[1:]:
        heading = part.split("\n", 1)[0]
        for language, text in blocks(part):
            if language == "sh":
                found.append(Step(heading, text, ""))
            elif language == "text":
                assert not found[-1].shown, f"two outputs below one block in {heading}"
                found[-1] = Step(found[-1].heading, found[-1].commands, text)
    return found


def pattern(shown: str) -> re.Pattern[str]:
    """Return what an output must match to be the one that is shown."""
    lines = folded(shown).splitlines()
    return re.compile(
        "".join(r"(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + r"\n" for line in lines)
    )


def folded(text: str) -> str:
    """A text with single spaces, none at the ends of lines."""
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


class Shell:
    """A bash that keeps its variables, functions and jobs from block to block."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._process, self._folder, self._number = process, folder, 0

    async def run(self, commands: str) -> str:
        """Run a block, and return what it printed on both streams. Fails if a command of it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        script, output = (self._folder / f"{self._number:02}.{kind}" for kind in ("sh", "txt"))
        script.write_text(commands)
        self._process.stdin.write(f"source {script} < {self._folder}/answer > {output} 2>&1; echo done\n".encode())
        await self._process.stdin.drain()
        told = await self._process.stdout.readline()
        assert told == b"done\n", f"{commands}\nended with\n{output.read_text()}"
        return output.read_text()


@asynccontextmanager
async def shell(folder: Path, port: int) -> AsyncIterator[Shell]:
    """A bash as somebody has it who has never used Folkmoot; at the end, whatever it started ends."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FOLKMOOT_", "PYTHON"))}
    (folder / "answer").write_text("y\n")
    with imported(folder / "imported") as programs:
        environment = {
            **own,
            "PATH": f"{programs}:{Path(sys.executable).parent}:{own['PATH']}",
            "XDG_STATE_HOME": str(folder / "state"),
            "FOLKMOOT_SERVER_LISTEN": f"127.0.0.1:{port}",
        }
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail"),
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield Shell(process, folder)
        finally:
            end_session(process.pid)
            await process.communicate()


async def walk(bash: Shell, of: Iterable[Step], port: int) -> list[str]:
    """Take the steps; return what each printed. Fails where that is not what the document shows."""
    said: list[str] = []
    for step in of:
        output = await bash.run(step.commands.replace(f"localhost:{WALK_PORT}", f"localhost:{port}"))
        if step.shown and not pattern(step.shown).fullmatch(folded(output)):
            pytest.fail(f"{step.heading}\n{step.commands}\nshown:\n{step.shown}\nprinted:\n{output}", pytrace=False)
        said.append(output)
    return said
