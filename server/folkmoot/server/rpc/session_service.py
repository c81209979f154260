"""SessionService: sessions, and what nodes tell of the dataframes that tasks leave in them."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import grpc.aio
from sqlalchemy import ColumnElement

from folkmoot.server import masks
from folkmoot.server.store import session_rows
from folkmoot.server.store.session_tables import data_sessions as table
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.tasks import data_sessions
from folkmoot.server.tasks.data_sessions import DataSessions, Session
from folkmoot.trust import timestamp
from folkmoot.v1 import session_service_pb2 as pb
from folkmoot.v1.session_service_pb2_grpc import SessionServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(SessionServiceServicer):
    """Knows names, and what nodes tell; it has no row of any dataframe."""

    def __init__(self, sessions: DataSessions) -> None:
        self._sessions = sessions

    async def CreateSession(self, request: pb.CreateSessionRequest, _rpc: Context) -> pb.CreateSessionResponse:
        made = await self._sessions.create(request.session_id, request.genesis, request.name, request.scope)
        return pb.CreateSessionResponse(session=_message(made))

    async def GetSession(self, request: pb.GetSessionRequest, _rpc: Context) -> pb.GetSessionResponse:
        return pb.GetSessionResponse(session=_message(await self._sessions.get(request.session_id)))

    async def ListSessions(self, request: pb.ListSessionsRequest, _rpc: Context) -> pb.ListSessionsResponse:
        wanted: list[ColumnElement[bool]] = []
        if request.genesis:
            wanted.append(table.c.genesis == request.genesis)
        if request.user_id:
            wanted.append(table.c.user_id == request.user_id)
        if request.name_prefix:
            wanted.append(data_sessions.named(request.name_prefix))
        found, token = await self._sessions.list(*wanted, page_size=request.page_size, page_token=request.page_token)
        return pb.ListSessionsResponse(sessions=map(_message, found), next_page_token=token)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, _rpc: Context) -> pb.UpdateSessionResponse:
        changed = await self._sessions.change(request.session_id, masks.changes(request), request.etag)
        return pb.UpdateSessionResponse(session=_message(changed))

    async def DeleteSession(self, request: pb.DeleteSessionRequest, _rpc: Context) -> pb.DeleteSessionResponse:
        await self._sessions.delete(request.session_id, cancel_tasks=request.cancel_tasks, etag=request.etag)
        return pb.DeleteSessionResponse()

    async def ListDataframes(self, request: pb.ListDataframesRequest, _rpc: Context) -> pb.ListDataframesResponse:
        parts = await self._sessions.dataframes(request.session_id)
        by_name = groupby(parts, key=lambda row: str(row.name))
        return pb.ListDataframesResponse(dataframes=[_dataframe(name, list(rows)) for name, rows in by_name])

    async def DeleteDataframe(self, request: pb.DeleteDataframeRequest, _rpc: Context) -> pb.DeleteDataframeResponse:
        await self._sessions.delete_dataframe(request.session_id, request.name)
        return pb.DeleteDataframeResponse()


def _message(session: Session) -> pb.Session:
    row = session.row
    return pb.Session(
        session_id=row.session_id,
        name=row.name,
        genesis=row.genesis,
        scope=row.scope,
        user_id=row.user_id,
        organization_account_id=row.organization_account_id,
        organization_id=row.organization_id,
        created_at=timestamp(row.created_at),
        last_used_at=timestamp(row.last_used_at),
        dataframes=session.dataframes,
        etag=session.etag,
    )


def _dataframe(name: str, rows: Sequence[AnyRow]) -> pb.Dataframe:
    return pb.Dataframe(name=name, parts=map(_part, rows))


def _part(row: AnyRow) -> pb.DataframePart:
    return pb.DataframePart(
        organization_id=row.organization_id,
        node_id=row.node_id,
        run_id=row.run_id,
        left_at=timestamp(row.left_at),
        left=session_rows.told(row),
    )
