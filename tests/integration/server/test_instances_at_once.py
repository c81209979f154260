"""The same asked of two instances in the same moment: one of them does it, the other one sees that it is done.

Every pair of calls here comes from a race that somebody could win: a code, a token or a vote that counts twice, a limit that
is passed by two who each see room for one, two administrators who remove each other.
"""

import asyncio
import dataclasses
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from sqlalchemy import insert, select

from folkmoot.server.payloads import uploads
from folkmoot.server.people import resets
from folkmoot.server.store import login_tables
from folkmoot.server.store.task_tables import stored_bytes
from folkmoot.server.tokens import secret_hash
from folkmoot.transport.payloads import download, upload
from folkmoot.transport.status import error_from_rpc
from folkmoot.trust import BytesSource, make_authentication, timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import session_service_pb2 as sessions
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.session_service_pb2_grpc import SessionServiceStub
from tests.integration.harness import PASSWORD, ROOT, Server, User, server
from tests.integration.server.conftest import Hub
from tests.integration.server.factors import enroll, login
from tests.integration.server.places import Place, first_instance
from tests.integration.server.sealed import SealedTask, resigned, task
from tests.postgresql import Cluster

pytestmark = [pytest.mark.needs_postgres, pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20
QUOTA_BYTES = 64 * MIB
AT_EACH = 3


@dataclass
class Pair:
    """Two instances, and what is asked of both."""

    place: Place
    hubs: tuple[Hub, Hub]

    async def at_both(self, call: Callable[[Hub], Awaitable[Any]], at_each: int = AT_EACH) -> list[Any]:
        """Make a call at both instances, several times and all at once; return answers, and reasons of refusals."""
        return await asyncio.gather(*(told(call(hub)) for _ in range(at_each) for hub in self.hubs))

    @property
    def here(self) -> Hub:
        return self.hubs[0]

    async def root(self) -> User:
        return await self.here.server.root()

    async def user(self, name: str, roles: tuple[str, ...] = ()) -> User:
        return await self.here.server.user(name, (await self.root()).organization_account_id, roles)


async def told(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error).reason_name


def one_and(refusal: str, outcomes: list[Any]) -> bool:
    """Whether one of the calls has done it, and all others were refused like that."""
    return Counter(each if isinstance(each, str) else "done" for each in outcomes) == {
        "done": 1,
        refusal: len(outcomes) - 1,
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory, postgresql: Cluster) -> AsyncIterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    settings = {"quota_gib": QUOTA_BYTES / (1 << 30)}
    async with (
        first_instance(folder / "data", postgresql.url(str(folder)), **settings) as place,
        place.instance(**settings) as there,
    ):
        yield Pair(place, (place.here, there))


# ---- accounts ----------------------------------------------------------------------------------------------------------


async def test_a_user_is_made_once_and_everybody_who_asked_gets_the_same_answer(pair: Pair) -> None:
    root = await pair.root()
    wanted = admin.CreateUserRequest(
        user_id=pair.here.server.new_id(),
        username="once",
        password=PASSWORD,
        organization_account_id=root.organization_account_id,
        roles=["Viewer"],
    )
    answers = await pair.at_both(lambda hub: hub.server.admin.CreateUser(wanted, metadata=root.metadata))
    assert {str(answer) for answer in answers} == {str(answers[0])}
    assert not isinstance(answers[0], str), answers
    made = [event for event in await pair.here.server.events("user.create") if wanted.user_id in event.data]
    assert [event.outcome for event in made] == ["ok"]


async def test_a_name_is_given_once(pair: Pair) -> None:
    root = await pair.root()

    def make(hub: Hub) -> Awaitable[Any]:
        wanted = admin.CreateUserRequest(
            user_id=hub.server.new_id(),
            username="unique",
            password=PASSWORD,
            organization_account_id=root.organization_account_id,
        )
        return hub.server.admin.CreateUser(wanted, metadata=root.metadata)

    assert one_and("NAME_TAKEN", await pair.at_both(make))


async def test_what_has_an_id_is_made_once_and_everybody_gets_the_same_answer(pair: Pair) -> None:
    root, server = await pair.root(), pair.here.server
    ada = pair.here.researchers["Alpha"]
    genesis = pair.place.lung.genesis
    everything: tuple[tuple[User, str, str, Any, dict[str, Any]], ...] = (
        (root, "admin", "CreateOrganization", admin.CreateOrganizationRequest, {"organization_account_id": ..., "name": "Delta"}),
        (root, "admin", "CreateRole", admin.CreateRoleRequest, {"role_id": ..., "name": "Reader", "rules": [SEES_USERS]}),
        (ada, "admin", "CreateStudy", admin.CreateStudyRequest, {"study_id": ..., "genesis": genesis, "name": "Pilot",
            "organization_ids": [pair.place.lung["Alpha"].address]}),
        (ada, "sessions", "CreateSession", sessions.CreateSessionRequest, {"session_id": ..., "genesis": genesis, "name": "Ages",
            "scope": options.SCOPE_OWN}),
    )  # fmt: skip
    for who, service, method, kind, fields in everything:
        wanted = kind(**{name: server.new_id() if value is ... else value for name, value in fields.items()})
        answers = await pair.at_both(
            lambda hub: getattr(stub_of(hub.server, service), method)(wanted, metadata=who.metadata)  # noqa: B023
        )
        assert {str(answer) for answer in answers} == {str(answers[0])}, method
        assert not isinstance(answers[0], str), (method, answers)


SEES_USERS = auth.RoleRule(
    resource=options.RESOURCE_USER, operation=options.OPERATION_VIEW, scope=options.SCOPE_ORGANIZATION
)


def stub_of(server: Server, service: str) -> Any:
    return SessionServiceStub(server.channel) if service == "sessions" else getattr(server, service)


async def test_an_api_key_is_told_to_one(pair: Pair) -> None:
    user = await pair.user("has-a-key", ("Viewer",))
    wanted = auth.CreateApiKeyRequest(
        api_key_id=pair.here.server.new_id(),
        name="pipeline",
        expires_at=timestamp(pair.here.server.running.core.clock() + timedelta(days=1)),
    )
    answers = await pair.at_both(lambda hub: hub.server.auth.CreateApiKey(wanted, metadata=user.metadata))
    assert sorted(bool(answer.secret) for answer in answers) == [False] * (len(answers) - 1) + [True]


async def test_of_two_administrators_who_remove_each_other_one_stays(pair: Pair) -> None:
    """The last who may do everything can't go: not even when another one goes in the same moment."""
    for _ in range(3):
        rival = await pair.user(f"rival-{os.urandom(4).hex()}", ("Root",))
        root = await pair.root()
        listed = await pair.here.server.admin.ListUsers(admin.ListUsersRequest(role="Root"), metadata=root.metadata)
        assert len(listed.users) == 2
        victims = iter([root.user_id, rival.user_id])
        outcomes = await asyncio.gather(
            *(
                told(hub.server.admin.DeleteUser(admin.DeleteUserRequest(user_id=next(victims)), metadata=by.metadata))
                for hub, by in zip(pair.hubs, (rival, root), strict=True)
            )
        )
        assert sum(not isinstance(each, str) for each in outcomes) == 1, outcomes
        if isinstance(outcomes[0], str):  # root is still there
            continue
        pair.here.server.users[ROOT] = rival
        break


# ---- secrets that are good once ------------------------------------------------------------------------------------------


async def test_a_code_lets_one_in(pair: Pair) -> None:
    user = await pair.user("has-a-factor")
    app = await enroll(pair.here.server, user, pair.here.clock)
    code = app.code(steps_ahead=1)
    outcomes = await pair.at_both(lambda hub: login(hub.server, user.username, code=code), at_each=1)
    assert one_and("LOGIN_FAILED", outcomes)


async def test_a_refresh_token_has_one_successor(pair: Pair) -> None:
    user = await pair.user("refreshes")
    wanted = auth.RefreshRequest(refresh_token=user.tokens.refresh_token)
    answers = await pair.at_both(lambda hub: hub.server.auth.Refresh(wanted))
    [successor] = {answer.tokens.refresh_token for answer in answers}
    await pair.here.server.auth.Refresh(auth.RefreshRequest(refresh_token=successor))


async def test_a_token_that_was_mailed_sets_one_password(pair: Pair) -> None:
    user = await pair.user("forgets")
    token = await mailed(pair, user)

    def reset(hub: Hub) -> Awaitable[Any]:
        new = f"a new password of {hub.server.new_id()}"
        return hub.server.auth.ResetPassword(auth.ResetPasswordRequest(reset_token=token, new_password=new))

    assert one_and("RESET_TOKEN_INVALID", await pair.at_both(reset))


async def mailed(pair: Pair, user: User) -> str:
    """Return a token that was mailed to a user, without the mail."""
    core = pair.here.server.running.core
    token, now = pair.here.server.new_id(), core.clock()
    row = {"token_hash": secret_hash(token), "user_id": user.user_id, "purpose": resets.PASSWORD, "created_at": now}
    made = insert(login_tables.reset_tokens).values(row | {"expires_at": now + resets.LIFE})
    await core.store.write(lambda connection: connection.execute(made).rowcount)
    return token


async def test_a_set_up_token_makes_one_first_user(tmp_path: Path, postgresql: Cluster) -> None:
    data, database = tmp_path / "data", postgresql.url(str(tmp_path))
    async with server(data, database=database) as here, server(data, database=database) as there:
        token = there.running.setup_token or ""
        assert here.running.setup_token == token

        def set_up(s: Server, number: int) -> Awaitable[Any]:
            names = {"username": f"root-{number}", "organization_name": f"Hub {number}"}
            return s.auth.CompleteSetup(auth.CompleteSetupRequest(setup_token=token, password=PASSWORD, **names))

        outcomes = await asyncio.gather(*(told(set_up(s, n)) for n, s in enumerate((here, there) * AT_EACH)))
        assert one_and("SETUP_DONE", outcomes)


async def test_a_proof_of_a_node_is_good_once(pair: Pair) -> None:
    server, lung = pair.here.server, pair.place.lung
    proof = make_authentication(
        genesis=lung.genesis,
        organization_id=lung["Beta"].address,
        key=lung["Beta"].nodes["beta-1"],
        nonce=(await server.auth.GetNonce(auth.GetNonceRequest())).nonce,
        server_authority_digest=server.authority_digest,
        now=server.running.core.clock(),
    )
    wanted = auth.AuthenticateNodeRequest(authentication=proof)
    assert one_and("NONCE_INVALID", await pair.at_both(lambda hub: hub.server.auth.AuthenticateNode(wanted)))


# ---- limits ------------------------------------------------------------------------------------------------------------


async def test_a_quota_is_never_passed_by_two_who_each_see_room(pair: Pair) -> None:
    ada = pair.here.researchers["Gamma"]

    def begin(hub: Hub) -> Awaitable[Any]:
        wanted = payloads.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=10 * MIB)
        return hub.server.payloads.ListMissingParts(wanted, metadata=ada.metadata)

    outcomes = await pair.at_both(begin, at_each=5)
    assert Counter(each if isinstance(each, str) else "begun" for each in outcomes) == {
        "begun": 6,
        "STORAGE_QUOTA_EXCEEDED": 4,
    }


