"""The synchronous client is the asynchronous one without `await`: same names, same parameters, same documentation."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import folkmoot.client
from folkmoot.client import (
    Algorithms,
    AsyncAlgorithms,
    AsyncClient,
    AsyncGovernance,
    AsyncKeys,
    AsyncServerClient,
    AsyncSession,
    AsyncSessions,
    AsyncTask,
    AsyncTasks,
    AsyncVault,
    Client,
    Governance,
    Keys,
    ServerClient,
    Session,
    Sessions,
    Task,
    Tasks,
    Vault,
)
from folkmoot.client.admin.account import AsyncAccount
from folkmoot.client.admin.api_keys import AsyncApiKeys
from folkmoot.client.admin.blocking import ServerFacade
from folkmoot.client.admin.collaborations import AsyncCollaborations
from folkmoot.client.admin.events import AsyncEvents
from folkmoot.client.admin.organizations import AsyncOrganizationAccounts
from folkmoot.client.admin.roles import AsyncRoles
from folkmoot.client.admin.studies import AsyncStudies
from folkmoot.client.admin.sync import (
    Account,
    ApiKeys,
    Collaborations,
    Events,
    OrganizationAccounts,
    Roles,
    Studies,
    Users,
)
from folkmoot.client.admin.users import AsyncUsers
from folkmoot.trust import Reference

PAIRS = [
    (AsyncAccount, Account),
    (AsyncApiKeys, ApiKeys),
    (AsyncCollaborations, Collaborations),
    (AsyncEvents, Events),
    (AsyncOrganizationAccounts, OrganizationAccounts),
    (AsyncRoles, Roles),
    (AsyncServerClient, ServerFacade),
    (AsyncStudies, Studies),
    (AsyncUsers, Users),
    (AsyncAlgorithms, Algorithms),
    (AsyncClient, Client),
    (AsyncGovernance, Governance),
    (AsyncKeys, Keys),
    (AsyncSession, Session),
    (AsyncSessions, Sessions),
    (AsyncTasks, Tasks),
    (AsyncTask, Task),
    (AsyncVault, Vault),
]
REFERENCE = str(Reference("lung", bytes(32)))
ASYNC_ONLY = {"connection", "session"}  # for folkmoot.client.governance


def public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("core", "facade"), PAIRS)
def test_same_names(core: type, facade: type):
    assert public(core).keys() - ASYNC_ONLY == public(facade).keys()


@pytest.mark.parametrize(("core", "facade"), PAIRS)
def test_same_parameters_and_documentation(core: type, facade: type):
    for name, value in public(facade).items():
        there = public(core)[name]
        assert type(there) is type(value), name
        assert inspect.getdoc(there) == inspect.getdoc(value), name
        if inspect.isfunction(value):
            assert parameters(there) == parameters(value), name


def test_same_construction():
    assert parameters(AsyncClient.__init__) == parameters(Client.__init__)
    assert parameters(AsyncServerClient.__init__) == parameters(ServerClient.__init__)


def test_every_part_of_a_client_has_its_facade():
    there: dict[str, Any] = {"insecure": True, "server": "localhost:1"}
    for core, facade in (
        (AsyncServerClient(**there), ServerClient(**there)),
        (AsyncClient(REFERENCE, **there), Client(REFERENCE, **there)),
    ):
        assert vars(core).keys() - ASYNC_ONLY == {one for one in vars(facade) if not one.startswith("_")}


def test_what_researchers_seldom_use_is_not_imported_before_it_is_used():
    program = (
        "import sys, folkmoot.client as c; late = {*c._LATE.values()}; assert not late & {*sys.modules};"
        "[getattr(c, name) for name in c.__all__]; assert late <= {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_streams_are_plain_iterators():
    for core, facade in ((AsyncUsers, Users), (AsyncEvents, Events), (AsyncRoles, Roles)):
        assert inspect.isasyncgenfunction(core.list)
        assert inspect.isgeneratorfunction(inspect.unwrap(facade.list, stop=inspect.isgeneratorfunction))
    for name in ("results", "logs"):
        assert inspect.isasyncgenfunction(getattr(AsyncTask, name))
        assert inspect.isgeneratorfunction(inspect.unwrap(getattr(Task, name), stop=inspect.isgeneratorfunction))
    assert issubclass(type(Task.results(object.__new__(Task))), Iterator)


def test_exports():
    assert sorted(folkmoot.client.__all__) == [
        "AlgorithmDescription",
        "AlgorithmProposal",
        "Algorithms",
        "ApiKey",
        "Approval",
        "AsyncAlgorithms",
        "AsyncClient",
        "AsyncGovernance",
        "AsyncKeys",
        "AsyncServerClient",
        "AsyncSession",
        "AsyncSessions",
        "AsyncTask",
        "AsyncTasks",
        "AsyncVault",
        "CertificateNotTrusted",
        "Client",
        "CodeLogin",
        "Collaboration",
        "Dataframe",
        "DataframePart",
        "DescribedFunction",
        "DescribedParameter",
        "DeviceCode",
        "DeviceLogin",
        "Event",
        "FolkmootError",
        "Forecast",
        "FormerMember",
        "Governance",
        "Identity",
        "JoinAttempt",
        "Keys",
        "LedgerEvent",
        "Limits",
        "ListedCollaboration",
        "ListedMember",
        "ListedNode",
        "LogLine",
        "Login",
        "NewApiKey",
        "Node",
        "NodeAttempt",
        "Offer",
        "OpenRemoval",
        "Organization",
        "OrganizationAccount",
        "Proof",
        "ProposalState",
        "RemoteError",
        "Resources",
        "Result",
        "Revocation",
        "Role",
        "Rotation",
        "Rule",
        "RunFailed",
        "RunState",
        "RunStatus",
        "ServerClient",
        "ServerInfo",
        "Session",
        "SessionInfo",
        "Sessions",
        "Standing",
        "Study",
        "Subtasks",
        "Task",
        "TaskState",
        "TaskSummary",
        "Tasks",
        "TotpSecret",
        "Unreachable",
        "Usage",
        "User",
        "Vault",
        "VaultEntry",
        "Verdict",
        "Why",
        "generate_secret",
        "reason_to_keep",
    ]
    for name in folkmoot.client.__all__:
        assert hasattr(folkmoot.client, name)
