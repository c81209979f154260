"""Asked before anything is created: what each node would do with a task, in words, and with the exit code."""

import asyncio
from typing import Any

import pytest

from folkmoot.client import FolkmootError, Forecast, Subtasks
from folkmoot.server.nodes import checks
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import link_pb2
from folkmoot.v1.task_pb2 import Resources, Waiting, WaitReason
from tests.integration.client.conftest import Command, Hub
from tests.integration.stub_node import StubNode

IMAGE = "process:examples.average"
ASKED: dict[str, Any] = {
    "image": IMAGE,
    "function": "average",
    "organizations": ["Beta", "Gamma"],
    "labels": ["patients"],
}


def limits() -> Resources:
    told = Resources(memory_bytes=2 << 30, cpu_millis=1500)
    told.run_time.FromSeconds(600)
    return told


ACCEPTED = {
    "forecast": link_pb2.FORECAST_ACCEPTED,
    "rule": "allow[0]",
    "limits": limits(),
    "result_bytes": 1 << 20,
    "minimum_rows": 10,
    "approval": link_pb2.APPROVAL_MODE_FIRST_USE,
    "release": link_pb2.RELEASE_MODE_HELD,
    "waiting": Waiting(reason=WaitReason.WAIT_REASON_OPENING_HOURS, detail="Mon-Fri 08:00-18:00 Europe/Berlin"),
}
REFUSED = {
    "forecast": link_pb2.FORECAST_REFUSED,
    "reason": reasons.ERROR_REASON_FUNCTION_NOT_ALLOWED,
    "rule": "allow[0].functions",
}


async def test_each_node_says_what_it_would_do(hub: Hub):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        beta.verdict = ACCEPTED
        of_beta, of_gamma = await hub.client("Alpha").tasks.check(**ASKED)
    assert (of_beta.forecast, of_beta.node, of_beta.rule) == (Forecast.ACCEPTED, "beta-1", "allow[0]")
    assert str(of_beta) == (
        "Beta would accept (allow[0]); gives 2 GiB of memory, 1.5 processors, 10 min of running time; results of at most 1 MiB; "
        "reads of at least 10 rows; a person approves (first use); a person looks at the result before it leaves; "
        "it waits for the station's opening hours (Mon-Fri 08:00-18:00 Europe/Berlin)"
    )
    assert of_gamma.forecast is Forecast.UNREACHABLE
    assert str(of_gamma) == "Gamma can't be asked: no node of it is connected"
    [(check, function, arguments)] = beta.asked
    assert (function, arguments) == ("average", {})
    assert check.run_id


async def test_refusal_names_rule_and_reason(hub: Hub):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        beta.verdict = REFUSED
        [of_beta] = await hub.client("Alpha").tasks.check(**ASKED | {"organizations": ["Beta"]})
    assert of_beta.refused
    assert of_beta.reason == "FUNCTION_NOT_ALLOWED"
    assert str(of_beta).startswith("Beta would refuse: allow[0].functions (FUNCTION_NOT_ALLOWED). ")


async def test_node_that_does_not_answer_is_undecided(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "ANSWER_SECONDS", 0.05)
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        [of_beta] = await hub.client("Alpha").tasks.check(**ASKED | {"organizations": ["Beta"]})
    assert of_beta.forecast is Forecast.UNDECIDED


async def test_nothing_is_created_and_arguments_stay_here(hub: Hub):
    client = hub.client("Alpha")
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        await beta.attached.wait()
        beta.verdict = ACCEPTED
        await client.tasks.check(
            **ASKED | {"organizations": ["Beta"]},
            arguments={"column": "age", "data": bytes(1 << 20)},
            subtasks=Subtasks(number=3),
            messages=True,
            scratch=True,
        )
        [(_, _, arguments)] = beta.asked
        assert arguments == {}
    assert await client.tasks.list() == ()


async def test_check_refuses_here_what_create_refuses(hub: Hub):
    with pytest.raises(FolkmootError) as refused:
        await hub.client("Alpha").tasks.check(**ASKED | {"organizations": ["Omega"]})
    assert refused.value.reason == reasons.ERROR_REASON_ORGANIZATION_NOT_FOUND
    with pytest.raises(FolkmootError) as refused:
        await hub.client("Alpha").tasks.check(**ASKED | {"image": "process:no.such.module"})
    assert refused.value.reason == reasons.ERROR_REASON_IMAGE_NOT_FOUND


async def test_command_tells_and_its_exit_code_says_whether_anybody_refuses(hub: Hub, alpha: Command):
    async with StubNode(hub.server, hub.lung, "Beta") as beta, StubNode(hub.server, hub.lung, "Gamma") as gamma:
        await asyncio.gather(beta.attached.wait(), gamma.attached.wait())
        beta.verdict = gamma.verdict = ACCEPTED
        command = ("task", "check", IMAGE, "average", "-o", "Beta", "-o", "Gamma", "-a", "column=age", "-l", "patients")
        ended = await alpha(*command)
        assert ended.code == 0, ended
        assert "would accept (allow[0])" in ended.output
        gamma.verdict = REFUSED
        ended = await alpha(*command)
        assert ended.code == 9, ended
        assert "allow[0].functions" in ended.output
        ended = await alpha(*command, "--json")
        assert '"reason": "FUNCTION_NOT_ALLOWED"' in ended.output