async def test_an_envelope_that_is_uploaded_at_both_is_there_once_and_counts_once(pair: Pair) -> None:
    """As when a client changes over to another instance while the first one still takes what it sent."""
    sealed = task(pair.place.lung, ("Beta",), content=os.urandom(17 * MIB), initiator="Alpha")
    digest = sealed.spec.inputs[0].envelope_digest
    ada = pair.here.researchers["Alpha"]
    asked = select(stored_bytes.c.size_bytes).where(stored_bytes.c.organization_id == pair.place.lung["Alpha"].address)
    store = pair.here.server.running.core.store
    before = await store.read(lambda connection: connection.scalar(asked)) or 0

    def put(hub: Hub) -> Awaitable[None]:
        return upload(hub.server.payloads, BytesSource(sealed.envelope), digest, metadata=lambda: ada.metadata)

    assert await pair.at_both(put, at_each=2) == [None] * 4
    after = await store.read(lambda connection: connection.scalar(asked))
    assert after == before + len(sealed.envelope)
    answers = await pair.at_both(
        lambda hub: hub.tasks.CreateTask(sealed.request(envelope=False), metadata=ada.metadata)
    )
    assert {answer.task.task_id for answer in answers} == {sealed.task_id}
    for hub in pair.hubs:
        got = [data async for data in download(hub.server.payloads, digest, metadata=lambda: ada.metadata)]
        assert b"".join(got) == sealed.envelope


