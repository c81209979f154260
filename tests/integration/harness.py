"""A real server in this process, on a free loopback port with TLS and SQLite in a temporary folder, and people who use it.

    async with server(tmp_path) as s:
        lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
        admins = await s.publish(lung)                        # accounts, join requests, votes, nodes: by real RPCs
        await s.keys.GetLedger(..., metadata=admins["Alpha"].metadata)
        token = await s.node_metadata(lung, "Alpha", "alpha-1")

Passwords are hashed cheaply here; everything else is as in production.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from folkmoot.server.app import RunningServer, serve, utc_now
from folkmoot.server.config import Config
from folkmoot.server.operation import data_folder
from folkmoot.server.operation.data_folder import DATABASE_FILE
from folkmoot.server.people.passwords import Cost
from folkmoot.transport.channel import ServerAddress, open_channel
from folkmoot.transport.status import RemoteError, error_from_rpc
from folkmoot.trust import SigningKey, digest, make_authentication, uuid7
from folkmoot.v1 import admin_service_pb2, auth_service_pb2, key_service_pb2, ledger_pb2
from folkmoot.v1.admin_service_pb2_grpc import AdminServiceStub
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.key_service_pb2_grpc import KeyServiceStub
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub
from tests.builders import World, organization
from tests.migrated import migrated

CHEAP = Cost(memory_kib=64, passes=1)
PASSWORD = "correct horse battery staple"
ROOT = "root@hub"
Metadata = tuple[tuple[str, str], ...]

__all__ = ["CHEAP", "PASSWORD", "Clock", "Server", "User", "refused", "server", "utc_now"]


def databases(_data: Path) -> str:
    """Say which database the server of a data folder works on: SQLite in the folder, unless a test replaces this."""
    return ""


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@dataclass(frozen=True)
class User:
    """A user who is logged in."""

    username: str
    user_id: str
    organization_account_id: str
    tokens: auth_service_pb2.Tokens

    @property
    def metadata(self) -> Metadata:
        return bearer(self.tokens.access_token)


@dataclass
class Server:
    """A running server with a channel to it."""

    running: RunningServer
    users: dict[str, User] = field(default_factory=dict)

    @cached_property
    def address(self) -> ServerAddress:
        authority = self.running.certificate_authority
        return ServerAddress(self.running.address, authority, insecure=authority is None)

    @cached_property
    def authority_digest(self) -> bytes:
        """What nodes sign when they authenticate."""
        authority = self.running.certificate_authority
        return x509.load_pem_x509_certificate(authority).fingerprint(hashes.SHA256()) if authority else b""

    @cached_property
    def channel(self) -> grpc.aio.Channel:
        return open_channel(self.address)

    @cached_property
    def auth(self) -> Any:
        return AuthServiceStub(self.channel)

    @cached_property
    def admin(self) -> Any:
        return AdminServiceStub(self.channel)

    @cached_property
    def keys(self) -> Any:
        return KeyServiceStub(self.channel)

    @cached_property
    def tasks(self) -> Any:
        return TaskServiceStub(self.channel)

    @cached_property
    def payloads(self) -> Any:
        return PayloadServiceStub(self.channel)

    def new_id(self) -> str:
        return uuid7(self.running.core.clock(), os.urandom)

    # ---- people ----------------------------------------------------------------------------------------------------

    async def root(self) -> User:
        """Return the first user, made with the set-up token when it is asked for first."""
        if ROOT not in self.users:
            made = await self.auth.CompleteSetup(
                auth_service_pb2.CompleteSetupRequest(
                    setup_token=self.running.setup_token or "",
                    username=ROOT,
                    password=PASSWORD,
                    organization_name="Hub",
                )
            )
            self.users[ROOT] = await self.log_in(ROOT, made.user_id, made.organization_account_id)
        return self.users[ROOT]

    async def log_in(self, username: str, user_id: str = "", organization_account_id: str = "") -> User:
        answer = await self.auth.Login(auth_service_pb2.LoginRequest(username=username, password=PASSWORD))
        return User(username, user_id, organization_account_id, answer.tokens)

    async def account(self, name: str) -> str:
        """Make an organization's account; return its id."""
        account_id = self.new_id()
        await self.admin.CreateOrganization(
            admin_service_pb2.CreateOrganizationRequest(organization_account_id=account_id, name=name),
            metadata=(await self.root()).metadata,
        )
        return account_id

    async def user(self, username: str, organization_account_id: str, roles: Sequence[str] = ()) -> User:
        """Make a user and log in."""
        user_id = self.new_id()
        await self.admin.CreateUser(
            admin_service_pb2.CreateUserRequest(
                user_id=user_id,
                username=username,
                password=PASSWORD,
                organization_account_id=organization_account_id,
                roles=roles,
            ),
            metadata=(await self.root()).metadata,
        )
        self.users[username] = await self.log_in(username, user_id, organization_account_id)
        return self.users[username]

    async def organization_admin(self, name: str) -> User:
        """Make an organization's account with an admin called `admin@name`; return him."""
        username = f"admin@{name.lower()}"
        if username not in self.users:
            await self.user(username, await self.account(name), ["Organization Admin"])
        return self.users[username]

    # ---- collaborations --------------------------------------------------------------------------------------------

    async def append(self, entry: Signed, by: User | Metadata, *, proves: bool = True) -> ledger_pb2.LedgerPosition:
        """Append an entry; who founds proves to hold the governance key, unless the test says otherwise."""
        metadata = by.metadata if isinstance(by, User) else by
        request = key_service_pb2.AppendLedgerEntryRequest(entry=entry)
        if proves and isinstance(by, User) and b"collaboration.create" in entry.body:
            founding = ledger_pb2.LedgerEntry.FromString(entry.body)
            data = ledger_pb2.CollaborationCreate.FromString(founding.data)
            await self._prove(request, by, digest(entry.body), data.governance_key, data.founder_name)
        return (await self.keys.AppendLedgerEntry(request, metadata=metadata)).position

    async def submit_join_request(
        self, request: Signed, by: User, *, proves: bool = True
    ) -> ledger_pb2.JoinRequestView:
        """Ask to join; who asks proves to hold the governance key, unless the test says otherwise."""
        submission = admin_service_pb2.SubmitJoinRequestRequest(request=request)
        if proves:
            wish = ledger_pb2.JoinRequest.FromString(request.body)
            await self._prove(submission, by, wish.genesis, wish.governance_key, wish.name)
        return (await self.admin.SubmitJoinRequest(submission, metadata=by.metadata)).join_request

    async def _prove(self, request: Any, by: User, genesis: bytes, governance_key: PublicKey, name: str) -> None:
        """Add the proof of possession, with the key of the organization that has that name or that the user is of."""
        own = by.username.rpartition("@")[2].title()
        for owner in (organization(name), organization(own)):
            if owner.governance_key.public == governance_key:
                request.possession.CopyFrom(await self.possession(genesis, owner.governance_key))

    async def possession(self, genesis: bytes, governance_key: SigningKey) -> Signed:
        """Return a proof of possession for this server, over a fresh nonce."""
        nonce = (await self.auth.GetNonce(auth_service_pb2.GetNonceRequest())).nonce
        return make_authentication(
            genesis=genesis,
            organization_id=governance_key.fingerprint,
            key=governance_key,
            nonce=nonce,
            server_authority_digest=self.authority_digest,
            now=self.running.core.clock(),
        )

    async def publish(self, world: World) -> dict[str, User]:
        """Bring a collaboration to the server, each entry by its own organization's admin; return the admins by name."""
        admins = {name: await self.organization_admin(name) for name in world.organizations}
        by_address = {each.address: admins[name] for name, each in world.organizations.items()}
        submitted: set[bytes] = set()
        for signed in world.entries:
            entry = ledger_pb2.LedgerEntry.FromString(signed.body)
            if entry.intent == "organization.vote":
                request = ledger_pb2.OrganizationVote.FromString(entry.data).join_request
                wish = ledger_pb2.JoinRequest.FromString(request.body)
                if request.body and request.body not in submitted:
                    submitted.add(request.body)
                    await self.submit_join_request(request, admins[wish.name])
            await self.append(signed, by_address[entry.organization_id])
        return admins

    async def authenticate(
        self,
        *,
        genesis: bytes,
        organization_id: str,
        key: SigningKey,
        invitation: Signed | None = None,
        authority_digest: bytes | None = None,
    ) -> Metadata:
        """Authenticate with a node key or an invitation's one-time key."""
        nonce = (await self.auth.GetNonce(auth_service_pb2.GetNonceRequest())).nonce
        authentication = make_authentication(
            genesis=genesis,
            organization_id=organization_id,
            key=key,
            nonce=nonce,
            server_authority_digest=self.authority_digest if authority_digest is None else authority_digest,
            now=self.running.core.clock(),
        )
        request = auth_service_pb2.AuthenticateNodeRequest(authentication=authentication, invitation=invitation)
        return bearer((await self.auth.AuthenticateNode(request)).access_token)

    async def node_metadata(self, world: World, organization: str, node_name: str) -> Metadata:
        owner = world[organization]
        return await self.authenticate(genesis=world.genesis, organization_id=owner.address, key=owner.nodes[node_name])

    # ---- the audit trail -------------------------------------------------------------------------------------------

    async def events(self, intent: str = "") -> list[admin_service_pb2.Event]:
        """Return the audit trail, oldest first."""
        answer = await self.admin.ListEvents(
            admin_service_pb2.ListEventsRequest(intent=intent, page_size=1000), metadata=(await self.root()).metadata
        )
        return list(reversed(answer.events))


@asynccontextmanager
async def server(data: Path, *, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Server]:
    """Start a server on a free port; stop it at the end. The same folder again is the same server, restarted."""
    usual: dict[str, Any] = {"listen": "127.0.0.1:0", "log_level": "warning", "drain_seconds": 1.0}
    usual["database"] = databases(data)
    config = Config(data=data, **(usual | settings))
    if not config.database:
        with data_folder.taken(config, alone=True):  # made as the server makes it
            await migrated(config.data / DATABASE_FILE)
    running = await serve(config, clock=clock or utc_now, password_cost=CHEAP)
    s = Server(running)
    try:
        yield s
    finally:
        await s.channel.close()
        await running.stop()


async def refused(call: Any) -> RemoteError:
    """Return the error with which a call, unary or streaming, is refused; fail if it is not."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error)
    raise AssertionError("the call was not refused")


def reason(error: RemoteError) -> str:
    """Return the reason as people see it."""
    return error.reason_name
