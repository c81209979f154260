"""A server that gives one attempt of a run to each of an organization's nodes: each executes it once, as far as it can know.

Two nodes share no journal, so neither can refuse: the organization's limit of attempts holds at each of them. Who notices: a client that
is shown both ends, as the journals of both nodes show them to their owner. What it sees: a message that names the nodes. What is stored:
both receipts, genuine, side by side in the proof.
"""

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from folkmoot.node.app import RunningNode, serve
from folkmoot.node.config import load_config
from folkmoot.node.journal import records
from folkmoot.node.journal.records import RunRecord
from folkmoot.trust import dump_signing_key, verify_proof
from folkmoot.v1.link_pb2 import Assign
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import RunState
from folkmoot.v1.task_service_pb2 import AttachResponse, CommitRunResponse, WatchTaskResponse
from tests.hostile.liar import Liar, lying
from tests.hostile.misleading import overheard
from tests.hostile.protections import COMPARED_RECEIPTS
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def second_node(stage: Stage, target: str) -> AsyncIterator[RunningNode]:
    """Another machine of Beta's, which the ledger admits as well."""
    folder = stage.net.node_folder("Beta").with_name("beta-2")  # Sockets need short paths.
    key = stage.world.add_node("Beta", "beta-2")
    await stage.net.server.append(stage.world.entries[-1], stage.net.server.users["admin@beta"])
    for each in ("Beta", "Gamma"):
        await stage.has_seen(each)
    shutil.copytree(stage.net.node_folder("Beta"), folder, ignore=shutil.ignore_patterns("state", "run", "client"))
    (folder / "node.pem").write_bytes(dump_signing_key(key))
    config = load_config(folder / "node.toml")
    blocks = tuple(replace(each, server=target, warm_workers=0) for each in config.collaboration)
    async with serve(replace(config, collaboration=blocks)) as node:
        await node.attached()
        yield node


async def given_too(stage: Stage, other: Liar, node: RunningNode, given: Assign) -> RunRecord:
    """Give the second node what the first one got, in place of something honest, and wait for its end."""
    (running,) = node.stations

    def lie(answer: AttachResponse) -> None:
        if answer.frame.HasField("assign"):
            answer.frame.assign.CopyFrom(given)

    async def record() -> RunRecord | None:
        return await running.station.journal.transact(lambda db: records.get_run(db, given.run_id, 1))

    async def ended() -> bool:
        found = await record()
        return found is not None and found.ended

    with other.answers("Attach", lie):
        await stage.net.stop_node("Beta")  # so that what is asked of Beta comes to its other node
        try:
            await stage.ask("Beta")
            await until(ended)
        finally:
            await stage.net.start_node("Beta")
    found = await record()
    assert found is not None
    return found


async def test_an_attempt_that_two_nodes_executed_is_told_and_proven(stage: Stage, caplog: pytest.LogCaptureFixture):
    task, assign = await overheard(stage, "Beta", "Beta")
    assert (await stage.result(task, "Beta")).value == 42
    run_id, first = assign.run_id, stage.world["Beta"].nodes["beta-1"].fingerprint

    async with lying(stage.net.server, stage.server_folder) as other:
        with other.instead("CommitRun", lambda _: CommitRunResponse()):  # the server takes it, and says nothing of it
            async with second_node(stage, other.target) as node:
                ended = await given_too(stage, other, node, assign)
    second = stage.world["Beta"].nodes["beta-2"].fingerprint
    assert ended.state == RunState.RUN_STATE_COMPLETED  # it could not know

    def show_the_other(answer: WatchTaskResponse) -> None:
        if answer.run.run_id == run_id and answer.run.HasField("receipt"):
            answer.run.receipt.CopyFrom(Signed.FromString(ended.receipt))

    async def noticed() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.ERROR, "folkmoot.client"):
            async with stage.fresh_client() as client:
                await (await client.tasks.get(task.id)).wait(progress=False)
                with stage.before("client").answers("WatchTask", show_the_other):
                    await (await client.tasks.get(task.id)).wait(progress=False)
                (run,) = verify_proof(await client.export_proof(task.id), expected=None).tasks[0].runs
                proven.append([each.node_id for each in run.receipts])
        return caplog.messages

    proven: list[list[str]] = []
    (told,) = await noticed()
    assert all(each in told for each in (run_id, f"beta-1 ({first})", f"beta-2 ({second})"))
    assert proven == [sorted([first, second])]

    with without(COMPARED_RECEIPTS):
        assert await noticed() == []
    assert proven[1] == [first]
