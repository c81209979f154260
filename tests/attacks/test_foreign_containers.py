"""Containers that somebody else makes at the node's engine, and that say they were this node's: labels are what anybody may write.

An image's own labels are those of every container that is made of it by hand: whoever looks into an image before allowing it makes one.
"""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from folkmoot.node.execution.clearing import Clearing
from folkmoot.node.runtimes.docker import LABEL_NODE, LABEL_RUN, DockerRuntime
from tests.integration.node.conftest import NODE, conformance_image, make_place

__all__ = ["conformance_image"]

pytestmark = pytest.mark.needs_docker


@pytest.fixture
def api() -> Iterator[docker.APIClient]:
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture
def treasure(tmp_path: Path) -> Path:
    """A folder that has nothing to do with runs."""
    folder = tmp_path / "treasure"
    folder.mkdir()
    (folder / "node.pem").write_text("secret")
    return folder


@pytest.mark.parametrize("form", ["a path", "a way out", "a name of no run", "nothing"])
async def test_a_container_that_says_it_was_this_nodes_has_no_folder_cleared_away(
    api: docker.APIClient, tmp_path: Path, treasure: Path, conformance_image: str, form: str
):
    labels = {LABEL_NODE: NODE, LABEL_RUN: str(treasure)}
    match form:
        case "a way out":
            labels[LABEL_RUN] = "../treasure"
        case "a name of no run":
            labels[LABEL_RUN] = "0123456789ab"  # which the container's own name does not bear out
        case "nothing":
            del labels[LABEL_RUN]
    foreign = api.create_container(conformance_image, labels=labels)["Id"]
    runtime = DockerRuntime(node=NODE, patience_seconds=0)
    try:
        adopted = await runtime.adopt()
        clearing = Clearing(runtime, make_place("docker", tmp_path, conformance_image).proxy, tmp_path / "run")
        for run_name in adopted:
            await clearing._clear_process(run_name)
        assert adopted == frozenset()
        assert (treasure / "node.pem").exists()
        assert api.inspect_container(foreign)["Id"] == foreign, "it is not this node's to remove"
    finally:
        api.remove_container(foreign, force=True)
        await runtime.close()
