"""Every method that changes something leaves an event, and so does every denied call; no event has what people write, or a secret.

Whatever the contract has is either made to change something here, or has a reason below why it is not.
"""

from pathlib import Path

import pytest

from folkmoot.server import access
from folkmoot.server.audit import denials
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import PASSWORD
from tests.integration.server.changes import CHANGES, MARK, Changes, request_id
from tests.integration.server.conftest import Hub
from tests.integration.server.test_every_method import ACCESS, METHODS, RULED, call

MADE_BY_THE_HARNESS = {
    "AuthService/CompleteSetup": "server.setup",
    "AuthService/AuthenticateNode": "node.authenticate",
    "AdminService/SubmitJoinRequest": "join_request.submit",
    "KeyService/AppendLedgerEntry": "ledger.node.approve",
}
"""What a test's server has seen before anything else, and its event's intent."""

TESTED_ELSEWHERE = {
    "AuthService/RequestPasswordReset": ("test_resets.py", "user.request_password_reset"),
    "AuthService/ResetPassword": ("test_resets.py", "user.reset_password"),
    "AuthService/ResetTotp": ("test_resets.py", "user.reset_totp"),
    "AuthService/RegisterOrganization": ("test_registration.py", "organization.register"),
    "AuthService/FinishCodeLogin": ("test_provider_logins.py", "user.bind_identity"),
    "AuthService/FinishDeviceLogin": ("test_provider_logins.py", "user.login"),
    "SessionService/DeleteDataframe": ("test_data_sessions.py", "dataframe.delete"),
}
"""What needs a mail server, a provider of identities, a dataframe: the file, and the intent that it asserts."""

LEAVES_NONE = {
    "AuthService/Refresh": "goes on with a login that has an event, each quarter of an hour",
    "AuthService/GetNonce": "what it gives is not kept",
    "AuthService/RequestTotpReset": "sends a mail; the reset has an event",
    "AuthService/StartCodeLogin": "changes nothing before it is finished",
    "AuthService/StartDeviceLogin": "changes nothing before it is finished",
    "PayloadService/ListMissingParts": "begins an upload, which has an event when it is complete",
}

_READS = ("Get", "List", "Watch", "Download", "WhoAmI")


def short(path: str) -> str:
    return path.removeprefix("/folkmoot.v1.")


def is_mutating(path: str) -> bool:
    """Whether the contract says so, or does not say that it only reads."""
    if ACCESS[path].operation in (options.OPERATION_CREATE, options.OPERATION_EDIT, options.OPERATION_DELETE):
        return True
    return not METHODS[path].name.startswith(_READS)


def test_every_method_that_changes_something_is_here():
    mutating = {short(path) for path in METHODS if is_mutating(path)}
    known = CHANGES.keys() | MADE_BY_THE_HARNESS.keys() | TESTED_ELSEWHERE.keys() | LEAVES_NONE.keys()
    assert mutating - known == set(), "give it an example in changes.py, and its handler an event"
    assert known - {short(path) for path in METHODS} == set(), "the contract has it no more"


def test_what_is_tested_elsewhere_is():
    for file, intent in TESTED_ELSEWHERE.values():
        assert f'"{intent}"' in (Path(__file__).parent / file).read_text()


async def test_every_change_leaves_an_event_that_tells_who_and_whence_and_nothing_that_was_written(hub: Hub):
    changes = Changes(hub, await hub.server.root())
    failed = {}
    for name, change in CHANGES.items():
        try:
            await change(changes)
        except Exception as error:  # noqa: BLE001 -- all that is wrong is told at once
            failed[name] = repr(error)[:500]
    assert failed == {}
    events = await hub.server.events()
    assert len(events) < 1000, "they are of one page"
    by_request = {event.request_id: event for event in events}
    assert {name for name in CHANGES if request_id(name) not in by_request} == set()
    for name in CHANGES:
        event = by_request[request_id(name)]
        assert (name, event.outcome, event.origin) == (name, "ok", "127.0.0.1")
        assert event.created_by, name
        assert event.organization, name
        assert (event.data_version, event.data[:1]) == (1, "{")
    assert set(MADE_BY_THE_HARNESS.values()) <= {event.intent for event in events}
    written = "".join(map(str, events))
    for secret in (MARK, PASSWORD, "example.org"):
        assert secret not in written


async def test_every_denied_call_leaves_an_event(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(denials, "SINGLY", len(METHODS))
    nobody = await hub.server.user("nobody", hub.admins["Alpha"].organization_account_id, [])
    closed_to_users = [path for path in METHODS if not is_for_users(path)]
    for path in (*RULED, *closed_to_users):
        try:
            answer = call(hub.server, path, (*nobody.metadata, ("x-request-id", request_id(path))))
            if hasattr(answer, "__aiter__"):
                await answer.read()
            else:
                await answer
        except Exception:  # noqa: BLE001 -- that it is refused is another test's
            pass
    denied = {event.request_id: event for event in await hub.server.events("call.denied")}
    for path in (*RULED, *closed_to_users):
        event = denied[request_id(path)]
        assert (event.created_by, event.outcome, event.origin) == (nobody.user_id, "NOT_ALLOWED", "127.0.0.1")
        assert f'"{path}"' in event.data


def is_for_users(path: str) -> bool:
    return bool({options.CALLER_USER, options.CALLER_ANYONE} & set(access.table()[path].callers))
