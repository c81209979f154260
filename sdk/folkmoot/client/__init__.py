"""The researcher's SDK: ask a question of organizations, get verified answers.

    from folkmoot.client import Client

    client = Client("lung@<fingerprint>", server="localhost:7443", certificate_authority="ca.pem", username="ada", password="...",
                    organization_key="organization.pem")
    task = client.tasks.create(image="local:sha256:...", function="average", arguments={"column": "age"},
                               organizations=["Alpha", "Beta"], labels=["patients"])
    for result in task.results():
        print(result.organization, result.value, result.proven)

Promises: names are resolved in a ledger that this process verified from its first entry on. What is sent is sealed to the keys that the
ledger shows, what comes back was signed by nodes that it admits, for exactly this task and run; the rest is marked "server says".
`AsyncClient` is the same for programs with an event loop of their own. `ServerClient` and `AsyncServerClient` administer a server: users,
roles, organizations' accounts, the audit trail; they need no collaboration.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from folkmoot.client.admin.aio import AsyncServerClient
from folkmoot.client.admin.blocking import ServerClient
from folkmoot.client.aio import AsyncClient, Collaboration, Node, Organization
from folkmoot.client.algorithms import (
    AlgorithmDescription,
    AlgorithmProposal,
    AsyncAlgorithms,
    DescribedFunction,
    DescribedParameter,
    ProposalState,
)
from folkmoot.client.approvals import Approval
from folkmoot.client.data_sessions import AsyncSession, AsyncSessions, Dataframe, DataframePart, SessionInfo
from folkmoot.client.drafting import Resources, Subtasks
from folkmoot.client.governance import JoinAttempt, reason_to_keep
from folkmoot.client.governing import AsyncGovernance
from folkmoot.client.history import LedgerEvent
from folkmoot.client.keys import Revocation, Rotation, Standing
from folkmoot.client.limits import Limits
from folkmoot.client.logs import LogLine
from folkmoot.client.members import FormerMember, OpenRemoval
from folkmoot.client.nodes import NodeAttempt
from folkmoot.client.offers import Offer
from folkmoot.client.rekeying import AsyncKeys
from folkmoot.client.results import Proof, Result, RunFailed, RunState
from folkmoot.client.session import CertificateNotTrusted
from folkmoot.client.sync import Algorithms, Client, Governance, Keys, Session, Sessions, Task, Tasks, Vault
from folkmoot.client.task import AsyncTask, RunStatus, TaskState
from folkmoot.client.tasks import AsyncTasks, TaskSummary
from folkmoot.client.vault import AsyncVault, VaultEntry, generate_secret
from folkmoot.client.verdicts import Forecast, Verdict
from folkmoot.client.waiting import Why
from folkmoot.transport import RemoteError, Unreachable
from folkmoot.trust import FolkmootError

if TYPE_CHECKING:
    from folkmoot.client.admin.account import Identity, Login, TotpSecret
    from folkmoot.client.admin.api_keys import ApiKey, NewApiKey
    from folkmoot.client.admin.collaborations import ListedCollaboration, ListedMember, ListedNode
    from folkmoot.client.admin.events import Event
    from folkmoot.client.admin.info import ServerInfo
    from folkmoot.client.admin.organizations import OrganizationAccount
    from folkmoot.client.admin.roles import Role
    from folkmoot.client.admin.rules import Rule
    from folkmoot.client.admin.studies import Study
    from folkmoot.client.admin.usage import Usage
    from folkmoot.client.admin.users import User
    from folkmoot.client.provider import CodeLogin, DeviceCode, DeviceLogin

__all__ = [
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

_LATE = {
    "Identity": "folkmoot.client.admin.account",
    "Login": "folkmoot.client.admin.account",
    "TotpSecret": "folkmoot.client.admin.account",
    "ApiKey": "folkmoot.client.admin.api_keys",
    "NewApiKey": "folkmoot.client.admin.api_keys",
    "ListedCollaboration": "folkmoot.client.admin.collaborations",
    "ListedMember": "folkmoot.client.admin.collaborations",
    "ListedNode": "folkmoot.client.admin.collaborations",
    "Event": "folkmoot.client.admin.events",
    "ServerInfo": "folkmoot.client.admin.info",
    "OrganizationAccount": "folkmoot.client.admin.organizations",
    "Role": "folkmoot.client.admin.roles",
    "Rule": "folkmoot.client.admin.rules",
    "Study": "folkmoot.client.admin.studies",
    "Usage": "folkmoot.client.admin.usage",
    "User": "folkmoot.client.admin.users",
    "CodeLogin": "folkmoot.client.provider",
    "DeviceCode": "folkmoot.client.provider",
    "DeviceLogin": "folkmoot.client.provider",
}
"""Where to find what administrators use, and researchers seldom: it is imported when it is named, so that `import folkmoot.client` is quick."""

if not TYPE_CHECKING:  # so that the type checker still finds a name that does not exist

    def __getattr__(name: str) -> object:
        """What is imported late."""
        if (module := _LATE.get(name)) is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(module), name)
