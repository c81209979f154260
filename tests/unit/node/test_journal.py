"""The journal: what it returned from is on disk; one bad change doesn't take others with it; old files are read, newer ones refused."""

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.journal import database as journal_module
from folkmoot.node.journal import keeping_records, message_records, records, subtask_records
from folkmoot.node.journal.database import SCHEMA, Journal
from folkmoot.node.journal.records import ASSIGNED, RUNNING, RunRecord, StoredEnvelope
from folkmoot.node.journal.subtask_records import SubtaskRecord
from folkmoot.node.proxy.ports import Limits
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.trust import FolkmootError
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Accepted, PeerMessage
from folkmoot.v1.task_pb2 import RunState
from tests.builders import NOW


def run(run_id: str = "run", **changes: Any) -> RunRecord:
    usual: dict[str, Any] = {
        "run_id": run_id,
        "attempt": 1,
        "task_id": "task",
        "job_id": "job",
        "task_digest": b"d" * 32,
        "chain": b"",
        "policy_digest": b"p" * 32,
        "input_digest": b"i" * 32,
        "memory_bytes": 1,
        "cpu_millis": 1,
        "run_time_seconds": 1,
        "result_limit_bytes": 1,
        "accepted_at_us": records.microseconds(NOW),
        "state": ASSIGNED,
    }
    return RunRecord(**(usual | changes))


