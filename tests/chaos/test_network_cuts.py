"""A node's network is cut at the wire, in each way in which wires break, shorter and longer than anybody waits for a sign of life.

The node lives in a network namespace; what is cut are its own connections. Half-open ones are the worst: one side believes that all is well.
"""

import asyncio
from pathlib import Path

import pytest

from tests.chaos.namespaces import CUTS
from tests.chaos.storm import SILENCE_SECONDS, WORK, weather

pytestmark = [pytest.mark.needs_namespaces, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    "how", [how if how == "silent" else pytest.param(how, marks=pytest.mark.nightly) for how in CUTS]
)
async def test_work_goes_on_after_the_wire_was(how: str, tmp_path: Path):
    async with weather(tmp_path, how, organizations=("Alpha", "Beta"), apart=["Beta"], coming={}) as storm:
        namespace = storm.playing.namespaces["Beta"]
        work = [asyncio.create_task(WORK[kind](storm)) for kind in ("plain", "messages", "large")]
        for seconds in (0.2, SILENCE_SECONDS, 0.2):
            await asyncio.sleep(0.2)
            namespace.cut(how)
            await asyncio.sleep(seconds)
            namespace.mend()
        await asyncio.gather(*work)
        assert "LOST" not in {result.exit_class for _, results in storm.results for result in results}


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["silent", "deaf", "mute"])
async def test_a_node_that_is_killed_behind_a_dead_wire_is_heard_again(how: str, tmp_path: Path):
    async with weather(tmp_path, how, organizations=("Alpha", "Beta"), apart=["Beta"], coming={}) as storm:
        namespace = storm.playing.namespaces["Beta"]
        task = await storm.create("plain", {"number": 1, "seconds": 1.0})
        await asyncio.sleep(0.5)
        namespace.cut(how)
        storm.playing.processes["Beta"].kill()
        await asyncio.sleep(SILENCE_SECONDS)
        namespace.mend()
        await storm.require(task, 2)
