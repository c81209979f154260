"""Sessions at the server: for whom they are, where their dataframes are, and whom a deletion reaches."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.server.store import session_rows
from folkmoot.trust import uuid7
from folkmoot.v1 import session_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.options_pb2 import Scope
from folkmoot.v1.session_service_pb2_grpc import SessionServiceStub
from folkmoot.v1.task_pb2 import DataframeColumn, DataframeLeft, RunState, SessionUse, WaitReason
from tests.integration.harness import Metadata, reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_attempts import pass_time, run
from tests.integration.server.test_departures import revoke, second_node

LEFT = DataframeLeft(name="cleaned", rows=3, columns=[DataframeColumn(name="age", type="int64")])


class Sessions:
    """SessionService, as people of the collaboration call it."""

    def __init__(self, hub: Hub) -> None:
        self.stub: Any = SessionServiceStub(hub.server.channel)
        self.hub = hub

    async def create(
        self,
        name: str = "ages",
        scope: Scope.ValueType = Scope.SCOPE_OWN,
        *,
        by: Metadata | None = None,
        **changes: Any,
    ) -> pb.Session:
        wish: dict[str, Any] = {
            "session_id": self.hub.server.new_id(),
            "genesis": self.hub.lung.genesis,
            "name": name,
            "scope": scope,
        }
        request = pb.CreateSessionRequest(**(wish | changes))
        return (await self.stub.CreateSession(request, metadata=by or self.hub.ada)).session

    async def get(self, session: pb.Session, *, by: Metadata | None = None) -> pb.Session:
        request = pb.GetSessionRequest(session_id=session.session_id)
        return (await self.stub.GetSession(request, metadata=by or self.hub.ada)).session

    async def update(self, session: pb.Session, *paths: str, by: Metadata | None = None, **changes: Any) -> pb.Session:
        request = pb.UpdateSessionRequest(
            session_id=session.session_id, update_mask=FieldMask(paths=paths or changes.keys() - {"etag"}), **changes
        )
        return (await self.stub.UpdateSession(request, metadata=by or self.hub.ada)).session

    async def delete(self, session: pb.Session, *, by: Metadata | None = None, **changes: Any) -> None:
        request = pb.DeleteSessionRequest(session_id=session.session_id, **changes)
        await self.stub.DeleteSession(request, metadata=by or self.hub.ada)

    async def dataframes(self, session: pb.Session) -> list[pb.Dataframe]:
        request = pb.ListDataframesRequest(session_id=session.session_id)
        return list((await self.stub.ListDataframes(request, metadata=self.hub.ada)).dataframes)

    async def names(self, *, by: Metadata | None = None, **only: Any) -> list[str]:
        answer = await self.stub.ListSessions(pb.ListSessionsRequest(**only), metadata=by or self.hub.ada)
        return [one.name for one in answer.sessions]


@pytest.fixture
def sessions(hub: Hub) -> Sessions:
    return Sessions(hub)


def reads(hub: Hub, session: pb.Session, **changes: Any) -> SealedTask:
    use = SessionUse(session_id=session.session_id, dataframes=["cleaned"])
    return task(hub.lung, ("Beta",), session=use, **changes)


def leaves(hub: Hub, session: pb.Session, *organizations: str) -> SealedTask:
    use = SessionUse(session_id=session.session_id, leaves="cleaned")
    return task(hub.lung, organizations or ("Beta",), session=use)


# ---- for whom they are ---------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_a_session_is_seen_by_those_whom_it_is_for(hub: Hub, sessions: Sessions) -> None:
    colleague = await hub.server.user("bob@alpha", hub.admins["Alpha"].organization_account_id, ["Researcher"])
    people = {"ada": hub.ada, "colleague": colleague.metadata, "partner": hub.researchers["Beta"].metadata}
    root = await hub.server.root()
    for scope, seeing in (
        (Scope.SCOPE_OWN, {"ada"}),
        (Scope.SCOPE_ORGANIZATION, {"ada", "colleague"}),
        (Scope.SCOPE_COLLABORATION, {"ada", "colleague", "partner"}),
    ):
        made = await sessions.create(Scope.Name(scope).removeprefix("SCOPE_"), scope)
        for who, metadata in people.items():
            listed = await sessions.names(by=metadata, name_prefix=made.name.lower())
            assert listed == ([made.name] if who in seeing else []), (who, made.name)
            if who in seeing:
                assert (await sessions.get(made, by=metadata)).name == made.name
            else:
                assert reason(await refused(sessions.get(made, by=metadata))) == "SESSION_NOT_FOUND"
        assert (
            await sessions.names(by=root.metadata, name_prefix=made.name) == []
        )  # who runs the server is not among them
    shared = await sessions.create("shared", Scope.SCOPE_COLLABORATION)
    for who, metadata in people.items():
        if who != "ada":
            assert reason(await refused(sessions.delete(shared, by=metadata))) == "NOT_ALLOWED"


async def test_no_session_is_for_more_people_than_its_makers_rule_reaches(hub: Hub, sessions: Sessions) -> None:
    viewer = await hub.server.user("eve@alpha", hub.admins["Alpha"].organization_account_id, ["Viewer"])
    assert reason(await refused(sessions.create(by=viewer.metadata))) == "NOT_ALLOWED"
    for scope in (Scope.SCOPE_UNSPECIFIED, Scope.SCOPE_GLOBAL):
        assert reason(await refused(sessions.create(scope=scope))) == "INVALID_FIELD"


async def test_who_administers_somebodys_session_opens_it_to_nobody(hub: Hub, sessions: Sessions) -> None:
    """Neither to himself: it would be he who says what others see."""
    admin = hub.admins["Alpha"].metadata
    own = await sessions.create("own")
    wider = sessions.update(own, scope=Scope.SCOPE_ORGANIZATION, by=admin)
    assert reason(await refused(wider)) == "NOT_ALLOWED"
    assert (await sessions.update(own, name="renamed", by=admin)).name == "renamed"
    shared = await sessions.create("shared", Scope.SCOPE_ORGANIZATION)
    assert (await sessions.update(shared, scope=Scope.SCOPE_OWN, by=admin)).scope == Scope.SCOPE_OWN
    assert reason(await refused(sessions.get(shared, by=admin))) == "SESSION_NOT_FOUND"


@pytest.mark.both_databases
async def test_a_session_is_made_once_changed_by_mask_and_its_id_never_given_again(
    hub: Hub, sessions: Sessions
) -> None:
    made = await sessions.create("ages")
    again = await sessions.create("ages", session_id=made.session_id)
    assert again == made
    assert reason(await refused(sessions.create("others", session_id=made.session_id))) == "ID_TAKEN"
    assert reason(await refused(sessions.create("ages"))) == "NAME_TAKEN"
    assert (await sessions.create("ages", by=hub.researchers["Beta"].metadata)).name == "ages"
    other = await sessions.create("others")
    assert reason(await refused(sessions.update(other, name="ages"))) == "NAME_TAKEN"
    assert reason(await refused(sessions.update(other, "user_id"))) == "INVALID_FIELD"
    assert reason(await refused(sessions.update(other, "scope"))) == "INVALID_FIELD"
    changed = await sessions.update(other, name="renamed", scope=Scope.SCOPE_ORGANIZATION, etag=other.etag)
    assert (changed.name, changed.scope, changed.etag != other.etag) == ("renamed", Scope.SCOPE_ORGANIZATION, True)
    assert reason(await refused(sessions.update(other, name="late", etag=other.etag))) == "ETAG_MISMATCH"
    assert reason(await refused(sessions.delete(changed, etag=other.etag))) == "ETAG_MISMATCH"
    await sessions.delete(changed)
    await sessions.delete(changed)
    assert reason(await refused(sessions.get(changed))) == "SESSION_NOT_FOUND"
    assert reason(await refused(sessions.create("renamed", session_id=changed.session_id))) == "ID_TAKEN"
    assert (await sessions.create("renamed")).session_id != changed.session_id
    intents = [event.intent for event in await hub.server.events("session.delete")]
    assert intents == ["session.delete"]


@pytest.mark.both_databases
async def test_pages_follow_the_last_use(hub: Hub, sessions: Sessions) -> None:
    made = [await sessions.create(f"session {number}") for number in range(5)]
    await hub.create(leaves(hub, made[1]))
    found, token = [], ""
    while True:
        request = pb.ListSessionsRequest(page_size=2, page_token=token, genesis=hub.lung.genesis)
        page = await sessions.stub.ListSessions(request, metadata=hub.ada)
        found += [one.name for one in page.sessions]
        if not (token := page.next_page_token):
            break
    assert found == [f"session {number}" for number in (1, 4, 3, 2, 0)]


async def test_a_task_uses_only_a_session_that_is_there_for_its_user(hub: Hub, sessions: Sessions) -> None:
    made = await sessions.create()
    stranger = task(hub.lung, ("Beta",), initiator="Gamma", session=reads(hub, made).spec.session)
    error = await refused(hub.create(stranger, hub.researchers["Gamma"].metadata))
    assert reason(error) == "SESSION_NOT_FOUND"
    unknown = pb.Session(session_id=uuid7(hub.clock(), hub.lung.random))
    assert reason(await refused(hub.create(reads(hub, unknown)))) == "SESSION_NOT_FOUND"
    await sessions.delete(made)
    assert reason(await refused(hub.create(leaves(hub, made)))) == "SESSION_NOT_FOUND"


# ---- where they are ------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_dataframes_are_at_the_node_that_began_and_what_its_receipt_tells_is_shown(
    hub: Hub, sessions: Sessions
) -> None:
    made = await sessions.create()
    await second_node(hub)
    async with attached(hub.server, hub.lung, "Beta", node="beta-1") as first:
        await hub.create(leaving := leaves(hub, made))
        await first.accept()
        await hub.until(leaving, "Beta", "ASSIGNED")
        await hub.commit(leaving, "Beta", dataframe=LEFT)
    await hub.settled()
    [dataframe] = await sessions.dataframes(made)
    [part] = dataframe.parts
    node = hub.lung["Beta"].nodes["beta-1"].fingerprint
    assert (dataframe.name, part.node_id, part.left) == ("cleaned", node, LEFT)
    assert list((await sessions.get(made)).dataframes) == ["cleaned"]
    async with attached(hub.server, hub.lung, "Beta", node="beta-2"):
        await hub.create(reading := reads(hub, made))
        assert (await hub.run(reading, "Beta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
        await pass_time(hub, days=2)
        end = await run(hub, reading)
        assert (end.state, end.reason) == (RunState.RUN_STATE_EXPIRED, ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND)


async def test_what_was_at_a_node_that_is_gone_is_not_found_and_can_be_made_anew(hub: Hub, sessions: Sessions) -> None:
    made = await sessions.create()
    async with attached(hub.server, hub.lung, "Beta") as first:
        await hub.create(leaving := leaves(hub, made))
        await first.accept()
        await hub.until(leaving, "Beta", "ASSIGNED")
        await hub.commit(leaving, "Beta", dataframe=LEFT)
        await first.leave()
    await hub.create(reading := reads(hub, made))
    await hub.create(anew := leaves(hub, made))
    await second_node(hub)
    await revoke(hub, "Beta", "beta-1")
    end = await hub.run(reading, "Beta")
    assert (end.state, end.reason) == (RunState.RUN_STATE_EXPIRED, ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND)
    assert await sessions.dataframes(made) == []
    async with attached(hub.server, hub.lung, "Beta", node="beta-2") as second:
        assert (await second.accept()).run_id == anew.run_id("Beta")
        await hub.create(later := reads(hub, made))
        assert (await second.accept()).run_id == later.run_id("Beta")


async def test_homeless_runs_of_a_session_go_to_one_node(hub: Hub, sessions: Sessions) -> None:
    made = await sessions.create()
    await second_node(hub)
    waiting = [leaves(hub, made) for _ in range(3)]
    for each in waiting:
        await hub.create(each)
    async with (
        attached(hub.server, hub.lung, "Beta", node="beta-2") as second,
        attached(hub.server, hub.lung, "Beta", node="beta-1"),
    ):
        for each in waiting:
            assert (await second.accept()).run_id == each.run_id("Beta")


# ---- deleted -------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_a_deletion_reaches_a_node_that_was_away_once_and_in_its_order(hub: Hub, sessions: Sessions) -> None:
    made = await sessions.create()
    async with attached(hub.server, hub.lung, "Beta") as station:
        await hub.create(leaving := leaves(hub, made))
        await station.accept()
        await hub.until(leaving, "Beta", "ASSIGNED")
        await hub.commit(leaving, "Beta", dataframe=LEFT)
        await station.leave()
    await hub.settled()
    request = pb.DeleteDataframeRequest(session_id=made.session_id, name="cleaned")
    await sessions.stub.DeleteDataframe(request, metadata=hub.ada)
    assert reason(await refused(sessions.stub.DeleteDataframe(request, metadata=hub.ada))) == "DATAFRAME_NOT_FOUND"
    [event] = await hub.server.events("dataframe.delete")
    assert event.created_by == hub.researchers["Alpha"].user_id
    await sessions.delete(made)
    async with attached(hub.server, hub.lung, "Beta", acknowledged=1) as station:
        for sequence, name in ((2, "cleaned"), (3, "")):
            told = await station.next("drop_dataframes")
            assert (station.told[-1].sequence, told.session_id, told.name) == (sequence, made.session_id, name)
        await station.acknowledge()
        await station.leave()
    async with attached(hub.server, hub.lung, "Beta", acknowledged=3) as station:
        await hub.create(later := task(hub.lung, ("Beta",)))
        assert (await station.accept()).run_id == later.run_id("Beta")


async def test_what_comes_after_a_deletion_is_not_shown(hub: Hub, sessions: Sessions) -> None:
    made = await sessions.create()
    async with attached(hub.server, hub.lung, "Beta") as station:
        await hub.create(leaving := leaves(hub, made))
        await station.accept()
        await hub.until(leaving, "Beta", "ASSIGNED")
        assert reason(await refused(sessions.delete(made))) == "HAS_DEPENDENTS"
        await sessions.delete(made, cancel_tasks=True)
        assert (await station.next("cancel")).run_id == leaving.run_id("Beta")
        await station.next("drop_dataframes")
        await hub.commit(leaving, "Beta", dataframe=LEFT)  # its result came first
    store = hub.server.running.core.store
    assert await store.read(lambda connection: session_rows.parts(connection, made.session_id)) == []
