"""Events are found by indices, in the order of the chain, whatever is asked for and whoever asks."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert

from folkmoot.server.audit import searches
from folkmoot.server.audit.searches import Wanted, newest
from folkmoot.server.context import Caller, Rule
from folkmoot.server.store.tables import events, members, metadata
from folkmoot.v1 import options_pb2 as options

BEGAN = datetime(2026, 5, 17, tzinfo=UTC)
GENESES = [bytes([number]) * 32 for number in range(3)]
INTENTS = ("task.create", "task.cancel", "task_.odd", "user.login", "ledger.organization.vote")
NUMBER = 240


def caller(scope: options.Scope.ValueType) -> Caller:
    return Caller(
        options.CALLER_USER,
        user_id="user-1",
        organization_account_id="account-1",
        organization_id="address-1",
        rules=frozenset({Rule(options.RESOURCE_EVENT, options.OPERATION_VIEW, scope)}),
    )


CALLERS = [
    caller(scope)
    for scope in (
        options.SCOPE_OWN,
        options.SCOPE_ORGANIZATION,
        options.SCOPE_COLLABORATION,
        options.SCOPE_GLOBAL,
    )
]
ASKED = [
    Wanted(),
    Wanted(intent="task.create"),
    Wanted(intent="task.*"),
    Wanted(intent="nothing.*"),
    Wanted(created_by="user-1"),
    Wanted(organization="account-1"),
    Wanted(outcome="ok"),
    Wanted(outcome="NOT_ALLOWED"),
    Wanted(request_id="request-7"),
    Wanted(created_after=BEGAN + timedelta(seconds=50)),
    Wanted(created_before=BEGAN + timedelta(seconds=90)),
    Wanted(created_after=BEGAN + timedelta(seconds=50), created_before=BEGAN + timedelta(seconds=90)),
    Wanted(intent="task.*", outcome="NOT_ALLOWED", created_before=BEGAN + timedelta(seconds=90)),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    engine = create_engine(f"sqlite:///{tmp_path_factory.mktemp('events') / 'events.db'}")
    with engine.connect() as connection:
        metadata.create_all(connection)
        connection.execute(insert(events), [row(number) for number in range(NUMBER)])
        connection.execute(
            insert(members),
            [{"genesis": each, "organization_id": "address-1"} | _rest(members) for each in GENESES[:2]],
        )
        yield connection
    engine.dispose()


def _rest(table: Any) -> dict[str, Any]:
    given = ("genesis", "organization_id")
    return {
        column.name: {str: "", int: 0, bytes: b"", datetime: BEGAN, bool: False}[column.type.python_type]
        for column in table.c
        if column.name not in given and not column.nullable
    }


def row(number: int) -> dict[str, Any]:
    """An event; the chain is in another order than the events were written in, and began to be made in."""
    return {
        "sequence": number + 1,
        "intent": INTENTS[number % len(INTENTS)],
        "organization": ("account-1", "address-1", "account-2", "")[number % 4],
        "created_by": f"user-{number % 3}",
        "created_at": BEGAN + timedelta(seconds=(number * 7) % 120),
        "data_version": 1,
        "data": "{}",
        "request_id": f"request-{number // 2}",
        "outcome": "NOT_ALLOWED" if number % 11 == 0 else "ok",
        "genesis": None if number % 2 else GENESES[number % 3],
        "origin": "",
        "position": None if number % 20 == 19 else (number * 37) % NUMBER + 1,
        "hash": bytes(32),
    }


def expected(wanted: Wanted, who: Caller) -> list[int]:
    """Written from the documentation alone."""
    [rule] = who.rules
    own = (who.organization_account_id, who.organization_id)
    sees = {
        options.SCOPE_OWN: lambda each: each["created_by"] == who.user_id,
        options.SCOPE_ORGANIZATION: lambda each: each["organization"] in own,
        options.SCOPE_COLLABORATION: lambda each: each["organization"] in own or each["genesis"] in GENESES[:2],
        options.SCOPE_GLOBAL: lambda _each: True,
    }[rule.scope]
    found = []
    for each in map(row, range(NUMBER)):
        is_wanted = all(
            getattr(wanted, name) in ("", each[name])
            for name in ("created_by", "organization", "outcome", "request_id")
        )
        intent = wanted.intent
        is_wanted &= each["intent"].startswith(intent[:-1]) if intent.endswith(".*") else intent in ("", each["intent"])
        is_wanted &= wanted.created_after is None or each["created_at"] >= wanted.created_after
        is_wanted &= wanted.created_before is None or each["created_at"] < wanted.created_before
        if is_wanted and sees(each) and each["position"] is not None:
            found.append(each["position"])
    return sorted(found, reverse=True)


@contextmanager
def statements(connection: Connection) -> Iterator[list[tuple[str, Any]]]:
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(connection.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(connection.engine, "before_cursor_execute", note)


def pages(connection: Connection, wanted: Wanted, who: Caller, size: int) -> Iterator[Sequence[Any]]:
    below = None
    while rows := newest(connection, wanted, who, below=below, most=size):
        yield rows
        below = rows[-1].position


@pytest.mark.parametrize(("wanted", "who"), list(product(ASKED, CALLERS)))
def test_pages_have_what_is_wanted_and_seen_in_the_order_of_the_chain(database, wanted, who):
    found = [each.position for page in pages(database, wanted, who, size=7) for each in page]
    assert found == expected(wanted, who)


def test_more_walks_than_a_database_takes_are_one(database, monkeypatch):
    monkeypatch.setattr(searches, "WALKS", 2)
    for wanted, who in product(ASKED, CALLERS):
        assert [each.position for each in newest(database, wanted, who, below=None, most=1000)] == expected(wanted, who)


def test_who_may_see_nothing_sees_nothing(database):
    nobody = Caller(options.CALLER_USER, user_id="", rules=CALLERS[1].rules)
    assert list(newest(database, Wanted(), nobody, below=None, most=50)) == []


@pytest.mark.parametrize(("wanted", "who"), list(product(ASKED, CALLERS)))
def test_no_search_reads_through_all_events(database, wanted, who):
    """Each step is a search by an index; what is sorted is the few that several walks have found."""
    with statements(database) as seen:
        newest(database, wanted, who, below=None, most=50)
    for statement, parameters in seen:
        steps = [each.detail for each in database.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        scans = [step for step in steps if step.startswith("SCAN events") and "ix_events_position" not in step]
        sorts = [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step]
        assert not scans, steps
        assert not sorts or "UNION" in statement or wanted.request_id, steps  # there are few


def test_index_of_refusals_is_used(database: Connection) -> None:
    with statements(database) as seen:
        newest(database, Wanted(outcome="NOT_ALLOWED"), CALLERS[3], below=None, most=50)
    [(statement, parameters)] = seen
    plan = database.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    assert "ix_events_outcome_position" in plan[0].detail
