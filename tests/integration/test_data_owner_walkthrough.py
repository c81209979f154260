"""The guide of data owners: its walk, as it stands there, and that the events which it calls worth an alarm are logged."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.conftest import BASE_IMAGES
from tests.integration.test_quickstart import folder, free_port
from tests.integration.walkthrough import Step, shell, steps, walk
from tests.markdown import REPOSITORY, blocks, section

DEADLINE_SECONDS = 300
GUIDE = (REPOSITORY / "docs/data-owner.md").read_text()
IN_CONTAINERS = "14. For real: in a container"
BEFORE_CONTAINERS = ("1. ", "2. ", "3. ")
"""The steps that there have to be for it: a collaboration, a machine that has joined, data."""

pytestmark = pytest.mark.timeout(DEADLINE_SECONDS + 30)

__all__ = ["folder"]


async def take(chosen: list[Step], folder: Path) -> None:
    """Go some steps, in a folder of their own; images are built from a base that is there."""
    port = free_port()
    async with asyncio.timeout(DEADLINE_SECONDS), shell(folder, port) as bash:
        await walk(bash, chosen, port)


async def test_every_command_of_the_walk_prints_what_the_guide_shows(folder: Path):
    chosen = [step for step in steps(GUIDE) if step.heading != IN_CONTAINERS]
    assert chosen[-1].heading == "13. The log"
    await take(chosen, folder)


@pytest.mark.needs_docker
async def test_the_step_in_a_container_prints_what_the_guide_shows(folder: Path):
    chosen = [step for step in steps(GUIDE) if step.heading.startswith((*BEFORE_CONTAINERS, IN_CONTAINERS))]
    assert chosen[-1].heading == IN_CONTAINERS
    last = chosen[-1].commands.replace("build patients.py", f"build patients.py --base {BASE_IMAGES[0]}")
    assert last != chosen[-1].commands
    await take([*chosen[:-1], Step(IN_CONTAINERS, last, chosen[-1].shown)], folder)


def test_every_command_of_the_guide_is_part_of_the_walk():
    assert list(blocks(GUIDE.replace(section(GUIDE, "The walk\n"), ""))) == []
    assert {language for language, _ in blocks(GUIDE)} == {"sh", "text"}


def test_every_event_that_is_worth_an_alarm_is_logged():
    events = re.findall(r"`([a-z]+\.[a-z_]+)`", section(GUIDE, "What is worth an alarm"))
    assert "run.refused" in events
    source = "".join(path.read_text() for path in (REPOSITORY / "node").rglob("*.py"))
    assert [event for event in events if f'"{event}"' not in source] == []
