"""Streams of those who may read them no more: they end by themselves, also while nothing happens in them."""

from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import delete

from folkmoot.server.rpc import open_streams
from folkmoot.server.store import tables
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.auth_service_pb2 import RoleRule
from tests.integration.harness import Clock, Metadata, Server, User, bearer, reason, refused, server
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task

EVENTS = [
    RoleRule(resource=options.RESOURCE_EVENT, operation=options.OPERATION_VIEW, scope=scope)
    for scope in (options.SCOPE_ORGANIZATION, options.SCOPE_GLOBAL)
]


async def watch_events(s: Server, metadata: Metadata):
    """Open a stream of what has not happened yet; it stands when it has told of something that has."""
    watching = s.admin.WatchEvents(admin.WatchEventsRequest(intent="server.setup"), metadata=metadata)
    await watching.read()
    return watching


async def watcher(s: Server, rules: list[RoleRule]) -> tuple[User, admin.Role]:
    """A user of the hub with a role of these rules."""
    root = await s.root()
    role = admin.CreateRoleRequest(role_id=s.new_id(), name="Watcher", rules=rules)
    made = (await s.admin.CreateRole(role, metadata=root.metadata)).role
    return await s.user("wanda", root.organization_account_id, ["Watcher"]), made


async def test_a_quiet_stream_ends_when_its_login_does(hub: Hub) -> None:
    ada = hub.researchers["Alpha"]
    await hub.create(sealed := task(hub.lung, ("Beta", "Gamma")))
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=ada.metadata)
    for _ in range(2):
        await watching.read()
    await hub.server.auth.Logout(auth.LogoutRequest(), metadata=ada.metadata)
    assert reason(await refused(watching.read())) == "TOKEN_INVALID"


async def test_a_quiet_stream_of_a_deleted_user_ends(tmp_path) -> None:
    async with server(tmp_path) as s:
        wanda, _ = await watcher(s, EVENTS[1:])
        watching = await watch_events(s, wanda.metadata)
        await s.admin.DeleteUser(admin.DeleteUserRequest(user_id=wanda.user_id), metadata=(await s.root()).metadata)
        assert reason(await refused(watching.read())) == "TOKEN_INVALID"


@pytest.mark.parametrize(("left", "expected"), [((), "NOT_ALLOWED"), (EVENTS[:1], "SHUTTING_DOWN")])
async def test_a_quiet_stream_ends_when_its_rule_is_taken_away_or_reaches_less(tmp_path, left, expected) -> None:
    """Who may still see something opens it again, and sees that."""
    async with server(tmp_path) as s:
        wanda, role = await watcher(s, EVENTS[1:])
        watching = await watch_events(s, wanda.metadata)
        change = admin.UpdateRoleRequest(role_id=role.role_id, rules=left)
        change.update_mask.paths.append("rules")
        await s.admin.UpdateRole(change, metadata=(await s.root()).metadata)
        assert reason(await refused(watching.read())) == expected
        await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=wanda.metadata)


@pytest.mark.parametrize("how", ["deleted", "over"])
async def test_a_quiet_stream_ends_with_the_api_key_that_opened_it(tmp_path, monkeypatch, how) -> None:
    monkeypatch.setattr(open_streams, "LOOK_AGAIN_SECONDS", 0.05)
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        ends = Timestamp()
        ends.FromDatetime(clock() + timedelta(days=1))
        request = auth.CreateApiKeyRequest(api_key_id=s.new_id(), name="watcher", expires_at=ends)
        made = await s.auth.CreateApiKey(request, metadata=root.metadata)
        watching = await watch_events(s, bearer(made.secret))
        if how == "deleted":
            gone = auth.DeleteApiKeyRequest(api_key_id=made.api_key.api_key_id)
            await s.auth.DeleteApiKey(gone, metadata=root.metadata)
        else:
            clock.ahead += timedelta(days=2)
        assert reason(await refused(watching.read())) == "TOKEN_INVALID"


async def test_a_quiet_stream_ends_also_when_nobody_tells_that_the_login_has(tmp_path, monkeypatch) -> None:
    """Another instance has ended it, and its word was lost."""
    monkeypatch.setattr(open_streams, "LOOK_AGAIN_SECONDS", 0.05)
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        watching = await watch_events(s, (await s.root()).metadata)
        await s.running.core.store.write(lambda connection: connection.execute(delete(tables.sessions)))
        clock.ahead += timedelta(seconds=6)  # what is remembered is forgotten
        assert reason(await refused(watching.read())) == "TOKEN_INVALID"
