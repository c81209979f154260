"""Founding, joining, voting: entries are taken by the rules of replay, from whom they are of, and are seen at once."""

import asyncio
from datetime import timedelta
from itertools import chain

import pytest

from folkmoot.trust import SigningKey, found, replay, vote_entry
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.ledger_pb2 import (
    JOIN_REQUEST_STATE_ADMITTED,
    JOIN_REQUEST_STATE_DECLINED,
    JOIN_REQUEST_STATE_EXPIRED,
    JOIN_REQUEST_STATE_PENDING,
    Decision,
)
from tests.builders import World, organization, randomness, world
from tests.integration.harness import Clock, Server, User, reason, refused, server, utc_now

pytestmark = pytest.mark.both_databases

DECLINE = Decision.DECISION_DECLINE


def founded(name: str = "lung") -> World:
    """Return a collaboration of Alpha alone."""
    return world(("Alpha",), nodes=False, name=name, now=utc_now())


async def ledger(s: Server, genesis: bytes, by: User, from_sequence: int = 0):
    request = keys.GetLedgerRequest(genesis=genesis, from_sequence=from_sequence)
    return [entry async for batch in s.keys.GetLedger(request, metadata=by.metadata) for entry in batch.entries]


async def collaborations(s: Server, by: User):
    return (await s.admin.ListCollaborations(admin.ListCollaborationsRequest(), metadata=by.metadata)).collaborations


async def join_requests(s: Server, genesis: bytes, by: User):
    request = admin.ListJoinRequestsRequest(genesis=genesis)
    return (await s.admin.ListJoinRequests(request, metadata=by.metadata)).join_requests


async def test_founder_is_the_first_member_and_his_account_gets_his_address(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        alpha = await s.organization_admin("Alpha")
        position = await s.append(lung.entries[0], alpha)
        assert (position.sequence, position.hash) == (0, lung.genesis)
        [listed] = await collaborations(s, alpha)
        assert (listed.reference, [member.name for member in listed.members]) == (str(lung.state.reference), ["Alpha"])
        accounts = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(), metadata=alpha.metadata)
        assert [each.organization_id for each in accounts.organizations] == [lung["Alpha"].address]
        [event] = await s.events("ledger.collaboration.create")
        assert (event.created_by, event.outcome) == (alpha.user_id, "ok")


