"""Ledger: replaying 10,000 entries, and one more on the state that they gave; verifying a task three deep.

The ledger is that of five members whose nodes come and go: admissions by invitation, revocations, votes on algorithms. Keys,
entries and tasks are made beforehand. The limit verifies as many signatures over as many bytes, and does nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from bench.context import Context
from bench.limits import signatures
from bench.limits.common import repeat, seconds
from bench.report import Row, at_most, ratio_at_most
from bench.rows._ledger import Ledger, signed_lengths
from folkmoot.trust import replay, verify_task

ENTRIES = 10_000
REPETITIONS = 7
ONE_MORE = 200
"""How often the same entry is appended for one sample."""
CHAINS = 100
"""How often the same chain is verified for one sample."""
TURNS = 25


def measure(_context: Context) -> list[Row]:
    return [*ledger_rows(ENTRIES), chain_row()]


def ledger_rows(number: int) -> list[Row]:
    ledger = Ledger.founded(os.urandom, datetime.now(UTC))
    ledger.grow(number + 1)
    entries, last = ledger.entries[:-1], ledger.entries[-1]
    lengths = [length for entry in entries for length in signed_lengths(entry)]
    limit = signatures.measure("ledger", lengths=lengths, repetitions=REPETITIONS)
    samples = repeat(REPETITIONS, lambda: seconds(lambda: replay(entries)) * 1e3)
    state = replay(entries)

    def one_more() -> float:
        return seconds(lambda: [replay([last], state=state) for _ in range(ONE_MORE)]) / ONE_MORE * 1e3

    return [
        Row(
            f"ledger, {number:,} entries",
            limit.unit,
            _median(samples),
            limit.value,
            (ratio_at_most(2),),
            note=f"{len(lengths):,} signatures",
        ),
        Row("ledger, one more entry", "ms", _median(repeat(REPETITIONS, one_more)), None, (at_most(1),)),
    ]


def chain_row() -> Row:
    ledger = Ledger.founded(os.urandom, datetime.now(UTC))
    state = replay(ledger.entries)
    chain = ledger.chain(state, depth=3)
    lengths = [length for signed in chain.specs for length in signed_lengths(signed)]
    bare, now = signatures.verifying(lengths), datetime.now(UTC)
    in_turns = [(_microseconds(bare), _microseconds(lambda: verify_task(chain, state, now=now))) for _ in range(TURNS)]
    limits, ours = zip(*in_turns, strict=True)
    return Row("task, three deep", "us", _median(ours), _median(limits), (ratio_at_most(2),), note=f"{TURNS} turns")


def _microseconds(action: Callable[[], object]) -> float:
    return seconds(lambda: [action() for _ in range(CHAINS)]) / CHAINS * 1e6


def _median(samples: Sequence[float]) -> float:
    return sorted(samples)[len(samples) // 2]
