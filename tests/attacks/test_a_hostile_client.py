"""A hostile user at the server: what is garbage is said to be, in the contract's words, and is never taken for a fault of the server."""

import base64
import json
import stat
from pathlib import Path

import pytest

from folkmoot.trust import sign_task
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import task_service_pb2 as tasks
from folkmoot.v1.link_pb2 import Heartbeat, NodeFrame
from folkmoot.v1.task_pb2 import TaskChain
from tests.integration.harness import reason, refused, server
from tests.integration.server.conftest import Hub, hub
from tests.integration.server.sealed import SealedTask, task

__all__ = ["hub"]

HUGE = 2**64 - 1


def page_token(name: str, *key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps([name, *key]).encode()).decode().rstrip("=")


async def test_numbers_beyond_every_database_are_refused_and_no_fault(hub: Hub):
    sealed = task(hub.lung)
    await hub.tasks.CreateTask(sealed.request(), metadata=hub.ada)
    run_id, digest = sealed.run_id("Beta"), bytes(32)
    answers = [
        await refused(hub.tasks.WatchTask(tasks.WatchTaskRequest(task_id=sealed.task_id, after_revision=HUGE), metadata=hub.ada)),
        await refused(hub.tasks.WatchRunLog(tasks.WatchRunLogRequest(run_id=run_id, after_position=HUGE), metadata=hub.ada)),
        await refused(hub.server.keys.GetLedger(keys.GetLedgerRequest(genesis=hub.lung.genesis, from_sequence=HUGE), metadata=hub.ada)),
        await refused(hub.server.payloads.DownloadPayload(payloads.DownloadPayloadRequest(envelope_digest=digest, offset=HUGE), metadata=hub.ada)),
        await refused(hub.server.payloads.ListMissingParts(payloads.ListMissingPartsRequest(envelope_digest=digest, size_bytes=HUGE), metadata=hub.ada)),
        await refused(hub.tasks.Exchange(tasks.ExchangeRequest(frames=[NodeFrame(acknowledged=HUGE, heartbeat=Heartbeat())]), metadata=await hub.node("Beta"))),
    ]  # fmt: skip
    assert [reason(answer) for answer in answers] == ["INVALID_FIELD"] * len(answers)


@pytest.mark.parametrize("position", [2**63, 10**40, -1])
async def test_page_tokens_with_positions_that_no_list_has_are_refused(hub: Hub, position: int):
    request = tasks.ListTasksRequest(page_token=page_token("tasks", position))
    assert reason(await refused(hub.tasks.ListTasks(request, metadata=hub.ada))) == "PAGE_TOKEN_INVALID"


async def test_page_tokens_with_times_of_no_calendar_or_halves_of_characters_are_refused(hub: Hub):
    root = (await hub.server.root()).metadata
    token = page_token("join requests", 2**63 - 1, "00")
    wish = admin.ListJoinRequestsRequest(genesis=hub.lung.genesis, page_token=token)
    assert reason(await refused(hub.server.admin.ListJoinRequests(wish, metadata=root))) == "PAGE_TOKEN_INVALID"
    users = admin.ListUsersRequest(page_token=page_token("users", "\ud800"))
    assert reason(await refused(hub.server.admin.ListUsers(users, metadata=root))) == "PAGE_TOKEN_INVALID"


async def test_a_run_id_of_another_task_is_taken(hub: Hub):
    """Whoever sees a task knows its run ids: using one again must neither touch that run nor look like a fault."""
    first = task(hub.lung)
    await hub.tasks.CreateTask(first.request(), metadata=hub.ada)
    second = task(hub.lung, receivers=("Beta",))
    spec = second.spec
    spec.receivers[0].run_id = first.run_id("Beta")
    signed = sign_task(spec, hub.lung["Alpha"].organization_key.task_signing)
    thief = SealedTask(hub.lung, TaskChain(specs=[signed]), second.envelope)
    assert reason(await refused(hub.tasks.CreateTask(thief.request(), metadata=hub.ada))) == "ID_TAKEN"
    gone = await refused(hub.tasks.GetTask(tasks.GetTaskRequest(task_id=spec.task_id), metadata=hub.ada))
    assert reason(gone) == "TASK_NOT_FOUND"


async def test_other_users_of_the_machine_do_not_read_the_database_where_the_folder_was_made_by_hand(tmp_path: Path):
    tmp_path.chmod(0o755)
    async with server(tmp_path) as s:
        await s.root()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("folkmoot.db*")}
        assert len(modes) == 3  # the database, its log and the log's index
        assert set(modes.values()) == {0o600}


async def test_nobody_is_logged_out_by_those_who_read_the_audit_trail(tmp_path: Path):
    """A wrong refresh token ends its session, since one of two bearers is a thief; so a session's id must not be public."""
    async with server(tmp_path) as s:
        root = await s.root()
        session_id = root.tokens.refresh_token.partition(".")[0]
        assert all(session_id not in event.data for event in await s.events("user.login"))


async def test_guessing_at_names_that_nobody_has_fills_no_disk(tmp_path: Path):
    async with server(tmp_path) as s:
        for number in range(130):  # at most two minutes begin meanwhile
            guess = auth.LoginRequest(username=f"guess-{number}", password="wrong password!")
            assert reason(await refused(s.auth.Login(guess))) == "LOGIN_FAILED"
        failures = [event for event in await s.events("user.login") if event.outcome == "LOGIN_FAILED"]
        assert 60 <= len(failures) <= 120
