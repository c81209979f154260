"""One successful call of each method that changes something, with what it needs to succeed; nothing that people write is told.

Each call carries a request id of its own, `change-METHOD`, by which its event is found.
"""

import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.trust import SigningKey, timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import session_service_pb2 as sessions
from folkmoot.v1 import task_service_pb2 as tasks
from folkmoot.v1.session_service_pb2_grpc import SessionServiceStub
from tests.builders import randomness
from tests.integration.harness import PASSWORD, Metadata, User
from tests.integration.server import factors
from tests.integration.server.conftest import Hub
from tests.integration.server.links import Poll, Station, Stream, hello
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_checks import question
from tests.integration.server.test_vault import unusable

MARK = "what-people-write"
"""In every text and every secret that is sent; in no event."""
SECRET = f"{MARK} {PASSWORD}"


def request_id(method: str) -> str:
    return f"change-{method.rpartition('/')[2]}"


@dataclass
class Changes:
    """Calls, on a server with a collaboration."""

    hub: Hub
    root: User

    async def call(self, method: Any, request: Any, by: User | Metadata | None = None, *, name: str = "") -> Any:
        metadata = self.root.metadata if by is None else by.metadata if isinstance(by, User) else by
        path = name or method._method.decode()
        return await method(request, metadata=(*metadata, ("x-request-id", request_id(path))))

    @property
    def s(self) -> Any:
        return self.hub.server

    @property
    def session_service(self) -> Any:
        return SessionServiceStub(self.s.channel)

    async def someone(self, username: str) -> User:
        return await self.s.user(username, self.root.organization_account_id, ["Researcher"])

    async def role(self) -> admin.Role:
        made = admin.CreateRoleRequest(role_id=self.s.new_id(), name=f"role-{os.urandom(4).hex()}")
        return (await self.s.admin.CreateRole(made, metadata=self.root.metadata)).role

    async def study(self, study: Any = None) -> admin.CreateStudyRequest:
        lung = self.hub.lung
        return admin.CreateStudyRequest(
            study_id=self.s.new_id(),
            genesis=lung.genesis,
            name=f"study-{os.urandom(4).hex()}",
            description=MARK,
            organization_ids=[lung["Alpha"].address],
        )

    async def session(self) -> sessions.CreateSessionRequest:
        return sessions.CreateSessionRequest(
            session_id=self.s.new_id(),
            genesis=self.hub.lung.genesis,
            name=f"session-{os.urandom(4).hex()}",
            scope=options.SCOPE_OWN,
        )

    async def task(self) -> SealedTask:
        sealed = task(self.hub.lung, ["Beta"], name=MARK, purpose=MARK)
        await self.hub.create(sealed)
        return sealed


Change = Callable[[Changes], Awaitable[object]]


async def create_organization(c: Changes) -> None:
    made = admin.CreateOrganizationRequest(organization_account_id=c.s.new_id(), name="Delta")
    await c.call(c.s.admin.CreateOrganization, made)


async def update_organization(c: Changes) -> None:
    mask = FieldMask(paths=["postal_address", "country"])
    account = await c.s.account("Epsilon")
    changed = admin.UpdateOrganizationRequest(
        organization_account_id=account, update_mask=mask, postal_address=MARK, country=MARK
    )
    await c.call(c.s.admin.UpdateOrganization, changed)


async def delete_organization(c: Changes) -> None:
    doomed = admin.DeleteOrganizationRequest(organization_account_id=await c.s.account("Zeta"))
    await c.call(c.s.admin.DeleteOrganization, doomed)


async def create_user(c: Changes) -> None:
    account = c.root.organization_account_id
    made = admin.CreateUserRequest(
        user_id=c.s.new_id(), username="made", password=SECRET, organization_account_id=account
    )
    await c.call(c.s.admin.CreateUser, made)


async def update_user(c: Changes) -> None:
    user = await c.someone("changed")
    changed = admin.UpdateUserRequest(
        user_id=user.user_id,
        update_mask=FieldMask(paths=["first_name", "email", "password"]),
        first_name=MARK,
        email=f"{MARK}@example.org",
        password=SECRET,
    )
    await c.call(c.s.admin.UpdateUser, changed)


async def delete_user(c: Changes) -> None:
    user = await c.someone("deleted")
    await c.call(c.s.admin.DeleteUser, admin.DeleteUserRequest(user_id=user.user_id))


async def remove_totp(c: Changes) -> None:
    user = await c.someone("without")
    await factors.enroll(c.s, user, c.hub.clock)
    await c.call(c.s.admin.RemoveTotp, admin.RemoveTotpRequest(user_id=user.user_id))


async def create_role(c: Changes) -> None:
    made = admin.CreateRoleRequest(role_id=c.s.new_id(), name="role-made", description=MARK)
    await c.call(c.s.admin.CreateRole, made)


async def update_role(c: Changes) -> None:
    role = await c.role()
    mask = FieldMask(paths=["description"])
    await c.call(
        c.s.admin.UpdateRole, admin.UpdateRoleRequest(role_id=role.role_id, update_mask=mask, description=MARK)
    )


