"""Questions whether a task would be accepted: judged like a task, journaled nowhere, and never more of them than a node can bear."""

from datetime import timedelta
from typing import Any

import pytest

from folkmoot.node.journal import records
from folkmoot.node.link.questions import MOST_AT_ONCE, MOST_PER_MINUTE, Questions, forecast
from folkmoot.trust import TaskNotProven, sign_check, verify_check, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign, Availability, Check, Forecast, NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import RunState, TaskChain, WaitReason
from tests.builders import World
from tests.unit.node.assignments import content, sealed_task
from tests.unit.node.conftest import POLICY, MakeStation
from tests.unit.node.test_intake import receipt_of, take

LIMITED = POLICY + "[quotas]\nruns_per_day = 1\n[limits]\nmemory_bytes = 2097152\n"


def question(lung: World, *, function: str = "mean", asks: bool = True, **changes: Any) -> Check:
    spec, _, envelope = sealed_task(lung, data=content(function), **changes)
    spec.expires_at.CopyFrom(spec.created_at)
    signed = sign_check(spec, lung["Alpha"].organization_key.task_signing)
    [receiver] = spec.receivers
    return Check(
        check_id="a question",
        run_id=receiver.run_id,
        chain=TaskChain(specs=[signed]),
        input_envelope=envelope if asks else b"",
    )


async def test_what_would_be_accepted_is_told_with_what_it_would_be_given(lung: World, make_station: MakeStation):
    station = make_station(policy=LIMITED)
    verdict = await forecast(station, question(lung))
    assert (verdict.forecast, verdict.rule) == (Forecast.FORECAST_ACCEPTED, "allow[0]")
    assert verdict.limits.memory_bytes == 2 << 20
    assert not verdict.HasField("waiting")


@pytest.mark.parametrize(
    ("policy", "changes", "reason", "rule"),
    [
        (POLICY, {"labels": ["cars"]}, ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data"),
        (
            POLICY.replace("subtasks", 'functions = ["sum"]\nsubtasks'),
            {},
            ErrorReason.ERROR_REASON_FUNCTION_NOT_ALLOWED,
            "allow[0].functions",
        ),
        (
            'voted_list = "required"\n' + POLICY,
            {},
            ErrorReason.ERROR_REASON_ALGORITHM_NOT_VOTED,
            "voted_list",
        ),
    ],
)
async def test_what_would_be_refused_is_told_with_the_rule(
    lung: World,
    make_station: MakeStation,
    policy: str,
    changes: dict[str, Any],
    reason: ErrorReason.ValueType,
    rule: str,
):
    verdict = await forecast(make_station(policy=policy), question(lung, **changes))
    assert (verdict.forecast, verdict.reason, verdict.rule) == (Forecast.FORECAST_REFUSED, reason, rule)


async def test_functions_are_weighed_only_where_the_question_names_one(lung: World, make_station: MakeStation):
    station = make_station(policy=POLICY.replace("subtasks", 'functions = ["sum"]\nsubtasks'))
    assert (await forecast(station, question(lung, asks=False))).forecast == Forecast.FORECAST_ACCEPTED


async def test_what_it_would_wait_for_is_told(lung: World, make_station: MakeStation):
    station = make_station(policy='opening_hours = ["Sun 08:00-09:00"]\n' + POLICY)
    verdict = await forecast(station, question(lung))
    assert verdict.waiting.reason == WaitReason.WAIT_REASON_OPENING_HOURS
    assert verdict.waiting.detail == "opens Sun 2026-11-22 08:00 UTC"
    station.availability = Availability.AVAILABILITY_PAUSED
    assert (await forecast(station, question(lung))).waiting.reason == WaitReason.WAIT_REASON_PAUSED


async def test_a_question_of_somebody_else_or_an_old_one_is_refused(lung: World, make_station: MakeStation):
    station = make_station()
    asked = question(lung)
    asked.chain.specs[0].body = asked.chain.specs[0].body + b"x"
    assert (await forecast(station, asked)).reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
    swapped = question(lung)
    swapped.input_envelope = question(lung).input_envelope
    assert (await forecast(station, swapped)).reason == ErrorReason.ERROR_REASON_INPUT_REJECTED
    old = question(lung)
    station.now = lambda: lung.now + timedelta(minutes=6)
    assert (await forecast(station, old)).reason == ErrorReason.ERROR_REASON_TASK_EXPIRED


async def test_a_question_is_journaled_nowhere_and_uses_no_quota(lung: World, make_station: MakeStation):
    station = make_station(policy=LIMITED)
    for _ in range(3):
        assert (await forecast(station, question(lung))).forecast == Forecast.FORECAST_ACCEPTED
    assert await station.journal.transact(lambda connection: records.recent_runs(connection, 10)) == []


async def test_a_question_that_a_lying_server_assigns_is_never_executed(lung: World, make_station: MakeStation):
    station, asked = make_station(), question(lung)
    given = Assign(run_id=asked.run_id, attempt=1, chain=asked.chain, input_envelope=asked.input_envelope)
    await take(station, ServerFrame(sequence=1, assign=given))
    [record] = await station.journal.transact(lambda connection: records.recent_runs(connection, 10))
    assert (record.state, record.started_at_us) == (RunState.RUN_STATE_REFUSED, 0)
    assert receipt_of(record, station).reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN


async def test_a_question_is_no_task_and_a_task_no_question(lung: World):
    asked = question(lung)
    with pytest.raises(TaskNotProven, match="expires after it was made"):
        verify_task(asked.chain, lung.state, now=lung.now)
    assert verify_check(asked.chain, lung.state, now=lung.now).spec.task_id


async def test_more_questions_than_a_node_can_bear_are_undecided_at_once(lung: World, make_station: MakeStation):
    station = make_station()
    answers: list[NodeFrame] = []
    questions, asked = Questions(station, answers.append), question(lung)
    for _ in range(MOST_AT_ONCE + 1):
        questions.ask(asked)
    [answer] = answers
    assert answer.checked.verdict.forecast == Forecast.FORECAST_UNDECIDED
    assert answer.checked.check_id == "a question"
    assert answer.checked.verdict.run_id == asked.run_id
    await questions.close()
    for _ in range(MOST_PER_MINUTE):
        questions.ask(asked)
        await questions.close()
    assert len(answers) == MOST_AT_ONCE + 2
    station.now = lambda: lung.now + timedelta(minutes=2)
    questions.ask(asked)
    assert len(answers) == MOST_AT_ONCE + 2
    await questions.close()
