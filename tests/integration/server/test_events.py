"""The audit trail: who sees what of it, and that nothing secret is in it."""

from datetime import timedelta

from folkmoot.trust import timestamp
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