async def test_wrong_passwords_at_all_instances_are_counted_together(pair: Pair) -> None:
    user = await pair.user("guessed")
    await pair.at_both(lambda hub: login(hub.server, user.username, password="a wrong password"), at_each=5)
    for hub in pair.hubs:
        assert await told(login(hub.server, user.username)) == "LOCKED_OUT"


# ---- tasks -------------------------------------------------------------------------------------------------------------


async def test_a_task_is_made_once_and_another_of_the_same_id_never(pair: Pair) -> None:
    sealed = task(pair.place.lung, ("Beta", "Gamma"))
    answers = await pair.at_both(lambda hub: hub.create(sealed))
    assert {answer.task.task_id for answer in answers} == {sealed.task_id}
    assert await of_task("task.create", sealed, pair) == 1
    one, other = (each := task(pair.place.lung, ("Beta",))), resigned(each, name="another")
    outcomes = await asyncio.gather(
        *(told(hub.create(each)) for hub, each in zip(pair.hubs, (one, other), strict=True))
    )
    assert one_and("ID_TAKEN", outcomes)


async def test_a_result_is_taken_once_and_another_one_never(pair: Pair) -> None:
    for _ in range(3):
        sealed = task(pair.place.lung, ("Beta",))
        await pair.here.create(sealed)
        node = await pair.here.node("Beta")
        results = [sealed.commit("Beta", content=content) for content in (b"one", b"other")]

        async def commit(hub: Hub, request: pb.CommitRunRequest) -> bytes:
            answer = await hub.tasks.CommitRun(request, metadata=node)  # noqa: B023
            return bytes(answer.run.result_digest)

        outcomes = await asyncio.gather(
            *(told(commit(hub, each)) for each in results for hub in (*pair.hubs, *pair.hubs))
        )
        taken = {each for each in outcomes if not isinstance(each, str)}
        assert len(taken) == 1, outcomes
        assert await of_task("run.commit", sealed, pair) == 1


