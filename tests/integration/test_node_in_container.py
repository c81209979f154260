"""The data station as a container: it starts algorithms beside itself, at the engine whose socket it is given."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from folkmoot.algorithm.build import build as build_algorithm
from tests.conftest import BASE_IMAGES
from tests.integration.network import LABEL, Network, network
from tests.polling import until
from tools.node_image import build as build_node

pytestmark = [pytest.mark.needs_docker, pytest.mark.timeout(120)]

BASE = BASE_IMAGES[0]
DATA = {"Alpha": pd.DataFrame({"age": [60, 70]}), "Beta": pd.DataFrame({"age": [80, 90]})}
INSIDE = "/srv/moot"
ALGORITHM = '''
"""An algorithm that takes its time, and leaves something for the job's next run."""
import time
from folkmoot.algorithm import Context, partial

@partial
def slow(ctx: Context, seconds: float) -> int:
    """Take some time."""
    (ctx.scratch / "been").write_text("here")
    time.sleep(seconds)
    return len(ctx.table(ctx.labels[0], columns=["age"]))

@partial
def look(ctx: Context) -> str:
    """Read what an earlier run of the job has left."""
    return (ctx.scratch / "been").read_text()
'''


def docker(*command: str | Path) -> str:
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def node_image() -> str:
    """The image as it is shipped; it stays, because building it takes a while."""
    return build_node(BASE, tag="folkmoot-node:test")


@pytest.fixture(scope="module")
def algorithm(tmp_path_factory) -> Iterator[str]:
    source = tmp_path_factory.mktemp("source") / "patient.py"
    source.write_text(ALGORITHM)
    source.with_name("requirements.txt").write_text("nanoarrow>=0.7\n")
    image = build_algorithm(source, base=BASE, report=lambda _: None)
    yield image
    docker("image", "rm", "--force", image.removeprefix("local:"))


class NodeContainer:
    """A node of the network, in a container: its folder of the host is mounted elsewhere, as installations have it."""

    def __init__(self, net: Network, organization: str, image: str, *, volumes: bool = True) -> None:
        folder = net.node_folder(organization)
        mounted = [f"--volume={folder}:{INSIDE}"] if volumes else []
        socket = "--volume=/var/run/docker.sock:/var/run/docker.sock"
        command = ["node", "start", f"{INSIDE}/node.toml"]
        self.id = docker("run", "--detach", "--network=host", socket, *mounted, image, *command)

    @property
    def log(self) -> list[dict[str, object]]:
        written = subprocess.run(["docker", "logs", self.id], capture_output=True, text=True, check=True).stderr
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]

    def has_logged(self, event: str, times: int = 1) -> bool:
        return sum(entry["event"] == event for entry in self.log) >= times

    def kill(self) -> None:
        docker("kill", self.id)

    def start(self) -> None:
        docker("start", self.id)

    def remove(self) -> None:
        docker("rm", "--force", self.id)


async def test_a_node_in_a_container_starts_algorithms_beside_itself_and_adopts_them(tmp_path, node_image, algorithm):
    async with network(tmp_path, data=DATA, runtime="docker", start=False) as net:
        node = NodeContainer(net, "Alpha", node_image)
        try:
            async with net.client("Beta") as client:
                to_alpha = {"image": algorithm, "organizations": ["Alpha"], "scratch": True}
                task = await client.tasks.create(function="slow", arguments={"seconds": 4}, labels=[LABEL], **to_alpha)
                await until(lambda: node.has_logged("run.context_given"))
                node.kill()
                node.start()
                [result] = await task.wait()
                assert result.value == 2
                assert result.proven
                assert node.has_logged("node.attached", times=2)
                assert not node.has_logged("run.context_given", times=2), "the algorithm was started again"
                later = await client.tasks.create(function="look", after=[task], **to_alpha)
                [found] = await later.wait()
                assert found.value == "here"
        finally:
            node.remove()


async def test_a_node_in_a_container_without_its_folders_mounted_says_what_to_mount(tmp_path, node_image, algorithm):
    """Folders that only the container has are none that the engine could give to an algorithm."""
    async with network(tmp_path, data=DATA, runtime="docker", start=False) as net:
        settings = net.node_folder("Alpha") / "node.toml"
        settings.write_text(
            settings.read_text().replace('runtime_directory = "run"', 'runtime_directory = "/only-here"')
        )
        node = NodeContainer(net, "Alpha", node_image)
        try:
            async with net.client("Beta") as client:
                task = await client.tasks.create(
                    image=algorithm, function="look", organizations=["Alpha"], labels=[LABEL]
                )
                [result] = await task.wait()
            assert result.exit_class == "NOT_STARTED"
            [entry] = [entry for entry in node.log if entry["event"] == "engine.not_started"]
            assert "--volume /only-here" in str(entry["detail"])
        finally:
            node.remove()
