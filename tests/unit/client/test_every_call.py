"""Every call of the contract that people make has its method in the client, without and with `await`, and its command; all others say why not."""

import ast
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from folkmoot.cli.app import folkmoot
from folkmoot.client import AsyncClient, Client
from folkmoot.client.session import Session
from folkmoot.trust import Reference

SERVICES = ("Auth", "Admin", "Key", "Payload", "Session", "Task")
WHOEVER: dict[str, Any] = {"server": "localhost:1", "insecure": True}
REFERENCE = str(Reference("lung", bytes(32)))

CALLS = {
    # AuthService
    "CompleteSetup": ("account.complete_setup", "setup"),
    "Login": ("Client(username, password)", "login"),
    "Refresh": ("Client(username, password)", "login"),
    "Logout": ("account.log_out", "logout"),
    "ListLogins": ("account.logins", "account logins"),
    "EndLogins": ("account.end_logins", "account end-logins"),
    "WhoAmI": ("account.show", "account show"),
    "ChangePassword": ("account.change_password", "account password"),
    "RequestPasswordReset": ("account.request_password_reset", "account forgot-password"),
    "ResetPassword": ("account.reset_password", "account reset-password"),
    "EnrollTotp": ("account.enroll_totp", "account totp enroll"),
    "ConfirmTotp": ("account.confirm_totp", "account totp confirm"),
    "RequestTotpReset": ("account.request_totp_reset", "account totp forgot"),
    "ResetTotp": ("account.reset_totp", "account totp reset"),
    "CreateApiKey": ("account.api_keys.create", "api-key create"),
    "ListApiKeys": ("account.api_keys.list", "api-key list"),
    "DeleteApiKey": ("account.api_keys.delete", "api-key delete"),
    "RegisterOrganization": ("account.register", "account register"),
    "StartCodeLogin": ("CodeLogin", "login"),
    "FinishCodeLogin": ("CodeLogin", "login"),
    "StartDeviceLogin": ("DeviceLogin", "login"),
    "FinishDeviceLogin": ("DeviceLogin", "login"),
    # AdminService
    "GetServerInfo": ("server_info", "about"),
    "CreateOrganization": ("organization_accounts.create", "organization create"),
    "ListOrganizations": ("organization_accounts.list", "organization list"),
    "GetOrganization": ("organization_accounts.get", "organization show"),
    "UpdateOrganization": ("organization_accounts.update", "organization update"),
    "DeleteOrganization": ("organization_accounts.delete", "organization delete"),
    "CreateUser": ("users.create", "user create"),
    "ListUsers": ("users.list", "user list"),
    "GetUser": ("users.get", "user show"),
    "UpdateUser": ("users.update", "user update"),
    "DeleteUser": ("users.delete", "user delete"),
    "RemoveTotp": ("users.remove_totp", "user remove-totp"),
    "CreateRole": ("roles.create", "role create"),
    "ListRoles": ("roles.list", "role list"),
    "GetRole": ("roles.get", "role show"),
    "UpdateRole": ("roles.update", "role update"),
    "DeleteRole": ("roles.delete", "role delete"),
    "ListRules": ("roles.rules", "rule list"),
    "ListCollaborations": ("collaborations.list", "collaboration list"),
    "GetCollaboration": ("collaborations.get", "collaboration show"),
    "ListNodes": ("collaborations.nodes", "node overview"),
    "GetNode": ("collaborations.node", "node describe"),
    "CreateStudy": ("studies.create", "study create"),
    "ListStudies": ("studies.list", "study list"),
    "GetStudy": ("studies.get", "study show"),
    "UpdateStudy": ("studies.update", "study update"),
    "DeleteStudy": ("studies.delete", "study delete"),
    "SubmitJoinRequest": ("folkmoot.client.governance.join", "collaboration join"),
    "ListJoinRequests": ("governance.requests", "collaboration requests"),
    "ListNodeAttempts": ("governance.node_attempts", "node attempts"),
    "DeleteNodeAttempt": ("governance.approve_node", "node approve"),
    "ListEvents": ("events.list", "event list"),
    "WatchEvents": ("events.watch", "event watch"),
    "GetUsage": ("usage", "usage"),
    # KeyService
    "GetLedger": ("governance.log", "collaboration log"),
    "AppendLedgerEntry": ("governance.vote", "collaboration vote"),
    "ListHeads": ("collaboration", "collaboration members"),
    "PutVaultedKey": ("vault.put", "key vault put"),
    "GetVaultedKey": ("vault.get", "key vault get"),
    "ListVaultedKeys": ("vault.list", "key vault list"),
    # PayloadService
    "ListMissingParts": ("tasks.create", "task create"),
    "UploadPart": ("tasks.create", "task create"),
    "DownloadPayload": ("Task.results", "task wait"),
    # SessionService
    "CreateSession": ("sessions.create", "session create"),
    "ListSessions": ("sessions.list", "session list"),
    "GetSession": ("sessions.get", "session show"),
    "UpdateSession": ("sessions.update", "session update"),
    "DeleteSession": ("sessions.delete", "session delete"),
    "ListDataframes": ("Session.dataframes", "session show"),
    "DeleteDataframe": ("Session.delete_dataframe", "session delete"),
    # TaskService
    "CreateTask": ("tasks.create", "task create"),
    "CheckTask": ("tasks.check", "task check"),
    "GetTask": ("tasks.get", "task show"),
    "ListTasks": ("tasks.list", "task list"),
    "CancelTask": ("Task.cancel", "task cancel"),
    "DeleteTask": ("Task.delete", "task delete"),
    "DeletePayloads": ("Task.delete_payloads", "task delete-payloads"),
    "WatchTask": ("Task.results", "task wait"),
    "WatchRunLog": ("Task.logs", "task logs"),
}
"""Where in the client, and by which command. A class in capitals is one of folkmoot.client; what begins small is a part of every client."""

