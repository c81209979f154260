"""The last lines of a run's log travel on the link, its end in a call of its own: which comes first is nobody's to say."""

import pytest

from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, attached
from tests.integration.server.sealed import task


@pytest.mark.both_databases
async def test_lines_that_the_commit_overtook_are_kept_and_change_nothing_else(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    run_id = sealed.run_id("Beta")
    async with attached(hub.server, hub.lung, "Beta", form=Poll) as beta:  # what it sends is stored when it is answered
        await beta.accept()
        ended = await hub.commit(sealed, "Beta")
        for attempt, line in ((1, b"last"), (2, b"of no attempt of this node")):
            update = link.RunUpdate(
                run_id=run_id, attempt=attempt, state=RunState.RUN_STATE_RUNNING, log_envelopes=[line]
            )
            await beta.send(run_update=update)
    lines = hub.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=run_id), metadata=hub.ada)
    assert [each.envelope async for each in lines] == [b"last"]
    assert await hub.run(sealed, "Beta") == ended
