"""Errors on the wire: what one side refuses, the other side reads, with reason, violations and advice."""

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2

from folkmoot.transport.status import (
    Unreachable,
    error_from_rpc,
    rich_status,
    status_code,
)
from folkmoot.trust import FolkmootError
from folkmoot.trust.reasons import reason_name, reason_number, rule_of
from folkmoot.v1 import errors_pb2, options_pb2

REASONS = [number for number in errors_pb2.ErrorReason.values() if number]


def over_the_wire(error: FolkmootError, **details: float) -> grpc.aio.AioRpcError:
    status = rich_status(error, request_id="r-1", **details)
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(status_code(error), grpc.aio.Metadata(), trailing, status.message)


@pytest.mark.parametrize("reason", REASONS, ids=reason_name)
def test_every_reason_has_a_status_and_advice_and_survives_the_wire(reason: int):
    assert rule_of(reason).code != options_pb2.CODE_UNSPECIFIED
    assert rule_of(reason).help.endswith(".")
    assert reason_number(reason_name(reason)) == reason
    error = error_from_rpc(over_the_wire(FolkmootError(reason, "it is so", metadata={"name": "x"})))
    assert error.reason == reason
    assert error.code.value[0] == rule_of(reason).code
    assert error.metadata == {"name": "x", "request_id": "r-1"}
    assert "it is so" in error.message
    assert rule_of(reason).help in error.message


def test_message_begins_with_the_reason_for_people_who_see_nothing_else():
    error = FolkmootError(errors_pb2.ERROR_REASON_TASK_NOT_FOUND, "there is no task x.")
    assert rich_status(error).message.startswith("TASK_NOT_FOUND: there is no task x. Check")


def test_violations_and_retry_travel_as_their_own_details():
    error = FolkmootError(
        errors_pb2.ERROR_REASON_INVALID_FIELD, "two fields", violations=(("a.b", "is missing"), ("c", "is long"))
    )
    assert error_from_rpc(over_the_wire(error)).violations == (("a.b", "is missing"), ("c", "is long"))
    status = rich_status(error, retry_after_seconds=1.5)
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 1500


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_silence_is_told_with_the_name_of_the_server(code: grpc.StatusCode):
    silent = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "connection refused")
    error = error_from_rpc(silent, server="localhost:1")
    assert isinstance(error, Unreachable)
    assert "localhost:1" in error.message


def test_details_of_strangers_and_damaged_details_are_no_details():
    for value in (b"\xff\xff", b""):
        trailing = grpc.aio.Metadata(("grpc-status-details-bin", value))
        odd = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "nothing")
        assert error_from_rpc(odd).reason == errors_pb2.ERROR_REASON_INTERNAL


def test_reason_of_a_later_release_stays_readable():
    assert reason_name(99_999) == "REASON_99999"
    assert reason_number("OF_A_LATER_RELEASE") == 0
