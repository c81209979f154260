"""The store on PostgreSQL: transactions that come between each other, order, a database that restarts at the worst moment."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select, update
from sqlalchemy.engine.base import RootTransaction
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from folkmoot.server.store import databases, instance_tables, transactions
from folkmoot.server.store.engine import Store
from folkmoot.server.store.jobs import Joint
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.polling import until
from tests.postgresql import Cluster, cluster

pytestmark = pytest.mark.needs_postgres

metadata = MetaData()
numbers = Table("numbers", metadata, Column("number", Integer, primary_key=True), Column("by", String))
counters = Table("counters", metadata, Column("name", String, primary_key=True), Column("count", Integer))


@pytest.fixture
def url(postgresql: Cluster, request: pytest.FixtureRequest) -> str:
    name = f"store_{request.node.name}"[:60].lower()
    return postgresql.empty("".join(each if each.isalnum() else "_" for each in name))


def create(connection):
    metadata.create_all(connection)
    instance_tables.write_turns.create(connection)
    instance_tables.commits.create(connection)
    connection.execute(insert(counters), [{"name": name, "count": 0} for name in ("left", "right")])


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = Store(databases.postgresql(url))
    await opened.migrate(create)
    yield opened
    await opened.close()


@pytest.fixture
async def other(url: str, store: Store) -> AsyncIterator[Store]:
    """The store of another instance."""
    opened = Store(databases.postgresql(url))
    yield opened
    await opened.close()


def add(number: int, by: str = ""):
    def operation(connection):
        connection.execute(insert(numbers).values(number=number, by=by))
        return number

    return operation


def all_numbers(connection) -> list[int]:
    return list(connection.scalars(select(numbers.c.number).order_by(numbers.c.number)))


def count(name: str = "left"):
    """Count in two steps, between which others may come."""

    def operation(connection):
        before = connection.scalar(select(counters.c.count).where(counters.c.name == name))
        connection.execute(update(counters).where(counters.c.name == name).values(count=before + 1))
        return before + 1

    return operation


async def test_what_two_instances_do_at_once_is_as_if_one_came_after_the_other(store: Store, other: Store):
    counted = await asyncio.gather(*(each.write(count()) for _ in range(100) for each in (store, other)))
    assert sorted(counted) == list(range(1, 201))


async def test_write_skew_is_no_more_possible_than_between_threads_that_wait(store: Store, other: Store):
    """Each would keep one of two on call; without serializable transactions both go."""

    def go(mine: str):
        def operation(connection):
            if connection.scalar(select(func.sum(counters.c.count))) > 1:
                connection.execute(update(counters).where(counters.c.name == mine).values(count=0))

        return operation

    for _ in range(20):
        await store.write(lambda connection: connection.execute(update(counters).values(count=1)).rowcount)
        await asyncio.gather(store.write(go("left")), other.write(go("right")))
        assert await store.read(lambda connection: connection.scalar(select(func.sum(counters.c.count)))) == 1


async def test_the_same_row_by_two_at_once_is_made_by_one_and_seen_by_the_other(store: Store, other: Store):
    def make_or_see(by: str):
        def operation(connection):
            there = connection.scalar(select(numbers.c.by).where(numbers.c.number == 7))
            return there or (connection.execute(insert(numbers).values(number=7, by=by)), by)[1]

        return operation

    made = await asyncio.gather(*(each.write(make_or_see(str(index))) for index, each in enumerate([store, other] * 8)))
    assert len(set(made)) == 1


async def test_failing_operation_of_a_group_spoils_nobody_elses(store: Store):
    await store.write(add(3))
    outcomes = await asyncio.gather(*(store.write(add(number)) for number in range(1, 6)), return_exceptions=True)
    assert [type(each) if isinstance(each, Exception) else each for each in outcomes] == [1, 2, IntegrityError, 4, 5]
    assert await store.read(all_numbers) == [1, 2, 3, 4, 5]


async def test_what_has_an_order_keeps_it_though_there_are_several_writers(store: Store):
    happened: list[int] = []
    inside, opened = threading.Event(), threading.Event()

    def slow(connection):
        inside.set()
        opened.wait()
        return add(0)(connection)

    first = asyncio.ensure_future(store.write(slow, then=happened.append, order="link"))
    await asyncio.to_thread(inside.wait)
    later = [
        asyncio.ensure_future(store.write(add(number), then=happened.append, order="link")) for number in range(1, 9)
    ]
    await store.write(add(99))  # by another writer: those behind the first one could be done, too
    assert happened == []
    opened.set()
    await asyncio.gather(first, *later)
    assert happened == list(range(9))


async def test_what_waits_for_its_order_is_finished_before_the_end(url: str, store: Store):
    closing = Store(databases.postgresql(url))
    writes = [asyncio.ensure_future(closing.write(add(number), order="link")) for number in range(30)]
    await asyncio.sleep(0)
    await closing.close()
    assert await asyncio.gather(*writes) == list(range(30))


async def test_reader_can_not_write(store: Store):
    with pytest.raises(DBAPIError, match="read-only"):
        await store.read(add(1))


async def test_failing_read_of_a_group_spoils_nobody_elses(store: Store):
    reads = [store.read(all_numbers), store.read(add(1)), store.read(all_numbers)]
    first, second, third = await asyncio.gather(*reads, return_exceptions=True)
    assert (first, third) == ([], [])
    assert isinstance(second, DBAPIError)


async def test_reader_sees_one_moment(store: Store):
    await store.write(add(1))
    inside, written = threading.Event(), threading.Event()

    def twice(connection):
        first = all_numbers(connection)
        inside.set()
        written.wait()
        return first, all_numbers(connection)

    reading = asyncio.ensure_future(store.read(twice))
    await asyncio.to_thread(inside.wait)
    await store.write(add(2))
    written.set()
    assert await reading == ([1], [1])


async def test_a_transaction_of_a_paused_instance_holds_up_the_others_for_seconds_only(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.setattr(databases, "POSTGRES_PAUSE_SECONDS", 1)
    paused = Store(databases.postgresql(url))
    inside, resumed = threading.Event(), threading.Event()

    def stop_in_the_middle(connection):
        value = count()(connection)
        inside.set()
        resumed.wait()
        return value

    stopped = asyncio.ensure_future(paused.write(stop_in_the_middle))
    await asyncio.to_thread(inside.wait)
    assert await other.write(count()) == 1
    resumed.set()
    assert await stopped == 2  # what it had done was undone, and is done anew
    await paused.close()


def test_the_password_is_in_no_message():
    with pytest.raises(FolkmootError) as refused:
        databases.postgresql("mysql://folkmoot:secret@host/name")
    assert "secret" not in refused.value.message


# ---- restarts --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def restarting() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
async def shaken(restarting: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """A store whose database restarts."""
    opened = Store(databases.postgresql(restarting.empty(f"shaken_{abs(hash(request.node.name)) % 10**8}")))
    await opened.migrate(create)
    yield opened
    await opened.close()


async def test_a_restart_between_two_calls_is_not_noticed(shaken: Store, restarting: Cluster):
    await shaken.write(add(1))
    await asyncio.to_thread(restarting.restart)
    assert await shaken.read(all_numbers) == [1]
    assert await shaken.write(add(2)) == 2


async def test_a_restart_in_the_middle_of_a_transaction_has_it_done_once(shaken: Store, restarting: Cluster):
    inside, restarted = threading.Event(), threading.Event()

    def operation(connection):
        value = count()(connection)
        inside.set()
        restarted.wait()
        return value

    write = asyncio.ensure_future(shaken.write(operation))
    await asyncio.to_thread(inside.wait)
    await asyncio.to_thread(restarting.restart)
    restarted.set()
    assert await write == 1


async def test_under_load_everything_has_happened_once(shaken: Store, restarting: Cluster):
    """What was being committed is looked up afterwards: some of it has happened, some has not and is done again."""
    counted: list[int] = []

    async def load() -> None:
        for _ in range(150):
            counted.extend(await asyncio.gather(*(shaken.write(count()) for _ in range(20))))

    loading = asyncio.create_task(load())
    for _ in range(2):
        await asyncio.to_thread(restarting.restart)
    await loading
    assert sorted(counted) == list(range(1, 3001))


@pytest.fixture
def database(url: str, store: Store) -> Iterator[databases.Database]:
    """What the store works on, by itself."""
    opened = databases.postgresql(url)
    yield opened
    opened.writing.dispose()
    opened.reading.dispose()


def asked(database: databases.Database, name: str) -> bool:
    with database.migrating.begin() as connection:
        return database.was_committed(connection, name)


@pytest.mark.parametrize("happens", [True, False])
async def test_who_asks_about_what_goes_on_waits(database: databases.Database, happens: bool):
    def is_waiting() -> bool:
        asking = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'transactionid' AND query LIKE 'INSERT INTO commits%%'"
        )
        with database.reading.connect() as connection:
            return connection.exec_driver_sql(asking).first() is not None

    with database.writing.connect() as connection:
        transaction = connection.begin()
        add(1)(connection)
        name = database.name_transaction(connection)
        assert name
        asking = asyncio.create_task(asyncio.to_thread(asked, database, name))
        await until(is_waiting)
        assert not asking.done()
        (transaction.commit if happens else transaction.rollback)()
    assert await asking is happens


async def test_a_transaction_that_is_said_not_to_be_committed_never_will_be(database: databases.Database):
    with database.writing.connect() as connection:
        transaction = connection.begin()
        add(1)(connection)
        name = database.name_transaction(connection)
        assert name
        transaction.rollback()
    assert not asked(database, name)
    with pytest.raises(IntegrityError), database.writing.begin() as connection:
        connection.exec_driver_sql("INSERT INTO commits (name, at) VALUES (%(name)s, 0)", {"name": name})


async def test_a_transaction_that_wrote_nothing_leaves_no_name(database: databases.Database):
    with database.writing.begin() as connection:
        name = database.name_transaction(connection)
    assert name
    assert not asked(database, name)


async def test_old_names_are_forgotten(store: Store, database: databases.Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transactions, "NAMES_FORGOTTEN_EVERY", 1)
    with database.writing.begin() as connection:
        connection.exec_driver_sql("INSERT INTO commits (name, at) VALUES ('old', 0)")
    await store.write(add(1))
    await store.write(add(2))
    names = await store.read(lambda connection: list(connection.scalars(select(instance_tables.commits.c.name))))
    assert len(names) == 2
    assert "old" not in names


async def test_a_commit_whose_answer_was_lost_is_not_done_again(
    shaken: Store, restarting: Cluster, monkeypatch: pytest.MonkeyPatch
):
    """The worst moment of all: the database has committed, and goes away before it says so."""
    commit = RootTransaction.commit
    lost: list[RootTransaction] = []

    def lose_the_answer(transaction: RootTransaction) -> None:
        commit(transaction)
        if not lost:
            lost.append(transaction)
            raise OperationalError("COMMIT", {}, psycopg.OperationalError("the connection is lost"))

    monkeypatch.setattr(RootTransaction, "commit", lose_the_answer)
    assert await shaken.write(count()) == 1
    assert lost
    assert await shaken.write(count()) == 2


async def test_while_the_database_is_away_calls_say_so(
    shaken: Store, restarting: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("folkmoot.server.store.transactions.DATABASE_PATIENCE_SECONDS", 0.2)
    await asyncio.to_thread(restarting.stop)
    try:
        for call in (shaken.write(add(1)), shaken.read(all_numbers)):
            with pytest.raises(FolkmootError) as refused:
                await call
            assert refused.value.reason == ErrorReason.ERROR_REASON_DATABASE_UNREACHABLE
    finally:
        await asyncio.to_thread(restarting.start)
    assert await shaken.read(all_numbers) == []


async def test_operations_of_one_kind_that_wait_for_each_other_are_done_at_once_and_in_turn(store: Store):
    sizes: list[int] = []
    inside, opened = threading.Event(), threading.Event()

    def add_all(connection, items):
        sizes.append(len(items))
        inside.set()
        opened.wait()
        for item in items:
            add(item)(connection)
        return [item * 2 for item in items]

    writes = [asyncio.ensure_future(store.write(Joint(add_all, 0), order=add_all))]
    await asyncio.to_thread(inside.wait)
    writes += [asyncio.ensure_future(store.write(Joint(add_all, each), order=add_all)) for each in range(1, 101)]
    await asyncio.sleep(0)
    opened.set()
    assert await asyncio.gather(*writes) == [each * 2 for each in range(101)]
    assert sizes == [1, 64, 36]
    assert await store.read(all_numbers) == list(range(101))


async def test_one_that_fails_of_what_is_done_at_once_spoils_nobody_elses(store: Store):
    def add_all(connection, items):
        return [add(item)(connection) for item in items]

    await store.write(add(3))
    writes = [store.write(Joint(add_all, each), order=add_all) for each in range(6)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(each) if isinstance(each, Exception) else each for each in outcomes] == [0, 1, 2, IntegrityError, 4, 5]


async def test_what_fails_to_commit_leaves_a_connection_that_works(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Its name is refused in the same breath as the commit."""
    tokens = iter(["same", "same", "other", "another"])
    monkeypatch.setattr(databases, "token_hex", lambda _size: next(tokens))
    await store.write(add(1))
    await store.write(add(2))
    assert await store.write(add(3)) == 3
    assert await store.read(all_numbers) == [1, 2, 3]
