"""Which of an organization's nodes executes a run."""

import pytest

from folkmoot.v1.link_pb2 import PolicySummary
from folkmoot.v1.task_pb2 import Scratch, WaitReason
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Station, Stream, attached, hello
from tests.integration.server.sealed import task


async def second_node(hub: Hub) -> None:
    hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.admins["Beta"])


async def test_the_only_node_gets_its_runs_even_while_it_is_away(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    waiting = (await hub.run(sealed, "Beta")).waiting
    assert waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
    assert hub.lung["Beta"].nodes["beta-1"].fingerprint in waiting.detail
    async with attached(hub.server, hub.lung, "Beta", node="beta-1") as first:
        assert (await first.accept()).run_id == sealed.run_id("Beta")


async def test_what_no_node_can_have_got_goes_to_another_one_at_once(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    await second_node(hub)
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        assigned = await second.accept()
        assert (assigned.run_id, assigned.attempt) == (sealed.run_id("Beta"), 1)
        async with attached(hub.server, hub.lung, "Beta", node="beta-1") as first:
            told = await first.next("cancel")  # its order has no gaps
            assert (told.run_id, told.attempt) == (sealed.run_id("Beta"), 1)
    assert (await hub.run(sealed, "Beta")).node_id == hub.lung["Beta"].nodes["beta-2"].fingerprint


async def test_what_a_node_was_sent_is_nobody_elses_though_it_never_acknowledged_it(hub: Hub) -> None:
    await second_node(hub)
    async with attached(hub.server, hub.lung, "Beta", node="beta-1") as first:
        await hub.create(sealed := task(hub.lung, ("Beta",)))
        await first.next("assign")
    await hub.settled()
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        await hub.create(fresh := task(hub.lung, ("Beta",)))
        assert (await second.accept()).run_id == fresh.run_id("Beta")
    assert await hub.state(sealed, "Beta") == "PENDING"
    async with attached(hub.server, hub.lung, "Beta", node="beta-1") as first:
        assert (await first.accept()).run_id == sealed.run_id("Beta")


@pytest.mark.both_databases
async def test_with_several_nodes_the_one_that_attaches_first_gets_what_waits(hub: Hub) -> None:
    await second_node(hub)
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    assert (await hub.run(sealed, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        assert (await second.accept()).run_id == sealed.run_id("Beta")


async def test_of_attached_nodes_the_one_with_fewer_open_runs_is_chosen(hub: Hub) -> None:
    await second_node(hub)
    async with (
        attached(hub.server, hub.lung, "Beta", node="beta-1") as first,
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
    ):
        made = [task(hub.lung, ("Beta",)) for _ in range(4)]
        for each in made:
            await hub.create(each)
        told = [{(await station.accept()).run_id for _ in range(2)} for station in (first, second)]
        assert told[0] | told[1] == {each.run_id("Beta") for each in made}


async def test_of_attached_nodes_one_that_offers_the_labels_is_chosen(hub: Hub) -> None:
    await second_node(hub)
    async with attached(hub.server, hub.lung, "Beta", node="beta-1"):
        offering = Station(Stream(hub.tasks, await hub.node("Beta", "beta-2")))
        node_id = hub.lung["Beta"].nodes["beta-2"].fingerprint
        await offering.link.send(hello(hub.lung, node_id, policy=PolicySummary(labels=["patients"])))
        await offering.next("welcome")
        for _ in range(3):
            await hub.create(task(hub.lung, ("Beta",), labels=["patients"]))
            await offering.accept()
        await offering.link.cut()


async def test_runs_that_share_files_stay_where_their_job_began(hub: Hub) -> None:
    await second_node(hub)
    first = task(hub.lung, ("Beta",), scratch=Scratch.SCRATCH_JOB)
    later = task(hub.lung, ("Beta",), job_id=first.task_id, scratch=Scratch.SCRATCH_JOB)
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        await hub.create(first)
        await second.accept()
        await hub.until(first, "Beta", "ASSIGNED")
        await second.leave()
    await hub.settled()
    async with attached(hub.server, hub.lung, "Beta", node="beta-1"):
        await hub.create(later)
        assert (await hub.run(later, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
    held = [(first.run_id("Beta"), "RUNNING")]
    async with attached(hub.server, hub.lung, "Beta", node="beta-2", acknowledged=1, held=held) as second:
        assert (await second.accept()).run_id == later.run_id("Beta")


@pytest.mark.both_databases
async def test_a_homeless_job_is_bound_by_the_node_that_takes_it(hub: Hub) -> None:
    await second_node(hub)
    first = task(hub.lung, ("Beta",), scratch=Scratch.SCRATCH_JOB)
    await hub.create(first)
    async with (
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
        attached(hub.server, hub.lung, "Beta", node="beta-1"),
    ):
        assert (await second.accept()).run_id == first.run_id("Beta")
        for _ in range(3):
            later = task(hub.lung, ("Beta",), job_id=first.task_id, scratch=Scratch.SCRATCH_JOB)
            await hub.create(later)
            assert (await second.accept()).run_id == later.run_id("Beta")