async def delete_role(c: Changes) -> None:
    role = await c.role()
    await c.call(c.s.admin.DeleteRole, admin.DeleteRoleRequest(role_id=role.role_id))


async def create_study(c: Changes) -> None:
    await c.call(c.s.admin.CreateStudy, await c.study(), c.hub.admins["Alpha"])


async def update_study(c: Changes) -> None:
    study, alpha = await c.study(), c.hub.admins["Alpha"]
    await c.s.admin.CreateStudy(study, metadata=alpha.metadata)
    mask = FieldMask(paths=["description"])
    changed = admin.UpdateStudyRequest(study_id=study.study_id, update_mask=mask, description=f"{MARK} more")
    await c.call(c.s.admin.UpdateStudy, changed, alpha)


async def delete_study(c: Changes) -> None:
    study, alpha = await c.study(), c.hub.admins["Alpha"]
    await c.s.admin.CreateStudy(study, metadata=alpha.metadata)
    await c.call(c.s.admin.DeleteStudy, admin.DeleteStudyRequest(study_id=study.study_id), alpha)


async def submit_node_attempt(c: Changes) -> None:
    claim = c.hub.lung.claim("Alpha", "alpha-7", SigningKey.generate(randomness("alpha-7")))
    await c.call(c.s.admin.SubmitNodeAttempt, admin.SubmitNodeAttemptRequest(claim=claim), ())


async def delete_node_attempt(c: Changes) -> None:
    key = SigningKey.generate(randomness("alpha-8"))
    claim = c.hub.lung.claim("Alpha", "alpha-8", key)
    await c.s.admin.SubmitNodeAttempt(admin.SubmitNodeAttemptRequest(claim=claim))
    doomed = admin.DeleteNodeAttemptRequest(genesis=c.hub.lung.genesis, node_id=key.fingerprint)
    await c.call(c.s.admin.DeleteNodeAttempt, doomed, c.hub.admins["Alpha"])


async def login(c: Changes) -> None:
    user = await c.someone("comes")
    await c.call(c.s.auth.Login, auth.LoginRequest(username=user.username, password=PASSWORD), ())


async def logout(c: Changes) -> None:
    await c.call(c.s.auth.Logout, auth.LogoutRequest(), await c.someone("goes"))


async def end_logins(c: Changes) -> None:
    user = await c.someone("ends")
    await c.s.log_in(user.username)
    await c.call(c.s.auth.EndLogins, auth.EndLoginsRequest(), user)


async def change_password(c: Changes) -> None:
    wish = auth.ChangePasswordRequest(old_password=PASSWORD, new_password=SECRET)
    await c.call(c.s.auth.ChangePassword, wish, await c.someone("renews"))


async def enroll_totp(c: Changes) -> None:
    await c.call(c.s.auth.EnrollTotp, auth.EnrollTotpRequest(password=PASSWORD), await c.someone("begins"))


async def confirm_totp(c: Changes) -> None:
    user = await c.someone("confirms")
    app = await factors.begin(c.s, user, c.hub.clock)
    await c.call(c.s.auth.ConfirmTotp, auth.ConfirmTotpRequest(totp_code=app.code()), user)


async def _api_key(c: Changes) -> auth.CreateApiKeyRequest:
    ends = timestamp(c.hub.clock() + timedelta(days=1))
    return auth.CreateApiKeyRequest(api_key_id=c.s.new_id(), name=f"{MARK}-{os.urandom(4).hex()}", expires_at=ends)


async def create_api_key(c: Changes) -> None:
    await c.call(c.s.auth.CreateApiKey, await _api_key(c))


async def delete_api_key(c: Changes) -> None:
    made = await _api_key(c)
    await c.s.auth.CreateApiKey(made, metadata=c.root.metadata)
    await c.call(c.s.auth.DeleteApiKey, auth.DeleteApiKeyRequest(api_key_id=made.api_key_id))


async def put_vaulted_key(c: Changes) -> None:
    await c.call(c.s.keys.PutVaultedKey, keys.PutVaultedKeyRequest(key=unusable(c.hub, 1)), c.hub.admins["Alpha"])


async def get_vaulted_key(c: Changes) -> None:
    alpha = c.hub.admins["Alpha"]
    await c.s.keys.PutVaultedKey(keys.PutVaultedKeyRequest(key=unusable(c.hub, 2)), metadata=alpha.metadata)
    wish = keys.GetVaultedKeyRequest(organization_id=c.hub.lung["Alpha"].address)
    await c.call(c.s.keys.GetVaultedKey, wish, await c.hub.node("Alpha"))


async def upload_part(c: Changes) -> None:
    sealed = task(c.hub.lung, ["Beta"], content=os.urandom(300_000))
    wish = payloads.ListMissingPartsRequest(
        envelope_digest=sealed.spec.inputs[0].envelope_digest, size_bytes=len(sealed.envelope)
    )
    await c.s.payloads.ListMissingParts(wish, metadata=c.hub.ada)
    messages = [
        payloads.UploadPartRequest(header=payloads.PartHeader(envelope_digest=wish.envelope_digest, part_number=0)),
        payloads.UploadPartRequest(data=sealed.envelope),
        payloads.UploadPartRequest(digest=hashlib.sha256(sealed.envelope).digest()),
    ]
    metadata = (*c.hub.ada, ("x-request-id", request_id("UploadPart")))
    await c.s.payloads.UploadPart(iter(messages), metadata=metadata)


