"""What the benchmarks measure is the product: a small stage, each way once."""

from bench.rows._prepared import Prepared
from bench.rows._round_trips import central_function, round_trip
from bench.rows._stage import Station, stage
from folkmoot.v1.task_pb2 import RunState


async def test_stage_serves_every_way_that_is_measured():
    async with stage(Station(warm_workers=1)) as playing, playing.client() as client:
        await round_trip(client, playing)
        await central_function(client, playing)
        prepared = await Prepared.by(client, playing, playing.names)
        session = client.connection.session
        created = await session.call(session.tasks.CreateTask, prepared.request())
        assert [run.state for run in created.runs] == [RunState.RUN_STATE_PENDING] * len(playing.names)
        task = await client.tasks.get(created.task.task_id)
        assert [result.value async for result in task.results()] == [1] * len(playing.names)
