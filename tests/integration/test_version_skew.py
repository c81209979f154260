"""Node and server of neighbouring releases work together: nodes are upgraded when it suits their owners, servers one by one.

The release before is built here from the repository's own history: the commit before the first migration that it did not have,
as a wheel in an environment of its own. It is the code as it was, not a recording or an imitation of it; docs/decisions/0033
says why. Where there is no history (a tarball, a shallow clone) these tests are not run, and say so.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from bench.rows import _stage
from bench.rows._round_trips import central_function
from bench.rows._stage import FOLKMOOT, Process, Stage, Station, stage, start
from tests.markdown import REPOSITORY

FIRST_SINCE = "alembic/versions/0006_*"
"""The migrations that the release before did not have begin here."""

pytestmark = [pytest.mark.needs_history, pytest.mark.timeout(180)]


def git(*command: str) -> str:
    return subprocess.run(["git", *command], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def release_before(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What makes this interpreter the `folkmoot` command of the release before."""
    folder = tmp_path_factory.mktemp("before")
    source, environment = folder / "source", folder / "environment"
    source.mkdir()
    commit = git("log", "--diff-filter=A", "--format=%H", "--", FIRST_SINCE).splitlines()[-1] + "^"
    archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract", f"--directory={source}"], input=archive, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ("install", "--no-deps", "--no-build-isolation", f"--target={packages}", str(source))
    subprocess.run([*pip, *build], check=True)
    # Libraries are this environment's; what is installed there in editable form, today's Folkmoot, is not.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin" / "python"
    become = (
        "import os, sys;"
        f"os.environ['PYTHONPATH'] = {str(source)!r};"  # for the algorithms of the benchmarks
        f"os.execv({str(python)!r}, [{str(python)!r}, *{FOLKMOOT!r}, *sys.argv[1:]])"
    )
    told = subprocess.run(
        [python, "-c", "import folkmoot.server.store.migrate as m; print(m.__file__, m.newest())"],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    ).stdout.split()
    assert told == [str(packages / "folkmoot/server/store/migrate.py"), "0005"], (
        "it is the release before, and no other"
    )
    return ("-c", become)


async def work(playing: Stage) -> None:
    """A job with subtasks in every organization: verified, sealed, with receipts that prove its results."""
    async with playing.client() as client:
        await central_function(client, playing)


async def test_nodes_of_today_work_at_the_server_of_the_release_before(release_before, monkeypatch):
    monkeypatch.setattr(_stage, "start_server", lambda folder, **_: server_before(folder, release_before))
    async with stage(Station(warm_workers=1)) as playing:
        await work(playing)


async def test_server_of_today_takes_the_place_of_the_one_before_while_nodes_stay(release_before, monkeypatch):
    """An upgrade in place: the same data, the same address; nodes of the release before attach again."""
    monkeypatch.setattr(_stage, "start_server", lambda folder, **_: server_before(folder, release_before))
    async with stage(Station(command=release_before, warm_workers=1)) as playing:
        await work(playing)
        await playing.processes["server"].stop()
        target = playing.cast.address.target
        arguments = ("server", "start", "--data", str(playing.folder / "server"), "--listen", target)
        upgraded = await start(playing.folder, "upgraded", *arguments, ready="Serving on ")
        try:
            await work(playing)
        finally:
            await upgraded.stop()


async def server_before(folder: Path, command: tuple[str, ...]) -> Process:
    arguments = ("server", "start", "--data", str(folder / "server"), "--listen", "127.0.0.1:0")
    return await start(folder, "server", *arguments, ready="Serving on ", command=command)
