"""Questions whether a task would be accepted: asked of the nodes that are there, answered for the rest, and nothing is created."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from folkmoot.server.nodes import checks
from folkmoot.trust import TaskNotProven, sign_check, verify_check, verify_task
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Forecast, Verdict
from folkmoot.v1.task_pb2 import Grant, TaskChain
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Station, Stream, attached
from tests.integration.server.sealed import SealedTask, task
from tests.polling import until

ACCEPTED, REFUSED = Forecast.FORECAST_ACCEPTED, Forecast.FORECAST_REFUSED
UNREACHABLE, UNDECIDED = Forecast.FORECAST_UNREACHABLE, Forecast.FORECAST_UNDECIDED


def question(hub: Hub, receivers: Iterable[str] = ("Beta", "Gamma"), **changes: Any) -> SealedTask:
    """A task that only asks, by Alpha."""
    sealed = task(hub.lung, receivers, **changes)
    spec = sealed.spec
    spec.expires_at.CopyFrom(spec.created_at)
    signed = sign_check(spec, hub.lung["Alpha"].organization_key.task_signing)
    return SealedTask(hub.lung, TaskChain(specs=[signed]), sealed.envelope)


def request(asked: SealedTask) -> pb.CheckTaskRequest:
    return pb.CheckTaskRequest(chain=asked.chain, envelopes=[asked.envelope])


def ask(hub: Hub, asked: SealedTask) -> "asyncio.Task[list[Verdict]]":
    async def call() -> list[Verdict]:
        answer = await hub.tasks.CheckTask(request(asked), metadata=hub.ada)
        return list(answer.verdicts)

    return asyncio.create_task(call())


async def answer(station: Station, **verdict: Any) -> link.Check:
    """Answer the next question, as the node of the station."""
    check: link.Check = await station.next("check")
    await station.send(checked=link.Checked(check_id=check.check_id, verdict=Verdict(**verdict)))
    return check


class CheckConformance:
    """What both forms of the link promise."""

    form: type[Any]

    async def test_every_node_that_is_there_is_asked_and_the_others_are_answered_for(self, hub: Hub) -> None:
        asked = question(hub)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            asking = ask(hub, asked)
            check = await answer(
                beta, forecast=REFUSED, reason=ErrorReason.ERROR_REASON_FUNCTION_NOT_ALLOWED, rule="allow[0].functions"
            )
            assert (check.run_id, check.input_envelope) == (asked.run_id("Beta"), asked.envelope)
            assert verify_check(check.chain, hub.lung.state, now=hub.lung.now).digest == asked.digest
            of_beta, of_gamma = await asking
        assert (of_beta.forecast, of_beta.rule) == (REFUSED, "allow[0].functions")
        assert of_beta.run_id == asked.run_id("Beta")
        assert of_beta.node_id == hub.lung["Beta"].nodes["beta-1"].fingerprint
        assert (of_gamma.forecast, of_gamma.node_id) == (UNREACHABLE, "")
        assert of_gamma.organization_id == hub.lung["Gamma"].address

    async def test_a_node_that_does_not_know_the_question_leaves_it_undecided(
        self, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.05)
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            [of_beta] = await ask(hub, question(hub, ("Beta",)))
            assert of_beta.forecast == UNDECIDED
            await beta.next("check")
            sealed = task(hub.lung, ("Beta",))
            await hub.create(sealed)
            assert (await beta.accept()).run_id == sealed.run_id("Beta")

    async def test_a_question_is_no_delivery(self, hub: Hub) -> None:
        sealed = task(hub.lung, ("Beta",))
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            asking = ask(hub, question(hub, ("Beta",)))
            await answer(beta, forecast=ACCEPTED)
            await asking
            await hub.create(sealed)
            await beta.accept()
            assert [frame.sequence for frame in beta.told] == [0, 1]

    async def test_offer_replaces_what_hello_said(self, hub: Hub) -> None:
        async with attached(hub.server, hub.lung, "Beta", form=self.form) as beta:
            policy = link.PolicySummary(labels=["patients"], minimum_rows=10, runs_per_day=3)
            offer = link.Offer(policy=policy, availability=link.AVAILABILITY_PAUSED, free_slots=2)
            await beta.send(offer=offer)
            asking = ask(hub, question(hub, ("Beta",)))  # What is answered behind it shows that it was handled.
            await answer(beta, forecast=ACCEPTED)
            await asking
            await hub.settled()
        listed = await hub.server.admin.ListNodes(admin.ListNodesRequest(genesis=hub.lung.genesis), metadata=hub.ada)
        [node] = [each for each in listed.nodes if each.name == "beta-1"]
        assert (node.policy, node.availability, node.version) == (policy, link.AVAILABILITY_PAUSED, "0.1.0")
        assert node.HasField("offered_at")
        [other] = [each for each in listed.nodes if each.name == "gamma-1"]
        assert not other.HasField("policy")
        assert not other.HasField("offered_at")


class TestStream(CheckConformance):
    """Attach."""

    form = Stream


class TestExchange(CheckConformance):
    """Exchange."""

    form = Poll


# ---- nothing comes of it -----------------------------------------------------------------------------------------------


async def test_a_question_leaves_one_event_and_nothing_else(hub: Hub) -> None:
    asked = question(hub, ("Beta",))
    await ask(hub, asked)
    [event] = await hub.server.events("task.check")
    assert asked.digest.hex() in event.data
    missing = hub.tasks.GetTask(pb.GetTaskRequest(task_id=asked.task_id), metadata=hub.ada)
    assert reason(await refused(missing)) == "TASK_NOT_FOUND"
    async with attached(hub.server, hub.lung, "Beta") as beta:
        sealed = task(hub.lung, ("Beta",))
        await hub.create(sealed)
        assert (await beta.accept()).run_id == sealed.run_id("Beta")


async def test_a_question_can_not_be_turned_into_a_task(hub: Hub) -> None:
    asked = question(hub, ("Beta",))
    assert reason(await refused(hub.create(asked))) == "MALFORMED"
    with pytest.raises(TaskNotProven):
        verify_task(asked.chain, hub.lung.state, now=hub.lung.now)


async def test_a_task_is_not_asked_about_in_place_of_a_question(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    call = hub.tasks.CheckTask(request(sealed), metadata=hub.ada)
    assert reason(await refused(call)) == "MALFORMED"


# ---- who asks, and what ------------------------------------------------------------------------------------------------


async def test_nobody_asks_in_another_ones_name(hub: Hub) -> None:
    call = hub.tasks.CheckTask(request(question(hub)), metadata=hub.researchers["Beta"].metadata)
    assert reason(await refused(call)) == "NOT_ALLOWED"


async def test_viewer_asks_nothing(hub: Hub) -> None:
    account = hub.admins["Alpha"].organization_account_id
    viewer = await hub.server.user("viewer@alpha", account, ["Viewer"])
    call = hub.tasks.CheckTask(request(question(hub)), metadata=viewer.metadata)
    assert reason(await refused(call)) == "NOT_ALLOWED"


async def test_an_altered_question_is_refused(hub: Hub) -> None:
    asked = question(hub)
    asked.chain.specs[0].signature = bytes(64)
    assert reason(await refused(hub.tasks.CheckTask(request(asked), metadata=hub.ada))) == "SIGNATURE_INVALID"


async def test_a_question_without_its_input_is_refused(hub: Hub) -> None:
    call = hub.tasks.CheckTask(pb.CheckTaskRequest(chain=question(hub).chain), metadata=hub.ada)
    assert reason(await refused(call)) == "MALFORMED"


async def test_a_node_asks_only_for_runs_that_it_holds(hub: Hub) -> None:
    above = task(hub.lung, ("Beta",), grant=Grant(subtask_depth=1, subtask_number=2))
    below = task(hub.lung, ("Gamma",), parent=(above, "Beta"))
    spec = below.spec
    spec.expires_at.CopyFrom(spec.created_at)
    signed = sign_check(spec, hub.lung["Beta"].nodes["beta-1"])
    asked = SealedTask(hub.lung, TaskChain(specs=[*above.chain.specs, signed]), below.envelope)
    node = await hub.node("Beta")
    assert reason(await refused(hub.tasks.CheckTask(request(asked), metadata=node))) == "TASK_NOT_FOUND"
    await hub.create(above)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        [of_gamma] = (await hub.tasks.CheckTask(request(asked), metadata=node)).verdicts
    assert of_gamma.forecast == UNREACHABLE


async def test_who_asks_without_end_is_told_to_wait(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MOST_PER_MINUTE", 2)
    hub.clock.ahead -= timedelta(seconds=hub.clock().second)  # So that the minute is not over in between.
    hub.lung.now = hub.clock()
    for _ in range(2):
        await ask(hub, question(hub))
    error = await refused(hub.tasks.CheckTask(request(question(hub)), metadata=hub.ada))
    assert reason(error) == "TOO_MANY"
    assert int(error.metadata["retry_after_seconds"]) in range(1, 61)
    hub.clock.ahead += timedelta(minutes=1)
    hub.lung.now = hub.clock()
    await ask(hub, question(hub))


# ---- who answers -------------------------------------------------------------------------------------------------------


async def test_a_node_that_leaves_in_between_is_unreachable_at_once(hub: Hub) -> None:
    async with attached(hub.server, hub.lung, "Beta") as beta:
        asking = ask(hub, question(hub, ("Beta",)))
        await beta.next("check")
        await beta.leave()
        [of_beta] = await asking
    assert of_beta.forecast == UNREACHABLE


async def test_a_node_answers_for_nobody_but_itself(hub: Hub) -> None:
    asked = question(hub)
    async with (
        attached(hub.server, hub.lung, "Beta") as beta,
        attached(hub.server, hub.lung, "Gamma") as gamma,
    ):
        asking = ask(hub, asked)
        to_beta, to_gamma = await beta.next("check"), await gamma.next("check")
        forged = Verdict(forecast=ACCEPTED, run_id=asked.run_id("Gamma"), organization_id=hub.lung["Gamma"].address)
        await beta.send(checked=link.Checked(check_id=to_gamma.check_id, verdict=forged))
        await beta.send(checked=link.Checked(check_id=to_beta.check_id, verdict=forged))
        await gamma.send(checked=link.Checked(check_id=to_gamma.check_id, verdict=Verdict(forecast=REFUSED)))
        of_beta, of_gamma = await asking
    assert (of_beta.run_id, of_beta.organization_id) == (asked.run_id("Beta"), hub.lung["Beta"].address)
    assert of_gamma.forecast == REFUSED


async def offered(hub: Hub, name: str, label: str) -> bool:
    listed = await hub.server.admin.ListNodes(admin.ListNodesRequest(genesis=hub.lung.genesis), metadata=hub.ada)
    return any(node.name == name and label in node.policy.labels for node in listed.nodes)


async def test_of_several_nodes_the_one_is_asked_that_would_get_the_run(hub: Hub) -> None:
    hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.admins["Beta"])
    async with (
        attached(hub.server, hub.lung, "Beta") as first,
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
    ):
        await first.send(offer=link.Offer(free_slots=9))
        await second.send(offer=link.Offer(policy=link.PolicySummary(labels=["patients"], slots=1)))
        await until(lambda: offered(hub, "beta-2", "patients"))
        asking = ask(hub, question(hub, ("Beta",), labels=["patients"]))
        await answer(second, forecast=ACCEPTED)
        [of_beta] = await asking
    assert of_beta.node_id == hub.lung["Beta"].nodes["beta-2"].fingerprint


async def test_an_answer_without_a_forecast_is_undecided(hub: Hub) -> None:
    async with attached(hub.server, hub.lung, "Beta") as beta:
        asking = ask(hub, question(hub, ("Beta",)))
        await answer(beta, rule="allow[0]")
        [of_beta] = await asking
    assert of_beta.forecast == UNDECIDED


async def test_an_answer_that_nobody_waits_for_changes_nothing(hub: Hub) -> None:
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.send(checked=link.Checked(check_id="nobody's", verdict=Verdict(forecast=ACCEPTED)))
        asking = ask(hub, question(hub, ("Beta",)))
        await answer(beta, forecast=ACCEPTED)
        [of_beta] = await asking
    assert of_beta.forecast == ACCEPTED
