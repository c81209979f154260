"""A user's connection to a server: one channel, a token that renews itself, calls that are repeated while the server is away or busy.

Nothing is sent before the first call, and that one logs in, with what `folkmoot.client.logins` has. Every call made here is idempotent by the contract or harmless to
repeat, so a cut connection never needs the user's attention; a server that was never reached, or whose certificate nobody vouches
for, is reported soon and by its address.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import grpc
import grpc.aio

from folkmoot.transport import (
    TOKEN_METADATA_KEY,
    RemoteError,
    ServerAddress,
    Unreachable,
    download,
    error_from_rpc,
    open_channel,
    retrying,
    timeouts,
    upload,
)
from folkmoot.transport.calls import TRANSIENT, pause_before, pause_seconds
from folkmoot.transport.payloads import Metadata, Source
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.admin_service_pb2_grpc import AdminServiceStub
from folkmoot.v1.auth_service_pb2 import Tokens
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.key_service_pb2_grpc import KeyServiceStub
from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceStub
from folkmoot.v1.session_service_pb2_grpc import SessionServiceStub
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub

if TYPE_CHECKING:
    from folkmoot.client.logins import Credentials
    from folkmoot.transport.tracing import Tracer
    from folkmoot.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from folkmoot.v1.auth_service_pb2_grpc import AuthServiceAsyncStub
    from folkmoot.v1.key_service_pb2_grpc import KeyServiceAsyncStub
    from folkmoot.v1.payload_service_pb2_grpc import PayloadServiceAsyncStub
    from folkmoot.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from folkmoot.v1.task_service_pb2_grpc import TaskServiceAsyncStub

log = logging.getLogger("folkmoot.client")

Request = TypeVar("Request")
Answer = TypeVar("Answer")

PAGE_ITEMS = 1000
"""How much of a list comes at once where all of it is wanted."""

MOST_RENEWALS = 100
"""How often one operation may outlive its token: an upload of hours does; a server that refuses new tokens must not be asked for ever."""


class ListRequest(Protocol):
    """A request of a method that gives pages."""

    page_token: str


class ListResponse(Protocol):
    """A page; its token names the next one, and is empty on the last."""

    next_page_token: str


_List = TypeVar("_List", bound=ListRequest)
_Page = TypeVar("_Page", bound=ListResponse)


class CertificateNotTrusted(Unreachable):
    """The server showed a certificate that the given authority does not vouch for."""


class Session:
    """Calls to one server as one user. Belongs to one event loop; closed by `close` or at the end of `async with`.

    Without credentials, it makes only calls that need no login.
    """

    def __init__(self, address: ServerAddress, credentials: "Credentials | None" = None) -> None:
        self.address = address
        self._credentials = credentials
        self._tokens: Tokens | None = None
        self.tracer: Tracer | None = None
        """Where spans of tasks go; None: nowhere."""
        self._renewing = asyncio.Lock()
        self._reached = False
        self._name = f"the server at {address.target}"

    @cached_property
    def channel(self) -> grpc.aio.Channel:
        """The channel; opened at first use, connected when something is sent."""
        return open_channel(self.address)

    @cached_property
    def auth(self) -> "AuthServiceAsyncStub":
        """Stub of AuthService."""
        return AuthServiceStub(self.channel)

    @cached_property
    def admin(self) -> "AdminServiceAsyncStub":
        """Stub of AdminService."""
        return AdminServiceStub(self.channel)

    @cached_property
    def keys(self) -> "KeyServiceAsyncStub":
        """Stub of KeyService."""
        return KeyServiceStub(self.channel)

    @cached_property
    def tasks(self) -> "TaskServiceAsyncStub":
        """Stub of TaskService."""
        return TaskServiceStub(self.channel)

    @cached_property
    def sessions(self) -> "SessionServiceAsyncStub":
        """Stub of SessionService."""
        return SessionServiceStub(self.channel)

    @cached_property
    def payloads(self) -> "PayloadServiceAsyncStub":
        """Stub of PayloadService."""
        return PayloadServiceStub(self.channel)

    def metadata(self) -> Metadata:
        """The token as call metadata; empty before the first login."""
        return ((TOKEN_METADATA_KEY, f"Bearer {self._tokens.access_token}"),) if self._tokens else ()

    async def call(self, method: "grpc.aio.UnaryUnaryMultiCallable[Request, Answer]", request: Request) -> Answer:
        """Make a unary call as the user. Raises RemoteError: what the server said, Unreachable, CertificateNotTrusted, MALFORMED."""
        return self._readable(
            await self.authorized(
                lambda: method(request, metadata=self.metadata(), timeout=timeouts.CALL_SECONDS),
            )
        )

    async def call_anonymously(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[Request, Answer]", request: Request
    ) -> Answer:
        """Make a unary call that needs no login."""
        return self._readable(await self._reach(lambda: method(request, timeout=timeouts.CALL_SECONDS)))

    async def authorized(self, operation: Callable[[], Awaitable[Answer]]) -> Answer:
        """Do something that sends `metadata()`; again with a new token if the server no longer takes the old one."""
        tokens = None
        for _ in range(MOST_RENEWALS):
            tokens = await self._authenticate(refused=tokens)
            try:
                return await self._reach(operation)
            except RemoteError as error:
                if not is_refused_token(error):
                    raise
        return await self._reach(operation)

    async def pages(
        self, method: "grpc.aio.UnaryUnaryMultiCallable[_List, _Page]", request: _List
    ) -> AsyncIterator[_Page]:
        """Give a list's pages, from the one that `request` asks for to the last."""
        while True:
            page = await self.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def follow(
        self,
        method: "grpc.aio.UnaryStreamMultiCallable[Request, Answer]",
        request: Callable[[], Awaitable[Request]],
    ) -> AsyncIterator[Answer]:
        """Stream until the server ends it; after a cut, go on with what `request` gives then, however long it takes.

        Raises what the server says, and Unreachable only for a server that was never reached.
        """
        tokens, attempt = None, 0
        while True:
            try:
                tokens = await self._authenticate(refused=tokens)
                async for answer in self._stream(method, await request()):
                    tokens, attempt = None, 0
                    yield answer
            except RemoteError as error:
                if is_away(error) and self._reached:
                    tokens = None
                    log.info("%s; trying again", error)
                elif error.retry_after_seconds is not None and (pause := pause_before(1, error)) is not None:
                    tokens = None
                    await asyncio.sleep(pause)
                elif not is_refused_token(error) or attempt == MOST_RENEWALS:
                    raise
            else:
                return
            attempt += 1
            await asyncio.sleep(pause_seconds(attempt))

    async def upload(self, source: Source, envelope_digest: bytes) -> None:
        """Bring an envelope to the server; what is there already is not sent again."""
        await self.authorized(lambda: upload(self.payloads, source, envelope_digest, metadata=self.metadata))

    async def download(self, envelope_digest: bytes) -> AsyncIterator[bytes]:
        """Stream an envelope's bytes, over cuts and through renewed tokens."""
        tokens, received = None, 0
        for _ in range(MOST_RENEWALS):
            tokens = await self._authenticate(refused=tokens)
            try:
                async for data in download(self.payloads, envelope_digest, offset=received, metadata=self.metadata):
                    received += len(data)
                    yield data
            except RemoteError as error:
                if not is_refused_token(error):
                    raise
            else:
                return

    async def close(self) -> None:
        """Close the channel; calls under way end."""
        if "channel" in self.__dict__:
            await self.channel.close()
        if self.tracer is not None:
            await asyncio.to_thread(self.tracer.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def tokens(self) -> Tokens:
        """The tokens of the login; empty before it."""
        return self._tokens or Tokens()

    def forget_tokens(self) -> None:
        """Log in anew before the next call: the tokens were ended."""
        self._tokens = None

    async def _authenticate(self, *, refused: Tokens | None) -> Tokens:
        """The tokens; new ones if there are none, or the server has refused these. Of several who ask, one fetches them."""
        async with self._renewing:
            if self._tokens is None or self._tokens is refused:
                if self._credentials is None:
                    raise FolkmootError(
                        errors_pb2.ERROR_REASON_TOKEN_INVALID,
                        "this client was made without anything to log in with: give username and password, api_key, or login",
                    )
                self._tokens = await self._credentials.tokens(self, refused=self._tokens)
            return self._tokens

    async def _stream(
        self, method: "grpc.aio.UnaryStreamMultiCallable[Request, Answer]", request: Request
    ) -> AsyncIterator[Answer]:
        call = method(request, metadata=self.metadata())
        try:
            async for answer in call:
                yield self._readable(answer)
        except grpc.aio.AioRpcError as rpc_error:
            raise error_from_rpc(rpc_error, server=self._name) from None
        finally:
            call.cancel()

    async def _reach(self, operation: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat while the server is away: patiently once it has been there, shortly before."""

        async def attempt() -> Answer:
            try:
                return await operation()
            except grpc.aio.AioRpcError as rpc_error:
                if cause := certificate_problem(rpc_error.details() or ""):
                    raise self._not_trusted(cause) from None
                raise

        patience = timeouts.CALL_SECONDS if self._reached else timeouts.RECONNECT_SECONDS
        answer = await retrying(attempt, give_up_after_seconds=patience, server=self._name)
        self._reached = True
        return answer

    def _readable(self, answer: Answer | None) -> Answer:
        """The answer; gRPC gives None for one that does not parse."""
        if answer is None:
            raise RemoteError(
                errors_pb2.ERROR_REASON_MALFORMED, f"{self._name} answers what is no message of this release"
            )
        return answer

    def _not_trusted(self, cause: str) -> CertificateNotTrusted:
        return CertificateNotTrusted(
            errors_pb2.ERROR_REASON_INVALID_FIELD,
            f"{self._name} is not trusted: {cause}. Name the authority that vouches for it as "
            "certificate_authority (the server's tls/ca.pem), as its operator gave it to you",
            violations=(("certificate_authority", cause),),
        )


def is_refused_token(error: RemoteError) -> bool:
    """Whether a new token helps."""
    return error.reason == errors_pb2.ERROR_REASON_TOKEN_INVALID


def is_away(error: RemoteError) -> bool:
    """Whether the server can't be reached just now, or says itself that it stops."""
    return error.code in TRANSIENT


def certificate_problem(details: str) -> str:
    """What is wrong with the server's certificate, by gRPC's account of a failed connection; empty if that isn't the cause."""
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return "its certificate was not issued by the given authority, or is not valid at this time"
    if "WRONG_VERSION_NUMBER" in details:
        return "it does not speak TLS"
    if "Hostname Verification Check failed" in details:
        return "its certificate is for another host name"
    return ""
