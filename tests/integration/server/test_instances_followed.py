"""What happens at one instance is felt at the other: sessions, rights, events, clocks that differ, a broker or a database that is away.

Calls go to two instances that share a PostgreSQL, most of them to one pair for all tests of this file.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from sqlalchemy import select

from folkmoot.server.instances import SILENT_LOOKS
from folkmoot.server.store.task_tables import node_links
from folkmoot.trust import make_authentication
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import task_service_pb2 as pb
from tests.integration.harness import PASSWORD, Clock, bearer, reason, refused, server
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, attached
from tests.integration.server.places import Place, first_instance
from tests.integration.server.sealed import task
from tests.integration.server.test_departures import revoke
from tests.integration.server.test_instances import read_on
from tests.polling import until
from tests.postgresql import Cluster, cluster

pytestmark = [pytest.mark.needs_postgres, pytest.mark.asyncio(loop_scope="module")]

NOBODY_LISTENS = "amqp://guest:guest@127.0.0.1:9/"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory, postgresql: Cluster) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("followed")
    async with first_instance(folder / "data", postgresql.url(str(folder))) as place:
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(place: Place) -> AsyncIterator[Hub]:
    async with place.instance() as hub:
        yield hub


@pytest.fixture
def here(place: Place) -> Hub:
    return place.here


async def acknowledged(hub: Hub, organization: str) -> int:
    """Return what a node has acknowledged in the tests before."""
    asked = select(node_links.c.acknowledged).where(
        node_links.c.node_id == hub.lung[organization].nodes[f"{organization.lower()}-1"].fingerprint
    )
    return await hub.server.running.core.store.read(lambda connection: connection.scalar(asked)) or 0


# ---- nodes -------------------------------------------------------------------------------------------------------------


async def test_a_polling_node_that_comes_to_another_instance_goes_on_there(here: Hub, there: Hub) -> None:
    """The session is unknown there; a new one begins behind what the node has acknowledged, and ends the older one."""
    first, second = task(here.lung, ("Beta",)), task(here.lung, ("Beta",))
    async with attached(here.server, here.lung, "Beta", form=Poll) as older:
        await here.create(first)
        await older.accept()
        older.link._tasks, elsewhere = there.tasks, older.link._tasks  # type: ignore[attr-defined]
        assert reason(await refused(older.link.receive())) == "SESSION_UNKNOWN"
        held = [(first.run_id("Beta"), "RUNNING")]
        async with attached(there.server, here.lung, "Beta", form=Poll, acknowledged=1, held=held) as newer:
            await here.create(second)
            assert (await newer.accept()).run_id == second.run_id("Beta")
            older.link._tasks = elsewhere  # type: ignore[attr-defined]
            assert reason(await refused(older.link.receive())) in ("SESSION_REPLACED", "SESSION_UNKNOWN")
            await newer.leave()


async def test_a_task_is_watched_elsewhere_than_it_was_made_and_executed(here: Hub, there: Hub) -> None:
    sealed = task(here.lung, ("Gamma",))
    async with attached(here.server, here.lung, "Gamma") as gamma:
        await there.create(sealed)
        watching = asyncio.create_task(seen_states(there, sealed.task_id))
        await gamma.accept()
        await here.until(sealed, "Gamma", "ASSIGNED")
        await here.commit(sealed, "Gamma")
    revisions = await watching
    assert revisions == sorted(set(revisions)), "each change once, in its order"


async def seen_states(hub: Hub, task_id: str) -> list[int]:
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=task_id), metadata=hub.ada)
    return [change.run.revision async for change in watching if change.HasField("run")]


async def test_a_node_that_is_revoked_at_one_is_sent_away_by_the_other(here: Hub, there: Hub) -> None:
    here.lung.add_node("Beta", "beta-2")
    await here.server.append(here.lung.entries[-1], here.admins["Beta"])
    async with attached(there.server, here.lung, "Beta", node="beta-2") as beta:
        await revoke(here, "Beta", "beta-2")
        with pytest.raises(grpc.aio.AioRpcError, match="NODE_NOT_APPROVED"):
            await read_on(beta)


# ---- people ------------------------------------------------------------------------------------------------------------


async def test_a_role_that_is_taken_at_one_is_gone_at_the_other(here: Hub, there: Hub) -> None:
    root = await here.server.root()
    user = await here.server.user("demoted", root.organization_account_id, ["Organization Admin"])
    listing = admin.ListUsersRequest()
    await there.server.admin.ListUsers(listing, metadata=user.metadata)
    change = admin.UpdateUserRequest(user_id=user.user_id, roles=["Viewer"])
    change.update_mask.paths.append("roles")
    await here.server.admin.UpdateUser(change, metadata=root.metadata)

    async def is_refused() -> bool:
        try:
            await there.server.admin.ListUsers(listing, metadata=user.metadata)
        except grpc.aio.AioRpcError as error:
            return error.code() == grpc.StatusCode.UNAUTHENTICATED  # he logs in anew
        return False

    await until(is_refused)


async def test_tokens_are_renewed_wherever_one_is(here: Hub, there: Hub) -> None:
    root = await here.server.root()
    user = await here.server.user("roams", root.organization_account_id, ["Viewer"])
    refresh = user.tokens.refresh_token
    for hub in (there, here, there):
        answer = await hub.server.auth.Refresh(auth.RefreshRequest(refresh_token=refresh))
        refresh = answer.tokens.refresh_token
        await here.server.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(answer.tokens.access_token))


# ---- events ------------------------------------------------------------------------------------------------------------


async def test_events_of_both_are_watched_at_either_in_one_order_without_a_gap(here: Hub, there: Hub) -> None:
    root = await here.server.root()
    [newest] = (await here.server.admin.ListEvents(admin.ListEventsRequest(page_size=1), metadata=root.metadata)).events
    request = admin.WatchEventsRequest(after_sequence=newest.sequence)
    watching = [hub.server.admin.WatchEvents(request, metadata=root.metadata) for hub in (here, there)]
    sealed = [task(here.lung, ("Beta",)) for _ in range(20)]
    await asyncio.gather(*(hub.create(each) for hub, each in zip((here, there) * 10, sealed, strict=True)))
    trails = [await told_until(each, len(sealed)) for each in watching]
    assert trails[0] == trails[1]
    sequences = [sequence for sequence, _ in trails[0]]
    assert sequences == list(range(newest.sequence + 1, newest.sequence + 1 + len(sequences)))
    assert Counter(name for _, name in trails[0] if name) == Counter(each.task_id for each in sealed)


async def told_until(watching: Any, tasks: int) -> list[tuple[int, str]]:
    """Return the sequences of events, with the tasks that they tell were made, until so many were."""
    trail: list[tuple[int, str]] = []
    while sum(bool(name) for _, name in trail) < tasks:
        event = (await watching.read()).event
        made = event.data.partition('"task_id":"')[2][:36] if event.intent == "task.create" else ""
        trail.append((event.sequence, made))
    watching.cancel()
    return trail


# ---- clocks ------------------------------------------------------------------------------------------------------------


async def test_a_proof_is_good_once_though_an_instance_is_ahead_of_its_time(place: Place, here: Hub) -> None:
    """An instance two minutes ahead forgets nonces that are over by its own clock, not those that are good at another."""
    beta, clock = here.lung["Beta"], Clock()
    clock.ahead = timedelta(minutes=2)

    def proof(nonce: bytes) -> auth.AuthenticateNodeRequest:
        made = make_authentication(
            genesis=here.lung.genesis,
            organization_id=beta.address,
            key=beta.nodes["beta-1"],
            nonce=nonce,
            server_authority_digest=here.server.authority_digest,
            now=here.server.running.core.clock(),
        )
        return auth.AuthenticateNodeRequest(authentication=made)

    async with place.instance(clock=clock) as ahead:
        stolen = proof((await here.server.auth.GetNonce(auth.GetNonceRequest())).nonce)
        await here.server.auth.AuthenticateNode(stolen)
        own = (await ahead.server.auth.GetNonce(auth.GetNonceRequest())).nonce
        await ahead.server.auth.AuthenticateNode(proof(own))  # which clears away what is over
        assert reason(await refused(here.server.auth.AuthenticateNode(stolen))) == "NONCE_INVALID"


async def test_instances_whose_clocks_differ_by_an_hour_take_each_other_for_alive(
    place: Place, here: Hub, there: Hub
) -> None:
    clock = Clock()
    clock.ahead = timedelta(hours=1)
    known = await acknowledged(here, "Gamma")
    async with (
        place.instance(clock=clock) as ahead,
        attached(here.server, here.lung, "Gamma", acknowledged=known) as gamma,
    ):
        for _ in range(SILENT_LOOKS + 2):
            for hub in (ahead, here, there):
                await hub.server.running.dispatch.instances.look()
        sealed = task(here.lung, ("Gamma",))
        await here.create(sealed)
        assert (await gamma.accept()).run_id == sealed.run_id("Gamma")


# ---- what carries wake-ups, and what keeps rows ------------------------------------------------------------------------


async def test_with_a_broker_that_is_down_from_the_start_everything_goes_on(place: Place) -> None:
    async with (
        place.instance(waker=NOBODY_LISTENS, log_level="error") as here,
        place.instance(waker=NOBODY_LISTENS, log_level="error") as there,
        attached(there.server, there.lung, "Beta", acknowledged=await acknowledged(here, "Beta")) as beta,
    ):
        sealed = task(here.lung, ("Beta",))
        await here.create(sealed)
        while (await beta.accept()).run_id != sealed.run_id("Beta"):
            """What other tests have made comes first."""
        await here.until(sealed, "Beta", "ASSIGNED")


# The driver can't close a cursor whose database has gone in the middle, and says so when that is collected.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <function ServerCursorMixin:pytest.PytestUnraisableExceptionWarning"
)
async def test_a_database_that_crashes_under_load_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Twice, while two instances store tasks and hand them to a node: each is there once and was delivered once."""
    with cluster() as own:
        async with (
            first_instance(tmp_path / "data", own.url("shaken"), log_level="error") as place,
            place.instance(log_level="error") as there,
            attached(there.server, there.lung, "Beta") as beta,
        ):
            here, wanted = place.here, [task(place.lung, ("Beta",)) for _ in range(60)]
            waiting = list(wanted)

            async def client(hub: Hub) -> None:
                while waiting:
                    sealed = waiting.pop()
                    while True:
                        try:
                            await hub.create(sealed)
                            break
                        except grpc.aio.AioRpcError as error:
                            if error.code() != grpc.StatusCode.UNAVAILABLE:
                                raise

            clients = [asyncio.create_task(client(hub)) for hub in (here, there) * 2]
            for left in (45, 15):
                await until(lambda: len(waiting) <= left)  # noqa: B023
                await asyncio.to_thread(own.crash)
            await asyncio.gather(*clients)
            delivered = [(await beta.accept()).run_id for _ in wanted]
            assert sorted(delivered) == sorted(each.run_id("Beta") for each in wanted)
            assert own.execute("SELECT count(*), count(DISTINCT task_id) FROM tasks", database="shaken") == [(60, 60)]
            made = [event for event in await here.server.events("task.create") if event.outcome == "ok"]
            assert len(made) == len(wanted)


# ---- the first start ---------------------------------------------------------------------------------------------------


async def test_instances_that_start_at_once_for_the_first_time_have_one_authority_and_one_set_up(
    tmp_path: Path, postgresql: Cluster
) -> None:
    url = postgresql.empty(f"{tmp_path.name}_first"[-60:])
    async with server(tmp_path, database=url) as one, server(tmp_path, database=url) as other:
        assert one.running.certificate_authority == other.running.certificate_authority

        async def set_up(token: str | None, username: str) -> str:
            request = auth.CompleteSetupRequest(
                setup_token=token or "", username=username, password=PASSWORD, organization_name="Hub"
            )
            try:
                return str((await one.auth.CompleteSetup(request)).user_id)
            except grpc.aio.AioRpcError as error:
                return error.details().partition(":")[0]  # type: ignore[union-attr]

        tokens = (one.running.setup_token, other.running.setup_token)
        outcomes = await asyncio.gather(*(set_up(token, f"root-{i}") for i, token in enumerate(tokens * 2)))
        refusals = Counter(each for each in outcomes if each.isupper())
        assert len(outcomes) - refusals.total() == 1
        assert refusals.keys() <= {"SETUP_DONE", "SETUP_TOKEN_INVALID"}
