"""An example of each method that users may call: what is asked, of things at which distances, and which scope reaches them.

Examples are written so that whoever may call is not refused for lack of rights, though the call may fail for another
reason (another etag, a taken name), and changes nothing that other examples need.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import uuid7
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import session_service_pb2 as sessions
from folkmoot.v1 import task_service_pb2 as tasks
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import TaskChain
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.builders import NOW, randomness
from tests.integration.server.permission_stage import Distance, Target

OWN, ORGANIZATION, COLLABORATION, FOREIGN = Distance
Reach = dict[Distance, int]
"""The narrowest scope that reaches a thing at each distance; 0: no rule is needed, 5: none is enough."""

BY_DISTANCE: Reach = {distance: distance for distance in Distance}
OF_ACCOUNTS: Reach = {ORGANIZATION: 2, COLLABORATION: 3, FOREIGN: 4}
IN_COLLABORATIONS: Reach = {OWN: 1, FOREIGN: 4}
EVEN_WITHOUT: Reach = BY_DISTANCE | {OWN: 0}
WITH_ANY: Reach = {OWN: 1}
WITHOUT: Reach = {OWN: 0}
ALL_ONLY: Reach = {OWN: 4}
NEVER = 5
OF_OWN_ORGANIZATION: Reach = {OWN: 1, COLLABORATION: NEVER, FOREIGN: NEVER}
FOR_THE_CALLER: Reach = BY_DISTANCE | {FOREIGN: NEVER}
"""Sessions: wherever a scope reaches, they are for people of the collaboration."""

USER = options.RESOURCE_USER
VIEW, EDIT = options.OPERATION_VIEW, options.OPERATION_EDIT
OTHER = "0" * 16
"""An etag that nothing has."""

_random = randomness("permissions")


def new_id() -> str:
    return uuid7(NOW, _random)


@dataclass(frozen=True)
class Example:
    """A method's example. `shows` gives what a list shows of the target's kind, `looks_for` what of it is the target's."""

    ask: Callable[[Target], Any]
    reach: Reach = field(default_factory=lambda: BY_DISTANCE)
    right: tuple[Any, Any] | None = None
    """Resource and operation, where the contract leaves them to the method."""
    shows: Callable[[Any], Collection[Any]] | None = None
    looks_for: Callable[[Target], Any] | None = None
    not_found: Collection[str] = ()
    """Reasons that sound like a denial and are none."""


def listing(
    request: Any, items: str, item: str, looks_for: Callable[[Target], Any], reach: Reach = BY_DISTANCE
) -> Example:
    """Return the example of a list."""
    return Example(
        lambda _: request(page_size=1000),
        reach,
        shows=lambda answer: {getattr(each, item) for each in getattr(answer, items)},
        looks_for=looks_for,
    )


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


