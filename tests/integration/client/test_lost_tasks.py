"""A server that has lost a task, with what was put into it: whoever made the task and waits for it gives it back."""

import asyncio

import pytest
from sqlalchemy import delete

from folkmoot.server.store import tables, views
from folkmoot.transport import RemoteError
from folkmoot.v1.task_service_pb2 import ListTasksRequest
from tests.integration.client.conftest import Hub
from tests.integration.stub_node import StubNode

LARGE = "x" * 600_000
LOST = ("tasks", "runs", "deliveries", "payloads")


async def lose(hub: Hub) -> None:
    """Have the server forget all tasks, as after a restored backup."""

    def forget(connection) -> None:
        for name in LOST:
            connection.execute(delete(tables.metadata.tables[name]))

    await hub.server.running.core.store.write(forget)


async def create(client, **arguments):
    return await client.tasks.create(
        image="process:examples.average", function="average", organizations=["Beta"], arguments=arguments
    )


@pytest.mark.parametrize("text", ["small", LARGE], ids=["inline", "uploaded"])
async def test_lost_task_comes_back_while_its_maker_waits_and_is_the_same(hub: Hub, text: str) -> None:
    client = hub.client("Alpha")
    task = await create(client, text=text)
    await lose(hub)
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        results = task.results()

        async def answer() -> None:
            work = await beta.next()
            assert (work.task.spec.task_id, work.run_id) == (task.id, task.spec.receivers[0].run_id)
            assert work.arguments == {"text": text}
            await work.complete(7)

        answering = asyncio.create_task(answer())
        assert [result.value async for result in results] == [7]
        await answering


async def test_lost_task_comes_back_when_its_maker_asks_how_it_stands(hub: Hub) -> None:
    client = hub.client("Alpha")
    task = await create(client)
    await lose(hub)
    assert await task.state == "PENDING"
    listed = await hub.server.tasks.ListTasks(ListTasksRequest(), metadata=hub.server.users["admin@alpha"].metadata)
    assert [each.task_id for each in listed.tasks] == [task.id]


async def test_handle_that_was_found_has_nothing_to_give_back(hub: Hub) -> None:
    client = hub.client("Alpha")
    found = await client.tasks.get((await create(client)).id)
    await lose(hub)
    with pytest.raises(RemoteError) as refusal:
        await found.wait(progress=False)
    assert refusal.value.reason_name == "TASK_NOT_FOUND"


async def test_server_that_takes_a_task_and_denies_it_is_not_asked_for_ever(hub: Hub, monkeypatch) -> None:
    client = hub.client("Alpha")
    task = await create(client)

    def deny(_connection, _caller, task_id, *_rest):
        raise views.task_not_found(task_id)

    monkeypatch.setattr(views, "find_task", deny)
    with pytest.raises(RemoteError) as refusal:
        await task.wait(progress=False)
    assert refusal.value.reason_name == "TASK_NOT_FOUND"
