"""Limits of a caller, over real connections: who calls too much waits, and nobody else does."""

import asyncio
import os
from functools import partial
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from folkmoot.client.session import Session
from folkmoot.trust import SigningKey
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from tests.builders import world
from tests.integration.harness import bearer, reason, refused, server, utc_now


async def flood(s, metadata, most=300):
    """Call until the server has enough of it; return the refusal."""
    for _ in range(most):
        try:
            await s.admin.ListRoles(admin.ListRolesRequest(), metadata=metadata)
        except Exception as error:  # noqa: BLE001
            return await refused(_raise(error))
    raise AssertionError("the flood was never refused")


async def _raise(error):
    raise error


async def test_who_calls_too_much_waits_and_nobody_else_does(tmp_path):
    async with server(tmp_path, calls_per_second=0.5, call_burst=20) as s:
        root = await s.root()
        ada = await s.user("ada", root.organization_account_id, ["Viewer"])
        error = await flood(s, ada.metadata)
        assert (reason(error), error.code.name) == ("RATE_LIMITED", "RESOURCE_EXHAUSTED")
        assert 0 < error.retry_after_seconds <= 2
        await s.admin.ListRoles(admin.ListRolesRequest(), metadata=root.metadata)
        await s.auth.GetNonce(auth.GetNonceRequest())


async def test_strangers_share_what_their_address_may_do(tmp_path):
    async with server(tmp_path, calls_per_second=0.1, call_burst=10) as s:
        root = await s.root()
        forged = bearer(root.tokens.access_token[:-4] + "AAAA")
        answers = [
            reason(await refused(s.admin.ListRoles(admin.ListRolesRequest(), metadata=forged))) for _ in range(12)
        ]
        assert answers[0] == "TOKEN_INVALID"
        assert answers[-1] == "RATE_LIMITED", "guessing tokens counts, too"
        assert reason(await refused(s.auth.Refresh(auth.RefreshRequest()))) == "RATE_LIMITED"
        await s.admin.ListRoles(admin.ListRolesRequest(), metadata=root.metadata)
        stub: Any = health_pb2_grpc.HealthStub(s.channel)
        for _ in range(30):
            await stub.Check(health_pb2.HealthCheckRequest())


async def test_stranger_at_a_hospitals_address_does_not_bar_its_nodes_way_in(tmp_path):
    async with server(tmp_path, calls_per_second=0.01, call_burst=40) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        await s.publish(lung)
        stranger = SigningKey.generate(os.urandom)
        reasons = [reason(await refused(_knock(s, lung, stranger))) for _ in range(60)]
        assert set(reasons) == {"NODE_NOT_APPROVED", "RATE_LIMITED"}
        assert reasons[-1] == reason(await refused(s.auth.Refresh(auth.RefreshRequest()))) == "RATE_LIMITED"

        node = await s.node_metadata(lung, "Alpha", "alpha-1")
        who = auth.WhoAmIRequest()
        assert {await outcome(s.auth.WhoAmI(who, metadata=node)) for _ in range(30)} == {"ok"}
        again = [await outcome(s.node_metadata(lung, "Alpha", "alpha-1")) for _ in range(12)]
        assert again == ["ok"] * 9 + ["RATE_LIMITED"] * 3, "a node's proofs and calls are counted together"
        assert await outcome(s.auth.WhoAmI(who, metadata=await s.node_metadata(lung, "Beta", "beta-1"))) == "ok"


async def outcome(answer):
    try:
        await answer
    except Exception as error:  # noqa: BLE001
        return reason(await refused(_raise(error)))
    return "ok"


async def _knock(s, lung, key):
    await s.authenticate(genesis=lung.genesis, organization_id=lung["Alpha"].address, key=key)


async def test_client_waits_as_long_as_it_is_told(tmp_path):
    async with server(tmp_path, calls_per_second=20, call_burst=5) as s:
        root = await s.root()
        ada = await s.user("ada", root.organization_account_id, ["Viewer"])
        async with Session(s.address) as session:
            roles: Any = partial(session.admin.ListRoles, metadata=ada.metadata)
            answers = await asyncio.gather(
                *(session.call_anonymously(roles, admin.ListRolesRequest()) for _ in range(15))
            )
        assert len(answers) == 15
        assert "call.denied" not in {event.intent for event in await s.events()}


async def test_streams_of_a_caller_are_bounded_and_given_back(tmp_path):
    async with server(tmp_path, streams_per_caller=2) as s:
        root = await s.root()

        def watch():
            return s.admin.WatchEvents(admin.WatchEventsRequest(), metadata=root.metadata)

        open_ones = [watch(), watch()]
        for stream in open_ones:
            await stream.read()
        error = await refused(watch())
        assert (reason(error), error.retry_after_seconds) == ("TOO_MANY", None)
        open_ones[0].cancel()
        await s.root()
        while True:
            again = watch()
            if (await _first(again)) is not None:
                break
        again.cancel()


async def test_a_stranger_watches_the_servers_health_so_often_and_no_more(tmp_path):
    """Each watch is held in memory, and nobody is asked who he is; and whoever else comes from his address is not shut out by it."""
    async with server(tmp_path, streams_per_caller=2) as s:
        health: Any = health_pb2_grpc.HealthStub(s.channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
        for watch in watches:
            await watch.read()
        assert reason(await refused(health.Watch(health_pb2.HealthCheckRequest()).read())) == "TOO_MANY"
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        for watch in watches:
            watch.cancel()


async def _first(stream):
    """Return the first message, None if the stream is refused: the server notices a moment later that one has ended."""
    try:
        return await stream.read()
    except Exception:  # noqa: BLE001
        return None