async def create_session(c: Changes) -> None:
    await c.call(c.session_service.CreateSession, await c.session(), c.hub.ada)


async def update_session(c: Changes) -> None:
    made = await c.session()
    await c.session_service.CreateSession(made, metadata=c.hub.ada)
    changed = sessions.UpdateSessionRequest(
        session_id=made.session_id, update_mask=FieldMask(paths=["scope"]), scope=options.SCOPE_OWN
    )
    await c.call(c.session_service.UpdateSession, changed, c.hub.ada)


async def delete_session(c: Changes) -> None:
    made = await c.session()
    await c.session_service.CreateSession(made, metadata=c.hub.ada)
    await c.call(c.session_service.DeleteSession, sessions.DeleteSessionRequest(session_id=made.session_id), c.hub.ada)


async def create_task(c: Changes) -> None:
    await c.call(c.s.tasks.CreateTask, task(c.hub.lung, ["Beta"], name=MARK, purpose=MARK).request(), c.hub.ada)


async def cancel_task(c: Changes) -> None:
    await c.call(c.s.tasks.CancelTask, tasks.CancelTaskRequest(task_id=(await c.task()).task_id), c.hub.ada)


async def check_task(c: Changes) -> None:
    asked = question(c.hub, name=MARK)
    wish = tasks.CheckTaskRequest(chain=asked.chain, envelopes=[asked.envelope])
    await c.call(c.s.tasks.CheckTask, wish, c.hub.ada)


async def commit_run(c: Changes) -> None:
    await c.call(c.s.tasks.CommitRun, (await c.task()).commit("Beta"), await c.hub.node("Beta"))


async def delete_task(c: Changes) -> None:
    sealed = await c.task()
    await c.hub.commit(sealed, "Beta")
    await c.call(c.s.tasks.DeleteTask, tasks.DeleteTaskRequest(task_id=sealed.task_id), c.hub.ada)


async def delete_payloads(c: Changes) -> None:
    sealed = await c.task()
    await c.hub.commit(sealed, "Beta")
    wish = tasks.DeletePayloadsRequest(task_id=sealed.task_id, kinds=[tasks.PAYLOAD_KIND_RESULT])
    await c.call(c.s.tasks.DeletePayloads, wish, c.hub.ada)


async def attach(c: Changes) -> None:
    await _attach(c, Stream, "Attach", "Gamma")


async def exchange(c: Changes) -> None:
    await _attach(c, Poll, "Exchange", "Beta")


async def _attach(c: Changes, form: type[Stream] | type[Poll], method: str, organization: str) -> None:
    metadata = (*await c.hub.node(organization), ("x-request-id", request_id(method)))
    station = Station(form(c.s.tasks, metadata))
    [key] = c.hub.lung[organization].nodes.values()
    await station.link.send(hello(c.hub.lung, key.fingerprint))
    await station.next("welcome")
    await station.link.cut()


CHANGES: dict[str, Change] = {
    "AdminService/CreateOrganization": create_organization,
    "AdminService/UpdateOrganization": update_organization,
    "AdminService/DeleteOrganization": delete_organization,
    "AdminService/CreateUser": create_user,
    "AdminService/UpdateUser": update_user,
    "AdminService/DeleteUser": delete_user,
    "AdminService/RemoveTotp": remove_totp,
    "AdminService/CreateRole": create_role,
    "AdminService/UpdateRole": update_role,
    "AdminService/DeleteRole": delete_role,
    "AdminService/CreateStudy": create_study,
    "AdminService/UpdateStudy": update_study,
    "AdminService/DeleteStudy": delete_study,
    "AdminService/SubmitNodeAttempt": submit_node_attempt,
    "AdminService/DeleteNodeAttempt": delete_node_attempt,
    "AuthService/Login": login,
    "AuthService/Logout": logout,
    "AuthService/EndLogins": end_logins,
    "AuthService/ChangePassword": change_password,
    "AuthService/EnrollTotp": enroll_totp,
    "AuthService/ConfirmTotp": confirm_totp,
    "AuthService/CreateApiKey": create_api_key,
    "AuthService/DeleteApiKey": delete_api_key,
    "KeyService/PutVaultedKey": put_vaulted_key,
    "KeyService/GetVaultedKey": get_vaulted_key,
    "PayloadService/UploadPart": upload_part,
    "SessionService/CreateSession": create_session,
    "SessionService/UpdateSession": update_session,
    "SessionService/DeleteSession": delete_session,
    "TaskService/CreateTask": create_task,
    "TaskService/CancelTask": cancel_task,
    "TaskService/CheckTask": check_task,
    "TaskService/CommitRun": commit_run,
    "TaskService/DeleteTask": delete_task,
    "TaskService/DeletePayloads": delete_payloads,
    "TaskService/Attach": attach,
    "TaskService/Exchange": exchange,
}
