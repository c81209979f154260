"""Who is calling, and under which request id: set once by the interceptor, read by whoever serves the call."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

from folkmoot.server.peers import place_of
from folkmoot.transport.tracing import Span
from folkmoot.v1 import options_pb2 as options


class Rule(NamedTuple):
    """A permission: what may be done to which resource, how far."""

    resource: options.Resource.ValueType
    operation: options.Operation.ValueType
    scope: options.Scope.ValueType


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller. What doesn't apply to its kind is empty."""

    kind: options.Caller.ValueType
    user_id: str = ""
    username: str = ""
    organization_account_id: str = ""
    organization_id: str = ""
    """The organization's address; empty for users whose organization has not founded or asked to join anything."""
    node_id: str = ""
    genesis: bytes = b""
    """The collaboration that a node authenticated for."""
    session_id: str = ""
    """The login; empty for nodes and where an API key was shown."""
    api_key_id: str = ""
    """The API key that was shown, if it was one."""
    rules: frozenset[Rule] = frozenset()

    @property
    def organization(self) -> str:
        """Name the caller's organization as the audit trail does: a user's account, a node's address."""
        return self.organization_account_id or self.organization_id

    @property
    def created_by(self) -> str:
        """Name the caller as the audit trail does."""
        return self.user_id or self.node_id


ANYONE = Caller(options.CALLER_ANYONE)

_caller: ContextVar[Caller] = ContextVar("caller", default=ANYONE)
_request_id: ContextVar[str] = ContextVar("request_id", default="")
_origin: ContextVar[str] = ContextVar("origin", default="")
_count: ContextVar[Callable[[], None]] = ContextVar("count")
_about: ContextVar[Span | None] = ContextVar("about", default=None)


def caller() -> Caller:
    """Return who makes the present call."""
    return _caller.get()


def request_id() -> str:
    """Return the present call's request id."""
    return _request_id.get()


def origin() -> str:
    """Return the address that the present call came from; empty for what the server does by itself."""
    return _origin.get()


def place() -> str:
    """Return the same, or the network of an IPv6 address, by which what comes from one place is counted."""
    return place_of(_origin.get())


def about() -> Span | None:
    """Return the task or the run that the present call is about, by its place in a trace; None if about none."""
    return _about.get()


def is_about(span: Span) -> None:
    """Say which task or run the present call is about."""
    _about.set(span)


def enter(request: str, origin: str = "") -> None:
    """Begin a call: nobody is authenticated yet."""
    _request_id.set(request)
    _origin.set(origin)
    _about.set(None)
    _caller.set(ANYONE)


def counts(count: Callable[[], None]) -> None:
    """Say how the present call is counted as its caller's, whom it has to prove itself."""
    _count.set(count)


def proved(who: Caller) -> None:
    """Make known who has proved to make the present call, and count it; raise RATE_LIMITED."""
    _caller.set(who)
    _count.get()()


def authenticated(who: Caller) -> None:
    """Make the caller known to the rest of the present call."""
    _caller.set(who)