async def test_what_was_returned_from_survives(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    await journal.transact(lambda db: records.insert_run(db, run()))
    reader = sqlite3.connect(tmp_path / "journal.db")
    assert reader.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    reader.close()
    await journal.close()
    again = Journal(tmp_path / "journal.db")
    assert await again.transact(lambda db: records.get_run(db, "run", 1)) == run()
    await again.close()


async def test_it_syncs_every_commit(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    settings = await journal.transact(
        lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    assert settings == ["wal", 2]
    await journal.close()


async def test_a_change_that_fails_takes_nothing_else_with_it(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")

    def broken(db: sqlite3.Connection) -> None:
        records.insert_run(db, run("half"))
        raise ValueError("broken")

    outcomes = await asyncio.gather(
        journal.transact(lambda db: records.insert_run(db, run("a"))),
        journal.transact(broken),
        journal.transact(lambda db: records.insert_run(db, run("b"))),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), ValueError, type(None)]
    runs = await journal.transact(records.uncommitted_runs)
    assert [each.run_id for each in runs] == ["a", "b"]
    await journal.close()


async def test_a_journal_of_a_later_release_is_refused(tmp_path: Path):
    later = sqlite3.connect(tmp_path / "journal.db")
    later.execute(f"PRAGMA user_version = {len(SCHEMA) + 1}")
    later.close()
    with pytest.raises(FolkmootError, match="later release"):
        Journal(tmp_path / "journal.db")


async def test_an_older_journal_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path / "journal.db")
    await journal.transact(lambda db: records.acknowledge(db, 7))
    await journal.close()
    monkeypatch.setattr(journal_module, "SCHEMA", (*SCHEMA, "ALTER TABLE link ADD COLUMN added TEXT;"))
    journal = Journal(tmp_path / "journal.db")
    assert await journal.transact(records.acknowledged) == 7
    assert await journal.transact(lambda db: db.execute("SELECT added FROM link").fetchone()[0]) is None
    await journal.close()


async def test_a_run_starts_once_and_its_first_end_stands(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    await journal.transact(lambda db: records.insert_run(db, run()))
    first = await journal.transact(lambda db: records.start_run(db, run(run_name="first")))
    second = await journal.transact(lambda db: records.start_run(db, run(run_name="second")))
    assert (first.run_name, second.run_name, second.state) == ("first", "first", RUNNING)
    ended = replace(first, state=RunState.RUN_STATE_COMPLETED, result_digest=b"r" * 32)
    stored = StoredEnvelope(b"r" * 32, 3, b"abc")
    await journal.transact(lambda db: records.end_run(db, ended, stored))
    late = replace(first, state=RunState.RUN_STATE_CANCELLED)
    standing = await journal.transact(lambda db: records.end_run(db, late, None))
    assert (standing.state, standing.result_digest) == (RunState.RUN_STATE_COMPLETED, b"r" * 32)
    assert await journal.transact(lambda db: records.get_envelope(db, b"r" * 32)) == b"abc"
    await journal.close()


async def test_what_the_policy_gave_to_a_started_run_is_what_a_restarted_node_has(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    await journal.transact(lambda db: records.insert_run(db, run()))
    given: dict[str, Any] = {
        "pids": 5,
        "scratch_bytes": 6,
        "temporary_bytes": 7,
        "gpus": 2,
        "minimum_rows": 9,
        "policy_digest": b"q" * 32,
    }
    starting = run(run_name="name", started_at_us=1, memory_bytes=3, **given)
    started = await journal.transact(lambda db: records.start_run(db, starting))
    later = replace(starting, pids=100, minimum_rows=0)
    await journal.transact(lambda db: records.start_run(db, later))
    await journal.close()
    journal = Journal(tmp_path / "journal.db")
    assert await journal.transact(lambda db: records.get_run(db, "run", 1)) == started
    assert started.limits == Limits(3, 1, 1, pids=5, scratch_bytes=6, temporary_bytes=7, gpus=2)
    assert (started.minimum_rows, started.policy_digest) == (9, b"q" * 32)
    await journal.close()


async def test_messages_are_numbered_without_gaps_and_repeats_must_be_the_same(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    await journal.transact(lambda db: records.insert_run(db, run()))

    def outgoing(sequence: int, content: bytes, to_run_id: str) -> message_records.Outgoing:
        message = PeerMessage(from_run_id="run", to_run_id=to_run_id, sequence=sequence, envelope=b"12345")
        departure = Departure(bytes(32), NOW, EnvelopeKind.ENVELOPE_KIND_MESSAGE, bytes(32), 5, (to_run_id,))
        return message_records.Outgoing(message, content, departure)

    async def send(*contents: tuple[int, bytes], to_run_id: str = "other") -> list[int]:
        leaving = [outgoing(*each, to_run_id) for each in contents]
        new = await journal.transact(lambda db: message_records.insert_outgoing(db, run(), leaving))
        return [message.sequence for message in new]

    assert await send((1, b"a")) == [1]
    assert await send((1, b"a")) == []
    with pytest.raises(FolkmootError) as differs:
        await send((1, b"b"))
    assert differs.value.reason == ErrorReason.ERROR_REASON_REPEAT_DIFFERS
    with pytest.raises(FolkmootError, match="the next message is 2"):
        await send((3, b"c"))
    with pytest.raises(FolkmootError, match="the next message is 3, not 4"):
        await send((2, b"b"), (4, b"d"))
    assert await send((1, b"a"), (2, b"b"), (2, b"b")) == [2], "those of a refused call were not sent"
    assert await send((1, b"a"), (2, b"b"), to_run_id="third") == [1, 2]
    [standing] = await journal.transact(lambda db: records.attempts_of(db, "run"))
    assert standing.bytes_out == 20
    await journal.transact(egress.verify)
    await journal.transact(
        lambda db: message_records.accept_outgoing(db, [Accepted(from_run_id="run", to_run_id="other", sequence=1)])
    )
    left = await journal.transact(message_records.unaccepted_outgoing)
    assert [(each.to_run_id, each.sequence) for each in left] == [("other", 2), ("third", 1), ("third", 2)]
    await journal.close()


async def test_what_is_old_is_cleared_away_but_never_the_run(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    old = run("old", input_digest=b"o" * 32, scratch=1, job_id="old job")
    shared = run("young", input_digest=b"s" * 32, scratch=1, job_id="young job")
    also_old = run("also-old", input_digest=b"s" * 32, scratch=1, job_id="young job")
    subtask = SubtaskRecord(key="k", task_id="t", request_digest=b"", chain=b"", inputs=b"x" * 32)

    def fill(db: sqlite3.Connection) -> None:
        for record in (old, shared, also_old):
            records.insert_run(db, record)
        subtask_records.insert_subtask(db, old, subtask, (), (), granted=1)
        for digest in (b"o", b"s", b"x"):
            records.put_envelope(db, digest * 32, b"sealed")
        records.commit_run(db, old, NOW)
        records.commit_run(db, also_old, NOW)

    await journal.transact(fill)
    digests, jobs = await journal.transact(lambda db: keeping_records.forget_payloads(db, NOW + timedelta(days=1)))
    assert digests == [b"o" * 32, b"x" * 32]
    assert jobs == ["old job"]
    assert await journal.transact(lambda db: records.get_envelope(db, b"o" * 32)) is None
    assert await journal.transact(lambda db: records.get_envelope(db, b"s" * 32)) == b"sealed"
    assert await journal.transact(lambda db: records.get_run(db, "old", 1)) is not None
    assert await journal.transact(lambda db: keeping_records.forget_payloads(db, NOW + timedelta(days=1))) == ([], [])
    await journal.close()
