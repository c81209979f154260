"""history.json against both readers: members, keys and nodes come and go, and what they signed is judged by then and now."""

import json
from typing import Any

from folkmoot.trust import replay, verify_receipt, verify_task
from folkmoot.v1.task_pb2 import TaskChain
from tests.unit.trust.vector_cases import by_case, clock, expected, raw, signed, verdict
from tests.vectors import second_reader_ledger, second_reader_task
from tests.vectors.documents import FOLDER, history

HISTORY: dict[str, Any] = json.loads(FOLDER.joinpath("history.json").read_text())
TASKS = [case for case in HISTORY["tasks"] if case["receipt"] is None]
RECEIPTS = [case for case in HISTORY["tasks"] if case["receipt"] is not None]


@by_case(HISTORY["ledgers"])
def test_ledger(case):
    entries = signed(HISTORY, case["entries"])
    assert verdict(lambda: replay(entries, now=clock(case))) == expected(case)
    if case["verdict"] == "accepted":
        assert history(replay(entries)) == case["state"]
    elif len(entries) > 1:
        replay(entries[:-1])  # Only the last one is wrong.


@by_case(HISTORY["ledgers"])
def test_ledger_by_the_second_reader(case):
    word, rule, ledger = second_reader_ledger.judge(raw(HISTORY, case["entries"]), case["now"], None)
    assert (word, rule) == expected(case)
    if word == "accepted":
        assert ledger.history() == case["state"]


@by_case(TASKS)
def test_task(case):
    state, chain = replay(signed(HISTORY, case["entries"])), TaskChain(specs=signed(HISTORY, case["chain"]))
    assert verdict(lambda: verify_task(chain, state, now=clock(case))) == expected(case)


@by_case(TASKS)
def test_task_by_the_second_reader(case):
    _, _, ledger = second_reader_ledger.judge(raw(HISTORY, case["entries"]), None, None)
    assert second_reader_task.judge_task(raw(HISTORY, case["chain"]), ledger, case["now"]) == expected(case)


@by_case(RECEIPTS)
def test_receipt(case):
    state, [receipt] = replay(signed(HISTORY, case["entries"])), signed(HISTORY, [case["receipt"]])
    task = verify_task(TaskChain(specs=signed(HISTORY, case["chain"])), state, now=None)
    run_id = task.spec.receivers[0].run_id
    assert verdict(lambda: verify_receipt(receipt, task=task, run_id=run_id, state=state)) == expected(case)


@by_case(RECEIPTS)
def test_receipt_by_the_second_reader(case):
    _, _, ledger = second_reader_ledger.judge(raw(HISTORY, case["entries"]), None, None)
    chain, [receipt] = raw(HISTORY, case["chain"]), raw(HISTORY, [case["receipt"]])
    run_id = second_reader_task.prove(chain, ledger, None)[0][-1]["receivers"][0]["run_id"]
    assert second_reader_task.judge_receipt(chain, run_id, receipt, ledger) == expected(case)
