"""What a client remembers of receipts: the first of another node for an attempt is told once, and memory stays bounded."""

import pytest

from folkmoot.client import receipts
from folkmoot.client.receipts import SeenReceipts
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt


def note(seen: SeenReceipts, node: str, *, attempt: int = 1, run: str = "run") -> tuple[str, ...]:
    signed = Signed(body=f"{run} {attempt} {node}".encode())
    return seen.note(signed, Receipt(run_id=run, attempt=attempt, node_id=node))


def test_another_nodes_receipt_for_the_same_attempt_is_told_once():
    seen = SeenReceipts()
    assert [note(seen, "one"), note(seen, "one"), note(seen, "two"), note(seen, "two"), note(seen, "one")] == [
        (),
        (),
        ("one", "two"),
        (),
        (),
    ]
    assert note(seen, "three") == ("one", "two", "three")
    assert [each.body for each in seen.of("run")] == [b"run 1 one", b"run 1 two", b"run 1 three"]


def test_another_nodes_attempt_or_run_is_as_it_must_be():
    seen = SeenReceipts()
    assert not any((note(seen, "one"), note(seen, "two", attempt=2), note(seen, "two", run="another")))
    assert seen.of("unknown") == ()


def test_of_more_runs_than_are_kept_the_oldest_goes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(receipts, "MOST_RUNS", 2)
    seen = SeenReceipts()
    for run in ("first", "second", "third"):
        note(seen, "one", run=run)
    assert [len(seen.of(run)) for run in ("first", "second", "third")] == [0, 1, 1]
