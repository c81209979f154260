"""StationService: people at the station, on the node's local socket. Handlers are thin: the contract's rules, one call, the answer.

Promises: whoever may open the socket is a person at the station, and nobody else gets in: it is made readable and writable by the node's own
user alone. gRPC tells no process's user id of a local socket's other end, so who decides is what the caller says: an opaque reference
in a record that the node signs. Whoever could lie there holds the node's key anyway.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc.aio
import structlog
from google.protobuf.message import Message

from folkmoot.node.journal.records import RunRecord
from folkmoot.node.people import decisions, overview
from folkmoot.node.people.decisions import Desk
from folkmoot.node.people.held import read_held
from folkmoot.node.people.pages import read_token, token_of
from folkmoot.node.proxy.sockets import ADMIN_SOCKET_NAME, reachable_path
from folkmoot.node.storage import egress
from folkmoot.transport.limits import FRAME_BYTES, MESSAGE_BYTES
from folkmoot.transport.requests import ReadsAll, check
from folkmoot.transport.status import abort
from folkmoot.trust import FolkmootError, timestamp
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.station_service_pb2_grpc import StationServiceServicer, add_StationServiceServicer_to_server
from folkmoot.v1.task_pb2 import ApprovalSubject

PAGE_ITEMS, MOST_ITEMS = 50, 1000

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
)
_Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


@asynccontextmanager
async def serve_people(desks: Sequence[Desk], state_directory: Path, started_at: datetime) -> AsyncIterator[None]:
    """Serve StationService on the state directory's socket while the block runs."""
    path = state_directory / ADMIN_SOCKET_NAME
    server = grpc.aio.server(interceptors=(ReadsAll(),), options=_OPTIONS)
    add_StationServiceServicer_to_server(StationServicer(desks, started_at), server)
    with reachable_path(path) as short:
        before = os.umask(0o077)  # of the whole process: folders that others make meanwhile must be theirs to enter
        try:
            server.add_insecure_port(f"unix:{short}")
        finally:
            os.umask(before)
        await server.start()
        path.chmod(0o600)
        try:
            yield
        finally:
            await server.stop(grace=None)


