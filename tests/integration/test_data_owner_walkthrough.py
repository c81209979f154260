"""The guide of data owners: its walk, as it stands there, and that the events which it calls worth an alarm are logged."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import BASE_IMAGES
from tests.integration.node.registries import registry
from tests.integration.test_quickstart import folder, free_port
from tests.integration.walkthrough import Step, shell, steps, walk
from tests.markdown import REPOSITORY, blocks, section

DEADLINE_SECONDS = 300
GUIDE = (REPOSITORY / "docs/data-owner.md").read_text()
FOR_REAL = "For real"
BEFORE_IT = ("1. ", "2. ", "3. ", "6. ")
"""The steps that there have to be for those with an engine: a collaboration, a machine that has joined, data, an author's key."""
REGISTRY = "registry.example.org"

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 30)

__all__ = ["folder"]


async def take(chosen: list[Step], folder: Path) -> None:
    """Go some steps, in a folder of their own."""
    port = free_port()
    async with asyncio.timeout(DEADLINE_SECONDS), shell(folder, port) as bash:
        await walk(bash, chosen, port)


async def test_every_command_of_the_walk_prints_what_the_guide_shows(folder: Path):
    chosen = [step for step in steps(GUIDE) if FOR_REAL not in step.heading]
    assert chosen[-1].heading == "13. The log"
    await take(chosen, folder)


@pytest.mark.nightly
@pytest.mark.needs_docker
@pytest.mark.needs_registry
async def test_the_steps_in_containers_print_what_the_guide_shows(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Images are built from a base that is there; the registry is one of this test's."""
    with registry(folder / "registry") as images:

        def here(step: Step) -> Step:
            commands = step.commands.replace("build patients.py", f"build patients.py --base {BASE_IMAGES[0]}")
            return replace(
                step, commands=commands.replace(REGISTRY, images.host), shown=step.shown.replace(REGISTRY, images.host)
            )

        for_real = [here(step) for step in steps(GUIDE) if FOR_REAL in step.heading]
        assert len(for_real) == 3
        monkeypatch.setenv("DOCKER_CONFIG", str(images.folder))
        try:
            await take([*(step for step in steps(GUIDE) if step.heading.startswith(BEFORE_IT)), *for_real], folder)
        finally:
            left = images.docker("images", "--no-trunc", "--quiet", images.repository("statistics/patients"))
            images.docker("image", "rm", "--force", *left.split())


def test_every_command_of_the_guide_is_part_of_the_walk():
    assert list(blocks(GUIDE.replace(section(GUIDE, "The walk\n"), ""))) == []
    assert {language for language, _ in blocks(GUIDE)} == {"sh", "text"}


def test_every_event_that_is_worth_an_alarm_is_logged():
    events = re.findall(r"`([a-z]+\.[a-z_]+)`", section(GUIDE, "What is worth an alarm"))
    assert "run.refused" in events
    source = "".join(path.read_text() for path in (REPOSITORY / "node").rglob("*.py"))
    assert [event for event in events if f'"{event}"' not in source] == []
