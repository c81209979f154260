"""Runs that their node keeps from ending begin anew at another one, where their task allows it; what comes late counts no more."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest

from folkmoot.server.store import links
from folkmoot.v1 import link_pb2 as link
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Availability, PolicySummary
from folkmoot.v1.task_pb2 import Grant, MessageGrant, Run, RunState, Scratch, WaitReason
from tests.integration.harness import ROOT, reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Station, attached
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_departures import publish, second_node

PATIENTS = PolicySummary(labels=["patients"], slots=2)


def beta(hub: Hub, number: int, **changes: Any) -> AbstractAsyncContextManager[Station]:
    """A node of Beta's, which offers patients unless `changes` say otherwise."""
    return attached(hub.server, hub.lung, "Beta", node=f"beta-{number}", **({"policy": PATIENTS} | changes))


def wanted(hub: Hub, **changes: Any) -> SealedTask:
    usual: dict[str, Any] = {"labels": ["patients"], "max_attempts": 2}
    return task(hub.lung, ("Beta",), **(usual | changes))


async def assigned(hub: Hub, sealed: SealedTask, station: Station) -> None:
    await hub.create(sealed)
    await station.accept()
    await hub.until(sealed, "Beta", "ASSIGNED")


async def pass_time(hub: Hub, **time: float) -> None:
    """Let time pass; then the server looks around. Its tokens grow old with it: whoever calls authenticates anew."""
    await hub.settled()
    hub.clock.ahead += timedelta(**time)
    await hub.server.running.dispatch.sweep()


async def run(hub: Hub, sealed: SealedTask) -> Run:
    researcher = await hub.server.log_in(hub.researchers["Alpha"].username)
    hub.researchers["Alpha"] = researcher
    return await hub.run(sealed, "Beta")


async def commit(hub: Hub, sealed: SealedTask, number: int, *, attempt: int, content: bytes = b'"late"') -> Run:
    """Commit a result of an attempt, as that node of Beta's."""
    key = hub.lung["Beta"].nodes[f"beta-{number}"]
    request = sealed.commit("Beta", content=content, node_key=key, attempt=attempt)
    answer = await hub.tasks.CommitRun(request, metadata=await hub.node("Beta", f"beta-{number}"))
    return answer.run


def update(sealed: SealedTask, *, attempt: int, fraction: float) -> link.RunUpdate:
    state = RunState.RUN_STATE_RUNNING
    return link.RunUpdate(run_id=sealed.run_id("Beta"), attempt=attempt, state=state, fraction=fraction)


@pytest.fixture(autouse=True)
async def two_nodes(hub: Hub) -> None:
    await second_node(hub)


@pytest.mark.both_databases
async def test_late_result_from_fenced_attempt(hub: Hub) -> None:
    sealed = wanted(hub)
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
    async with beta(hub, 2) as second:
        await pass_time(hub, minutes=16)
        anew = await second.accept()
        assert (anew.run_id, anew.attempt) == (sealed.run_id("Beta"), 2)
        assert reason(await refused(commit(hub, sealed, 1, attempt=1))) == "RUN_CONFLICT"
        held = [(sealed.run_id("Beta"), "RUNNING")]
        async with beta(hub, 1, acknowledged=1, held=held) as returned:
            told = await returned.next("cancel")
            assert (told.run_id, told.attempt) == (sealed.run_id("Beta"), 1)
            await returned.send(run_update=update(sealed, attempt=1, fraction=0.9))
            await second.send(run_update=update(sealed, attempt=2, fraction=0.2))
            await second.send(heartbeat=link.Heartbeat())
        ended = await commit(hub, sealed, 2, attempt=2)
    assert (ended.attempt, ended.node_id) == (2, hub.lung["Beta"].nodes["beta-2"].fingerprint)
    assert (await run(hub, sealed)).fraction == 0.2
    assert reason(await refused(commit(hub, sealed, 1, attempt=1))) == "RUN_CONFLICT"
    hub.server.users[ROOT] = await hub.server.log_in(ROOT)
    [event] = await hub.server.events("run.reassign")
    assert sealed.run_id("Beta") in event.data


async def test_a_short_absence_moves_nothing(hub: Hub) -> None:
    sealed = wanted(hub)
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
    async with beta(hub, 2):
        await pass_time(hub, minutes=14)
        told = await run(hub, sealed)
        assert (told.attempt, told.waiting.reason) == (1, WaitReason.WAIT_REASON_NODE_OFFLINE)
        assert hub.lung["Beta"].nodes["beta-1"].fingerprint in told.waiting.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"max_attempts": 0},  # added to the builder's one
        {"scratch": Scratch.SCRATCH_JOB},
        {"grant": Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)},
        {"labels": ["imaging"]},
    ],
    ids=["one attempt allowed", "files at the node", "messages to siblings", "label offered by nobody else"],
)
async def test_what_another_node_could_not_do_as_well_waits(hub: Hub, changes: dict[str, Any]) -> None:
    sealed = wanted(hub, **changes)
    everything = PolicySummary(labels=["patients", "imaging"], slots=2)
    async with beta(hub, 1, policy=everything) as first:
        await assigned(hub, sealed, first)
    async with beta(hub, 2):
        await pass_time(hub, hours=3)
        assert (await run(hub, sealed)).attempt == 1
    async with beta(hub, 1, policy=everything, acknowledged=1, held=[(sealed.run_id("Beta"), "RUNNING")]):
        assert (await commit(hub, sealed, 1, attempt=1)).state == RunState.RUN_STATE_COMPLETED


