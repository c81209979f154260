"""Places where algorithms run: each runtime behind the same few calls, and cleaned up whatever a test did."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.ports import Exit, Limits, RunStart, Runtime
from folkmoot.node.proxy.service import Proxy
from folkmoot.node.runtimes.docker import DockerRuntime
from folkmoot.node.runtimes.process import ProcessRuntime
from folkmoot.v1.task_pb2 import Image, LocalImage, ProcessImage
from tests.integration.node.fakes import FakeRun
from tests.integration.node.registries import RunningRegistry, registry

CONFORMANCE = Path(__file__).parents[2] / "images/conformance"
GENERATED = Path(__file__).parents[3] / "generated/folkmoot/v1"
NODE = f"node-of-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
"""Tests that run beside each other share an engine."""
LIMITS = Limits(memory_bytes=256 << 20, cpu_millis=1000, run_time_seconds=60)


@dataclass
class Place:
    """One runtime with a proxy and a folder for sockets."""

    kind: str
    runtime: Any  # a ports.Runtime; tests look inside
    proxy: Proxy
    directory: Path
    image: Image
    image_id: str
    names: list[str] = field(default_factory=list)

    async def run(
        self,
        function: str,
        *,
        limits: Limits = LIMITS,
        scratch: Path | None = None,
        folders: Mapping[str, Path] | None = None,
        labels: tuple[str, ...] = (),
        tables: SourceTables | None = None,
        **arguments,
    ) -> FakeRun:
        """Start a run of one of the conformance image's functions."""
        run = FakeRun(self.runtime.name_run(), function, labels=labels, **arguments)
        run.scratch_path = self.runtime.scratch_path(scratch) if scratch else ""
        for label, folder in (folders or {}).items():
            run.scratch_path = self.runtime.folder_path(label, folder)  # the image looks into one folder only
        self.names.append(run.run_name)
        await self.proxy.open(run, tables or SourceTables({}), self.directory / run.run_name)
        start = self.start_of(run.run_name, limits=limits, scratch=scratch)
        await self.runtime.start(dataclasses.replace(start, folders=folders or {}))
        return run

    def start_of(self, run_name: str, *, limits: Limits = LIMITS, scratch: Path | None = None) -> RunStart:
        return RunStart(
            run_name=run_name,
            run_id="run",
            task_id="task",
            attempt=1,
            image=self.image,
            image_id=self.image_id,
            module="",
            socket_directory=self.directory / run_name,
            scratch=scratch,
            limits=limits,
        )

    async def clean(self) -> None:
        for name in self.names:
            await self.runtime.remove(name)
            await self.proxy.close(name)
        await self.runtime.close()


async def exit_of(runtime: Runtime, run_name: str) -> Exit:
    """Wait for a run's end, and ask how it ended."""
    await runtime.wait(run_name)
    return await runtime.exit(run_name)


def make_place(kind: str, directory: Path, image_id: str, *, warm_workers: int = 0) -> Place:
    proxy = Proxy()
    if kind == "docker":
        return Place(
            kind,
            DockerRuntime(node=NODE, patience_seconds=0),
            proxy,
            directory,
            Image(local=LocalImage(id=image_id)),
            image_id,
        )
    command = (sys.executable, str(CONFORMANCE / "algorithm.py"))
    runtime = ProcessRuntime(directory, node=NODE, proxy=proxy, command=command, warm_workers=warm_workers)
    return Place(kind, runtime, proxy, directory, Image(process=ProcessImage(module="algorithm")), "")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A runtime directory: private, and with a path that is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="fm-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.needs_docker), "process"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def image_id(request: pytest.FixtureRequest, kind: str) -> str:
    return request.getfixturevalue("conformance_image") if kind == "docker" else ""


@pytest.fixture
async def place(kind: str, directory: Path, image_id: str) -> AsyncIterator[Place]:
    place = make_place(kind, directory, image_id)
    await place.runtime.adopt()
    yield place
    await place.clean()


@pytest.fixture(scope="session")
def shared_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    """One registry for all tests: large layers that images share are pushed once."""
    with registry(tmp_path_factory.mktemp("images") / "registry") as running:
        yield running


@pytest.fixture
def images(shared_registry: RunningRegistry) -> Iterator[RunningRegistry]:
    """A registry, which is up again after each test; the engine has nothing of it."""
    yield shared_registry
    shared_registry.start()
    shared_registry.forget_all()


@pytest.fixture(scope="session")
def conformance_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the image from what is installed here; no network, no registry."""
    context = tmp_path_factory.mktemp("image")
    shutil.copytree(CONFORMANCE, context, dirs_exist_ok=True)
    packages = context / "packages"
    for distribution in ("grpcio", "protobuf", "googleapis-common-protos", "typing-extensions"):
        for path in files(distribution) or ():
            if ".dist-info" not in path.parts[0] and path.suffix in (".py", ".so", ".pem"):
                (packages / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.locate(), packages / path)
    shutil.copytree(GENERATED, packages / "folkmoot/v1", ignore=shutil.ignore_patterns("__pycache__", "*.pyi"))
    # With a tag, or the engine would remove it together with the last image that a test makes of it.
    command = ["docker", "build", "--quiet", "--network", "none", "--tag", "folkmoot-conformance:tests", str(context)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
