"""The synchronous client is the asynchronous one without `await`: same names, same parameters, same documentation."""

import inspect
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
    AsyncTask,
    AsyncTasks,
    AsyncVault,
    Client,
    Governance,
    Keys,
    Task,
    Tasks,
    Vault,
)

PAIRS = [
    (AsyncAlgorithms, Algorithms),
    (AsyncClient, Client),
    (AsyncGovernance, Governance),
    (AsyncKeys, Keys),
    (AsyncTasks, Tasks),
    (AsyncTask, Task),
    (AsyncVault, Vault),
]
ASYNC_ONLY = {"connection"}  # for folkmoot.client.governance


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


def test_streams_are_plain_iterators():
    for name in ("results", "logs"):
        assert inspect.isasyncgenfunction(getattr(AsyncTask, name))
        assert inspect.isgeneratorfunction(inspect.unwrap(getattr(Task, name), stop=inspect.isgeneratorfunction))
    assert issubclass(type(Task.results(object.__new__(Task))), Iterator)


def test_exports():
    assert sorted(folkmoot.client.__all__) == [
        "AlgorithmDescription",
        "AlgorithmProposal",
        "Algorithms",
        "Approval",
        "AsyncAlgorithms",
        "AsyncClient",
        "AsyncGovernance",
        "AsyncKeys",
        "AsyncTask",
        "AsyncTasks",
        "AsyncVault",
        "CertificateNotTrusted",
        "Client",
        "Collaboration",
        "DescribedFunction",
        "DescribedParameter",
        "FolkmootError",
        "Forecast",
        "FormerMember",
        "Governance",
        "JoinAttempt",
        "Keys",
        "LedgerEvent",
        "Limits",
        "LogLine",
        "Node",
        "NodeAttempt",
        "Offer",
        "OpenRemoval",
        "Organization",
        "Proof",
        "ProposalState",
        "RemoteError",
        "Resources",
        "Result",
        "Revocation",
        "Rotation",
        "RunFailed",
        "RunState",
        "RunStatus",
        "Standing",
        "Subtasks",
        "Task",
        "TaskState",
        "TaskSummary",
        "Tasks",
        "Unreachable",
        "Vault",
        "VaultEntry",
        "Verdict",
        "Why",
        "generate_secret",
        "reason_to_keep",
    ]
    for name in folkmoot.client.__all__:
        assert hasattr(folkmoot.client, name)