class StationServicer(StationServiceServicer):
    """The calls of people at the station."""

    def __init__(self, desks: Sequence[Desk], started_at: datetime) -> None:
        self._desks = desks
        self._started_at = started_at

    async def GetStationStatus(
        self, request: pb.GetStationStatusRequest, context: _Context
    ) -> pb.GetStationStatusResponse:
        async with _answering(context, request):
            return pb.GetStationStatusResponse(
                version=version("folkmoot"),
                started_at=timestamp(self._started_at),
                stations=await _statuses(self._desks),
            )

    async def ListStationRuns(
        self, request: pb.ListStationRunsRequest, context: _Context
    ) -> pb.ListStationRunsResponse:
        async with _answering(context, request):
            desks = decisions.find_desks(self._desks, request.collaboration)
            number = min(request.page_size or PAGE_ITEMS, MOST_ITEMS)
            before = read_token(request.page_token) if request.page_token else overview.NEWEST
            listed = await overview.list_runs(desks, request.states, before, number + 1)
            shown = listed[:number]
            return pb.ListStationRunsResponse(
                runs=[await overview.station_run(desk, record, whole=False) for desk, record in shown],
                next_page_token=token_of(overview.place(shown[-1][1])) if len(listed) > number else "",
            )

    async def GetStationRun(self, request: pb.GetStationRunRequest, context: _Context) -> pb.GetStationRunResponse:
        async with _answering(context, request):
            return pb.GetStationRunResponse(run=await self._shown(*await self._find(request.run_id)))

    async def DecideRun(self, request: pb.DecideRunRequest, context: _Context) -> pb.DecideRunResponse:
        async with _answering(context, request):
            return pb.DecideRunResponse(run=await self._decide(request, ApprovalSubject.APPROVAL_SUBJECT_RUN))

    async def DecideRelease(self, request: pb.DecideReleaseRequest, context: _Context) -> pb.DecideReleaseResponse:
        async with _answering(context, request):
            return pb.DecideReleaseResponse(run=await self._decide(request, ApprovalSubject.APPROVAL_SUBJECT_RELEASE))

    async def HoldRun(self, request: pb.HoldRunRequest, context: _Context) -> pb.HoldRunResponse:
        async with _answering(context, request):
            desk, record = await self._find(request.run_id)
            return pb.HoldRunResponse(run=await self._shown(desk, await decisions.hold(desk, record)))

    async def ReadHeldResult(
        self, request: pb.ReadHeldResultRequest, context: _Context
    ) -> AsyncIterator[pb.ReadHeldResultResponse]:
        async with _answering(context, request):
            desk, record = await self._find(request.run_id)
            async for part in read_held(desk.station, record):
                if not isinstance(part, bytes):
                    yield pb.ReadHeldResultResponse(head=part)
                    continue
                for at in range(0, len(part), FRAME_BYTES):
                    yield pb.ReadHeldResultResponse(data=part[at : at + FRAME_BYTES])

    async def CancelStationRun(
        self, request: pb.CancelStationRunRequest, context: _Context
    ) -> pb.CancelStationRunResponse:
        async with _answering(context, request):
            desk, record = await self._find(request.run_id)
            return pb.CancelStationRunResponse(run=await self._shown(desk, await decisions.cancel(desk, record)))

    async def ListEgress(self, request: pb.ListEgressRequest, context: _Context) -> pb.ListEgressResponse:
        async with _answering(context, request):
            desk, *others = decisions.find_desks(self._desks, request.collaboration)
            if others:
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_COLLABORATION_NOT_FOUND, "this node serves several: name one of them"
                )
            number = min(request.page_size or PAGE_ITEMS, MOST_ITEMS)
            after = request.after_sequence
            records, (last, newest) = await desk.station.journal.transact(
                lambda db: (egress.records_after(db, after, number), egress.head(db))
            )
            return pb.ListEgressResponse(records=records, head=newest if last else b"", last_sequence=last)

    async def SetAvailability(
        self, request: pb.SetAvailabilityRequest, context: _Context
    ) -> pb.SetAvailabilityResponse:
        async with _answering(context, request):
            desks = decisions.find_desks(self._desks, request.collaboration)
            for desk in desks:
                await decisions.set_availability(desk, request.availability)
            return pb.SetAvailabilityResponse(stations=await _statuses(desks))

    async def ReloadPolicy(self, request: pb.ReloadPolicyRequest, context: _Context) -> pb.ReloadPolicyResponse:
        async with _answering(context, request):
            for desk in self._desks:
                desk.reload_policy()
            return pb.ReloadPolicyResponse(stations=await _statuses(self._desks))

    async def _find(self, run_id: str) -> tuple[Desk, RunRecord]:
        return await decisions.find_run(self._desks, run_id)

    async def _shown(self, desk: Desk, record: RunRecord) -> pb.StationRun:
        return await overview.station_run(desk, record, whole=True)

    async def _decide(
        self, request: pb.DecideRunRequest | pb.DecideReleaseRequest, subject: ApprovalSubject.ValueType
    ) -> pb.StationRun:
        desk, record = await self._find(request.run_id)
        decided_by = request.decided_by or f"uid:{os.getuid()}"
        standing = await decisions.decide(desk, record, subject, request.decision, decided_by)
        return await self._shown(desk, standing)


async def _statuses(desks: Sequence[Desk]) -> list[pb.StationStatus]:
    return list(await asyncio.gather(*(overview.station_status(desk) for desk in desks)))


@asynccontextmanager
async def _answering(context: _Context, request: Message) -> AsyncIterator[None]:
    """Check a request, and answer what is refused with its reason; anything else stands in the node's log."""
    try:
        check(request)
        yield
    except FolkmootError as error:
        await abort(context, error)
    except Exception:
        log.exception("station.call_failed")
        await abort(context, FolkmootError(ErrorReason.ERROR_REASON_INTERNAL, "the node's log says what happened"))
