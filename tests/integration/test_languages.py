"""Algorithms in other languages, in their containers, at real nodes: the contract is enough."""

import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from folkmoot.algorithm.build import build as build_algorithm
from folkmoot.client import Subtasks
from tests.conftest import R_IMAGE
from tests.integration.network import LABEL, network
from tests.markdown import REPOSITORY

pytestmark = [pytest.mark.needs_docker, pytest.mark.timeout(300)]

DATA = {"Alpha": pd.DataFrame({"age": [60, None, 70]}), "Beta": pd.DataFrame({"age": [75.5, 41.0, 38.25]})}
POOLED = pd.concat(DATA.values())["age"]


def build(folder: Path) -> str:
    """Build the image of a folder, with nothing but what lies in it, and return how tasks name it."""
    command = ["docker", "build", "--quiet", "--network=none", str(folder)]
    return "local:" + subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def remove(image: str) -> None:
    """Take an image from the engine."""
    subprocess.run(["docker", "image", "rm", "--force", image.removeprefix("local:")], capture_output=True, check=True)


@pytest.fixture(scope="module")
def javascript(tmp_path_factory) -> Iterator[str]:
    """The example's image, on a base that has Node.js as this machine does."""
    folder = tmp_path_factory.mktemp("javascript") / "example"
    ignored = shutil.ignore_patterns("node_modules", "package-lock.json", "proto")
    shutil.copytree(REPOSITORY / "examples/javascript", folder, ignore=ignored)
    shutil.copytree(REPOSITORY / "proto", folder / "proto")
    subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit"], cwd=folder, check=True, timeout=120)
    node = shutil.which("node")
    assert node is not None
    shutil.copy(Path(node).resolve(), folder / "node")
    base = "FROM folkmoot-base:debian12\nCOPY node /usr/local/bin/\n"
    dockerfile = (folder / "Dockerfile").read_text()
    assert "FROM ${BASE}\n" in dockerfile
    (folder / "Dockerfile").write_text(dockerfile.replace("FROM ${BASE}\n", base))
    image = build(folder)
    yield image
    remove(image)


@pytest.mark.needs_nodejs
async def test_an_algorithm_in_javascript_is_central_and_partial(tmp_path, javascript):
    async with network(tmp_path, data=DATA, runtime="docker") as net, net.client("Alpha") as client:
        task = await client.tasks.create(
            image=javascript,
            function="average",
            arguments={"column": "age"},
            organizations=["Alpha"],
            labels=[LABEL],
            subtasks=Subtasks(number=1),
        )
        [result] = await task.wait()
    assert result.value["count"] == 5
    assert math.isclose(result.value["average"], POOLED.mean())


@pytest.mark.needs_nodejs
async def test_what_goes_wrong_in_javascript_is_told(tmp_path, javascript):
    async with network(tmp_path, data={"Alpha": DATA["Alpha"]}, runtime="docker") as net, net.client("Alpha") as client:
        task = await client.tasks.create(
            image=javascript,
            function="partial_average",
            arguments={"column": "no such"},
            organizations=["Alpha"],
            labels=[LABEL],
        )
        [result] = await task.wait()
    assert result.state == "FAILED"
    assert "COLUMN_NOT_FOUND" in result.failure


@pytest.mark.needs_r_image
async def test_an_algorithm_in_r_needs_no_grpc(tmp_path):
    """The coefficients are those that R gives of the same data outside of any container."""
    table = pd.DataFrame({"age": [50, 55, 60, 65, 70, 75, 80, None, 52, 66], "status": [1, 1, 2, 1, 2, 2, 2, 2, 1, 1]})
    image = build_algorithm(REPOSITORY / "examples/r", base=R_IMAGE, report=lambda _: None)
    try:
        async with network(tmp_path, data={"Alpha": table}, runtime="docker") as net, net.client("Alpha") as client:
            task = await client.tasks.create(
                image=image,
                function="coefficients",
                arguments={"outcome": "status", "covariates": ["age"]},
                organizations=["Alpha"],
                labels=[LABEL],
            )
            [result] = await task.wait()
    finally:
        remove(image)
    assert result.value["rows"] == 9
    assert result.value["terms"] == ["(Intercept)", "age"]
    assert result.value["coefficients"] == pytest.approx([-15.32713627, 0.23437315])
