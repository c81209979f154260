"""The whole path: client, server, three nodes, real algorithms in plain processes."""

from contextlib import AsyncExitStack

from folkmoot.client import Subtasks
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import Stations

IMAGE = "process:examples.average"


async def test_average_of_three_hospitals_with_one_slot_each(hub: Hub, stations: Stations):
    async with AsyncExitStack() as stack:
        for name in ("Alpha", "Beta", "Gamma"):
            await stack.enter_async_context(stations.station(name))
        task = await hub.client("Alpha").tasks.create(
            image=IMAGE,
            function="average",
            arguments={"column": "age"},
            organizations=["Alpha"],
            labels=["patients"],
            subtasks=Subtasks(depth=1, number=10),
        )
        [result] = await task.wait()
    assert result.value == {"average": 50.0, "count": 9}
    assert result.proven == "proven"
