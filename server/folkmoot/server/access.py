"""Who may call what: read from the contract's `(folkmoot.v1.access)`, decided here, enforced by the interceptor.

Default deny: a method that says nothing is refused to everybody. Health and reflection are not ours and can't say
anything, so they are named here.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from google.protobuf.descriptor import FileDescriptor

from folkmoot.server.context import Caller, Rule
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import (
    admin_service_pb2,
    auth_service_pb2,
    errors_pb2,
    key_service_pb2,
    payload_service_pb2,
    session_service_pb2,
    task_service_pb2,
)
from folkmoot.v1 import options_pb2 as options

FILES = tuple(
    module.DESCRIPTOR
    for module in (
        admin_service_pb2,
        auth_service_pb2,
        key_service_pb2,
        payload_service_pb2,
        session_service_pb2,
        task_service_pb2,
    )
)

OPEN_TO_ANYONE = (
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


def table(files: Iterable[FileDescriptor] = FILES) -> Mapping[str, options.Access]:
    """Return the access of each method, by its path."""
    declared = {
        f"/{service.full_name}/{method.name}": method.GetOptions().Extensions[options.access]
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if method.GetOptions().HasExtension(options.access)
    }
    return declared | {path: options.Access(callers=[options.CALLER_ANYONE]) for path in OPEN_TO_ANYONE}


def scope(
    caller: Caller, resource: options.Resource.ValueType, operation: options.Operation.ValueType
) -> options.Scope.ValueType | None:
    """Return how far the caller's rules reach for this; None: they don't allow it at all."""
    return _reach(caller.rules, resource, operation)


@lru_cache(maxsize=4096)  # asked at every call, of few different sets of rules
def _reach(
    rules: frozenset[Rule], resource: options.Resource.ValueType, operation: options.Operation.ValueType
) -> options.Scope.ValueType | None:
    reaches = [rule.scope for rule in rules if (rule.resource, rule.operation) == (resource, operation)]
    return max(reaches, default=None)


def is_open(access: options.Access | None) -> bool:
    """Tell whether anybody may call, so that a token need not even be read."""
    return access is not None and options.CALLER_ANYONE in access.callers


def check(caller: Caller, access: options.Access | None, method: str) -> None:
    """Let the caller pass, or raise NOT_ALLOWED (TOKEN_INVALID if it did not authenticate)."""
    if access is None:
        raise not_allowed(f"{method} says nothing about who may call it, so nobody may")
    if is_open(access):
        return
    if caller.kind == options.CALLER_ANYONE:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_TOKEN_INVALID,
            f"{method} needs a token, as metadata 'authorization: Bearer TOKEN'",
        )
    if caller.kind == options.CALLER_ENROLLING_USER and caller.kind not in access.callers:
        raise not_allowed("This server demands a second factor: set it up first, by EnrollTotp and ConfirmTotp")
    if caller.kind not in access.callers:
        kinds = " and ".join(_word(options.Caller.Name(kind)) for kind in access.callers)
        raise not_allowed(f"{method} is for {kinds}, and you are {_word(options.Caller.Name(caller.kind))}")
    if caller.kind == options.CALLER_USER and access.resource and not scope(caller, access.resource, access.operation):
        raise lacking(access.resource, access.operation)


def lacking(resource: options.Resource.ValueType, operation: options.Operation.ValueType) -> FolkmootError:
    """Return the error of a user that no rule allows this."""
    return not_allowed(f"No role of yours has the rule {words(resource, operation)} with a scope that reaches this")


def words(
    resource: options.Resource.ValueType,
    operation: options.Operation.ValueType,
    scope: options.Scope.ValueType | None = None,
) -> str:
    """Return a rule as people read it: TASK CREATE ORGANIZATION."""
    parts = [
        options.Resource.Name(resource).removeprefix("RESOURCE_"),
        options.Operation.Name(operation).removeprefix("OPERATION_"),
    ]
    return " ".join(parts if scope is None else [*parts, options.Scope.Name(scope).removeprefix("SCOPE_")])


def not_allowed(text: str) -> FolkmootError:
    """Return a refusal."""
    return FolkmootError(errors_pb2.ERROR_REASON_NOT_ALLOWED, text)


def _word(name: str) -> str:
    return name.removeprefix("CALLER_").lower().replace("_", " ")
