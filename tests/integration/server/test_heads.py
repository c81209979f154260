"""Head statements: the newest of each node, in its own words and nobody else's."""

from datetime import timedelta
from typing import Any

import pytest

from folkmoot.trust import SigningKey, State, serialize, sign
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.ledger_pb2 import HeadStatement
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import world
from tests.integration.harness import Server, reason, refused, utc_now
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Station, Stream, attached, hello

FORMS = pytest.mark.parametrize("form", [Stream, Poll], ids=["stream", "poll"])


def statement(state: State, key: SigningKey, *, kind: str = "HEAD", **changes: Any) -> Signed:
    wish: dict[str, Any] = {
        "version": 1,
        "genesis": state.genesis,
        "organization_id": state.nodes[key.fingerprint].organization_id if key.fingerprint in state.nodes else "",
        "head": state.position.message(),
        "time": timestamp(utc_now()),
    }
    body = serialize(HeadStatement(**(wish | changes)))
    return sign(SignedKind.Value(f"SIGNED_KIND_{kind}"), body, key=key, genesis=state.genesis)


async def heads(s: Server, hub: Hub) -> list[Signed]:
    request = keys.ListHeadsRequest(genesis=hub.lung.genesis)
    return list((await s.keys.ListHeads(request, metadata=hub.ada)).heads)


async def taken(hub: Hub, station: Station) -> None:
    """Return when the server has stored what was sent: frames take effect in order, and so do writes."""
    await station.leave()
    await hub.settled()


@FORMS
async def test_node_says_what_it_has_verified_at_hello_and_later(hub: Hub, form) -> None:
    key, state = hub.lung["Beta"].nodes["beta-1"], hub.lung.state
    first, second = (statement(state, key, time=timestamp(utc_now() + timedelta(seconds=n))) for n in range(2))
    station = Station(form(hub.tasks, await hub.node("Beta")))
    await station.link.send(hello(hub.lung, key.fingerprint, head_statement=first))
    await station.next("welcome")
    await station.send(head_statement=second)
    await taken(hub, station)
    assert await heads(hub.server, hub) == [second]


@pytest.mark.both_databases
async def test_older_statement_replaces_no_newer_one(hub: Hub) -> None:
    key, state = hub.lung["Beta"].nodes["beta-1"], hub.lung.state
    newer = statement(state, key)
    async with attached(hub.server, hub.lung, "Beta") as station:
        await station.send(head_statement=newer)
        await station.send(head_statement=statement(state, key, time=timestamp(utc_now() - timedelta(hours=1))))
        await taken(hub, station)
    assert await heads(hub.server, hub) == [newer]


async def test_nobody_states_a_head_for_another_node(hub: Hub) -> None:
    state, own = hub.lung.state, hub.lung["Beta"].nodes["beta-1"]
    heart = world(("Alpha", "Beta"), name="heart", now=utc_now())
    refused_ones = [
        statement(state, hub.lung["Gamma"].nodes["gamma-1"]),
        statement(state, own, organization_id=hub.lung["Gamma"].address),
        statement(state, own, genesis=heart.genesis),
        statement(state, own, kind="RECEIPT"),
        statement(state, own, time=timestamp(utc_now() + timedelta(hours=1))),
        statement(heart.state, own, organization_id=hub.lung["Beta"].address),
        Signed(kind=SignedKind.SIGNED_KIND_HEAD, body=b"\xff", key_id=own.key_id, signature=own.sign(b"")),
    ]
    async with attached(hub.server, hub.lung, "Beta") as station:
        for each in refused_ones:
            await station.send(head_statement=each)
        await taken(hub, station)
    assert await heads(hub.server, hub) == []


async def test_statement_that_contradicts_the_server_is_shown_to_the_members(hub: Hub) -> None:
    """It is the evidence of a fork: a server must not be able to say that it keeps what it likes."""
    key, state = hub.lung["Beta"].nodes["beta-1"], hub.lung.state
    other = state.position.message()
    other.hash = bytes(32)
    contradicting = statement(state, key, head=other)
    async with attached(hub.server, hub.lung, "Beta") as station:
        await station.send(head_statement=contradicting)
        await taken(hub, station)
    assert await heads(hub.server, hub) == [contradicting]


async def test_statements_go_with_their_nodes_and_strangers_see_none(hub: Hub) -> None:
    for name in ("Beta", "Gamma"):
        key = hub.lung[name].nodes[f"{name.lower()}-1"]
        async with attached(hub.server, hub.lung, name) as station:
            await station.send(head_statement=statement(hub.lung.state, key))
            await taken(hub, station)
    assert len(await heads(hub.server, hub)) == 2
    await hub.server.append(hub.lung.revoke_node("Beta", "beta-1"), hub.admins["Beta"])
    assert len(await heads(hub.server, hub)) == 1
    stranger = await hub.server.organization_admin("Stranger")
    request = keys.ListHeadsRequest(genesis=hub.lung.genesis)
    call = hub.server.keys.ListHeads(request, metadata=stranger.metadata)
    assert reason(await refused(call)) == "COLLABORATION_NOT_FOUND"
