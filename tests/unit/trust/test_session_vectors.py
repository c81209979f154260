"""session.json against both readers: what tasks may do with a session, and what receipts may say of dataframes."""

import json
from typing import Any

import pytest

from folkmoot.trust import replay, verify_receipt, verify_task
from folkmoot.trust.spec import attempts_allowed
from folkmoot.v1.task_pb2 import SessionUse, TaskChain, TaskSpec
from tests.unit.trust.vector_cases import by_case, clock, expected, raw, signed, verdict
from tests.vectors import second_reader_ledger, second_reader_task
from tests.vectors.documents import FOLDER

SESSION: dict[str, Any] = json.loads(FOLDER.joinpath("session.json").read_text())


@pytest.fixture(scope="module")
def state():
    return replay(signed(SESSION, SESSION["ledger"]))


@pytest.fixture(scope="module")
def second_state():
    return second_reader_ledger.judge(raw(SESSION, SESSION["ledger"]), None, None)[2]


@by_case(SESSION["tasks"])
def test_task(case, state, second_state):
    chain = TaskChain(specs=signed(SESSION, case["chain"]))
    assert verdict(lambda: verify_task(chain, state, now=clock(case))) == expected(case)
    assert second_reader_task.judge_task(raw(SESSION, case["chain"]), second_state, case["now"]) == expected(case)


@by_case(SESSION["receipts"])
def test_receipt(case, state, second_state):
    chain, [receipt] = signed(SESSION, case["chain"]), signed(SESSION, [case["receipt"]])
    task = verify_task(TaskChain(specs=chain), state, now=None)
    assert verdict(lambda: verify_receipt(receipt, task=task, run_id=case["run_id"], state=state)) == expected(case)
    again = second_reader_task.judge_receipt(
        raw(SESSION, case["chain"]), case["run_id"], receipt.SerializeToString(), second_state
    )
    assert again == expected(case)


def test_a_run_with_a_session_is_tried_once_since_its_dataframes_are_at_one_node():
    assert attempts_allowed(TaskSpec(max_attempts=3, session=SessionUse(leaves="cleaned"))) == 1
    assert attempts_allowed(TaskSpec(max_attempts=3)) == 3
