"""A job's files and the node's disk: a run that takes too much ends, its neighbours do not, and a full disk starts nothing."""

import asyncio
import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot.node.app import serve
from folkmoot.node.config import load_config
from folkmoot.node.storage import disk
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import POLICY, Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import answer, ask, only

SMALL_SCRATCH = f"{POLICY}\n[limits]\nscratch_bytes = 1048576\n"


async def hoard(algorithm: Algorithm) -> None:
    """Write in small files, none of which is too large, and link to all of this machine."""
    folder = Path(algorithm.context.scratch_path)
    (folder / "everything").symlink_to("/")
    number = 0
    while True:
        (folder / str(number)).write_bytes(os.urandom(1 << 16))
        number += 1
        await asyncio.sleep(0)


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0.01)
    made = Engine({"answer": answer, "hoard": hoard})
    yield made
    await made.close()


async def test_a_job_that_fills_its_scratch_is_ended_and_its_neighbour_is_not(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine, policy=SMALL_SCRATCH, slots=2):
        greedy = await ask(hub, "Beta", function="hoard", scratch=True)
        honest = await ask(hub, "Beta", scratch=True)
        assert (await only(honest)).value == {"of": "Beta"}
        ended = await only(greedy)
    assert (ended.state, ended.exit_class, ended.proven) == ("CRASHED", "OUT_OF_SCRATCH", "proven")
    assert "1 MiB of scratch" in ended.failure


async def test_on_a_full_disk_no_run_starts(hub: Hub, stations: Stations, engine: Engine):
    config = dataclasses.replace(load_config(stations.configure("Beta")), reserve_disk_bytes=1 << 62)
    async with serve(config, runtime=engine.runtime) as node:
        await node.attached()
        refused = await only(await ask(hub, "Beta"))
    assert (refused.state, refused.reason) == ("REFUSED", ErrorReason.ERROR_REASON_DISK_FULL)
    assert engine.started == []
