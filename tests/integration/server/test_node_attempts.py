"""Nodes that ask without an invitation: what they claim is checked, bounded, seen by their organization alone, and decides nothing."""

from datetime import timedelta

import pytest

from folkmoot.server import peers
from folkmoot.server.nodes import attempts
from folkmoot.trust import SigningKey, node_approve_entry
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import World, organization, randomness, world
from tests.integration.harness import Clock, Metadata, Server, reason, refused, server, utc_now


def node_key(name: str) -> SigningKey:
    return SigningKey.generate(randomness(name))


async def submit(s: Server, claim: Signed) -> admin.SubmitNodeAttemptResponse:
    return await s.admin.SubmitNodeAttempt(admin.SubmitNodeAttemptRequest(claim=claim))


async def attempts_of(s: Server, lung: World, metadata: Metadata) -> list[Signed]:
    request = admin.ListNodeAttemptsRequest(genesis=lung.genesis)
    return [each.claim for each in (await s.admin.ListNodeAttempts(request, metadata=metadata)).attempts]


async def test_attempt_waits_until_one_administrator_approves(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        key = node_key("alpha-2")
        claim = lung.claim("Alpha", "alpha-2", key)
        expires_at = (await submit(s, claim)).expires_at
        assert (await submit(s, claim)).expires_at == expires_at
        [event] = await s.events("node_attempt.submit")
        assert (event.created_by, event.organization) == (key.fingerprint, lung["Alpha"].address)
        assert await attempts_of(s, lung, admins["Alpha"].metadata) == [claim]

        wanted = s.authenticate(genesis=lung.genesis, organization_id=lung["Alpha"].address, key=key)
        error = await refused(wanted)
        assert (reason(error), error.metadata["attempt"]) == ("NODE_NOT_APPROVED", "pending")
        assert "waits for an administrator" in error.message

        entry = node_approve_entry(
            lung.state,
            claim,
            key=lung["Alpha"].governance_key,
            organization_id=lung["Alpha"].address,
            now=lung.now,
        )
        await s.append(lung.append(entry), admins["Alpha"])
        await s.authenticate(genesis=lung.genesis, organization_id=lung["Alpha"].address, key=key)
        assert await attempts_of(s, lung, admins["Alpha"].metadata) == []
        await submit(s, claim)
        assert await attempts_of(s, lung, admins["Alpha"].metadata) == []


async def test_attempts_are_seen_and_removed_by_their_own_organization_alone(tmp_path):
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        key = node_key("alpha-2")
        claim = lung.claim("Alpha", "alpha-2", key)
        await submit(s, claim)
        request = admin.DeleteNodeAttemptRequest(genesis=lung.genesis, node_id=key.fingerprint)
        assert await attempts_of(s, lung, admins["Beta"].metadata) == []
        await s.admin.DeleteNodeAttempt(request, metadata=admins["Beta"].metadata)
        assert await attempts_of(s, lung, admins["Alpha"].metadata) == [claim]

        stranger = await s.organization_admin("Stranger")
        for call in (
            s.admin.DeleteNodeAttempt(request, metadata=stranger.metadata),
            attempts_of(s, lung, stranger.metadata),
        ):
            assert reason(await refused(call)) == "COLLABORATION_NOT_FOUND"
        ada = await s.user("ada", admins["Alpha"].organization_account_id, ["Researcher"])
        assert reason(await refused(s.admin.DeleteNodeAttempt(request, metadata=ada.metadata))) == "NOT_ALLOWED"

        for _ in range(2):
            await s.admin.DeleteNodeAttempt(request, metadata=admins["Alpha"].metadata)
        assert await attempts_of(s, lung, admins["Alpha"].metadata) == []
        [event] = await s.events("node_attempt.delete")
        assert event.created_by == admins["Alpha"].user_id


async def test_claim_that_no_entry_could_admit_is_refused(tmp_path):
    async with server(tmp_path) as s:
        lung, heart = world(now=utc_now()), world(("Alpha",), name="heart", now=utc_now())
        await s.publish(lung)
        lung.organizations["Delta"] = organization("Delta")
        altered = lung.claim("Alpha", "alpha-2", node_key("x"))
        altered.signature = node_key("y").sign(altered.body)
        revoked_or_otherwise_used = lung["Alpha"].governance_key
        for claim, expected in (
            (altered, "MALFORMED"),
            (lung.claim("Alpha", "no/name", node_key("x")), "MALFORMED"),
            (heart.claim("Alpha", "alpha-2", node_key("x")), "COLLABORATION_NOT_FOUND"),
            (lung.claim("Delta", "delta-1", node_key("x")), "NOT_A_MEMBER"),
            (lung.claim("Alpha", "ALPHA-1", node_key("x")), "NAME_TAKEN"),
            (lung.claim("Alpha", "alpha-2", revoked_or_otherwise_used), "LEDGER_ENTRY_INVALID"),
        ):
            assert reason(await refused(submit(s, claim))) == expected
        assert await s.events("node_attempt.submit") == []


async def test_node_of_an_organization_that_waits_for_votes_is_told_so(tmp_path):
    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        await s.publish(lung)
        lung.organizations["Delta"] = organization("Delta")
        await s.submit_join_request(lung.join_request(lung["Delta"]), await s.organization_admin("Delta"))
        error = await refused(submit(s, lung.claim("Delta", "delta-1", node_key("x"))))
        assert (reason(error), error.metadata["missing"]) == ("JOIN_PENDING", "2")


async def test_one_place_can_not_fill_the_list(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        for number in range(attempts.MOST_FROM_ONE_PLACE):
            await submit(s, lung.claim("Alpha", f"n-{number}", node_key(f"{number}")))
        one_more = lung.claim("Alpha", "one-more", node_key("one more"))
        error = await refused(submit(s, one_more))
        assert (reason(error), 0 < int(error.metadata["retry_after_seconds"]) <= 3600) == ("TOO_MANY", True)
        clock.ahead += timedelta(hours=1, seconds=1)
        for _ in range(attempts.MOST_FROM_ONE_PLACE):
            await submit(s, one_more)
        alpha = await s.log_in(admins["Alpha"].username)
        assert len(await attempts_of(s, lung, alpha.metadata)) == attempts.MOST_FROM_ONE_PLACE + 1


@pytest.mark.both_databases
async def test_organization_has_so_many_attempts_and_others_still_have_theirs(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "MOST_PER_ORGANIZATION", 2)
    async with server(tmp_path) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        claims = [lung.claim("Alpha", f"n-{number}", node_key(f"{number}")) for number in range(3)]
        for claim in claims[:2]:
            await submit(s, claim)
        assert reason(await refused(submit(s, claims[2]))) == "TOO_MANY"
        await submit(s, claims[0])
        await submit(s, lung.claim("Beta", "beta-2", node_key("beta-2")))
        request = admin.DeleteNodeAttemptRequest(genesis=lung.genesis, node_id=node_key("0").fingerprint)
        await s.admin.DeleteNodeAttempt(request, metadata=admins["Alpha"].metadata)
        await submit(s, claims[2])


async def test_attempt_is_forgotten_after_two_weeks(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lung = world(now=utc_now())
        admins = await s.publish(lung)
        key = node_key("alpha-2")
        await submit(s, lung.claim("Alpha", "alpha-2", key))
        clock.ahead += timedelta(days=14, seconds=1)
        alpha = await s.log_in(admins["Alpha"].username)
        assert await attempts_of(s, lung, alpha.metadata) == []
        error = await refused(s.authenticate(genesis=lung.genesis, organization_id=lung["Alpha"].address, key=key))
        assert (reason(error), "attempt" in error.metadata) == ("NODE_NOT_APPROVED", False)


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("ipv4:192.0.2.7:5000", "192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::%5D:5000", "2001:db8:1:2::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64"),
        ("ipv6:[::ffff:192.0.2.7]:5000", "192.0.2.7"),
        ("ipv6:nonsense:5000", "nonsense"),
        ("unix:", "unix:"),
    ],
)
def test_place_is_an_address_or_a_network_that_one_customer_has(peer, place):
    assert peers.place_of(peers.address_of(peer)) == place


def test_places_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(attempts, "PLACES_REMEMBERED", 3)
    places = attempts.Places()
    for number in range(10):
        places.count(f"place {number}", utc_now())
    assert len(places._counted) == 3
