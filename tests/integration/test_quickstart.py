"""The README's quickstart, run as it stands there: its commands are read from README.md, so that the two can't differ.

Three things are replaced: the port, which may be taken here; where `docker` images are built from, because no registry may be
in reach; and of the two lines that choose a runtime, the other one is left out.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.imported import imported
from tests.markdown import REPOSITORY, blocks, section

DEADLINE_SECONDS = 240

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 30)


def script(runtime: str, port: int) -> str:
    """Return the quickstart as one shell script."""
    steps = ["set -euo pipefail\n"]
    for language, text in blocks(section((REPOSITORY / "README.md").read_text(), "Five minutes")):
        if text.startswith("export RUNTIME=") and not text.startswith(f"export RUNTIME={runtime} "):
            continue
        steps.append(text if language == "sh" else f"python - <<'END_OF_PYTHON'\n{text}END_OF_PYTHON\n")
    return "".join(steps).replace("7443", str(port))


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder with a short name: paths of sockets are limited."""
    made = Path(tempfile.mkdtemp(prefix="fm-"))
    yield made
    shutil.rmtree(made)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        return int(opened.getsockname()[1])


async def run(commands: str, folder: Path, port: int, programs: Path) -> str:
    """Run a script as in a new shell, where nobody has used Folkmoot before; return what it printed."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("FOLKMOOT_", "PYTHON"))}
    environment = {
        **own,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{own['PATH']}",
        "XDG_STATE_HOME": str(folder / "state"),
        "FOLKMOOT_SERVER_LISTEN": f"127.0.0.1:{port}",
    }
    output = folder / "output"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", commands), cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        await asyncio.wait_for(process.wait(), DEADLINE_SECONDS)
    except TimeoutError:
        logs = [f"---- {log.parent.name}/{log.name}\n{log.read_text()}" for log in folder.rglob("*.log")]
        pytest.fail("\n".join(["the quickstart does not end", output.read_text(), *logs]))
    finally:
        end_session(process.pid)
        await process.wait()
    assert process.returncode == 0, output.read_text()
    return output.read_text()


def end_session(leader: int) -> None:
    """End server and nodes if the script did not come to its last line."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


@pytest.mark.parametrize(
    "runtime", ["process", pytest.param("docker", marks=[pytest.mark.needs_docker, pytest.mark.nightly])]
)
async def test_every_command_of_the_readme_works(runtime: str, folder: Path):
    port = free_port()
    commands = script(runtime, port).replace(
        "algorithm build mean.py", "algorithm build mean.py --base folkmoot-base:debian12"
    )
    with imported(folder / "imported") as programs:
        said = await run(commands, folder, port, programs)
    assert "Alpha 50.0 proven\n" in said
    assert len(re.findall(r"^Alpha +COMPLETED +proven +50\.0", said, re.MULTILINE)) == 1
    assert len(re.findall(r" approves | admits the node ", said)) == 6
    assert "COMPLETED" in said.split("deliveries acknowledged")[1]
