"""Deletion: who may delete what, what is gone then, what stays to prove what happened, and that nothing comes back."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from folkmoot.server.payloads.retention import forget_aged
from folkmoot.server.payloads.uploads import forget_abandoned
from folkmoot.server.store.task_tables import payloads as payload_table
from folkmoot.transport import RemoteError
from folkmoot.transport.limits import PART_BYTES
from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.harness import Metadata, reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_payloads import first_frame, get, large_task, put
from tests.polling import until

pytestmark = pytest.mark.both_databases

INPUT, RESULT, LOG = pb.PAYLOAD_KIND_INPUT, pb.PAYLOAD_KIND_RESULT, pb.PAYLOAD_KIND_LOG


@pytest.fixture
async def manager(hub: Hub) -> Metadata:
    """A researcher of Alpha who may delete tasks of his organization."""
    account = hub.admins["Alpha"].organization_account_id
    return (await hub.server.user("max@alpha", account, ["Organization Admin", "Researcher"])).metadata


def files(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "data" / "payloads").rglob("*") if path.is_file()]


async def ended(hub: Hub, *receivers: str, large: bool = False) -> SealedTask:
    """Make a task that has run its course, with logs."""
    names = receivers or ("Beta",)
    sealed = task(hub.lung, names, content=os.urandom(PART_BYTES + 5) if large else b"question")
    if large:
        await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=not large), metadata=hub.ada)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        update = link.RunUpdate(run_id=sealed.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_RUNNING)
        update.log_envelopes.append(b"line")
        update.progress_envelope = b"progress"
        await beta.send(run_update=update)
        await hub.until(sealed, "Beta", "RUNNING")
    for name in names:
        await hub.commit(sealed, name)
    return sealed


async def delete_payloads(hub: Hub, sealed: SealedTask, by: Metadata, *kinds: Any) -> pb.DeletePayloadsResponse:
    request = pb.DeletePayloadsRequest(task_id=sealed.task_id, kinds=kinds)
    answer: pb.DeletePayloadsResponse = await hub.tasks.DeletePayloads(request, metadata=by)
    return answer


async def delete(hub: Hub, sealed: SealedTask, by: Metadata) -> int:
    return int((await hub.tasks.DeleteTask(pb.DeleteTaskRequest(task_id=sealed.task_id), metadata=by)).deleted_tasks)


async def result_digest(hub: Hub, sealed: SealedTask) -> bytes:
    return bytes((await hub.run(sealed, "Beta")).result_digest)


async def log_lines(hub: Hub, sealed: SealedTask, by: Metadata | None = None) -> list[bytes]:
    watching = hub.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=sealed.run_id("Beta")), metadata=by or hub.ada)
    return [line.envelope async for line in watching]


async def is_kept(hub: Hub, digest: bytes, by: Metadata) -> bool:
    """Whether a payload can be had; if not, its readers are told that it was deleted."""
    try:
        return bool(await get(hub, digest, by))
    except RemoteError as error:
        if error.reason_name != "PAYLOAD_NOT_FOUND" or "deleted" not in error.message:
            raise
        return False


async def kept(hub: Hub, sealed: SealedTask, result: bytes, by: Metadata) -> str:
    """Tell what of Input, Result and Log is there."""
    is_there = {
        "I": await is_kept(hub, sealed.spec.inputs[0].envelope_digest, by),
        "R": await is_kept(hub, result, by),
        "L": bool(await log_lines(hub, sealed, by)),
    }
    return "".join(letter for letter, there in is_there.items() if there)


async def tidy(hub: Hub) -> None:
    """Have bytes follow the rows now."""
    core, removals = hub.server.running.core, hub.server.running.removals
    await forget_aged(core, removals)
    await removals.remove_due()
    left = select(func.count()).where(payload_table.c.remove_at.is_not(None))  # what the server is at by itself

    async def is_removed() -> bool:
        return await core.store.read(lambda connection: connection.scalar(left)) == 0

    await until(is_removed)


# ---- payloads ------------------------------------------------------------------------------------------------------


async def test_deleted_payloads_are_gone_and_the_receipt_still_proves_what_happened(
    hub: Hub, manager: Metadata, tmp_path: Path
) -> None:
    sealed = await ended(hub, large=True)
    before, digest = await hub.run(sealed, "Beta"), sealed.spec.inputs[0].envelope_digest
    assert files(tmp_path)
    answer = await delete_payloads(hub, sealed, manager)
    assert answer.deleted == 3
    assert answer.deleted_bytes > PART_BYTES
    await tidy(hub)
    assert files(tmp_path) == []
    for gone in (digest, before.result_digest):
        error = await refused(first_frame(hub, gone, hub.ada))
        assert reason(error) == "PAYLOAD_NOT_FOUND"
        assert "deleted" in error.message
    assert await log_lines(hub, sealed) == []
    after = await hub.run(sealed, "Beta")
    assert (after.receipt, after.result_digest, after.state) == (before.receipt, before.result_digest, before.state)
    assert (before.progress_envelope, after.progress_envelope) == (b"progress", b"")
    shown = await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert shown.chain == sealed.chain
    assert (await delete_payloads(hub, sealed, manager)).deleted == 0
    [event, _] = await hub.server.events("payload.delete")
    assert sealed.task_id in event.data


@pytest.mark.parametrize(("kind", "left"), [(INPUT, "RL"), (RESULT, "IL"), (LOG, "IR")], ids=["input", "result", "log"])
async def test_only_what_was_named_goes(hub: Hub, manager: Metadata, kind: Any, left: str) -> None:
    sealed = await ended(hub)
    digest = await result_digest(hub, sealed)
    assert (await delete_payloads(hub, sealed, manager, kind)).deleted == 1
    assert await kept(hub, sealed, digest, hub.ada) == left


async def test_a_payload_of_a_task_that_goes_on_is_not_deleted(hub: Hub, manager: Metadata) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    assert reason(await refused(delete_payloads(hub, sealed, manager))) == "TASK_NOT_ENDED"
    assert reason(await refused(delete(hub, sealed, manager))) == "TASK_NOT_ENDED"


async def test_a_deleted_payload_is_no_input_of_another_task_and_does_not_come_back(
    hub: Hub, manager: Metadata
) -> None:
    sealed = await ended(hub, large=True)
    await delete_payloads(hub, sealed, manager)
    await tidy(hub)
    await put(hub, sealed)  # nothing is missing, and nothing is taken
    again = await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert again.task.task_id == sealed.task_id
    assert (
        reason(await refused(first_frame(hub, sealed.spec.inputs[0].envelope_digest, hub.ada))) == "PAYLOAD_NOT_FOUND"
    )


# ---- tasks ---------------------------------------------------------------------------------------------------------


async def test_a_deleted_task_is_gone_with_all_below_it_and_does_not_come_back(
    hub: Hub, manager: Metadata, tmp_path: Path
) -> None:
    above = task(hub.lung, ("Beta",), grant={"subtask_depth": 1, "subtask_number": 1})
    await hub.create(above)
    below = task(hub.lung, ("Gamma",), parent=(above, "Beta"))
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.create(below, await hub.node("Beta"))
    await hub.commit(below, "Gamma")
    await hub.commit(above, "Beta")
    assert await delete(hub, above, manager) == 2
    for each in (above, below):
        call = hub.tasks.GetTask(pb.GetTaskRequest(task_id=each.task_id), metadata=hub.ada)
        assert reason(await refused(call)) == "TASK_NOT_FOUND"
    assert await delete(hub, above, manager) == 0
    assert reason(await refused(hub.create(above))) == "ID_TAKEN"
    listed = await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=hub.ada)
    assert list(listed.tasks) == []
    [event] = await hub.server.events("task.delete")
    assert above.task_id in event.data


async def test_nothing_of_a_deleted_task_is_left_in_the_database_or_the_store(
    hub: Hub, manager: Metadata, tmp_path: Path
) -> None:
    sealed = await ended(hub, large=True)
    await delete(hub, sealed, manager)
    await tidy(hub)
    assert files(tmp_path) == []
    from folkmoot.server.store.models import metadata

    def counts(connection: Any) -> dict[str, int]:
        names = ("tasks", "runs", "run_logs", "payloads", "task_labels", "task_dependencies", "scratch_bindings")
        return {
            name: connection.scalar(select(func.count()).select_from(metadata.tables[name]))  # one after the other
            for name in names
        }

    assert set((await hub.server.running.core.store.read(counts)).values()) == {0}


async def test_a_task_that_another_one_depends_on_stays(hub: Hub, manager: Metadata) -> None:
    first = await ended(hub)
    second = task(hub.lung, ("Beta",), after=[first])
    await hub.create(second)
    await hub.commit(second, "Beta")
    error = await refused(delete(hub, first, manager))
    assert reason(error) == "HAS_DEPENDENTS"
    assert second.task_id in error.message
    assert await delete(hub, second, manager) == 1
    assert await delete(hub, first, manager) == 1


async def test_others_can_not_delete(hub: Hub, manager: Metadata) -> None:
    sealed = await ended(hub)
    gamma = (
        await hub.server.user(
            "max@gamma", hub.admins["Gamma"].organization_account_id, ["Organization Admin", "Researcher"]
        )
    ).metadata
    viewer = (await hub.server.user("v@alpha", hub.admins["Alpha"].organization_account_id, ["Viewer"])).metadata
    for by, expected in ((gamma, "TASK_NOT_FOUND"), (viewer, "NOT_ALLOWED"), (await hub.node("Beta"), "NOT_ALLOWED")):
        assert reason(await refused(delete(hub, sealed, by))) == expected
        assert reason(await refused(delete_payloads(hub, sealed, by))) == expected
    assert await delete(hub, sealed, manager) == 1


# ---- retention -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def keeping(hub: Hub) -> Hub:
    """A server that keeps inputs for a day, results for two, logs for three."""
    object.__setattr__(hub.server.running.core.config, "retention_input_days", 1)
    object.__setattr__(hub.server.running.core.config, "retention_result_days", 2)
    object.__setattr__(hub.server.running.core.config, "retention_log_days", 3)
    return hub


async def test_what_is_older_than_it_is_kept_goes_by_kind_and_tasks_that_go_on_lose_nothing(
    keeping: Hub, tmp_path: Path
) -> None:
    hub = keeping
    sealed = await ended(hub, large=True)
    digest = await result_digest(hub, sealed)
    open_task = task(hub.lung, ("Gamma",), content=os.urandom(PART_BYTES))
    open_digest = open_task.spec.inputs[0].envelope_digest
    await put(hub, open_task)
    await hub.tasks.CreateTask(open_task.request(envelope=False), metadata=hub.ada)
    async with attached(hub.server, hub.lung, "Gamma") as gamma:
        await gamma.accept()
        await hub.until(open_task, "Gamma", "ASSIGNED")
    for days, left in ((0, "IRL"), (1, "RL"), (2, "L"), (3, "")):
        hub.clock.ahead = timedelta(days=days, minutes=1)
        await tidy(hub)
        ada = (await hub.server.log_in("ada@alpha")).metadata
        assert await kept(hub, sealed, digest, ada) == left
        assert await get(hub, open_digest, ada) == open_task.envelope
    assert {path.parent.name for path in files(tmp_path)} == {open_digest.hex()}
    events = await _events(hub, "payload.expire")
    assert [event.data.count("KIND_INPUT") for event in events] == [1, 0, 0]


async def test_an_input_is_kept_as_long_as_one_run_of_its_task_still_waits_for_it(keeping: Hub) -> None:
    hub = keeping
    sealed = task(hub.lung, ("Beta", "Gamma"), content=os.urandom(PART_BYTES))
    digest = sealed.spec.inputs[0].envelope_digest
    await put(hub, sealed)
    await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    await hub.commit(sealed, "Beta")
    hub.clock.ahead = timedelta(days=4)
    await tidy(hub)
    assert await get(hub, digest, await hub.node("Gamma")) == sealed.envelope
    await hub.commit(sealed, "Gamma")
    hub.clock.ahead = timedelta(days=8)
    await tidy(hub)
    ada = (await hub.server.log_in("ada@alpha")).metadata
    with pytest.raises(RemoteError, match="It was deleted"):
        await get(hub, digest, ada)


async def _events(hub: Hub, intent: str) -> list[Any]:
    hub.server.users.pop("root@hub")
    hub.server.users["root@hub"] = await hub.server.log_in("root@hub")
    return await hub.server.events(intent)


async def test_retention_goes_through_more_than_one_page_and_ties(
    keeping: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from folkmoot.server.payloads import retention

    hub = keeping
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    for _ in range(5):
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        await hub.commit(sealed, "Beta")
    hub.clock.ahead = timedelta(days=4)
    await tidy(hub)
    left = select(func.count()).where(payload_table.c.deleted_at.is_(None))
    assert await hub.server.running.core.store.read(lambda connection: connection.scalar(left)) == 0


# ---- abandoned -----------------------------------------------------------------------------------------------------


async def test_a_payload_that_nothing_names_goes_after_a_week(hub: Hub, tmp_path: Path) -> None:
    sealed, _ = large_task(hub)
    await put(hub, sealed)
    core, removals = hub.server.running.core, hub.server.running.removals
    hub.clock.ahead = timedelta(days=6)
    await forget_abandoned(core, removals.store, removals)
    assert files(tmp_path)
    hub.clock.ahead = timedelta(days=8)
    await forget_abandoned(core, removals.store, removals)
    assert files(tmp_path) == []