@pytest.mark.parametrize("availability", ["PAUSED", "DRAINING"])
async def test_a_node_that_begins_nothing_takes_nothing_over(hub: Hub, availability: str) -> None:
    sealed = wanted(hub)
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
    async with beta(hub, 2, availability=Availability.Value(f"AVAILABILITY_{availability}")) as second:
        await pass_time(hub, hours=1)
        assert (await run(hub, sealed)).attempt == 1
        await second.send(offer=link.Offer(policy=PATIENTS, availability=Availability.AVAILABILITY_OPEN))
        await second.send(heartbeat=link.Heartbeat())
        await hub.settled()
        await pass_time(hub, minutes=2)
        assert (await second.accept()).attempt == 2


async def test_an_attempt_that_ended_before_its_node_went_stands(hub: Hub) -> None:
    sealed = wanted(hub)
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
        await commit(hub, sealed, 1, attempt=1)
    async with beta(hub, 2):
        await pass_time(hub, hours=1)
        told = await run(hub, sealed)
        assert (told.attempt, told.state) == (1, RunState.RUN_STATE_COMPLETED)


async def test_after_a_detour_the_first_node_has_the_third_attempt(hub: Hub) -> None:
    sealed = wanted(hub, max_attempts=3)
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
    async with beta(hub, 2) as second:
        await pass_time(hub, minutes=16)
        await second.accept()
        await hub.settled()
    async with beta(hub, 1, acknowledged=1) as first:
        await first.accept("cancel")
        await pass_time(hub, minutes=16)
        third = await first.accept()
        assert (third.run_id, third.attempt) == (sealed.run_id("Beta"), 3)
        assert reason(await refused(commit(hub, sealed, 1, attempt=1))) == "RUN_CONFLICT", (
            "of the same node, and fenced"
        )
    async with beta(hub, 2, acknowledged=1) as second:
        told = await second.next("cancel")
        assert (told.run_id, told.attempt) == (sealed.run_id("Beta"), 2)
        await pass_time(hub, hours=5)
        assert (await run(hub, sealed)).attempt == 3, "no more than are signed"


async def test_an_acknowledgement_of_a_fenced_attempt_accepts_nothing(hub: Hub) -> None:
    """The first attempt was sent and never acknowledged; its acknowledgement comes when the third is there already."""
    sealed = wanted(hub, max_attempts=3)
    async with beta(hub, 1) as first:
        await hub.create(sealed)
        await first.next("assign")
    async with beta(hub, 2) as second:
        await pass_time(hub, minutes=16)
        await second.accept()
    async with beta(hub, 1) as first:
        for _ in range(2):  # what was an assignment, and the fence
            assert (await first.next("cancel")).attempt == 1
        await pass_time(hub, minutes=16)
        assert (await first.next("assign")).attempt == 3
        first.told.pop()
        await first.acknowledge()
        await hub.settled()
        assert (await run(hub, sealed)).state == RunState.RUN_STATE_PENDING


async def test_what_a_central_function_has_created_is_cancelled_with_its_attempt(hub: Hub) -> None:
    sealed = wanted(hub, grant=Grant(subtask_depth=1, subtask_number=2))
    async with beta(hub, 1) as first:
        await assigned(hub, sealed, first)
        below = task(hub.lung, ("Gamma",), parent=(sealed, "Beta"), labels=["patients"])
        await hub.create(below, await hub.node("Beta", "beta-1"))
    async with beta(hub, 2) as second:
        await pass_time(hub, minutes=16)
        assert (await second.accept()).attempt == 2
    await run(hub, sealed)
    assert await hub.state(below, "Gamma") == "CANCELLED"


async def test_a_node_that_drains_gives_away_what_it_has_not_begun(hub: Hub) -> None:
    begun, waiting, alone = wanted(hub), wanted(hub), wanted(hub, max_attempts=0)
    async with beta(hub, 1) as first:
        for each in (begun, waiting, alone):
            await assigned(hub, each, first)
        await first.send(run_update=update(begun, attempt=1, fraction=0.5))
        async with beta(hub, 2) as second:
            await first.send(offer=link.Offer(policy=PATIENTS, availability=Availability.AVAILABILITY_DRAINING))
            anew = await second.accept()
            assert (anew.run_id, anew.attempt) == (waiting.run_id("Beta"), 2)
            fence = await first.accept("cancel")
            assert (fence.run_id, fence.attempt) == (waiting.run_id("Beta"), 1)
            for _ in range(3):
                await hub.create(fresh := wanted(hub))
                assert (await second.accept()).run_id == fresh.run_id("Beta")
    assert [(await run(hub, each)).attempt for each in (begun, waiting, alone)] == [1, 2, 1]


