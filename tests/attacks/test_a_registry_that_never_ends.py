"""A registry that goes on answering for ever, a byte now and then: who waits for its image is told when the task's time is over."""

import asyncio
from datetime import timedelta

import pytest

from folkmoot.client import Proof, RunState
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.integration.client.conftest import Hub, hub
from tests.integration.node.station.conftest import stations
from tests.integration.node.station.stations import Engine, EngineRuntime, Stations
from tests.integration.node.station.test_faults import ask, engine, only

__all__ = ["engine", "hub", "stations"]


async def test_a_run_whose_image_never_comes_ends_with_its_task(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    async def prepare(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(EngineRuntime, "prepare", prepare)
    async with stations.station("Beta", engine=engine):
        result = await only(await ask(hub, "Beta", expires_in=timedelta(seconds=2)))
    assert (result.state, result.proven) == (RunState.REFUSED, Proof.PROVEN)
    assert result.reason == ErrorReason.ERROR_REASON_TASK_EXPIRED
    assert not engine.started