async def test_a_task_that_is_cancelled_as_its_result_comes_has_one_end(pair: Pair) -> None:
    for _ in range(3):
        sealed = task(pair.place.lung, ("Beta",))
        await pair.here.create(sealed)
        node = await pair.here.node("Beta")
        await asyncio.gather(
            told(pair.hubs[0].tasks.CommitRun(sealed.commit("Beta"), metadata=node)),
            told(pair.hubs[1].tasks.CancelTask(pb.CancelTaskRequest(task_id=sealed.task_id), metadata=pair.here.ada)),
        )
        states = {await hub.state(sealed, "Beta") for hub in pair.hubs}
        assert len(states) == 1
        assert states < {"COMPLETED", "CANCELLED"}


async def of_task(intent: str, sealed: SealedTask, pair: Pair) -> int:
    run_ids = {run.run_id for run in sealed.spec.receivers}
    wanted = {sealed.task_id, *run_ids}
    events = await pair.here.server.events(intent)
    return sum(any(each in event.data for each in wanted) for event in events if event.outcome == "ok")


# ---- what goes on by itself ----------------------------------------------------------------------------------------------


async def test_what_is_abandoned_goes_once_and_its_bytes_are_given_back_once(pair: Pair) -> None:
    beta = pair.here.researchers["Beta"]
    for _ in range(3):
        wanted = payloads.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=20 * MIB)
        await pair.here.server.payloads.ListMissingParts(wanted, metadata=beta.metadata)
    ahead = uploads.ABANDONED_AFTER + timedelta(hours=1)

    async def tidy(hub: Hub) -> None:
        running = hub.server.running
        core = later(running.core, ahead)
        await uploads.forget_abandoned(core, running.removals.store, running.removals)

    await asyncio.gather(*(tidy(hub) for hub in pair.hubs))
    small = payloads.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=60 * MIB)
    await pair.here.server.payloads.ListMissingParts(small, metadata=beta.metadata)
    again = payloads.ListMissingPartsRequest(envelope_digest=os.urandom(32), size_bytes=60 * MIB)
    full = await told(pair.here.server.payloads.ListMissingParts(again, metadata=beta.metadata))
    assert full == "STORAGE_QUOTA_EXCEEDED", "room was given back more than once"


def later(core: Any, ahead: timedelta) -> Any:
    """Return the same with a clock that is ahead."""
    return dataclasses.replace(core, clock=lambda: core.clock() + ahead)