ADMIN = {
    # ---- organizations ----
    "CreateOrganization": Example(
        lambda _: admin.CreateOrganizationRequest(organization_account_id=new_id(), name="Hub"), ALL_ONLY
    ),
    "ListOrganizations": listing(
        admin.ListOrganizationsRequest,
        "organizations",
        "organization_account_id",
        lambda t: t.account_id,
        OF_ACCOUNTS,
    ),
    "GetOrganization": Example(
        lambda t: admin.GetOrganizationRequest(organization_account_id=t.account_id), OF_ACCOUNTS
    ),
    "UpdateOrganization": Example(
        lambda t: admin.UpdateOrganizationRequest(
            organization_account_id=t.account_id, update_mask=mask("country"), etag=OTHER
        ),
        OF_ACCOUNTS,
    ),
    "DeleteOrganization": Example(
        lambda t: admin.DeleteOrganizationRequest(organization_account_id=t.account_id, etag=OTHER),
        {ORGANIZATION: 4, COLLABORATION: 4, FOREIGN: 4},
    ),
    "GetUsage": Example(lambda _: admin.GetUsageRequest(), WITH_ANY),
    # ---- users ----
    "CreateUser": Example(
        lambda t: admin.CreateUserRequest(
            user_id=new_id(), username="weak", password="weak", organization_account_id=t.account_id
        ),
        OF_ACCOUNTS,
    ),
    "ListUsers": listing(admin.ListUsersRequest, "users", "user_id", lambda t: t.user.user_id),
    "GetUser": Example(lambda t: admin.GetUserRequest(user_id=t.user.user_id), EVEN_WITHOUT, (USER, VIEW)),
    "UpdateUser": Example(
        lambda t: admin.UpdateUserRequest(user_id=t.user.user_id, update_mask=mask("roles"), etag=OTHER),
        right=(USER, EDIT),
    ),
    "DeleteUser": Example(lambda t: admin.DeleteUserRequest(user_id=t.user.user_id, etag=OTHER)),
    "RemoveTotp": Example(
        lambda t: admin.RemoveTotpRequest(user_id=t.user.user_id), BY_DISTANCE | {OWN: NEVER}
    ),  # his own nobody takes from himself
    # ---- roles ----
    "CreateRole": Example(
        lambda t: admin.CreateRoleRequest(role_id=new_id(), name="Root", organization_account_id=t.account_id),
        OF_ACCOUNTS,
    ),
    "ListRoles": listing(admin.ListRolesRequest, "roles", "role_id", lambda t: t.role_id, OF_ACCOUNTS),
    "GetRole": Example(lambda t: admin.GetRoleRequest(name=t.role), OF_ACCOUNTS),
    "UpdateRole": Example(
        lambda t: admin.UpdateRoleRequest(role_id=t.role_id, update_mask=mask("description"), etag=OTHER), OF_ACCOUNTS
    ),
    "DeleteRole": Example(lambda t: admin.DeleteRoleRequest(role_id=t.role_id, etag=OTHER), OF_ACCOUNTS),
    "ListRules": Example(lambda _: admin.ListRulesRequest(), WITH_ANY),
    # ---- what the ledgers say ----
    "ListCollaborations": listing(
        admin.ListCollaborationsRequest, "collaborations", "genesis", lambda t: t.genesis, IN_COLLABORATIONS
    ),
    "GetCollaboration": Example(lambda t: admin.GetCollaborationRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "ListNodes": listing(admin.ListNodesRequest, "nodes", "node_id", lambda t: t.node_id, OF_ACCOUNTS),
    "GetNode": Example(lambda t: admin.GetNodeRequest(genesis=t.genesis, node_id=t.node_id), OF_ACCOUNTS),
    "SubmitJoinRequest": Example(lambda _: admin.SubmitJoinRequestRequest(request=Signed()), WITH_ANY),
    "ListJoinRequests": Example(lambda t: admin.ListJoinRequestsRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "ListNodeAttempts": Example(lambda t: admin.ListNodeAttemptsRequest(genesis=t.genesis), WITH_ANY),
    "DeleteNodeAttempt": Example(
        lambda t: admin.DeleteNodeAttemptRequest(genesis=t.genesis, node_id=t.node_id), WITH_ANY
    ),
    # ---- studies ----
    "CreateStudy": Example(
        lambda t: admin.CreateStudyRequest(
            study_id=new_id(), genesis=t.genesis, name=t.role, organization_ids=[t.address]
        ),
        IN_COLLABORATIONS,
    ),
    "GetStudy": Example(lambda t: admin.GetStudyRequest(study_id=t.study_id)),
    "ListStudies": listing(admin.ListStudiesRequest, "studies", "study_id", lambda t: t.study_id),
    "UpdateStudy": Example(
        lambda t: admin.UpdateStudyRequest(study_id=t.study_id, update_mask=mask("description"), etag=OTHER)
    ),
    "DeleteStudy": Example(lambda t: admin.DeleteStudyRequest(study_id=t.study_id, etag=OTHER)),
    # ---- the audit trail ----
    "ListEvents": Example(
        lambda t: admin.ListEventsRequest(created_by=t.user.user_id, intent="task.create"),
        shows=lambda answer: {each.created_by for each in answer.events},
        looks_for=lambda t: t.user.user_id,
    ),
    "WatchEvents": Example(lambda t: admin.WatchEventsRequest(created_by=t.user.user_id), WITH_ANY),
}

AUTH: dict[str, Example | None] = {
    "Logout": None,  # it would end the token that is being tried; see test_login
    "WhoAmI": Example(lambda _: auth.WhoAmIRequest(), WITHOUT),
    "ListLogins": Example(lambda t: auth.ListLoginsRequest(user_id=t.user.user_id), EVEN_WITHOUT, (USER, VIEW)),
    "EndLogins": Example(
        lambda t: auth.EndLoginsRequest(user_id=t.user.user_id, login_id="0" * 64), EVEN_WITHOUT, (USER, EDIT)
    ),
    "ChangePassword": Example(lambda _: auth.ChangePasswordRequest(old_password="x", new_password="x"), WITHOUT),
    "EnrollTotp": None,  # a wrong password counts, and locks the probe out; see test_login
    "ConfirmTotp": None,
    "CreateApiKey": Example(
        lambda _: auth.CreateApiKeyRequest(api_key_id=new_id(), name="x", expires_at=Timestamp()), WITHOUT
    ),
    "ListApiKeys": Example(lambda t: auth.ListApiKeysRequest(user_id=t.user.user_id), EVEN_WITHOUT, (USER, VIEW)),
    "DeleteApiKey": Example(
        lambda _: auth.DeleteApiKeyRequest(api_key_id=new_id()), WITHOUT, not_found=("API_KEY_NOT_FOUND",)
    ),
}

KEYS = {
    "GetLedger": Example(lambda t: keys.GetLedgerRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "WatchLedger": Example(lambda t: keys.WatchLedgerRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "AppendLedgerEntry": Example(lambda _: keys.AppendLedgerEntryRequest(entry=Signed()), WITH_ANY),
    "ListOrganizationKeys": Example(lambda t: keys.ListOrganizationKeysRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "ListHeads": Example(lambda t: keys.ListHeadsRequest(genesis=t.genesis), IN_COLLABORATIONS),
    "PutVaultedKey": Example(lambda _: keys.PutVaultedKeyRequest(key=VaultedKey()), WITH_ANY),
    "GetVaultedKey": Example(
        lambda t: keys.GetVaultedKeyRequest(organization_id=t.address),
        OF_OWN_ORGANIZATION,
        not_found=("VAULTED_KEY_NOT_FOUND",),
    ),
    "ListVaultedKeys": Example(lambda t: keys.ListVaultedKeysRequest(organization_id=t.address), OF_OWN_ORGANIZATION),
}

TASKS = {
    "CreateTask": Example(
        lambda t: t.task.request(), OF_OWN_ORGANIZATION
    ),  # for another organization nobody creates any
    "CheckTask": Example(lambda _: tasks.CheckTaskRequest(chain=TaskChain()), WITH_ANY),
    "GetTask": Example(lambda t: tasks.GetTaskRequest(task_id=t.task.task_id)),
    "ListTasks": listing(tasks.ListTasksRequest, "tasks", "task_id", lambda t: t.task.task_id),
    "WatchTask": Example(lambda t: tasks.WatchTaskRequest(task_id=t.task.task_id)),
    "CancelTask": Example(lambda t: tasks.CancelTaskRequest(task_id=t.doomed.task_id)),
    "DeleteTask": Example(lambda t: tasks.DeleteTaskRequest(task_id=t.task.task_id)),
    "DeletePayloads": Example(lambda t: tasks.DeletePayloadsRequest(task_id=t.task.task_id)),
    "GetRun": Example(lambda t: tasks.GetRunRequest(run_id=t.run_id)),
    "ListRuns": listing(tasks.ListRunsRequest, "runs", "run_id", lambda t: t.run_id),
    "WatchRunLog": Example(
        lambda t: tasks.WatchRunLogRequest(run_id=t.doomed.run_id(t.organization)),
        {OWN: 1, ORGANIZATION: 2, COLLABORATION: NEVER, FOREIGN: NEVER},  # sealed to the own organization
    ),
}

PAYLOADS = {
    "ListMissingParts": Example(
        lambda _: payloads.ListMissingPartsRequest(envelope_digest=bytes(32), size_bytes=1), WITH_ANY
    ),
    "UploadPart": Example(lambda _: payloads.UploadPartRequest(data=b"x"), WITH_ANY),
    "DownloadPayload": Example(
        lambda t: payloads.DownloadPayloadRequest(envelope_digest=t.task.spec.inputs[0].envelope_digest),
        OF_OWN_ORGANIZATION,  # whom it is sealed to
    ),
}

SESSIONS = {
    "CreateSession": Example(
        lambda t: sessions.CreateSessionRequest(
            session_id=t.session_id, genesis=t.genesis, name="x", scope=options.SCOPE_OWN
        ),
        WITH_ANY,
    ),
    "GetSession": Example(lambda t: sessions.GetSessionRequest(session_id=t.session_id), FOR_THE_CALLER),
    "ListSessions": listing(
        sessions.ListSessionsRequest, "sessions", "session_id", lambda t: t.session_id, FOR_THE_CALLER
    ),
    "UpdateSession": Example(
        lambda t: sessions.UpdateSessionRequest(session_id=t.session_id, update_mask=mask("name"), name="x", etag=OTHER)
    ),
    "DeleteSession": Example(lambda t: sessions.DeleteSessionRequest(session_id=t.session_id, etag=OTHER)),
    "ListDataframes": Example(lambda t: sessions.ListDataframesRequest(session_id=t.session_id), FOR_THE_CALLER),
    "DeleteDataframe": Example(
        lambda t: sessions.DeleteDataframeRequest(session_id=t.session_id, name="none"),
        not_found=("DATAFRAME_NOT_FOUND",),
    ),
}

_SERVICES: tuple[tuple[str, Mapping[str, Example | None]], ...] = (
    ("AdminService", ADMIN),
    ("AuthService", AUTH),
    ("KeyService", KEYS),
    ("TaskService", TASKS),
    ("PayloadService", PAYLOADS),
    ("SessionService", SESSIONS),
)
EXAMPLES = {
    f"/folkmoot.v1.{service}/{method}": example
    for service, examples in _SERVICES
    for method, example in examples.items()
}
