"""The methods of AdminService that look back: the audit trail, what organizations have used."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.server.audit import trail, usage
from folkmoot.server.audit.searches import Wanted
from folkmoot.server.core import Core
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.wakers import Waker
from folkmoot.trust.encoding import timestamp
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1 import admin_service_pb2 as admin

_LAST = datetime.max.replace(tzinfo=UTC)

Context = grpc.aio.ServicerContext[Any, Any]


class AuditMethods:
    """Part of AdminService."""

    _core: Core
    _waker: Waker

    async def ListEvents(self, request: admin.ListEventsRequest, _rpc: Context) -> admin.ListEventsResponse:
        wanted = Wanted(
            intent=request.intent,
            created_by=request.created_by,
            organization=request.organization,
            outcome=request.outcome,
            request_id=request.request_id,
            created_after=_not_before(request, "created_after"),
            created_before=_not_before(request, "created_before"),
        )
        rows, token = await trail.page(self._core, wanted, page_size=request.page_size, page_token=request.page_token)
        return admin.ListEventsResponse(events=[_event(row) for row in rows], next_page_token=token)

    async def WatchEvents(
        self, request: admin.WatchEventsRequest, _rpc: Context
    ) -> AsyncIterator[admin.WatchEventsResponse]:
        wanted = Wanted(
            intent=request.intent,
            created_by=request.created_by,
            organization=request.organization,
            outcome=request.outcome,
            request_id=request.request_id,
        )
        async for row in trail.stream(self._core, self._waker, wanted, after=request.after_sequence):
            yield admin.WatchEventsResponse(event=_event(row))

    async def GetUsage(self, request: admin.GetUsageRequest, _rpc: Context) -> admin.GetUsageResponse:
        found, token = await usage.page(
            self._core,
            organization_id=request.organization_id,
            from_day=_moment(request, "from_day"),
            until_day=_moment(request, "until_day"),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return admin.GetUsageResponse(usage=[_usage(each) for each in found], next_page_token=token)


def _moment(request: Any, field: str) -> datetime | None:
    given: Timestamp = getattr(request, field)
    return moment_at(nanoseconds(given)) if request.HasField(field) else None


def _not_before(request: Any, field: str) -> datetime | None:
    """Return the first moment that is not before the given one; events are told apart by microseconds."""
    moment = _moment(request, field)
    if moment is None or moment == _LAST or getattr(request, field).nanos % 1000 == 0:
        return moment
    return moment + timedelta(microseconds=1)


def _event(row: AnyRow) -> admin.Event:
    return admin.Event(
        sequence=row.position,
        intent=row.intent,
        organization=row.organization,
        created_by=row.created_by,
        created_at=timestamp(row.created_at),
        data_version=row.data_version,
        data=row.data,
        request_id=row.request_id,
        outcome=row.outcome,
        origin=row.origin,
        hash=row.hash,
    )


def _usage(used: usage.Used) -> admin.Usage:
    return admin.Usage(
        organization_id=used.organization_id,
        day=timestamp(used.day),
        runs_asked_for=used.runs_asked_for,
        runs_executed=used.runs_executed,
        run_seconds=used.run_milliseconds / 1000,
        bytes_stored=used.bytes_stored,
        bytes_fetched=used.bytes_fetched,
    )
