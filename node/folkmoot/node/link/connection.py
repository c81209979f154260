"""The connection to one server: channel, stubs, and a token that is renewed before it ends.

Every call waits until there is a token, and is repeated while the server can't be reached. A call that the server refuses for its
token is made once more with a new one. What a signature proves, and which key makes it, is the caller's: `prove`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import structlog

from folkmoot.transport import (
    TOKEN_METADATA_KEY,
    ServerAddress,
    download,
    open_channel,
    retrying,
    timeouts,
    upload,
)
from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.payloads import Metadata
from folkmoot.trust import FolkmootError, Source
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest, AuthenticateNodeResponse, GetNonceRequest
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.key_service_pb2_grpc import KeyServiceStub
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from folkmoot.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from folkmoot.v1.auth_service_pb2_grpc import AuthServiceAsyncStub
    from folkmoot.v1.key_service_pb2_grpc import KeyServiceAsyncStub
    from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceAsyncStub
    from folkmoot.v1.task_service_pb2_grpc import TaskServiceAsyncStub

_Answer = TypeVar("_Answer")
Prove = Callable[[bytes], AuthenticateNodeRequest]
"""Signs a server's nonce."""

RENEW_AT = 2 / 3
"""The part of a token's life after which it is renewed."""

SHORTEST_LIFE_SECONDS = 30.0
"""Where the clocks of node and server differ, a token is not renewed more often than for this life."""

log = structlog.get_logger()


class Connection:
    """A channel with a token. `run` keeps the token fresh until it is cancelled; `close` closes the channel."""

    def __init__(self, address: ServerAddress, prove: Prove, *, turned_away: Callable[[], None] = lambda: None) -> None:
        self.address = address
        self._prove = prove
        self._turned_away = turned_away
        self._channel = open_channel(address)
        self._auth: AuthServiceAsyncStub = AuthServiceStub(self._channel)
        self.tasks: TaskServiceAsyncStub = TaskServiceStub(self._channel)
        self.payloads: PayloadServiceAsyncStub = PayloadServiceStub(self._channel)
        self.keys: KeyServiceAsyncStub = KeyServiceStub(self._channel)
        self._token = ""
        self._has_token = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def admin(self) -> "AdminServiceAsyncStub":
        """The administration: asked once in a node's life, by who is none yet."""
        from folkmoot.v1.admin_service_pb2_grpc import AdminServiceStub

        return AdminServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel; calls that are under way end."""
        await self._channel.close()

    async def run(self) -> None:
        """Get tokens, one after the other, for ever; what is in the way is logged once and tried again.

        Raises what `turned_away` raises, which is asked whenever the server gives no token.
        """
        attempt, told = 0, ""
        while True:
            self._wanted.clear()
            try:
                lifetime_seconds = await self.authenticate()
            except FolkmootError as error:
                attempt += 1
                if str(error) != told:
                    log.warning("node.not_authenticated", reason=error.reason_name, detail=str(error), **error.metadata)
                told = str(error)
                self._turned_away()
                await asyncio.sleep(pause_seconds(attempt))
                continue
            attempt, told = 0, ""
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), lifetime_seconds * RENEW_AT)

    async def authenticate(self) -> float:
        """Get a token; return how many seconds it lives. Raises RemoteError: JOIN_PENDING, NODE_NOT_APPROVED and so on."""
        answer = await retrying(self._authenticate, server=self.address.target)
        lifetime = moment_at(nanoseconds(answer.access_expires_at)) - datetime.now(UTC)
        self._token = answer.access_token
        self._has_token.set()
        return max(SHORTEST_LIFE_SECONDS, lifetime.total_seconds())

    async def _authenticate(self) -> AuthenticateNodeResponse:
        nonce = await self._auth.GetNonce(GetNonceRequest(), timeout=timeouts.CALL_SECONDS)
        request = self._prove(nonce.nonce)
        return await self._auth.AuthenticateNode(request, timeout=timeouts.CALL_SECONDS)

    def metadata(self) -> Metadata:
        """The token, as calls carry it."""
        return ((TOKEN_METADATA_KEY, f"Bearer {self._token}"),)

    async def authenticated(self) -> None:
        """Wait until there is a token."""
        await self._has_token.wait()

    def refuse_token(self) -> None:
        """The server does not take this token any more: get another one."""
        self._has_token.clear()
        self._wanted.set()

    async def call(self, make: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Make an idempotent call, again and again while the server can't be reached. Raises RemoteError."""
        while True:
            await self.authenticated()
            try:
                return await retrying(make, server=self.address.target)
            except FolkmootError as error:
                if error.reason != ErrorReason.ERROR_REASON_TOKEN_INVALID:
                    raise
                self.refuse_token()

    async def upload(self, source: Source, digest: bytes) -> None:
        """Bring an envelope to the server. Raises RemoteError."""
        await self.call(lambda: upload(self.payloads, source, digest, metadata=self.metadata))

    async def download(self, digest: bytes) -> AsyncIterator[bytes]:
        """Stream an envelope from the server. Raises RemoteError."""
        received = 0
        while True:
            await self.authenticated()
            try:
                async for piece in download(self.payloads, digest, offset=received, metadata=self.metadata):
                    received += len(piece)
                    yield piece
            except FolkmootError as error:
                if error.reason != ErrorReason.ERROR_REASON_TOKEN_INVALID:
                    raise
                self.refuse_token()
            else:
                return
