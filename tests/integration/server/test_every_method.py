"""Every method of the contract, called for real: without a token, with garbage, and by a user who has no role."""

from typing import Any

import pytest

from folkmoot.server import access
from folkmoot.v1 import key_service_pb2, payload_service_pb2
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import bearer, reason, refused, server

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in access.FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
ACCESS = access.table()
CLOSED = [path for path in METHODS if options.CALLER_ANYONE not in ACCESS[path].callers]
RULED = [path for path in CLOSED if ACCESS[path].resource]


def call(s, path, metadata=()):
    """Call a method with an empty request: whoever may not call must not learn what is wrong with it."""
    method = METHODS[path]
    if method.client_streaming:
        kind = s.channel.stream_stream if method.server_streaming else s.channel.stream_unary
        return kind(path)(iter([b""]), metadata=metadata)
    kind = s.channel.unary_stream if method.server_streaming else s.channel.unary_unary
    return kind(path)(b"", metadata=metadata)


async def test_nobody_gets_in_without_a_token(tmp_path):
    async with server(tmp_path) as s:
        assert {path: reason(await refused(call(s, path))) for path in CLOSED} == dict.fromkeys(CLOSED, "TOKEN_INVALID")


async def test_nobody_gets_in_with_a_forged_token(tmp_path):
    async with server(tmp_path) as s:
        forged = bearer((await s.root()).tokens.access_token[:-4] + "AAAA")
        answers = {path: reason(await refused(call(s, path, forged))) for path in CLOSED}
        assert answers == dict.fromkeys(CLOSED, "TOKEN_INVALID")


async def test_user_without_a_role_may_do_nothing(tmp_path):
    async with server(tmp_path) as s:
        nobody = await s.user("nobody", await s.account("Alpha"), [])
        answers = {path: reason(await refused(call(s, path, nobody.metadata))) for path in RULED}
        assert answers == dict.fromkeys(RULED, "NOT_ALLOWED")


async def test_root_may_not_act_as_a_node(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        for path in [path for path in CLOSED if options.CALLER_USER not in ACCESS[path].callers]:
            assert reason(await refused(call(s, path, root.metadata))) == "NOT_ALLOWED"


async def test_refusals_are_in_the_audit_trail(tmp_path):
    async with server(tmp_path) as s:
        nobody = await s.user("nobody", await s.account("Alpha"), [])
        error = await refused(call(s, RULED[0], nobody.metadata))
        [event] = await s.events("call.denied")
        assert (event.created_by, event.outcome, event.organization) == (
            nobody.user_id,
            "NOT_ALLOWED",
            nobody.organization_account_id,
        )
        assert RULED[0] in event.data
        assert event.request_id == error.metadata["request_id"]


async def test_strangers_can_not_fill_the_audit_trail(tmp_path):
    async with server(tmp_path) as s:
        for _ in range(130):  # at most two minutes begin meanwhile
            await refused(call(s, CLOSED[0]))
        assert 60 <= len(await s.events("call.denied")) <= 120


@pytest.mark.parametrize("given", ["client-request-42", "x" * 65, "bad id!"])
async def test_request_id_of_the_caller_is_kept_if_it_is_one(tmp_path, given):
    async with server(tmp_path) as s:
        error = await refused(call(s, CLOSED[0], (("x-request-id", given),)))
        assert (error.metadata["request_id"] == given) == (given == "client-request-42")
        assert len(error.metadata["request_id"]) <= 64


async def test_unknown_method_is_unimplemented(tmp_path):
    async with server(tmp_path) as s:
        nonsense: Any = s.channel.unary_unary("/folkmoot.v1.AuthService/Nonsense")
        error = await refused(nonsense(b""))
        assert error.code.name == "UNIMPLEMENTED"


async def test_first_wrong_message_of_a_stream_ends_it(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        header = payload_service_pb2.UploadPartRequest(header=payload_service_pb2.PartHeader())
        error = await refused(s.payloads.UploadPart(iter([header]), metadata=root.metadata))
        assert (reason(error), [field for field, _ in error.violations]) == (
            "INVALID_FIELD",
            ["header.envelope_digest"],
        )


async def test_wrong_request_of_an_answering_stream_is_refused(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        request = key_service_pb2.GetLedgerRequest(genesis=bytes(31))
        error = await refused(s.keys.GetLedger(request, metadata=root.metadata))
        assert (reason(error), [field for field, _ in error.violations]) == ("INVALID_FIELD", ["genesis"])
