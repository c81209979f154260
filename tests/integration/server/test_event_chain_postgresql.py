"""The chain of events on PostgreSQL: events that are committed in another order than they were written in, instances that chain at once."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, insert

from folkmoot.server import context
from folkmoot.server.audit import chain, trail, verifying
from folkmoot.server.audit.searches import Wanted
from folkmoot.server.context import Caller, Rule
from folkmoot.server.store import databases, migrate
from folkmoot.server.store.engine import Store
from folkmoot.server.store.tables import events
from folkmoot.server.wakers.local import LocalWaker
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import utc_now
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres

OPERATOR = Caller(
    options.CALLER_USER,
    user_id="root",
    rules=frozenset({Rule(options.RESOURCE_EVENT, options.OPERATION_VIEW, options.SCOPE_GLOBAL)}),
)


def event(name: str) -> dict[str, Any]:
    return {
        "intent": "task.create",
        "organization": "",
        "created_by": name,
        "created_at": utc_now(),
        "data_version": 1,
        "data": "{}",
        "request_id": name,
        "outcome": "ok",
    }


@pytest.fixture
def url(postgresql: Cluster, request: pytest.FixtureRequest) -> str:
    return postgresql.empty(f"chain_{abs(hash(request.node.name))}")


@pytest.fixture
async def instances(url: str) -> AsyncIterator[list[Any]]:
    """Two instances of a server, as far as the chain is concerned."""
    stores = [Store(databases.postgresql(url)) for _ in range(2)]
    await stores[0].migrate(migrate.upgrade)
    yield [SimpleNamespace(store=store, draining=asyncio.Event()) for store in stores]
    for store in stores:
        await store.close()


async def verified(core: Any) -> verifying.Verdict:
    return await core.store.read(verifying.verify)


async def test_event_that_is_committed_late_comes_behind_what_was_read_before(instances, url):
    core = instances[0]
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as early, engine.connect() as late:
        late.execute(insert(events).values(event("late")))  # takes the lower sequence
        early.execute(insert(events).values(event("early")))
        early.commit()
        await chain.advance(core)
        context.authenticated(OPERATOR)
        watching: Any = trail.stream(core, LocalWaker(), Wanted(), after=0)
        first = await anext(watching)
        late.commit()
        await chain.advance(instances[1])
    second = await anext(watching)
    await watching.aclose()
    engine.dispose()
    assert [(each.position, each.created_by) for each in (first, second)] == [(1, "early"), (2, "late")]
    assert second.sequence < first.sequence
    assert (await verified(core)).problem == ""


async def test_pages_follow_the_chain_and_not_the_order_of_writing(instances, url):
    """What is committed late stands before a page that was already given, where the next first page shows it; never behind it."""
    core = instances[0]
    context.authenticated(OPERATOR)
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.connect() as early, engine.connect() as late:
        late.execute(insert(events).values(event("late")))
        for number in range(4):
            early.execute(insert(events).values(event(f"early-{number}")))
        early.commit()
        first, token = await trail.page(core, Wanted(), page_size=2, page_token="")
        late.commit()
        await chain.advance(instances[1])
    second, end = await trail.page(core, Wanted(), page_size=2, page_token=token)
    again, _ = await trail.page(core, Wanted(), page_size=2, page_token="")
    engine.dispose()
    assert [each.created_by for each in (*first, *second)] == ["early-3", "early-2", "early-1", "early-0"]
    assert end == ""
    assert [(each.position, each.created_by) for each in again] == [(5, "late"), (4, "early-3")]


async def test_instances_that_chain_at_once_while_others_write_make_one_chain(instances):
    async def write(core: Any, by: str) -> None:
        for number in range(60):
            row = event(f"{by}-{number}")
            await core.store.write(lambda connection: connection.execute(insert(events).values(row)))  # noqa: B023

    writing = asyncio.gather(*(write(core, f"{index}") for index, core in enumerate((*instances, *instances))))
    while not writing.done():
        await asyncio.gather(*(chain.advance(core) for core in instances))
    await writing
    await chain.advance(instances[0])
    found = await verified(instances[1])
    assert (found.head.position, found.unchained, found.problem) == (240, 0, "")
