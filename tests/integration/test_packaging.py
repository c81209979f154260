"""What people install: wheel and sdist hold every part and the migrations, and all three ways to install work."""

import asyncio
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from folkmoot.algorithm.build import build as build_algorithm
from tests.conftest import BASE_IMAGES
from tests.integration.network import LABEL, network
from tools.executable import build as build_executable

REPOSITORY = Path(__file__).resolve().parents[2]
IN_WHEEL = {
    "generated/folkmoot": "folkmoot",
    "sdk/folkmoot": "folkmoot",
    "server/folkmoot": "folkmoot",
    "node/folkmoot": "folkmoot",
    "alembic": "folkmoot/server/migrations",
    "deploy/algorithm": "folkmoot/algorithm/build/deploy",
}

# Run outside of the checkout: import every part, find the migrations the way the server does, read the entry points.
PROBE = """
import importlib, importlib.metadata, sys
from pathlib import Path
for part in sys.argv[1:]:
    module = importlib.import_module(f"folkmoot.{part}")
server = Path(importlib.import_module("folkmoot.server").__file__).parent
shipped = server / "migrations"
migrations = shipped if shipped.is_dir() else server.parents[2] / "alembic"
assert (migrations / "env.py").is_file() and any((migrations / "versions").glob("*.py")), migrations
assert {e.name for e in importlib.metadata.entry_points(group="folkmoot.commands")} == {"algorithm", "demo", "node", "server"}
print(server)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sources() -> dict[str, str]:
    """Return path in the checkout -> path in the wheel, for every file of the five folders."""
    return {
        path.relative_to(REPOSITORY).as_posix(): (Path(target) / path.relative_to(REPOSITORY / root)).as_posix()
        for root, target in IN_WHEEL.items()
        for path in (REPOSITORY / root).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def parts() -> list[str]:
    return sorted({target.split("/")[1] for target in sources().values()})


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """Build the sdist from the checkout and the wheel from the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPOSITORY, cwd=folder)
    return {"wheel": next(folder.glob("*.whl")), "sdist": next(folder.glob("*.tar.gz")), "checkout": REPOSITORY}


def test_every_folder_contributes():
    assert {path.split("/")[0] for path in sources()} == {root.split("/")[0] for root in IN_WHEEL}


def test_wheel_holds_all_parts_and_migrations(built):
    with zipfile.ZipFile(built["wheel"]) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == set(sources().values())


def test_sdist_holds_all_sources(built):
    with tarfile.open(built["sdist"]) as sdist:
        inside = {name.split("/", 1)[1] for name in sdist.getnames()}
    assert set(sources()) | {"pyproject.toml", "LICENSE", "README.md"} <= inside


@pytest.mark.parametrize("kind", ["wheel", "sdist", "checkout"])
def test_installs_and_imports(kind, built, tmp_path):
    venv.create(tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    # Lend this environment's libraries. A path given in a .pth file has its own .pth files ignored, so an editable
    # folkmoot of this environment can't answer in place of the installed one.
    site.joinpath("libraries.pth").write_text(sysconfig.get_path("purelib"))

    editable = ["--editable"] if kind == "checkout" else []
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *options, *editable, built[kind], cwd=tmp_path)
    server = Path(run(python, "-I", "-c", PROBE, *parts(), cwd=tmp_path).strip())
    assert server == (REPOSITORY / "server/folkmoot/server" if editable else site / "folkmoot/server")
    assert (tmp_path / "venv/bin/folkmoot").is_file()


@pytest.mark.nightly
@pytest.mark.needs_docker
@pytest.mark.timeout(600)
async def test_one_executable_file_is_a_node(tmp_path):
    """Built from this checkout, without this Python in reach: it reads the data and serves an organization."""
    executable = build_executable(tmp_path / "dist")
    data = {"Alpha": pd.DataFrame({"age": [60, 70]})}
    async with network(tmp_path, data=data, runtime="docker", start=False) as net:
        settings = net.node_folder("Alpha") / "node.toml"
        environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
        node = await asyncio.create_subprocess_exec(executable, "node", "start", settings, env=environment)
        image = build_algorithm(REPOSITORY / "examples/average", base=BASE_IMAGES[0], report=lambda _: None)
        try:
            async with net.client("Alpha") as client:
                task = await client.tasks.create(
                    image=image,
                    function="partial_average",
                    arguments={"column": "age"},
                    organizations=["Alpha"],
                    labels=[LABEL],
                )
                [result] = await task.wait()
            assert result.value == {"sum": 130.0, "count": 2}
        finally:
            node.terminate()
            code = await node.wait()
    assert code == 0
    assert list(tmp_path.glob("_MEI*")) == [], "it leaves nothing behind of what it unpacks"