async def test_runs_of_a_revoked_node_begin_anew_if_they_may(hub: Hub) -> None:
    allowed, alone = wanted(hub), wanted(hub, max_attempts=0)
    async with beta(hub, 1) as first:
        for each in (allowed, alone):
            await assigned(hub, each, first)
        async with beta(hub, 2) as second:
            hub.lung.revoke_node("Beta", "beta-1")
            await publish(hub)
            await second.next("ledger_head")
            assert (await second.accept()).run_id == allowed.run_id("Beta")
    assert [(await run(hub, each)).attempt for each in (allowed, alone)] == [2, 1]
    [event] = await hub.server.events("run.reassign")
    assert event.created_by == hub.admins["Alpha"].user_id


async def test_a_server_that_was_killed_in_between_knows_no_more_than_before(hub: Hub) -> None:
    """Whatever a node may have been sent before stays its own: the server's memory of it is gone, and rows decide."""
    sealed = wanted(hub, max_attempts=0)
    async with beta(hub, 1) as first:
        await hub.create(sealed)
        await first.next("assign")
        core = hub.server.running.core
        await core.store.write(lambda connection: links.detach_all(connection, now=core.clock()))
        async with beta(hub, 2):
            await hub.settled()
            assert (await run(hub, sealed)).state == RunState.RUN_STATE_PENDING
    async with beta(hub, 1) as first:
        assert (await first.accept()).run_id == sealed.run_id("Beta")


# ---- labels, room, availability ------------------------------------------------------------------------------------


async def test_a_run_waits_for_the_node_that_offers_its_labels(hub: Hub) -> None:
    sealed = wanted(hub)
    async with beta(hub, 1) as first:
        await first.leave()
    await hub.settled()
    async with beta(hub, 2, policy=PolicySummary(labels=["imaging"])) as second:
        await hub.create(sealed)
        assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
        await hub.create(other := wanted(hub, labels=["imaging"]))
        assert (await second.accept()).run_id == other.run_id("Beta")
    async with beta(hub, 1) as first:
        assert (await first.accept()).run_id == sealed.run_id("Beta")


async def test_a_run_that_nobody_offers_data_for_is_refused_by_whoever_is_there(hub: Hub) -> None:
    async with beta(hub, 2) as second:
        await hub.create(sealed := wanted(hub, labels=["nothing"]))
        assert (await second.accept()).run_id == sealed.run_id("Beta")


async def test_a_run_waits_while_all_nodes_drain(hub: Hub) -> None:
    draining = Availability.AVAILABILITY_DRAINING
    async with beta(hub, 1, availability=draining) as first, beta(hub, 2, availability=draining):
        await hub.create(sealed := wanted(hub))
        assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_PAUSED
        await first.send(offer=link.Offer(policy=PATIENTS, availability=Availability.AVAILABILITY_OPEN))
        assert (await first.accept()).run_id == sealed.run_id("Beta")


async def test_the_node_with_most_room_is_chosen_and_a_paused_one_last(hub: Hub) -> None:
    large = PolicySummary(labels=["patients"], slots=4)
    async with beta(hub, 1) as first, beta(hub, 2, policy=large) as second:
        told: Sequence[Station] = (second, second, first)
        for station in told:
            await assigned(hub, wanted(hub), station)
        await second.send(offer=link.Offer(policy=large, availability=Availability.AVAILABILITY_PAUSED))
        await second.send(heartbeat=link.Heartbeat())
        await hub.settled()
        for _ in range(5):
            await assigned(hub, wanted(hub), first)


async def test_files_that_are_out_of_reach_at_the_deadline_are_lost(hub: Hub) -> None:
    first = wanted(hub, scratch=Scratch.SCRATCH_JOB, max_attempts=0)
    later = wanted(hub, scratch=Scratch.SCRATCH_JOB, max_attempts=0, job_id=first.task_id)
    async with beta(hub, 1) as station:
        await assigned(hub, first, station)
    await hub.settled()
    async with beta(hub, 2):
        await hub.create(later)
        waits = (await hub.run(later, "Beta")).waiting
        assert hub.lung["Beta"].nodes["beta-1"].fingerprint in waits.detail
        await pass_time(hub, days=2)
        end = await run(hub, later)
    lost = ErrorReason.ERROR_REASON_SCRATCH_LOST
    assert (RunState.Name(end.state), end.reason) == ("RUN_STATE_EXPIRED", lost)
