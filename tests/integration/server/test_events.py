"""The audit trail: who sees what of it, and that nothing secret is in it."""

from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.server.audit import trail
from folkmoot.trust import timestamp
from folkmoot.trust.times import nanoseconds, timestamp_at
from folkmoot.v1 import admin_service_pb2 as admin
from tests.builders import organization, world
from tests.integration.harness import PASSWORD, Clock, Server, User, refused, server, utc_now


async def events(s: Server, by: User, **filters) -> list[admin.Event]:
    return list((await s.admin.ListEvents(admin.ListEventsRequest(**filters), metadata=by.metadata)).events)


async def test_events_are_seen_as_far_as_the_scope_reaches(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        await s.organization_admin("Gamma")
        alpha, beta = admins["Alpha"], admins["Beta"]
        coordinator = await s.user("coordinator", alpha.organization_account_id, ["Collaboration Admin"])

        own = await events(s, alpha)
        assert {event.organization for event in own} == {alpha.organization_account_id}
        shared = await events(s, coordinator)
        assert {event.created_by for event in shared if event.organization == beta.organization_account_id} == {
            beta.user_id
        }
        assert {event.intent for event in shared if event.organization == beta.organization_account_id} == {
            "join_request.submit"
        }
        assert len(await events(s, await s.root())) > len(shared) > len(own)


async def test_event_of_a_node_is_seen_by_its_organization(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        admins = await s.publish(lung)
        await s.node_metadata(lung, "Alpha", "alpha-1")
        assert len(await events(s, admins["Alpha"], intent="node.authenticate")) == 1
        assert await events(s, admins["Beta"], intent="node.authenticate") == []


async def test_events_are_filtered_and_newest_first(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        alpha = await s.organization_admin("Alpha")
        before = clock()
        clock.ahead += timedelta(minutes=1)
        beta = await s.organization_admin("Beta")
        root = await s.root()
        everything = await events(s, root)
        sequences = [event.sequence for event in everything]
        assert sequences == sorted(sequences, reverse=True)
        assert {event.intent for event in await events(s, root, intent="user.login")} == {"user.login"}
        assert {event.created_by for event in await events(s, root, created_by=alpha.user_id)} == {alpha.user_id}
        late = await events(s, root, created_after=timestamp(before))
        assert {event.created_by for event in late} == {root.user_id, beta.user_id}


@pytest.mark.both_databases
async def test_events_are_filtered_by_everything_that_is_recorded(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root, alpha = await s.root(), await s.organization_admin("Alpha")
        before = clock()
        clock.ahead += timedelta(minutes=1)
        beta = await s.organization_admin("Beta")
        await refused(s.admin.CreateOrganization(admin.CreateOrganizationRequest(), metadata=beta.metadata))
        assert {event.intent for event in await events(s, root, intent="user.*")} == {"user.create", "user.login"}
        assert await events(s, root, intent="use.*") == []
        own = await events(s, root, organization=alpha.organization_account_id)
        assert {event.created_by for event in own} == {alpha.user_id}
        early = await events(s, root, created_before=timestamp(before + timedelta(seconds=1)))
        assert {event.created_by for event in early} == {root.user_id, alpha.user_id}
        [denied] = await events(s, root, outcome="NOT_ALLOWED")
        assert (denied.intent, denied.created_by) == ("call.denied", beta.user_id)
        assert await events(s, root, request_id=denied.request_id) == [denied]


@pytest.mark.both_databases
async def test_time_filters_begin_with_their_moment_and_end_before_it(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root, alpha = await s.root(), await s.organization_admin("Alpha")
        [made] = await events(s, root, intent="user.create")
        moment, sequence = nanoseconds(made.created_at), made.sequence

        async def found(by: User = root, **times: int) -> bool:
            shifted = {f"created_{name}": timestamp_at(moment + later) for name, later in times.items()}
            return sequence in {event.sequence for event in await events(s, by, intent="user.*", **shifted)}

        assert await found(after=0)
        assert await found(after=-1)
        assert not await found(after=1), "a moment between two microseconds is behind the first one"
        assert not await found(before=0)
        assert not await found(before=-1)
        assert await found(before=1)
        assert await found(after=0, before=1)
        assert not await found(after=0, before=0)
        assert await found(alpha, after=0, before=1) is False, "made by somebody of another organization"
        at_the_end = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
        assert await events(s, root, created_after=at_the_end) == []
        assert await events(s, root, created_before=at_the_end) != []


async def test_events_tell_where_calls_came_from(tmp_path):
    async with server(tmp_path) as s:
        await s.root()
        assert {event.origin for event in await s.events()} == {"127.0.0.1"}


async def test_stream_gives_what_has_happened_and_then_what_happens(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        everything = s.admin.WatchEvents(admin.WatchEventsRequest(), metadata=root.metadata)
        logins = s.admin.WatchEvents(
            admin.WatchEventsRequest(after_sequence=1, intent="user.login"), metadata=root.metadata
        )
        seen: list[admin.Event] = []
        for number, name in enumerate(("Alpha", "Beta"), start=2):
            await s.organization_admin(name)
            seen = [(await everything.read()).event for _ in range(5 if number == 2 else 3)]
            assert [event.intent for event in seen[-3:]] == ["organization.create", "user.create", "user.login"]
            assert seen[-1].sequence == 3 * number - 1
        assert [(await logins.read()).event.sequence for _ in range(3)] == [2, 5, 8]
        assert [event.hash for event in await s.events()][-1] == seen[-1].hash


async def test_stream_gives_as_much_as_the_scope_reaches(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        watching = s.admin.WatchEvents(admin.WatchEventsRequest(), metadata=admins["Alpha"].metadata)
        listed = list(reversed(await events(s, admins["Alpha"], page_size=1000)))
        assert [(await watching.read()).event for _ in listed] == listed
        await s.log_in(admins["Beta"].username)
        await s.log_in(admins["Alpha"].username)
        assert (await watching.read()).event.created_by == admins["Alpha"].user_id


async def test_stream_ends_when_the_server_stops(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        watching = s.admin.WatchEvents(admin.WatchEventsRequest(after_sequence=1000), metadata=root.metadata)
        await s.events()
        s.running.core.draining.set()
        assert (await refused(watching)).reason_name == "SHUTTING_DOWN"


@pytest.mark.both_databases
async def test_more_events_than_a_stream_reads_at_once_come_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(trail, "STREAMED_AT_ONCE", 3)
    monkeypatch.setattr(trail, "LOOKED_AT_ONCE", 7)
    async with server(tmp_path) as s:
        root = await s.root()
        for name in ("Alpha", "Beta", "Gamma", "Delta", "Epsilon"):
            await s.organization_admin(name)
        watching = s.admin.WatchEvents(admin.WatchEventsRequest(), metadata=root.metadata)
        assert [(await watching.read()).event.sequence for _ in range(17)] == list(range(1, 18))
        created = s.admin.WatchEvents(admin.WatchEventsRequest(intent="user.create"), metadata=root.metadata)
        assert [(await created.read()).event.sequence for _ in range(5)] == [4, 7, 10, 13, 16]


async def test_every_change_has_an_event(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        await s.publish(lung)
        await s.node_metadata(lung, "Alpha", "alpha-1")
        intents = [event.intent for event in await s.events()]
        assert {intent: intents.count(intent) for intent in set(intents)} == {
            "server.setup": 1,
            "organization.create": 2,
            "organization.bind": 2,
            "user.create": 2,
            "user.login": 3,
            "ledger.collaboration.create": 1,
            "join_request.submit": 1,
            "ledger.organization.vote": 1,
            "ledger.node.approve": 2,
            "node.authenticate": 1,
        }


async def test_no_secret_is_in_events_or_log(tmp_path, capsys):
    async with server(tmp_path, log_level="debug") as s:
        lung = world(("Alpha",), now=utc_now())
        admins = await s.publish(lung)
        node = dict(await s.node_metadata(lung, "Alpha", "alpha-1"))["authorization"].removeprefix("Bearer ")
        tokens = admins["Alpha"].tokens
        await refused(
            s.submit_join_request(lung.join_request(organization("Alpha")), await s.organization_admin("Beta"))
        )
        written = "".join(f"{event}" for event in await s.events())
    written += capsys.readouterr().err
    assert "SubmitJoinRequest" in written, "the search finds what is there"
    for secret in (PASSWORD, tokens.access_token, tokens.refresh_token, node, s.running.setup_token):
        assert secret not in written


async def test_restarted_server_numbers_on(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        before = [event.sequence for event in await events(s, root)]
    async with server(tmp_path) as s:
        await s.log_in(root.username)
        after = [event.sequence for event in await events(s, root)]
    assert after == [max(before) + 1, *before]
