"""The audit trail's chain: whatever is done to events afterwards is found, and named."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import delete, insert, select, update

from folkmoot.server import cli
from folkmoot.server.audit import chain, verifying
from folkmoot.server.audit.chain import BEGINNING, Head
from folkmoot.server.store import databases
from folkmoot.server.store.engine import Store
from folkmoot.server.store.tables import events
from folkmoot.server.wakers.local import LocalWaker
from folkmoot.trust.errors import FolkmootError
from tests.migrated import migrated

NOW = datetime(2026, 5, 17, 9, 30, tzinfo=UTC)


def row(number: int, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "intent": "task.create",
        "organization": "0190-alpha",
        "created_by": "0190-ada",
        "created_at": NOW + timedelta(seconds=number),
        "data_version": 1,
        "data": json.dumps({"task_id": str(number)}),
        "request_id": f"request-{number}",
        "outcome": "ok",
        "genesis": bytes(32) if number % 2 else None,
        "origin": "192.0.2.7",
    }
    return usual | changes


@pytest.fixture
async def core(tmp_path: Path):
    await migrated(tmp_path / "folkmoot.db")
    store = Store(databases.connect("", tmp_path / "folkmoot.db"))
    yield SimpleNamespace(store=store)
    await store.close()


async def record(core: Any, *rows: dict[str, Any]) -> None:
    await core.store.write(lambda connection: connection.execute(insert(events), list(rows)))


async def tamper(core: Any, statement: Any) -> None:
    await core.store.write(lambda connection: connection.execute(statement))


async def verdict(core: Any, *expected: Head) -> verifying.Verdict:
    return await core.store.read(lambda connection: verifying.verify(connection, expected))


async def test_true_chain_holds_and_goes_on(core):
    assert await verdict(core) == verifying.Verdict(BEGINNING, 0)
    await record(core, *map(row, range(1, 4)))
    assert (await verdict(core)).unchained == 3
    assert await chain.advance(core)
    first = await verdict(core)
    assert (first.head.position, first.unchained, first.problem) == (3, 0, "")
    await record(core, *map(row, range(4, 1300)))
    await chain.advance(core)
    assert not await chain.advance(core)
    second = await verdict(core, first.head)
    assert (second.head.position, second.problem) == (1299, "")


async def test_hash_is_what_the_documentation_says(core):
    """Written from the text alone, by the standard library."""
    await record(core, row(1), row(2, data='{"name":"Zoë"}'))
    await chain.advance(core)
    rows = await core.store.read(lambda connection: connection.execute(select(events)).all())
    before = bytes(32)
    for number, each in enumerate(rows, start=1):
        genesis = (each.genesis or b"").hex()
        text = (
            f'{{"created_at":{int(each.created_at.timestamp()) * 1_000_000},"created_by":"0190-ada",'
            f'"data":{json.dumps(each.data, ensure_ascii=False)},"data_version":1,"genesis":"{genesis}",'
            f'"intent":"task.create","organization":"0190-alpha","origin":"192.0.2.7","outcome":"ok",'
            f'"request_id":"request-{number}","sequence":{number}}}'
        )
        parts = [b"folkmoot/event/v1", before, text.encode()]
        packed = (3).to_bytes(8, "little") + b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        before = hashlib.sha256(packed).digest()
        assert each.hash == before


@pytest.mark.parametrize("column", [c for c in events.c.keys() if c not in ("sequence", "position", "hash")])  # noqa: SIM118
async def test_altered_event_is_named(core, column):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    other = {"created_at": NOW, "data_version": 2, "genesis": bytes(31)}.get(column, "something else")
    await tamper(core, update(events).where(events.c.position == 5).values({column: other}))
    found = await verdict(core)
    assert found.problem.startswith("Event 5 was altered")
    assert found.head.position == 4


async def test_removed_event_is_named(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    await tamper(core, delete(events).where(events.c.position == 5))
    assert (await verdict(core)).problem == "Event 5 was removed"


async def test_inserted_event_is_named(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    for position in (7, 6, 5):
        await tamper(core, update(events).where(events.c.position == position).values(position=position + 1))
    await tamper(core, insert(events).values(row(99, position=5, hash=bytes(32))))
    assert (await verdict(core)).problem.startswith("Event 5 was altered, or inserted")


@pytest.mark.parametrize("position", [0, -3])
async def test_event_that_was_inserted_before_the_first_one_is_found(core, position):
    """Lists would show it, and the chain begins behind it."""
    await record(core, *map(row, range(1, 4)))
    await chain.advance(core)
    await tamper(core, insert(events).values(row(99, position=position, hash=bytes(32))))
    assert (await verdict(core)).problem == "An event was inserted before the first one"


async def test_events_that_were_exchanged_are_named(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    for old, new in ((3, 100), (4, 3), (100, 4)):
        await tamper(core, update(events).where(events.c.position == old).values(position=new))
    assert (await verdict(core)).problem.startswith("Event 3 was altered")


async def test_end_that_was_cut_off_is_found_by_a_head_that_was_written_down(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    kept = (await verdict(core)).head
    await tamper(core, delete(events).where(events.c.position > 4))
    assert (await verdict(core)).problem == ""
    assert (await verdict(core, kept)).problem.startswith("Event 5 was removed, and all behind it")


async def test_chain_that_was_made_anew_is_found_by_a_head_that_was_written_down(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    kept = (await verdict(core)).head
    await tamper(core, update(events).values(position=None, hash=None))
    await tamper(core, update(events).where(events.c.sequence == 2).values(created_by="somebody else"))
    await chain.advance(core)
    assert (await verdict(core)).problem == ""
    assert (await verdict(core, kept)).problem.startswith("Event 7, or one before it, is another one")


async def test_two_chainers_at_once_make_one_chain(core):
    await record(core, *map(row, range(1, 2000)))
    await asyncio.gather(*(chain.advance(core) for _ in range(4)))
    found = await verdict(core)
    assert (found.head.position, found.problem, found.unchained) == (1999, "", 0)


async def test_event_that_is_seen_late_is_chained_behind_what_was_seen_before(core):
    """As on PostgreSQL, where a transaction that began to write earlier may end later."""
    await record(core, row(1, sequence=1), row(3, sequence=3))
    await chain.advance(core)
    await record(core, row(2, sequence=2))
    await chain.advance(core)
    in_order = select(events).order_by(events.c.position)
    rows = await core.store.read(lambda connection: connection.execute(in_order).all())
    assert [(each.position, each.sequence) for each in rows] == [(1, 1), (2, 3), (3, 2)]
    assert (await verdict(core)).problem == ""


MISTYPED: dict[str, list[Any]] = {
    "intent": [b"task.create", 7, "CAST(x'ff' AS TEXT)"],
    "data": [b"{}", "CAST(x'ff00fe' AS TEXT)"],
    "outcome": [b"\xff"],
    "created_at": ["'yesterday'", 1.5, b"1", 2**62],
    "data_version": ["'one'", 1.5, b"\x01"],
    "genesis": ["'0000'", 7, 10**12],
    "hash": [None, "'00'", 7, 10**12],
    "position": ["'three'", b"3", 3.5],
}
"""Values that SQLite takes into any column; texts are SQL."""


@pytest.mark.parametrize(("column", "value"), [(name, value) for name, values in MISTYPED.items() for value in values])
async def test_value_that_no_event_has_is_named_and_stops_nothing(core, column, value):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    sql = value if isinstance(value, str) else "?"
    values = () if isinstance(value, str) else (value,)

    def edit(connection: Any) -> None:
        connection.exec_driver_sql(f"UPDATE events SET {column} = {sql} WHERE position = 3", values)

    await core.store.write(edit)
    found = await verdict(core)
    assert found.head.position == 2
    assert found.problem.startswith(("Event 3 was", "The event in row 3 was")), found.problem


async def test_place_that_is_no_number_is_found_behind_a_whole_chain(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    await tamper(core, insert(events).values(row(99, hash=bytes(32))))
    await core.store.write(lambda c: c.exec_driver_sql("UPDATE events SET position = 'last' WHERE sequence = 8"))
    assert (await verdict(core)).problem.startswith("The event in row 8 was altered, or inserted: its place")


async def exported(core: Any, after: int = 0) -> list[str]:
    def lines(connection: Any) -> list[str]:
        return [
            json.dumps({**link.record, "hash": bytes(link.hash).hex()})  # type: ignore[call-overload]
            for link in verifying.links(connection, after=after)
        ]

    return await core.store.read(lines)


async def test_export_is_verified_without_a_database(core):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    head, lines = (await verdict(core)).head, await exported(core)
    assert verifying.verify_exported(lines, [head]) == verifying.Verdict(head)
    assert verifying.verify_exported(lines[:5], [head]).problem.startswith("Event 6 was removed, and all behind it")
    assert verifying.verify_exported([*lines[:2], *lines[3:]]).problem == "Event 3 was removed"
    assert verifying.verify_exported([*lines[:3], *lines[2:]]).problem == "Line 4 was inserted"
    assert verifying.verify_exported([]) == verifying.Verdict(BEGINNING)
    part = await exported(core, after=4)
    before = Head(4, bytes.fromhex(json.loads(lines[3])["hash"]))
    assert verifying.verify_exported(part, [before, head]).problem == ""
    with pytest.raises(FolkmootError, match="--expect 4:HASH"):
        verifying.verify_exported(part, [head])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "7",
        "[" * 100_000,
        '{"sequence": 3}',
        '{"sequence": "3", "hash": "00"}',
        '{"sequence": 3, "hash": 7}',
        '{"sequence": NaN, "hash": "00"}',
        '{"sequence": 3, "hash": "00", "data": "\\ud800"}',
        '{"sequence": 3, "hash": "00", "more": 1}',
        '{"sequence": 3, "hash": "00"}',
    ],
)
async def test_line_that_is_no_event_is_named(core, line):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    lines = await exported(core)
    found = verifying.verify_exported([*lines[:2], line, *lines[3:]])
    assert found.head.position == 2
    assert found.problem.startswith(("Line 3 was altered", "Event 3 was altered")), found.problem


@pytest.mark.parametrize("member", sorted(verifying.RECORDED))
async def test_altered_member_of_an_export_is_named(core, member):
    await record(core, *map(row, range(1, 8)))
    await chain.advance(core)
    lines = await exported(core)
    content = json.loads(lines[4])
    content[member] = content[member] + 1 if isinstance(content[member], int) else content[member] + "0"
    found = verifying.verify_exported([*lines[:4], json.dumps(content), *lines[5:]])
    assert found.problem.startswith("Event 5 was ")


async def test_head_goes_to_the_log_at_the_start_and_then_once_an_hour(core, monkeypatch):
    """So that whoever alters the database does not have the only copy of it."""
    now, log, passes = [1000.0], [], iter([1800, 1799, 1, 3600])
    monkeypatch.setattr(chain, "time", SimpleNamespace(monotonic=lambda: now[0]))
    core.log = SimpleNamespace(info=lambda event, **values: log.append((event, values)))
    core.draining = asyncio.Event()

    async def pause(_seconds: float) -> None:
        if (later := next(passes, None)) is None:
            core.draining.set()
        now[0] += later or 0
        await record(core, row(len(log)))

    core.pause = pause
    await record(core, row(1))
    await chain.keep_chained(core, LocalWaker())
    heads = [Head.parse(values["head"]) for event, values in log if event == "events.head"]
    assert [each.position for each in heads] == [1, 4, 5]
    assert (await verdict(core, *heads)).problem == ""


def _export(archive: Path, folder: list[str]) -> None:
    archive.write_text(CliRunner().invoke(cli.server, ["events", "export", *folder]).output)


async def test_command_verifies_and_exports(core, tmp_path):
    run = CliRunner().invoke
    await record(core, *map(row, range(1, 4)))
    await chain.advance(core)
    await record(core, row(4))
    folder = ["--data", str(tmp_path)]
    good = await asyncio.to_thread(run, cli.server, ["events", "verify", *folder])
    assert good.exit_code == 0, good.output
    told, kept = good.output.splitlines()
    assert told == "3 events are as they were chained; 1 more are not chained yet."
    lines = (
        await asyncio.to_thread(run, cli.server, ["events", "export", "--after", "1", *folder])
    ).output.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [2, 3]
    assert kept == f"3:{json.loads(lines[-1])['hash']}"
    archive = tmp_path / "events.jsonl"
    await asyncio.to_thread(_export, archive, folder)
    offline = await asyncio.to_thread(run, cli.server, ["events", "verify", "--exported", str(archive)])
    assert (offline.exit_code, offline.output.splitlines()[-1]) == (0, kept)
    await tamper(core, delete(events).where(events.c.position == 3))
    assert (await asyncio.to_thread(run, cli.server, ["events", "verify", *folder])).exit_code == 0
    bad = await asyncio.to_thread(run, cli.server, ["events", "verify", "--expect", kept, *folder])
    assert (bad.exit_code, "Event 3 was removed" in bad.output) == (1, True)


@pytest.mark.parametrize("text", ["", "3", "x:00", "3:zz", "3:00"])
def test_nonsense_is_no_head(text):
    with pytest.raises(Exception, match="SEQUENCE:HASH"):
        Head.parse(text)


def test_command_says_where_no_database_is(tmp_path):
    answer = CliRunner().invoke(cli.server, ["events", "verify", "--data", str(tmp_path)])
    assert "There is no database" in answer.output
    assert not (tmp_path / "folkmoot.db").exists()
