"""What happens to every call before and after its handler.

A request id, authentication, access, field rules, the handler; then its error, if it has one, as a rich status. In that
order: who may not call learns nothing about his arguments. One guard does it for all four kinds of methods; a refusal
is recorded in the audit trail, a fault of ours is logged with its traceback and answered with the request id alone.
"""

import asyncio
import inspect
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn, Protocol, TypeAlias, cast

import grpc
import grpc.aio

from folkmoot.server import access, context, limits
from folkmoot.server.audit.denials import Denials
from folkmoot.server.context import Caller
from folkmoot.server.core import RETRY_AFTER, Core
from folkmoot.server.limits import Rates, Streams
from folkmoot.server.observation.observing import Ended, Observer
from folkmoot.server.peers import FORWARDED_KEY, networks, origin_of
from folkmoot.server.rpc import aging
from folkmoot.server.rpc.aging import Life
from folkmoot.server.rpc.open_streams import OpenStreams, rights_are_others
from folkmoot.transport import requests
from folkmoot.transport.channel import TOKEN_METADATA_KEY
from folkmoot.transport.status import abort, status_code
from folkmoot.transport.storage import DiskFull, disk_full
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

REQUEST_ID_KEY = "x-request-id"
_LAST_WORD = "/folkmoot.v1.KeyService/GetLedger"
"""What a node may call that is admitted no more: it believes that for the entry that says so, and not because the server does."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")
_BEARER = "Bearer "
_DENIALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_DENIED_TOO = (errors_pb2.ERROR_REASON_LOCKED_OUT, errors_pb2.ERROR_REASON_RATE_LIMITED)
_RECORDED_ELSEWHERE = errors_pb2.ERROR_REASON_LOGIN_FAILED  # with the user, where failures are counted

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Authentication(Protocol):
    """Knows who the bearer of a token is."""

    async def caller(self, token: str) -> Caller:
        """Return the bearer; raise TOKEN_INVALID."""
        ...

    async def present(self, who: Caller) -> Caller:
        """Return a caller as it is now; raise TOKEN_INVALID if the login by which it came has ended since."""
        ...

    def on_changed(self, told: Callable[[], None]) -> None:
        """Have it told when something about rights has changed."""
        ...


@dataclass(slots=True)
class _Call:
    """A call under way."""

    method: str
    context: Context
    began: float
    is_stream: bool
    is_counted: bool = False


class Guard(grpc.aio.ServerInterceptor):
    """Stands before every method."""

    def __init__(self, core: Core, authentication: Authentication, observers: Sequence[Observer] = ()) -> None:
        self._core = core
        self._observers = observers
        self._authentication = authentication
        self._access = access.table()
        self._guarded: dict[str, Handler] = {}
        self._boot = core.random(8).hex()
        self._calls = count(1)
        self._logs_all = core.config.log_level == "debug"
        self.denials = Denials(core)
        self._trusted_proxies = networks(core.config.trusted_proxies)
        self._rates = Rates(core.config.calls_per_second, core.config.call_burst, time.monotonic)
        self._streams = Streams(core.config.streams_per_caller)
        self._at_work = 0
        self._one_has_ended = asyncio.Event()
        self._open_streams = OpenStreams(self._check_still, core)
        authentication.on_changed(self._open_streams.rights_changed)

    @property
    def is_at_work(self) -> bool:
        """Whether a handler is."""
        return self._at_work > 0

    async def all_answered(self) -> None:
        """Wait until no handler is at work: whatever is still open then waits for its reader."""
        while self._at_work:
            self._one_has_ended.clear()
            await self._one_has_ended.wait()

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1
            self._one_has_ended.set()

    async def keep_watch(self) -> None:
        """End streams of those who may read them no more, and tell of denied calls, until the server is about to stop."""
        await asyncio.gather(self._open_streams.keep_watch(), self.denials.keep())

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the method's handler with the guard before it, made at the method's first call."""
        method = handler_call_details.method
        guarded = self._guarded.get(method)
        if guarded is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            guarded = self._guarded[method] = self._guard(method, handler)
        return guarded

    def _guard(self, method: str, handler: Handler) -> Handler:
        make, behavior = _kind(handler)
        # Health's Watch is no generator: it writes to the call itself.
        is_generator = inspect.isasyncgenfunction(behavior)
        guarded = self._streaming(method, handler) if is_generator else self._answering(method, handler)
        return cast(
            "Handler", make(guarded, requests.readable(handler.request_deserializer), handler.response_serializer)
        )

    def _answering(self, method: str, handler: Handler) -> Callable[..., Awaitable[Any]]:
        behavior = _kind(handler)[1]

        async def guarded(request: Any, rpc: Context) -> Any:
            call = _Call(
                method, rpc, time.perf_counter(), is_stream=handler.request_streaming or handler.response_streaming
            )
            try:
                with self._working():
                    answer = await behavior(await self._admit(call, request, handler.request_streaming), rpc)
            except Exception as error:  # noqa: BLE001 -- whatever it is, the caller gets a status
                await self._fail(call, error)
            self._log_end(call)
            return answer

        return guarded

    def _streaming(self, method: str, handler: Handler) -> Callable[..., AsyncIterator[Any]]:
        behavior = _kind(handler)[1]

        async def guarded(request: Any, rpc: Context) -> AsyncIterator[Any]:
            call = _Call(method, rpc, time.perf_counter(), is_stream=True)
            try:
                answers = behavior(await self._admit(call, request, handler.request_streaming), rpc)
                life = Life(aging.life_seconds(method, self._core.config.max_connection_age_minutes * 60))
                who = context.caller()
                with self._working(), self._open_streams.opened(who, method, life):
                    async with aclosing(answers), aclosing(life.of(answers)) as limited:
                        async for message in limited:
                            await self._check_still(who, method)
                            yield message
            except Exception as error:  # noqa: BLE001
                await self._fail(call, error)
            self._log_end(call)

        return guarded

    # ---- before ----------------------------------------------------------------------------------------------------

    async def _admit(self, call: _Call, request: Any, is_stream: bool) -> Any:  # noqa: FBT001
        """Check the caller and the request; return the request, checked message by message if it is a stream."""
        metadata = dict(call.context.invocation_metadata() or ())
        given = metadata.get(REQUEST_ID_KEY, "")
        is_request_id = isinstance(given, str) and _REQUEST_ID.fullmatch(given)
        pairs = call.context.invocation_metadata() or () if self._trusted_proxies else ()
        forwarded = [str(value) for key, value in pairs if key == FORWARDED_KEY]
        origin = origin_of(call.context.peer(), forwarded, self._trusted_proxies)
        context.enter(str(given) if is_request_id else f"{self._boot}-{next(self._calls)}", origin)
        authorization = metadata.get(TOKEN_METADATA_KEY, "")
        rule = self._access.get(call.method)
        if isinstance(authorization, str) and authorization.startswith(_BEARER) and not access.is_open(rule):
            context.authenticated(await self._authentication.caller(authorization.removeprefix(_BEARER)))
        if call.method in limits.WAY_IN:
            context.counts(lambda: self._count(call))
        else:
            self._count(call)
        self._check_admitted(context.caller(), call.method)
        access.check(context.caller(), rule, call.method)
        if call.is_stream:
            whose = limits.whose(context.caller(), context.origin())
            end = self._streams.begin(whose if call.is_counted else f"{limits.EXEMPT} {whose}")
            call.context.add_done_callback(lambda _rpc: end())  # type: ignore[arg-type]
        if is_stream:
            return self._checked(call, request)
        requests.check(request)
        return request

    def _count(self, call: _Call) -> None:
        """Count a call as its caller's; raise RATE_LIMITED."""
        if not (call.is_counted or call.method.startswith(limits.EXEMPT)):
            call.is_counted = True
            self._rates.take(limits.whose(context.caller(), context.origin()))

    def _check_admitted(self, who: Caller, method: str) -> None:
        """Refuse a node that is admitted no more; only how that ended may it still read."""
        if method != _LAST_WORD or who.kind != options.CALLER_NODE:
            self._core.ledgers.check_admitted(who)

    async def _check_still(self, who: Caller, method: str) -> None:
        """Raise what ends a stream that the caller opened: it lasts longer than what let it in."""
        self._check_admitted(who, method)
        present = await self._authentication.present(who)
        if present != who:
            access.check(present, self._access.get(method), method)
            raise rights_are_others()

    async def _checked(self, call: _Call, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Check a stream message by message, and that its sender still may send: streams last longer than what let them in."""
        async for message in messages:
            await self._check_still(context.caller(), call.method)
            requests.check(message)
            yield message

    # ---- after -----------------------------------------------------------------------------------------------------

    async def _fail(self, call: _Call, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        error = self._instead(call, error)
        if isinstance(error, DiskFull) or disk_full(error) is not None:
            text = "The server has no room on its disk: nothing was stored. Try again when its operator has made some"
            error = FolkmootError(errors_pb2.ERROR_REASON_DISK_FULL, text)
            self._core.log.critical("call.disk_full", method=call.method)
        elif not isinstance(error, FolkmootError):
            self._core.log.error("call.fault", method=call.method, exc_info=error)
            error = FolkmootError(
                errors_pb2.ERROR_REASON_INTERNAL, f"The server has a fault; its log names it {context.request_id()}"
            )
        elif _is_denial(error):
            await self.denials.record(call.method, error)
        self._log_end(call, error)
        retry = error.metadata.get(RETRY_AFTER)
        await abort(
            call.context,
            error,
            request_id=context.request_id(),
            retry_after_seconds=float(retry) if retry else None,
        )

    def _instead(self, call: _Call, error: Exception) -> Exception:
        """Count a token or a proof that nobody vouches for as its sender's address's; if that has called too often, say so."""
        is_refused_token = isinstance(error, FolkmootError) and error.reason == errors_pb2.ERROR_REASON_TOKEN_INVALID
        if context.caller() is context.ANYONE and (is_refused_token or call.method in limits.WAY_IN):
            try:
                self._count(call)
            except FolkmootError as limited:
                return limited
        return error

    def _log_end(self, call: _Call, error: FolkmootError | None = None) -> None:
        """Write a line about a call that ended: what went wrong always, what went well only if asked for."""
        for observer in self._observers:
            observer.ended(_ended(call, error))
        if not (error or self._logs_all):
            return
        is_worth_a_line = error and error.reason != errors_pb2.ERROR_REASON_RATE_LIMITED  # there may be thousands
        log = self._core.log.info if is_worth_a_line else self._core.log.debug
        log(
            "call.answered",
            method=call.method,
            caller=context.caller().created_by,
            outcome=error.reason_name if error else "OK",
            **({"problem": error.message} if error else {}),
            milliseconds=round((time.perf_counter() - call.began) * 1000, 2),
        )


def _ended(call: _Call, error: FolkmootError | None) -> Ended:
    return Ended(
        method=call.method,
        code=status_code(error).name if error else grpc.StatusCode.OK.name,
        seconds=time.perf_counter() - call.began,
        request_id=context.request_id(),
        about=context.about(),
    )


def _is_denial(error: FolkmootError) -> bool:
    """Tell whether an error belongs into the audit trail."""
    if error.reason in _DENIED_TOO:
        return True
    return status_code(error) in _DENIALS and error.reason != _RECORDED_ELSEWHERE


def _kind(handler: Handler) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what makes a handler of this kind, and this one's behavior."""
    kinds: dict[tuple[bool, bool], tuple[Callable[..., Any], Any]] = {
        (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
    }
    return kinds[handler.request_streaming, handler.response_streaming]