NOT_THERE = {
    "GetNonce": "a node authenticates itself",
    "AuthenticateNode": "a node authenticates itself",
    "SubmitNodeAttempt": "`folkmoot node join`, of the node's extra: the machine itself asks, with its own key",
    "WatchLedger": "nodes follow ledgers; a client asks for what is new before it relies on it (GetLedger)",
    "ListOrganizationKeys": "a view for people without the SDK, which reads the ledger that proves it",
    "GetRun": "a run is told by WatchTask with its task, and proven there",
    "ListRuns": "for programs that look over tasks without reading any; the SDK has runs with their task",
    "CommitRun": "nodes alone may",
    "Attach": "nodes alone may",
    "Exchange": "nodes alone may",
}
SDK = Path(inspect.getfile(Session)).parents[1]
SOURCES = [*(SDK / "client").rglob("*.py"), *(SDK / "transport").glob("*.py")]


def methods() -> set[str]:
    services = [import_module(f"folkmoot.v1.{one.lower()}_service_pb2") for one in SERVICES]
    described: list[ServiceDescriptor] = [
        module.DESCRIPTOR.services_by_name[f"{name}Service"] for name, module in zip(SERVICES, services, strict=True)
    ]
    return {method.name for service in described for method in service.methods}


def test_every_call_has_its_place_or_a_reason():
    assert not CALLS.keys() & NOT_THERE.keys()
    assert CALLS.keys() | NOT_THERE.keys() == methods()


def found(start: Any, path: str) -> Any:
    for name in path.split("."):
        there = inspect.getattr_static(type(start), name, None)
        start = there if isinstance(there, property) else getattr(start, name)  # a property would ask the server
    return start


@pytest.mark.parametrize("place", sorted({place for place, _ in CALLS.values() if "(" not in place}))
def test_it_is_in_the_client_with_and_without_await(place: str):
    if place.startswith("folkmoot."):
        module, _, name = place.rpartition(".")
        assert inspect.iscoroutinefunction(getattr(import_module(module), name))
        return
    if place in ("CodeLogin", "DeviceLogin"):
        assert inspect.getdoc(getattr(import_module("folkmoot.client"), place).tokens)
        return
    for kind, prefix in ((AsyncClient, "Async"), (Client, "")):
        if place[0].isupper():
            name, _, method = place.partition(".")
            there = getattr(getattr(import_module("folkmoot.client"), prefix + name), method)
        else:
            there = found(kind(REFERENCE, **WHOEVER), place)
        assert inspect.getdoc(there), place


@pytest.mark.parametrize("words", sorted({command for _, command in CALLS.values()}))
def test_it_has_a_command(words: str):
    command: click.Command | None = folkmoot
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None
    assert command.help


def test_it_is_really_called():
    """What the table names would be an idle claim if nothing in the client made the call."""
    called = {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert methods() & CALLS.keys() <= called
