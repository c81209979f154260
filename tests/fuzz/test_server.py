"""Every method of the server, over the wire, with requests that nobody should send: each is answered, none is a fault of ours."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from secrets import randbits

import grpc
import pytest

from folkmoot.server import access
from folkmoot.trust import SigningKey, digest, make_head_statement
from folkmoot.v1 import options_pb2 as options
from tests.builders import World, organization, world
from tests.fuzz.messages import Known, request_bytes
from tests.fuzz.wire import FAULTS, answer
from tests.integration.harness import Metadata, Server, bearer, server, utc_now
from tests.integration.server import sealed

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for file in access.FILES
    for service in file.services_by_name.values()
    for method in service.methods
}
ENDS_SESSIONS = ("Logout", "Password", "Revoke", "Delete", "Disable", "Update")
"""Parts of names of methods that may end their caller's session, or another's; they come last."""


@dataclass
class Stage:
    """A server with a collaboration on it, and who may call."""

    server: Server
    callers: dict[str, Metadata]
    known: Known


@asynccontextmanager
async def stage(folder) -> AsyncIterator[Stage]:
    async with server(folder) as s:
        lung = world(("Alpha", "Beta"), now=utc_now())
        admins = await s.publish(lung)
        victim = await s.user("victim", await s.account("Elsewhere"), ["Researcher"])
        file = lung.invite("Alpha", "invited")
        invited = await s.authenticate(
            genesis=lung.genesis,
            organization_id=lung["Alpha"].address,
            key=SigningKey.from_seed(file.seed),
            invitation=file.invitation,
        )
        callers = {
            "root": (await s.root()).metadata,
            "admin": admins["Alpha"].metadata,
            "node": await s.node_metadata(lung, "Beta", "beta-1"),
            "invited node": invited,
            "nobody": victim.metadata,
            "stranger": (),
        }
        yield Stage(
            s, callers, await _known(s, lung, admins["Alpha"].metadata, victim.user_id, victim.organization_account_id)
        )


async def _known(s: Server, lung: World, admin: Metadata, *uuids: str) -> Known:
    """Return ids and messages that the server knows, a task among them that waits for its run, and some that it would take."""
    created, other = sealed.task(lung, ["Beta"]), sealed.task(lung, ["Beta"])
    await s.tasks.CreateTask(created.request(), metadata=admin)
    node_key = SigningKey.generate(lung.random)
    claim = lung.claim("Alpha", "new", node_key)
    return Known(
        uuids=(*uuids, s.new_id(), created.task_id, created.run_id("Beta")),
        fingerprints=tuple(each.address for each in lung.organizations.values()),
        names=("Alpha", "alpha-1", "lung", "Researcher", "victim"),
        digests=(lung.genesis, lung.state.position.hash, digest(created.envelope), created.digest),
        messages=(
            *(created.request(), other.request(), created.commit("Beta"), other.commit("Beta")),
            *(lung.entries[-1], lung.join_request(organization("Delta")), claim, created.chain, other.chain),
            lung.state.position.message(),
            make_head_statement(
                lung.state,
                node_key=lung["Alpha"].nodes["alpha-1"],
                organization_id=lung["Alpha"].address,
                now=lung.now,
            ),
        ),
    )


async def provoke(on: Stage, rounds: int, random: Random) -> dict[str, set[grpc.StatusCode]]:
    """Call every method some times by everybody; return what was answered."""
    answers: dict[str, set[grpc.StatusCode]] = {}
    for path in sorted(METHODS, key=lambda path: any(part in path for part in ENDS_SESSIONS)):
        for _ in range(rounds):
            caller = random.choice([name for name in on.callers if may_call(name, path)] or ["stranger"])
            count = random.choice((1, 1, 2, 4))
            requests = [request_bytes(METHODS[path].input_type, on.known, random) for _ in range(count)]
            code = await answer(on.server.channel, METHODS[path], requests, on.callers[caller])
            answers.setdefault(path, set()).add(code)
    return answers


def may_call(name: str, path: str) -> bool:
    """Tell whether somebody gets as far as the method's own checks."""
    kinds = {"root": options.CALLER_USER, "admin": options.CALLER_USER, "node": options.CALLER_NODE}
    kinds |= {"invited node": options.CALLER_INVITED_NODE, "stranger": options.CALLER_ANYONE}
    return kinds.get(name) in ACCESS[path].callers


ACCESS = access.table()


async def check(folder, capsys, caplog, rounds: int, seed: int) -> None:
    async with stage(folder) as on:
        answers = await provoke(on, rounds, Random(seed))
        faults = {path: codes for path, codes in answers.items() if codes.intersection(FAULTS)}
        assert (
            await answer(on.server.channel, METHODS["/folkmoot.v1.AuthService/GetNonce"], [b""]) == grpc.StatusCode.OK
        )
    written = capsys.readouterr().err
    assert not faults, f"seed {seed}: {written[-3000:]}"
    assert "call.fault" not in written, f"seed {seed}: {written[-3000:]}"
    assert "Traceback" not in written, f"seed {seed}: {written[-3000:]}"
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR], f"seed {seed}"
    assert any(grpc.StatusCode.OK in codes for codes in answers.values())


async def test_nothing_that_is_sent_to_any_method_is_a_fault(tmp_path, capsys, caplog):
    await check(tmp_path, capsys, caplog, rounds=4, seed=1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("run", range(4))
async def test_nothing_that_is_sent_to_any_method_is_a_fault_at_length(tmp_path, capsys, caplog, run):
    await check(tmp_path, capsys, caplog, rounds=60, seed=randbits(32))


TOKENS = ("", ".", "..", "a.b.c", "e30.e30.", "eyJhbGciOiJub25lIn0.e30.", "null", "\x20", "a" * 4000, "=" * 40)


@pytest.mark.parametrize("token", TOKENS)
async def test_what_is_no_token_is_refused_as_such(tmp_path, capsys, token):
    async with server(tmp_path) as s:
        for path in ("/folkmoot.v1.AdminService/ListUsers", "/folkmoot.v1.TaskService/Attach"):
            assert await _status(s, path, token) == grpc.StatusCode.UNAUTHENTICATED
    assert "Traceback" not in capsys.readouterr().err


async def _status(s: Server, path: str, token: str) -> grpc.StatusCode:
    """Return what the server says; asked again when the client's library was still sending and says nothing of it."""
    while True:
        code = await answer(s.channel, METHODS[path], [b""], bearer(token), patience_seconds=30)
        if code != grpc.StatusCode.CANCELLED:
            return code
