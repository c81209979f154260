"""ledger.json and task.json against both readers: each case is a ledger, task or receipt that names its fault or attack."""

import json

import pytest

from folkmoot.trust import replay, verify_receipt, verify_task
from folkmoot.trust.rules import LedgerRule, ReceiptRule, TaskRule
from folkmoot.v1.task_pb2 import TaskChain
from tests.unit.trust.vector_cases import by_case, clock, expected, raw, signed, verdict
from tests.vectors import second_reader_ledger, second_reader_task
from tests.vectors.documents import DOCUMENTS, FOLDER, summary, text

LEDGER, TASK, HISTORY = (
    json.loads(FOLDER.joinpath(name).read_text()) for name in ("ledger.json", "task.json", "history.json")
)
SESSION = json.loads(FOLDER.joinpath("session.json").read_text())
LEDGERS, TASKS, RECEIPTS = LEDGER["cases"], TASK["tasks"], TASK["receipts"]


@pytest.fixture(scope="module")
def state():
    return replay(signed(TASK, TASK["ledger"]))


@pytest.fixture(scope="module")
def second_state():
    word, _, ledger = second_reader_ledger.judge(raw(TASK, TASK["ledger"]), None, None)
    assert word == "accepted"
    return ledger


@by_case(LEDGERS)
def test_ledger(case):
    entries, genesis = signed(LEDGER, case["entries"]), case["expected_genesis"]
    expected_genesis = bytes.fromhex(genesis) if genesis else None
    assert verdict(lambda: replay(entries, now=clock(case), expected_genesis=expected_genesis)) == expected(case)
    if case["verdict"] == "accepted":
        assert summary(replay(entries)) == case["state"]
    elif len(entries) > 1:
        replay(entries[:-1])  # Only the last one is wrong.


@by_case(LEDGERS)
def test_ledger_by_the_second_reader(case):
    entries = raw(LEDGER, case["entries"])
    word, rule, ledger = second_reader_ledger.judge(entries, case["now"], case["expected_genesis"])
    assert (word, rule) == expected(case)
    if word == "accepted":
        assert ledger.summary() == case["state"]


@by_case(TASKS)
def test_task(case, state):
    chain = TaskChain(specs=signed(TASK, case["chain"]))
    assert verdict(lambda: verify_task(chain, state, now=clock(case))) == expected(case)


@by_case(TASKS)
def test_task_by_the_second_reader(case, second_state):
    chain = raw(TASK, case["chain"])
    assert second_reader_task.judge_task(chain, second_state, case["now"]) == expected(case)


@by_case(RECEIPTS)
def test_receipt(case, state):
    task = verify_task(TaskChain(specs=signed(TASK, case["chain"])), state, now=None)
    [receipt] = signed(TASK, [case["receipt"]])
    assert verdict(lambda: verify_receipt(receipt, task=task, run_id=case["run_id"], state=state)) == expected(case)


@by_case(RECEIPTS)
def test_receipt_by_the_second_reader(case, second_state):
    chain, [receipt] = raw(TASK, case["chain"]), raw(TASK, [case["receipt"]])
    assert second_reader_task.judge_receipt(chain, case["run_id"], receipt, second_state) == expected(case)


def test_every_rule_is_broken_by_a_case():
    tasks = [case for case in HISTORY["tasks"] if not case["receipt"]]
    receipts = [case for case in HISTORY["tasks"] if case["receipt"]]
    for rules, cases in (
        (LedgerRule, LEDGERS + HISTORY["ledgers"]),
        (TaskRule, TASKS + tasks + SESSION["tasks"]),
        (ReceiptRule, RECEIPTS + receipts + SESSION["receipts"]),
    ):
        assert {case["rule"] for case in cases} - {""} == {rule.name for rule in rules}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_bytes_of_the_first_release_are_still_made(name):
    """Run `python -m tools.make_ledger_vectors` only for new cases: no old one may change."""
    assert text(DOCUMENTS[name]()) == FOLDER.joinpath(name).read_text()


def test_second_reader_imports_nothing_of_ours():
    for path in FOLDER.glob("second_reader_*.py"):
        assert "import folkmoot" not in path.read_text()
        assert "from folkmoot" not in path.read_text()
