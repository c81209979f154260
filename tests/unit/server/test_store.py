"""The store: grouped writes that don't spoil each other, effects after the commit, readers that can't write."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from folkmoot.server.store.databases import sqlite
from folkmoot.server.store.engine import WRITE_GROUP, Store

metadata = MetaData()
numbers = Table("numbers", metadata, Column("number", Integer, primary_key=True))


def add(number: int):
    def operation(connection):
        connection.execute(insert(numbers).values(number=number))
        return number

    return operation


def all_numbers(connection) -> list[int]:
    return list(connection.execute(select(numbers.c.number).order_by(numbers.c.number)).scalars())


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "test.db"


@pytest.fixture
async def store(path) -> AsyncIterator[Store]:
    opened = Store(sqlite(path))
    await opened.write(metadata.create_all)
    yield opened
    await opened.close()


class Gate:
    """Holds the writer thread, so that what is written meanwhile is one group."""

    def __init__(self, store: Store) -> None:
        self._held, self._open = threading.Event(), threading.Event()
        self._waiting = asyncio.ensure_future(store.write(self._hold))

    def _hold(self, _connection) -> None:
        self._held.set()
        self._open.wait()

    async def closed(self) -> None:
        await asyncio.to_thread(self._held.wait)

    async def open(self) -> None:
        self._open.set()
        await self._waiting


async def queued(store: Store, *operations):
    """Write the operations so that they come as one group; return values and errors."""
    gate = Gate(store)
    await gate.closed()
    writes = [asyncio.ensure_future(store.write(operation)) for operation in operations]
    await asyncio.sleep(0)
    await gate.open()
    return await asyncio.gather(*writes, return_exceptions=True)


async def test_write_returns_what_the_operation_returned(store):
    assert await store.write(add(7)) == 7
    assert await store.read(all_numbers) == [7]


async def test_group_shares_one_transaction(store):
    transactions = []

    def note(connection):
        transactions.append(id(connection))

    await queued(store, *[note] * 10)
    assert len(transactions) == 10
    assert len(set(transactions)) == 1


async def test_failing_operation_of_a_group_spoils_nobody_elses(store):
    await store.write(add(3))
    outcomes = await queued(store, add(1), add(2), add(3), add(4))
    assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [1, 2, IntegrityError, 4]
    assert await store.read(all_numbers) == [1, 2, 3, 4]


async def test_failing_operation_leaves_nothing_behind(store):
    def half(connection):
        connection.execute(insert(numbers).values(number=5))
        raise ValueError("after the first half")

    with pytest.raises(ValueError, match="first half"):
        await store.write(half)
    assert await store.read(all_numbers) == []


async def test_more_than_a_group_is_written_in_order(store):
    count = WRITE_GROUP * 2 + 3
    assert await queued(store, *map(add, range(count))) == list(range(count))
    assert await store.read(all_numbers) == list(range(count))


async def test_effect_runs_after_the_commit_and_before_the_caller_goes_on(store, path):
    seen = []

    def effect(number):
        with closing(sqlite3.connect(path)) as other:
            committed = other.execute("SELECT number FROM numbers").fetchall()
        seen.append((number, committed, threading.current_thread() is threading.main_thread()))

    await store.write(add(1), then=effect)
    assert seen == [(1, [(1,)], True)]


async def test_effect_runs_though_the_caller_was_cancelled(store):
    gate, happened = Gate(store), asyncio.Event()
    await gate.closed()
    write = asyncio.ensure_future(store.write(add(1), then=lambda _number: happened.set()))
    await asyncio.sleep(0)
    write.cancel()
    await gate.open()
    await asyncio.wait_for(happened.wait(), 10)
    assert await store.read(all_numbers) == [1]


async def test_no_effect_of_what_failed(store):
    await store.write(add(1))
    seen: list[object] = []
    with pytest.raises(IntegrityError):
        await store.write(add(1), then=seen.append)
    assert seen == []


async def test_reader_can_not_write(store):
    with pytest.raises(OperationalError, match="readonly"):
        await store.read(add(1))


async def test_reader_sees_one_moment(store):
    await store.write(add(1))
    inside, written = threading.Event(), threading.Event()

    def twice(connection):
        first = connection.execute(select(func.count()).select_from(numbers)).scalar()
        inside.set()
        written.wait()
        return first, connection.execute(select(func.count()).select_from(numbers)).scalar()

    reading = asyncio.ensure_future(store.read(twice))
    await asyncio.to_thread(inside.wait)
    await store.write(add(2))
    written.set()
    assert await reading == (1, 1)


async def test_commit_reaches_the_disk(store):
    """Power loss can't be tried here; that SQLite is told to sync each commit can."""
    assert await store.write(lambda connection: connection.execute(text("PRAGMA synchronous")).scalar()) == 2
    assert await store.read(lambda connection: connection.execute(text("PRAGMA journal_mode")).scalar()) == "wal"


async def test_close_finishes_what_is_queued(path):
    store = Store(sqlite(path))
    await store.write(metadata.create_all)
    writes = [asyncio.ensure_future(store.write(add(number))) for number in range(10)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*writes) == list(range(10))
