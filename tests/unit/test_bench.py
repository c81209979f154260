"""The report of the benchmarks: verdicts that can't pass by accident, rows that are all described."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.context import Context
from bench.report import Machine, Row, at_most, ratio_at_least, ratio_at_most, render_text, write_json
from bench.rows import discover, ledger, seal_open
from bench.rows._ledger import Ledger, signed_lengths
from folkmoot.trust import replay, signed, verify_task
from folkmoot.trust.keys import verify_signature
from folkmoot.v1.keys_pb2 import PublicKey

REPOSITORY = Path(__file__).resolve().parents[2]
DESCRIPTION = REPOSITORY / "docs" / "benchmarks.md"


@pytest.mark.parametrize(
    ("ours", "limit", "budget", "verdict"),
    [
        (12.9, 10, ratio_at_most(1.3), "pass"),
        (13.1, 10, ratio_at_most(1.3), "over"),
        (5.1, 10, ratio_at_least(0.5), "pass"),
        (4.9, 10, ratio_at_least(0.5), "over"),
        (64, None, at_most(64), "pass"),
        (65, None, at_most(64), "over"),
    ],
)
def test_verdict_is_that_of_the_budget(ours, limit, budget, verdict):
    assert Row("row", "ms", ours, limit, (budget,)).verdict == verdict


def test_row_passes_only_if_all_its_budgets_are_met():
    assert Row("row", "tasks/s", 900, 4000, (at_most(1000), ratio_at_least(0.25))).verdict == "over"


@pytest.mark.parametrize("limit", [None, 0, -1])
def test_ratio_to_no_limit_is_an_error_and_no_pass(limit):
    with pytest.raises(ValueError, match="positive limit"):
        _ = Row("row", "ms", 1, limit, (ratio_at_most(2),)).verdict


def test_what_failed_or_was_not_measured_is_told_as_that(tmp_path):
    rows = [Row.failed("broken", RuntimeError("why")), Row.skipped("missing", "no engine"), Row("row", "s", 1.0)]
    assert [row.verdict for row in rows] == ["failed", "skipped", "pass"]
    text = render_text(rows)
    assert "RuntimeError: why" in text
    assert "no engine" in text
    assert "1 pass, 1 skipped, 1 failed" in text
    write_json(tmp_path / "bench.json", Machine.here(), rows)
    assert [row["verdict"] for row in json.loads((tmp_path / "bench.json").read_text())["rows"]] == [
        row.verdict for row in rows
    ]


def test_one_broken_row_does_not_hide_the_others(monkeypatch, capsys):
    def broken(_context: Context) -> list[Row]:
        raise RuntimeError("why")

    monkeypatch.setattr(seal_open, "measure", broken)
    assert main(["--only", "seal_open"]) == 1
    assert "RuntimeError: why" in capsys.readouterr().out


def test_sealing_and_opening_are_measured_at_two_sizes():
    rows = seal_open.measure(Context(payload_bytes=200_000))
    assert len(rows) == 4
    assert all(row.ours and row.limit and row.budgets for row in rows)


def test_limit_of_a_ledger_verifies_exactly_the_signatures_that_a_replay_does(monkeypatch):
    made = Ledger.founded(os.urandom, datetime.now(UTC))
    made.grow(40)
    verified: list[int] = []

    def counted(public: PublicKey, signature: bytes, message: bytes) -> None:
        verified.append(len(message))
        verify_signature(public, signature, message)

    monkeypatch.setattr(signed, "verify_signature", counted)
    state = replay(made.entries)
    counted_lengths = [length for entry in made.entries for length in signed_lengths(entry)]
    assert len(counted_lengths) == len(verified) > len(made.entries)
    assert sum(counted_lengths) == pytest.approx(sum(verified), rel=0.05)
    verified.clear()
    verify_task(made.chain(state, depth=3), state, now=datetime.now(UTC))
    assert len(verified) == 3


def test_ledger_is_measured_at_its_beginning_and_at_its_end():
    rows = [*ledger.ledger_rows(50), ledger.chain_row()]
    assert [row.name for row in rows] == ["ledger, 50 entries", "ledger, one more entry", "task, three deep"]
    assert all(row.ours and row.budgets for row in rows)


def test_every_row_is_described():
    described = DESCRIPTION.read_text()
    assert [name for name in discover() if f"`{name}`" not in described] == []


def test_what_takes_minutes_is_measured_only_when_asked_for():
    assert [name for name, module in discover().items() if module.only_when_asked] == ["growth", "tests"]
