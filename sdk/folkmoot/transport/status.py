"""Errors on the wire: a `FolkmootError` becomes a gRPC status with google.rpc details, and a status becomes a `FolkmootError`.

The catalogue in errors.proto gives each reason its status code and its advice, so neither is repeated in code.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.reasons import reason_number, rule_of
from folkmoot.v1 import errors_pb2

ERROR_DOMAIN = "folkmoot"
_DETAILS_KEY = "grpc-status-details-bin"
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class RemoteError(FolkmootError):
    """The other side refused; `code` is the canonical status, `reason` the catalogue's."""

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    retry_after_seconds: float | None = None
    """How long to wait before another attempt, if the other side says so (google.rpc.RetryInfo)."""


class Unreachable(RemoteError):  # noqa: N818 - says what is the case
    """The other side can't be reached, or does not answer; the same call may succeed later."""


def status_code(error: FolkmootError) -> grpc.StatusCode:
    """The canonical status of an error."""
    return _CODES.get(rule_of(error.reason).code, grpc.StatusCode.UNKNOWN)


def rich_status(
    error: FolkmootError, *, request_id: str = "", retry_after_seconds: float | None = None
) -> status_pb2.Status:
    """The status with ErrorInfo, BadRequest and RetryInfo as they apply. The message repeats the reason and says what to do."""
    text = str(error).rstrip(". ")
    status = status_pb2.Status(
        code=rule_of(error.reason).code, message=f"{error.reason_name}: {text}. {error.help}".strip()
    )
    metadata = dict(error.metadata)
    if request_id:
        metadata["request_id"] = request_id
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason_name, domain=ERROR_DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
                    for field, description in error.violations
                ]
            )
        )
    if retry_after_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_after_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    error: FolkmootError,
    *,
    request_id: str = "",
    retry_after_seconds: float | None = None,
) -> NoReturn:
    """End a call with an error's status."""
    status = rich_status(error, request_id=request_id, retry_after_seconds=retry_after_seconds)
    await context.abort(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
        status.message,
        trailing_metadata=((_DETAILS_KEY, status.SerializeToString()),),
    )
    raise AssertionError("abort returns to nobody")


def error_from_rpc(rpc_error: grpc.aio.AioRpcError, *, server: str = "the server") -> RemoteError:
    """What the other side said, as an error of ours; `server` names it when it can't be reached."""
    info, violations, retry_after_seconds = _details(rpc_error)
    code = rpc_error.code()
    message = rpc_error.details() or ""
    if info is not None:
        error = RemoteError(
            reason_number(info.reason),
            message.removeprefix(f"{info.reason}: "),
            metadata=dict(info.metadata),
            violations=violations,
        )
    elif code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        error = Unreachable(
            errors_pb2.ERROR_REASON_SHUTTING_DOWN, f"{server} can't be reached or does not answer ({message})"
        )
    else:
        error = RemoteError(errors_pb2.ERROR_REASON_INTERNAL, f"{server} answered {code.name}: {message}")
    error.code, error.retry_after_seconds = code, retry_after_seconds
    return error


def _details(
    rpc_error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, tuple[tuple[str, str], ...], float | None]:
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for key, value in rpc_error.trailing_metadata() or ():
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        try:
            status = status_pb2.Status.FromString(value)
        except DecodeError:
            break
        for detail in status.details:
            detail.Unpack(info) or detail.Unpack(bad) or detail.Unpack(retry)
    violations = tuple((item.field, item.description) for item in bad.field_violations)
    delay = retry.retry_delay
    seconds = delay.seconds + delay.nanos / 1e9 if retry.HasField("retry_delay") else None
    return (info if info.domain == ERROR_DOMAIN else None), violations, seconds