async def test_ledger_comes_back_byte_for_byte(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        assert await ledger(s, lung.genesis, admins["Beta"]) == lung.entries
        assert await ledger(s, lung.genesis, admins["Beta"], 3) == lung.entries[3:]
        assert await ledger(s, lung.genesis, admins["Beta"], 99) == []
        assert replay(await ledger(s, lung.genesis, admins["Beta"])) == lung.state


async def test_same_entry_again_gives_its_place_and_is_recorded_once(tmp_path):
    async with server(tmp_path) as s:
        lung, alpha = founded(), await s.organization_admin("Alpha")
        first = await s.append(lung.entries[0], alpha)
        assert await s.append(lung.entries[0], alpha) == first
        assert len(await s.events("ledger.collaboration.create")) == 1


async def test_quorum_admits_and_both_see_it(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        gamma, applicant = await s.organization_admin("Gamma"), organization("Gamma")
        request = lung.join_request(applicant)
        view = await s.submit_join_request(request, gamma)
        assert (view.state, view.missing, view.name) == (JOIN_REQUEST_STATE_PENDING, 2, "Gamma")
        for voter, missing, state in (
            ("Alpha", 1, JOIN_REQUEST_STATE_PENDING),
            ("Beta", 0, JOIN_REQUEST_STATE_ADMITTED),
        ):
            await s.append(lung.vote(voter, request), admins[voter])
            [_, view] = await join_requests(s, lung.genesis, gamma)
            assert (view.missing, view.state) == (missing, state)
        assert view.approved_by == sorted([lung["Alpha"].address, lung["Beta"].address])
        assert [member.name for member in (await collaborations(s, gamma))[0].members] == ["Alpha", "Beta", "Gamma"]


async def test_declined_request_is_shown_as_such_and_may_still_be_approved(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        gamma = await s.organization_admin("Gamma")
        request = lung.join_request(organization("Gamma"))
        await s.submit_join_request(request, gamma)
        await s.append(lung.vote("Alpha", request, DECLINE), admins["Alpha"])
        [_, view] = await join_requests(s, lung.genesis, gamma)
        assert (view.state, view.declined_by) == (JOIN_REQUEST_STATE_DECLINED, [lung["Alpha"].address])
        await s.append(lung.vote("Alpha", request), admins["Alpha"])
        await s.append(lung.vote("Beta", request), admins["Beta"])
        assert len((await collaborations(s, gamma))[0].members) == 3


async def test_one_of_two_entries_at_one_place_is_too_late(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        request = lung.join_request(organization("Gamma"))
        entries = [
            vote_entry(lung.state, request, DECLINE, governance_key=lung[name].governance_key, now=lung.now)
            for name in ("Alpha", "Beta")
        ]
        outcomes = await asyncio.gather(
            *(s.append(entry, admins[name]) for entry, name in zip(entries, ("Alpha", "Beta"), strict=True)),
            return_exceptions=True,
        )
        errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        assert len(errors) == 1
        loser = outcomes.index(errors[0])
        error = await refused(s.append(entries[loser], admins[("Alpha", "Beta")[loser]]))
        assert (reason(error), error.code.name) == ("LEDGER_HEAD_MOVED", "ABORTED")
        assert len(await ledger(s, lung.genesis, admins["Alpha"])) == len(lung.entries) + 1


async def test_entry_proves_itself_whoever_brings_it(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        ada = await s.user("ada", admins["Beta"].organization_account_id, ["Researcher"])
        stranger = await s.organization_admin("Stranger")
        for bearer in (admins["Beta"], ada, stranger):
            vote = lung.vote("Alpha", lung.join_request(organization("Gamma")), DECLINE)
            await s.append(vote, bearer)
            [*_, event] = await s.events("ledger.organization.vote")
            assert (event.created_by, lung["Alpha"].address in event.data) == (bearer.user_id, True)
        assert await ledger(s, lung.genesis, admins["Alpha"]) == lung.entries
        assert await collaborations(s, stranger) == []


async def test_entry_with_another_organizations_signature_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        vote = lung.vote("Alpha", lung.join_request(organization("Gamma")), DECLINE)
        forged = type(vote)()
        forged.CopyFrom(vote)
        forged.signature = lung["Beta"].governance_key.sign(b"something else")
        assert reason(await refused(s.append(forged, admins["Alpha"]))) == "SIGNATURE_INVALID"


async def test_entry_that_does_not_follow_names_the_rule(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        alpha = await s.organization_admin("Alpha")
        await s.append(lung.entries[0], alpha)
        lung.vote("Alpha", lung.join_request(organization("Beta")), DECLINE)
        skipping = lung.vote("Alpha", lung.join_request(organization("Gamma")), DECLINE)
        error = await refused(s.append(skipping, alpha))
        assert (reason(error), error.metadata["rule"]) == ("LEDGER_ENTRY_INVALID", "SEQUENCE")


async def test_garbage_is_no_entry(tmp_path):
    async with server(tmp_path) as s:
        lung, alpha = founded(), await s.organization_admin("Alpha")
        garbage = type(lung.entries[0])()
        garbage.CopyFrom(lung.entries[0])
        garbage.body = b"\xff\xff"
        assert reason(await refused(s.append(garbage, alpha))) == "MALFORMED"


async def test_account_has_one_address(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        await s.append(founded().entries[0], alpha)
        await s.append(founded("heart").entries[0], alpha)
        other = organization("Other")
        stranger = found(
            name="liver",
            founder_name="Other",
            governance_key=other.governance_key,
            organization_key=other.organization_key,
            now=utc_now(),
            random=randomness("liver"),
        )
        assert reason(await refused(s.append(stranger, alpha))) == "NOT_ALLOWED"
        assert len(await collaborations(s, alpha)) == 2


async def test_address_has_one_account(tmp_path):
    async with server(tmp_path) as s:
        alpha, thief = await s.organization_admin("Alpha"), await s.organization_admin("Thief")
        lung = founded()
        await s.append(lung.entries[0], alpha)
        assert reason(await refused(s.append(founded("heart").entries[0], thief))) == "NOT_ALLOWED"
        applicant = organization("Beta")
        await s.submit_join_request(lung.join_request(applicant), await s.organization_admin("Beta"))
        assert reason(await refused(s.submit_join_request(lung.join_request(applicant), thief))) == "NOT_ALLOWED"


async def test_researcher_founds_nothing(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        ada = await s.user("ada", admins["Alpha"].organization_account_id, ["Researcher"])
        assert await ledger(s, lung.genesis, ada) == lung.entries
        assert reason(await refused(s.append(founded("heart").entries[0], ada))) == "NOT_ALLOWED"


# ---- join requests -------------------------------------------------------------------------------------------------


async def test_request_of_a_member_or_with_a_members_name_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        alpha, beta = await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        await s.append(lung.entries[0], alpha)
        again = lung.join_request(lung["Alpha"], name="Alpha two")
        assert reason(await refused(s.submit_join_request(again, alpha))) == "LEDGER_ENTRY_INVALID"
        namesake = lung.join_request(organization("Beta"), name="ALPHA")
        assert reason(await refused(s.submit_join_request(namesake, beta))) == "NAME_TAKEN"


async def test_request_that_was_altered_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        await s.append(lung.entries[0], await s.organization_admin("Alpha"))
        beta = await s.organization_admin("Beta")
        request = lung.join_request(organization("Beta"))
        request.signature = SigningKey.generate(randomness("x")).sign(request.body)
        assert reason(await refused(s.submit_join_request(request, beta))) in {"MALFORMED", "SIGNATURE_INVALID"}
        assert await join_requests(s, lung.genesis, await s.root()) == []


async def test_members_are_not_flooded_with_requests(tmp_path):
    async with server(tmp_path, open_join_requests=2) as s:
        lung = founded()
        await s.append(lung.entries[0], await s.organization_admin("Alpha"))
        beta, applicant = await s.organization_admin("Beta"), organization("Beta")
        requests = [lung.join_request(applicant) for _ in range(3)]
        for request in requests[:2]:
            await s.submit_join_request(request, beta)
        error = await refused(s.submit_join_request(requests[2], beta))
        assert (reason(error), int(error.metadata["retry_after_seconds"]) > 80 * 86400) == ("TOO_MANY", True)
        await s.submit_join_request(requests[0], beta)
        assert len(await s.events("join_request.submit")) == 2


async def test_who_was_declined_or_came_too_late_asks_again(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        gamma, applicant = await s.organization_admin("Gamma"), organization("Gamma")
        declined = lung.join_request(applicant, valid_for=timedelta(hours=1))
        await s.submit_join_request(declined, gamma)
        for voter in ("Alpha", "Beta"):
            await s.append(lung.vote(voter, declined, DECLINE), admins[voter])
        clock.ahead += timedelta(hours=2)
        gamma = await s.log_in(gamma.username)
        lung.now = clock()
        again = lung.join_request(applicant)
        view = await s.submit_join_request(again, gamma)
        assert (view.state, view.missing) == (JOIN_REQUEST_STATE_PENDING, 2)
        states = [each.state for each in await join_requests(s, lung.genesis, gamma)][-2:]
        assert states == [JOIN_REQUEST_STATE_EXPIRED, JOIN_REQUEST_STATE_PENDING]
        for voter in ("Alpha", "Beta"):
            await s.append(lung.vote(voter, again), await s.log_in(admins[voter].username))
        assert [member.name for member in (await collaborations(s, gamma))[0].members] == ["Alpha", "Beta", "Gamma"]


async def test_request_to_nowhere_is_refused(tmp_path):
    async with server(tmp_path) as s:
        request = founded().join_request(organization("Beta"))
        error = await refused(s.submit_join_request(request, await s.organization_admin("Beta")))
        assert reason(error) == "COLLABORATION_NOT_FOUND"


# ---- who sees what -------------------------------------------------------------------------------------------------


async def test_stranger_learns_nothing_not_even_that_it_exists(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        await s.append(lung.entries[0], await s.organization_admin("Alpha"))
        stranger = await s.organization_admin("Stranger")
        for genesis in (lung.genesis, bytes(32)):
            calls = [
                s.keys.GetLedger(keys.GetLedgerRequest(genesis=genesis), metadata=stranger.metadata),
                s.keys.WatchLedger(keys.WatchLedgerRequest(genesis=genesis), metadata=stranger.metadata),
                s.keys.ListOrganizationKeys(
                    keys.ListOrganizationKeysRequest(genesis=genesis), metadata=stranger.metadata
                ),
                s.admin.ListJoinRequests(admin.ListJoinRequestsRequest(genesis=genesis), metadata=stranger.metadata),
                s.admin.ListNodes(admin.ListNodesRequest(genesis=genesis), metadata=stranger.metadata),
            ]
            errors = [await refused(call) for call in calls]
            assert {reason(error) for error in errors} == {"COLLABORATION_NOT_FOUND"}
            assert len({error.message for error in errors}) == 1
        assert await collaborations(s, stranger) == []


async def test_who_asks_to_join_may_read_and_root_sees_all(tmp_path):
    async with server(tmp_path) as s:
        lung = founded()
        await s.append(lung.entries[0], await s.organization_admin("Alpha"))
        beta = await s.organization_admin("Beta")
        await s.submit_join_request(lung.join_request(organization("Beta")), beta)
        assert await ledger(s, lung.genesis, beta) == lung.entries
        assert await ledger(s, lung.genesis, await s.root()) == lung.entries


async def test_keys_come_with_the_entry_that_proves_them(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Beta", "Alpha"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        request = keys.ListOrganizationKeysRequest(genesis=lung.genesis)
        views = (await s.keys.ListOrganizationKeys(request, metadata=admins["Alpha"].metadata)).organizations
        assert [(view.name, view.proven_by.sequence) for view in views] == [("Alpha", 1), ("Beta", 0)]
        for view in views:
            assert view.key_claim == lung.state.members[view.organization_id].key_claim


async def test_watcher_sees_each_new_entry_at_once(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        request = keys.WatchLedgerRequest(genesis=lung.genesis)
        call = s.keys.WatchLedger(request, metadata=admins["Beta"].metadata)
        seen = list((await call.read()).entries)
        assert seen == lung.entries
        for name in ("Gamma", "Delta", "Epsilon"):
            entry = lung.vote("Alpha", lung.join_request(organization(name)), DECLINE)
            _, batch = await asyncio.gather(s.append(entry, admins["Alpha"]), call.read())
            assert list(batch.entries) == [entry]
        call.cancel()


async def test_watcher_is_told_when_the_server_stops(tmp_path):
    async with server(tmp_path, drain_seconds=30.0) as s:
        lung = founded()
        alpha = await s.organization_admin("Alpha")
        await s.append(lung.entries[0], alpha)
        call = s.keys.WatchLedger(keys.WatchLedgerRequest(genesis=lung.genesis), metadata=alpha.metadata)
        await call.read()
        stopping = asyncio.ensure_future(s.running.stop())
        error = await refused(call.read())
        assert (reason(error), error.code.name) == ("SHUTTING_DOWN", "UNAVAILABLE")
        await stopping


async def test_long_ledger_comes_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("folkmoot.server.store.ledger_rows.BATCH_ENTRIES", 2)
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        request = keys.GetLedgerRequest(genesis=lung.genesis)
        batches = [list(batch.entries) async for batch in s.keys.GetLedger(request, metadata=admins["Alpha"].metadata)]
        assert [len(batch) for batch in batches] == [2, 2, 2, 1]
        assert [*chain(*batches)] == lung.entries


@pytest.mark.parametrize("restarts", [1, 2])
async def test_restarted_server_has_everything_and_goes_on(tmp_path, restarts):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        authority = s.running.certificate_authority
    for _ in range(restarts):
        async with server(tmp_path) as s:
            assert s.running.certificate_authority == authority
            assert await ledger(s, lung.genesis, admins["Gamma"]) == lung.entries
            [view, _] = await join_requests(s, lung.genesis, admins["Alpha"])
            assert view.state == JOIN_REQUEST_STATE_ADMITTED
            entry = lung.vote("Alpha", lung.join_request(organization(f"Delta {len(lung.entries)}")), DECLINE)
            await s.append(entry, admins["Alpha"])
            await s.node_metadata(lung, "Beta", "beta-1")
