"""A researcher finds tasks by what they are, and deletes what is not needed any more; nothing of it comes back by itself."""

from datetime import UTC, datetime, timedelta

import pytest

from folkmoot.client import Result
from folkmoot.transport import RemoteError
from folkmoot.trust.errors import FolkmootError
from tests.integration.client.conftest import Hub
from tests.integration.stub_node import StubNode


async def completed(hub: Hub, client, **changes):
    task = await client.tasks.create(
        image="process:examples.average", function="average", organizations=["Beta"], arguments={}, **changes
    )
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await (await beta.next()).complete(7)
        [result] = await task.wait(progress=False)
    assert isinstance(result, Result)
    return task


async def test_what_is_deleted_is_gone_for_its_maker_too_and_is_not_given_back_to_the_server(hub: Hub) -> None:
    client = hub.client("Alpha")
    task = await completed(hub, client)
    again = await client.tasks.get(task.id)
    gone = await task.delete_payloads("input")
    assert gone.envelopes == 1
    [result] = await again.wait(progress=False)
    assert result.value == 7
    assert (await task.delete_payloads()).envelopes == 1
    [told] = await (await client.tasks.get(task.id)).wait(progress=False)
    assert told.state == "COMPLETED"
    assert told.problem is not None
    assert "deleted" in str(told.problem)
    await task.delete()
    with pytest.raises(RemoteError, match="no task"):
        await task.state
    assert await client.tasks.list() == ()


async def test_a_handle_in_another_program_does_not_bring_a_deleted_task_back(hub: Hub) -> None:
    client = hub.client("Alpha")
    task = await completed(hub, client)
    await (await client.tasks.get(task.id)).delete()
    with pytest.raises(RemoteError, match="was deleted"):
        await task.state


async def test_tasks_are_listed_by_filters_in_peoples_words(hub: Hub) -> None:
    client = hub.client("Alpha")
    task = await completed(hub, client, name="Mean age")
    now = datetime.now(UTC)
    for filters in (
        {"state": "COMPLETED"},
        {"state": "completed", "name_contains": "AGE", "initiator": "Alpha", "image": "examples.average"},
        {"since": now - timedelta(hours=1), "until": now + timedelta(hours=1), "job_id": task.job_id},
        {"user": "admin@alpha"},
    ):
        assert [each.id for each in await client.tasks.list(**filters)] == [task.id], filters
    for filters in (
        {"state": "FAILED"},
        {"initiator": "Beta"},
        {"label": "persons"},
        {"until": now - timedelta(1)},
    ):
        assert await client.tasks.list(**filters) == (), filters
    with pytest.raises(FolkmootError, match="no state"):
        await client.tasks.list(state="sleeping")  # type: ignore[arg-type]
