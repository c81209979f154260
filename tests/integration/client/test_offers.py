"""What nodes offer, as users see it: limits, hours, whether people are asked; since when; and whether they take new work."""

import json
from datetime import UTC, datetime, timedelta

from folkmoot.client import Limits
from folkmoot.v1 import link_pb2
from folkmoot.v1.task_pb2 import Isolation, Resources
from tests.integration.client.conftest import Command, Hub
from tests.integration.harness import utc_now
from tests.integration.stub_node import StubNode
from tests.polling import until


def policy() -> link_pb2.PolicySummary:
    usual, large = (
        Resources(memory_bytes=2 << 30, cpu_millis=1000),
        Resources(memory_bytes=64 << 30, resource_class="large"),
    )
    usual.run_time.FromSeconds(5400)
    return link_pb2.PolicySummary(
        labels=["patients", "scans"],
        slots=4,
        isolation=Isolation.ISOLATION_SANDBOX,
        limits=usual,
        resource_classes=[large],
        result_bytes=10 << 20,
        minimum_rows=20,
        approval=link_pb2.APPROVAL_MODE_EVERY_RUN,
        release=link_pb2.RELEASE_MODE_HELD,
        opening_hours=["Mon-Fri 08:00-18:00 Europe/Berlin"],
        runs_per_day=50,
        bytes_out_per_day=1 << 30,
        voted_list=link_pb2.VOTED_LIST_REQUIRED,
    )


async def offered(hub: Hub, beta: StubNode, availability: link_pb2.Availability.ValueType) -> None:
    """Have the node say what it offers, and wait until the server tells it."""
    await beta.attached.wait()
    await beta.send(offer=link_pb2.Offer(policy=policy(), availability=availability, free_slots=3))
    client, before = hub.client("Alpha"), utc_now() - timedelta(minutes=1)

    async def told() -> bool:
        [node] = [one for one in await client.nodes() if one.organization == "Beta"]
        return (
            node.offer is not None
            and node.offer.slots == 4
            and node.offered_at is not None
            and node.offered_at > before
        )

    await until(told)


async def test_what_a_node_offers_is_told_with_its_moment(hub: Hub):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await offered(hub, beta, link_pb2.AVAILABILITY_OPEN)
        alpha, node, _ = await hub.client("Alpha").nodes()
    assert (alpha.offer, alpha.offered_at, alpha.version, alpha.since) == (None, None, "", None)
    assert (node.online, node.availability, node.version) == (True, "open", "0.1.0")
    offer = node.offer
    assert offer is not None
    assert offer.limits == Limits(2 << 30, 1000, timedelta(minutes=90))
    assert [str(one) for one in offer.resource_classes] == ["large: 64 GiB of memory"]
    assert (offer.approval, offer.release, offer.minimum_rows) == ("every run", "held", 20)
    assert (offer.runs_per_day, offer.bytes_out_per_day, offer.voted_list_required) == (50, 1 << 30, True)
    assert dict(offer.lines()) == {
        "data": "patients, scans",
        "runs at a time": "4",
        "a run gets": "2 GiB of memory, 1 processor, 1 h 30 min of running time",
        "class large": "64 GiB of memory",
        "largest result": "10 MiB",
        "rows per read": "at least 20",
        "approval": "a person is asked: every run",
        "results": "a person looks at each before it leaves",
        "opening hours": "Mon-Fri 08:00-18:00 Europe/Berlin",
        "runs per day": "50 of each organization",
        "out per day": "1 GiB for each organization",
        "algorithms": "those that the members have voted for",
        "isolation": "sandbox",
    }


async def test_what_a_node_of_the_first_release_says_reads_well(hub: Hub):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        _, node, _ = await hub.client("Alpha").nodes()
    assert node.offer is not None
    assert dict(node.offer.lines()) == {
        "data": "none",
        "runs at a time": "0",
        "rows per read": "any number",
        "approval": "a person is asked: never",
        "results": "leave by themselves",
        "opening hours": "always",
    }


async def test_a_paused_node_is_shown_as_such_by_the_command(hub: Hub, alpha: Command):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await offered(hub, beta, link_pb2.AVAILABILITY_PAUSED)
        ended = await alpha("node", "list")
        assert "paused" in ended.output, ended
        assert "never seen" in ended.output
        assert "2 GiB of memory, 1 processor" in ended.output
        assert "the server says" in ended.output
        ended = await alpha("node", "list", "--organization", "Beta", "--details")
        assert "alpha-1" not in ended.output
        assert "Mon-Fri 08:00-18:00 Europe/Berlin" in ended.output
        assert "as it said at" in ended.output
        [row] = json.loads((await alpha("node", "list", "-o", "Beta", "--json")).output)
        assert (row["availability"], row["offer"]["minimum_rows"]) == ("paused", 20)
        assert datetime.fromisoformat(row["offered_at"]).astimezone(UTC) <= utc_now()
        assert "server_says" in row


async def test_times_that_no_calendar_has_are_none(hub: Hub):
    """A node says what it likes, and the server passes it on."""
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        strange = policy()
        strange.limits.run_time.seconds = 10**18
        strange.slots = 5
        await beta.send(offer=link_pb2.Offer(policy=strange))
        client = hub.client("Alpha")

        async def told() -> bool:
            return [one.offer.slots for one in await client.nodes() if one.offer] == [5]

        await until(told)
        _, node, _ = await client.nodes()
    assert node.offer is not None
    assert node.offer.limits.run_time is None
