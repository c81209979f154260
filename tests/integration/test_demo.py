"""`folkmoot demo`, as people run it: every answer equal to the pooled one, and proven."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.polling import until

pytestmark = pytest.mark.timeout(300)
COMMAND = (sys.executable, "-c", "from folkmoot.cli.main import main; main()")


@pytest.mark.parametrize(
    "runtime",
    [pytest.param("process", marks=pytest.mark.nightly), pytest.param("docker", marks=pytest.mark.needs_docker)],
)
async def test_four_answers_equal_to_pooled(runtime: str, tmp_path: Path):
    picture = tmp_path / "survival.png"
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "demo", "--runtime", runtime, "--picture", str(picture)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await process.communicate())[0].decode()
    assert process.returncode == 0, told
    results = told[told.index("\nResults\n") :].splitlines()[2:]
    assert [line.split("  ")[1].strip() for line in results] == [
        "average of age",
        "survival",
        "secure sum, chained tasks",
        "secure sum, messages",
    ]
    assert all(line.endswith("equal to pooled") for line in results)
    assert told.count("receipts signed by every node") == 4
    assert "none found" in told
    assert ("WITHOUT ISOLATION" in told) == (runtime == "process")
    assert picture.read_bytes().startswith(b"\x89PNG")
    if runtime == "docker":
        await nothing_left()


async def nothing_left() -> None:
    """The containers are removed in the background; wait until they are gone."""
    images = docker("images", "--quiet", "folkmoot-example-*")
    filters = [part for image in images for part in ("--filter", f"ancestor={image}")]
    assert images
    await until(lambda: not docker("ps", "--all", "--quiet", *filters))


def docker(*arguments: str) -> list[str]:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.split()
