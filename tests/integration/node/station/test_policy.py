"""The data owner's policy on the whole path: what it refuses, with its rule in the signed receipt; what waits; what researchers see of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from click.testing import CliRunner

from folkmoot.client import AsyncClient, AsyncTask, Proof, Resources, Result, RunState, Subtasks
from folkmoot.node.app import RunningNode
from folkmoot.node.cli import node as commands
from folkmoot.node.journal import records
from folkmoot.trust import dump_signing_key
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import IMAGE, ask, only
from tests.polling import until

RULE = """
[[allow]]
images = ["process:examples.*"]
initiators = ["Alpha"]
labels = ["patients"]
"""
POLICY = 'runtimes = ["process"]\n' + RULE


async def answer(algorithm: Algorithm) -> None:
    await algorithm.result(algorithm.arguments.get("text", 1))


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine({"answer": answer, "other": answer})
    yield made
    await made.close()


def put_in_force(node: RunningNode, policy: str) -> None:
    """What `kill -HUP` does after the data owner has written another policy."""
    node.stations[0].station.config.policy.write_text(policy)
    node.reload_policies()


def refusal(result: Result) -> tuple[str, str]:
    """Why a run was refused, as its node signed it."""
    assert (result.state, result.proven) == (RunState.REFUSED, Proof.PROVEN)
    assert result.receipt is not None
    return ErrorReason.Name(result.receipt.reason).removeprefix("ERROR_REASON_"), result.receipt.rule


def at_night() -> str:
    """Opening hours that begin in six hours or more."""
    closed = datetime.now(UTC) + timedelta(hours=6)
    return f'opening_hours = ["Mon-Sun {closed:%H}:00-{closed:%H}:30"]\n'


def voters(hub: Hub) -> dict[str, AsyncClient]:
    """Clients of two members who may vote: that is enough of three."""
    members = {}
    for name in ("Alpha", "Gamma"):
        key = hub.folder / f"governance-{name}.pem"
        key.write_bytes(dump_signing_key(hub.lung[name].governance_key))
        members[name] = hub.client(name, governance_key=key)
    return members


async def why(task: AsyncTask) -> str:
    return " ".join(str(reason) for reason in await task.why())


@pytest.mark.parametrize(
    ("policy", "changes", "expected"),
    [
        ('runtimes = ["container"]\n' + RULE, {}, ("RUNTIME_NOT_ALLOWED", "runtimes")),
        (POLICY.replace("examples", "other"), {}, ("IMAGE_NOT_ALLOWED", "allow[0].images")),
        (POLICY.replace("Alpha", "Beta"), {}, ("INITIATOR_NOT_ALLOWED", "allow[0].initiators")),
        (POLICY + 'users = ["Beta/*"]', {}, ("INITIATOR_NOT_ALLOWED", "allow[0].users")),
        (POLICY.replace("patients", "staff"), {}, ("LABEL_NOT_ALLOWED", "allow[0].labels")),
        (POLICY, {"labels": ["cars"]}, ("LABEL_NOT_ALLOWED", "data")),
        (POLICY + 'functions = ["other"]', {}, ("FUNCTION_NOT_ALLOWED", "allow[0].functions")),
        (POLICY, {"messages": True}, ("MESSAGES_NOT_ALLOWED", "allow[0].messages")),
        (POLICY, {"subtasks": Subtasks(depth=1, number=1)}, ("SUBTASK_NOT_ALLOWED", "allow[0].subtasks")),
        (
            POLICY + RULE + "messages = true",
            {"subtasks": Subtasks(depth=1, number=1)},
            ("SUBTASK_NOT_ALLOWED", "allow[0,1].subtasks"),
        ),
        ('voted_list = "required"\n' + POLICY, {}, ("ALGORITHM_NOT_VOTED", "voted_list")),
        (
            POLICY,
            {"resources": Resources(memory_bytes=4 << 30)},
            ("RESOURCES_NOT_ALLOWED", "limits.memory_bytes"),
        ),
        (
            POLICY + "[resource_classes.large]",
            {"resources": Resources(resource_class="large")},
            ("RESOURCES_NOT_ALLOWED", "allow[0].resource_classes"),
        ),
    ],
)
async def test_a_refusal_names_its_rule_before_and_afterwards(
    hub: Hub,
    stations: Stations,
    engine: Engine,
    policy: str,
    changes: dict[str, Any],
    expected: tuple[str, str],
):
    task: dict[str, Any] = {
        "image": IMAGE,
        "function": "answer",
        "organizations": ["Beta"],
        "labels": ["patients"],
        **changes,
    }
    async with stations.station("Beta", engine=engine, policy=policy):
        [verdict] = await hub.client("Alpha").tasks.check(**task)
        result = await only(await hub.client("Alpha").tasks.create(**task))
    assert refusal(result) == expected
    assert (verdict.reason, verdict.rule) == expected
    assert engine.started == []


@pytest.mark.parametrize(
    ("initiators", "accepted"), [('["Alpha", "Beta"]', True), ('["Beta"]', False), ('["Alpha"]', False)]
)
async def test_a_subtask_is_of_every_organization_of_its_chain(
    hub: Hub, stations: Stations, initiators: str, accepted: bool
):
    async def central(algorithm: Algorithm) -> None:
        task_id = await algorithm.subtask("answer", key="one", organizations=["Gamma"])
        try:
            values = [value async for value in algorithm.results(task_id)]
        except Exception as error:  # noqa: BLE001 - whatever the proxy says
            values = [str(error)]
        await algorithm.result(values)

    at_beta, at_gamma = Engine({"central": central}), Engine({"answer": answer})
    gammas = POLICY.replace('["Alpha"]', initiators)
    async with (
        stations.station("Beta", engine=at_beta, policy=POLICY + "subtasks = true"),
        stations.station("Gamma", engine=at_gamma, policy=gammas) as gamma,
    ):
        await only(await ask(hub, "Beta", function="central", subtasks=Subtasks(depth=1, number=1)))
        [record] = await gamma.stations[0].station.journal.transact(partial(records.recent_runs, number=10))
    receipt = Receipt.FromString(Signed.FromString(record.receipt).body)
    expected = (RunState.COMPLETED, "") if accepted else (RunState.REFUSED, "allow[0].initiators")
    assert (task_pb2.RunState.Name(receipt.outcome).removeprefix("RUN_STATE_"), receipt.rule) == (
        expected[0].name,
        expected[1],
    )
    assert len(at_gamma.started) == accepted
    assert record.initiator_id == hub.lung["Alpha"].address
    await at_beta.close()
    await at_gamma.close()


async def test_what_is_accepted_gets_what_the_policy_gives(hub: Hub, stations: Stations, engine: Engine):
    policy = POLICY + (
        'resource_classes = ["large"]\nminimum_rows = 2\n[limits]\npids = 7\n'
        "[resource_classes.large]\nmemory_bytes = 3221225472\nscratch_bytes = 5\ntemporary_bytes = 6\n"
    )
    given: list[int] = []

    async def look(algorithm: Algorithm) -> None:
        given.append(algorithm.context.minimum_rows)
        await algorithm.result(1)

    engine.functions = {"answer": look}
    async with stations.station("Beta", engine=engine, policy=policy):
        task: dict[str, Any] = {"image": IMAGE, "function": "answer", "organizations": ["Beta"], "labels": ["patients"]}
        [verdict] = await hub.client("Alpha").tasks.check(**task, resources=Resources(resource_class="large"))
        assert (await only(await ask(hub, "Beta", resources=Resources(resource_class="large")))).value == 1
    [started] = engine.started
    limits = started.limits
    assert (limits.memory_bytes, limits.pids, limits.scratch_bytes, limits.temporary_bytes) == (3 << 30, 7, 5, 6)
    assert given == [2]
    assert (verdict.limits.memory_bytes, verdict.minimum_rows) == (3 << 30, 2)


async def test_runs_wait_for_opening_hours_and_start_when_the_policy_opens(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine, policy=at_night() + POLICY) as node:
        [verdict] = await hub.client("Alpha").tasks.check(
            image=IMAGE, function="answer", organizations=["Beta"], labels=["patients"]
        )
        assert "opens" in verdict.waiting
        task = await ask(hub, "Beta")

        async def waits() -> bool:
            return "opens" in await why(task)

        await until(waits)
        assert engine.started == []
        put_in_force(node, POLICY)
        assert (await only(task)).value == 1


async def test_running_runs_go_on_when_the_station_closes(hub: Hub, stations: Stations, engine: Engine):
    computing, go_on = asyncio.Event(), asyncio.Event()

    async def slow(algorithm: Algorithm) -> None:
        computing.set()
        await go_on.wait()
        await algorithm.result("in time")

    engine.functions = {"answer": slow}
    async with stations.station("Beta", engine=engine, policy=POLICY) as node:
        task = await ask(hub, "Beta")
        await asyncio.wait_for(computing.wait(), 30)
        put_in_force(node, at_night() + POLICY)
        go_on.set()
        assert (await only(task)).value == "in time"


async def test_a_policy_that_can_not_be_read_leaves_what_was_in_force_while_runs_wait(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine, policy=at_night() + POLICY) as node:
        task = await ask(hub, "Beta")

        async def waits() -> bool:
            return "opens" in await why(task)

        await until(waits)
        policy_file = node.stations[0].station.policy_file
        before = policy_file.digest
        put_in_force(node, 'runtimes = ["vm"]')
        assert policy_file.digest == before
        assert await waits()
        put_in_force(node, POLICY + 'functions = ["other"]')
        result = await only(task)
        assert refusal(result) == ("FUNCTION_NOT_ALLOWED", "allow[0].functions")
        assert result.receipt is not None
        assert result.receipt.policy_digest == policy_file.digest
    assert engine.started == []


async def test_a_node_that_restarts_at_night_still_waits(hub: Hub, stations: Stations, engine: Engine):
    async with stations.station("Beta", engine=engine, policy=at_night() + POLICY):
        task = await ask(hub, "Beta")

        async def waits() -> bool:
            return "opens" in await why(task)

        await until(waits)
    async with stations.station("Beta", engine=engine, policy=POLICY):
        assert (await only(task)).value == 1
    assert len(engine.started) == 1


async def test_the_run_quota_holds_over_a_restart_and_counts_for_the_roots_organization(
    hub: Hub, stations: Stations, engine: Engine
):
    policy = POLICY.replace('["Alpha"]', '["*"]') + "[quotas]\nruns_per_day = 2\n"
    async with stations.station("Beta", engine=engine, policy=policy):
        tasks = [await ask(hub, "Beta") for _ in range(3)]
        results = [await only(task) for task in tasks]
    assert sorted(result.state for result in results) == [RunState.COMPLETED, RunState.COMPLETED, RunState.REFUSED]
    async with stations.station("Beta", engine=engine, policy=policy):
        [verdict] = await hub.client("Alpha").tasks.check(
            image=IMAGE, function="answer", organizations=["Beta"], labels=["patients"]
        )
        reason, rule = refusal(await only(await ask(hub, "Beta")))
        other = await hub.client("Gamma").tasks.create(
            image=IMAGE, function="answer", organizations=["Beta"], labels=["patients"]
        )
        assert (await only(other)).value == 1
    assert reason == verdict.reason == "QUOTA_EXCEEDED"
    assert rule.startswith("quotas.runs_per_day (until 20")


async def test_explaining_beside_the_node_says_what_the_node_says(hub: Hub, stations: Stations, engine: Engine):
    policy = (
        'voted_list = "required"\n' + POLICY.replace('["Alpha"]', '["Alpha", "Beta"]') + "[quotas]\nruns_per_day = 1\n"
    )
    config = stations.configure("Beta", policy=policy)

    async def explained(*, image: str = IMAGE, initiator: str = "Alpha") -> dict[str, Any]:
        asked = ["--image", image, "--function", "answer", "-l", "patients", "--initiator", initiator, "--json"]
        ended = await asyncio.to_thread(CliRunner().invoke, commands, ["policy", "explain", str(config), *asked])
        told: dict[str, Any] = json.loads(ended.stdout)
        return told

    async with stations.station("Beta", engine=engine, policy=policy):
        assert (await explained())["reason"] == "ALGORITHM_NOT_VOTED"
        members = voters(hub)
        proposal = await members["Alpha"].algorithms.propose("process:examples.*")
        await members["Gamma"].algorithms.vote(proposal.id, approve=True)
        assert (await only(await ask(hub, "Beta"))).value == 1
        used_up = await explained()
        assert (await explained(initiator="Beta"))["accepted"]
        assert (await explained(initiator="Gamma"))["rule"] == "allow[0].initiators"
        [verdict] = await hub.client("Alpha").tasks.check(
            image=IMAGE, function="answer", organizations=["Beta"], labels=["patients"]
        )
    assert (used_up["reason"], used_up["rule"]) == (verdict.reason, verdict.rule)
    assert used_up["reason"] == "QUOTA_EXCEEDED"
    assert used_up["notes"] == []


async def test_a_result_that_would_be_too_much_for_the_day_is_refused_and_a_smaller_one_leaves(
    hub: Hub, stations: Stations, engine: Engine
):
    told: list[str] = []

    async def greedy(algorithm: Algorithm) -> None:
        try:
            await algorithm.write("application/json", b'"' + b"x" * 200_000 + b'"')
        except Exception as error:  # noqa: BLE001 - whatever the proxy says
            told.append(str(error))
        await algorithm.result("small")

    engine.functions = {"answer": greedy}
    policy = POLICY + "[quotas]\nbytes_out_per_day = 100000\n"
    async with stations.station("Beta", engine=engine, policy=policy) as node:
        assert (await only(await ask(hub, "Beta"))).value == "small"
        put_in_force(node, POLICY + "[quotas]\nbytes_out_per_day = 100\n")
        reason, rule = refusal(await only(await ask(hub, "Beta")))
    assert "QUOTA_EXCEEDED" in told[0]
    assert "make it smaller, or try again after" in told[0]
    assert reason == "QUOTA_EXCEEDED"
    assert rule.startswith("quotas.bytes_out_per_day")


async def test_an_image_runs_once_the_members_have_voted_for_it(hub: Hub, stations: Stations, engine: Engine):
    async with stations.station("Beta", engine=engine, policy='voted_list = "required"\n' + POLICY):
        assert refusal(await only(await ask(hub, "Beta"))) == ("ALGORITHM_NOT_VOTED", "voted_list")
        members = voters(hub)
        proposal = await members["Alpha"].algorithms.propose(
            "process:examples.*", functions=["answer"], labels=["patients"]
        )
        await members["Gamma"].algorithms.vote(proposal.id, approve=True)
        assert (await only(await ask(hub, "Beta"))).value == 1
        assert refusal(await only(await ask(hub, "Beta", function="other"))) == ("ALGORITHM_NOT_VOTED", "voted_list")
        await members["Alpha"].algorithms.revoke(proposal.id)
        assert refusal(await only(await ask(hub, "Beta"))) == ("ALGORITHM_NOT_VOTED", "voted_list")


async def test_researchers_see_the_policy_and_its_changes(hub: Hub, stations: Stations, engine: Engine):
    client = hub.client("Alpha")

    async def shown() -> Any:
        [node] = [each for each in await client.nodes() if each.organization == "Beta"]
        return node.offer

    policy = POLICY + "[limits]\nmemory_bytes = 2097152\n[quotas]\nruns_per_day = 5\n"
    async with stations.station("Beta", engine=engine, policy=policy) as node:
        offer = await shown()
        assert (offer.runs_per_day, offer.limits.memory_bytes) == (5, 2 << 20)
        put_in_force(node, 'voted_list = "required"\nminimum_rows = 9\n' + at_night() + POLICY)

        async def changed() -> bool:
            return bool((await shown()).minimum_rows == 9)

        await until(changed)
        assert (await shown()).opening_hours[0].endswith("UTC")
