"""Sessions: dataframes that tasks leave at the nodes, for later tasks to read. Their rows stay where they are.

A session, and what it has, is the server's word: of each dataframe it tells what the nodes' receipts tell, which is as much as each data
owner lets them.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from folkmoot.client.admin.resolving import is_id, mask_of, new_id, user_id
from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, name_of
from folkmoot.client.session import PAGE_ITEMS
from folkmoot.trust import FolkmootError, State
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import session_service_pb2 as pb
from folkmoot.v1.options_pb2 import Scope

ForWhom: TypeAlias = Literal["own", "organization", "collaboration"]

_SCOPES: Mapping[ForWhom, Scope.ValueType] = {
    "own": Scope.SCOPE_OWN,
    "organization": Scope.SCOPE_ORGANIZATION,
    "collaboration": Scope.SCOPE_COLLABORATION,
}
_WORDS: Mapping[int, ForWhom] = {number: word for word, number in _SCOPES.items()}


@dataclass(frozen=True)
class SessionInfo:
    """A session, as the server tells it."""

    session_id: str
    name: str
    scope: ForWhom
    """For whom it is."""
    organization: str
    """Whose user made it."""
    created_by: str
    """The id of the user who made it."""
    created_at: datetime
    last_used_at: datetime
    """When a task of it was last made."""
    dataframe_names: tuple[str, ...]
    etag: str
    """Changes with every change."""


@dataclass(frozen=True)
class DataframePart:
    """A dataframe at one node."""

    organization: str
    organization_id: str
    node_id: str
    run_id: str
    """The run that left it."""
    left_at: datetime
    rows: int | None
    """None: the data owner does not let it be told, or there are none."""
    columns: Mapping[str, str] | None
    """Types by name; None: the data owner does not let them be told."""


@dataclass(frozen=True)
class Dataframe:
    """A dataframe of a session: a part at each node where a run left it."""

    name: str
    parts: tuple[DataframePart, ...]


class KnownSession(Protocol):
    """A session that was made or read here."""

    @property
    def info(self) -> SessionInfo:
        """What the server told of it."""


class AsyncSession:
    """A session that exists. Made by `sessions.create`, `sessions.get` and `sessions.list`."""

    def __init__(self, connection: Connection, info: SessionInfo) -> None:
        self._connection = connection
        self._info = info

    @property
    def info(self) -> SessionInfo:
        """The session, as the server told it."""
        return self._info

    @property
    def id(self) -> str:
        """The session's id."""
        return self.info.session_id

    @property
    def name(self) -> str:
        """Its name."""
        return self.info.name

    async def dataframes(self) -> tuple[Dataframe, ...]:
        """What tasks have left in it, by name, and where. Raises SESSION_NOT_FOUND."""
        session, state = self._connection.session, await self._connection.shown_state()
        answer = await session.call(session.sessions.ListDataframes, pb.ListDataframesRequest(session_id=self.id))
        return tuple(Dataframe(one.name, tuple(_part(part, state) for part in one.parts)) for one in answer.dataframes)

    async def delete_dataframe(self, name: str) -> None:
        """Delete a dataframe at all nodes. Raises DATAFRAME_NOT_FOUND, HAS_DEPENDENTS while tasks use it."""
        session = self._connection.session
        await session.call(session.sessions.DeleteDataframe, pb.DeleteDataframeRequest(session_id=self.id, name=name))


class AsyncSessions:
    """The sessions of one collaboration. `session` is a session's name or id, or one that was made or read here.

    One that was made or read here is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(self, name: str, *, scope: ForWhom = "own") -> AsyncSession:
        """Make a session for oneself, one's organization, or the collaboration. Raises NAME_TAKEN, NOT_ALLOWED."""
        session = self._connection.session
        request = pb.CreateSessionRequest(
            session_id=new_id(), genesis=self._connection.reference.genesis, name=name, scope=_scope(scope)
        )
        return await self._shown((await session.call(session.sessions.CreateSession, request)).session)

    async def get(self, session: str) -> AsyncSession:
        """A session by name or id. Raises SESSION_NOT_FOUND, naming those there are."""
        calls, genesis = self._connection.session, self._connection.reference.genesis
        if is_id(session):
            found = (await calls.call(calls.sessions.GetSession, pb.GetSessionRequest(session_id=session))).session
            if found.genesis == genesis:
                return await self._shown(found)
        seen = [one async for one in self.list(name_prefix="" if is_id(session) else session[:63])]
        named = [one for one in seen if one.name == session]
        if len(named) == 1:
            return named[0]
        there = ", ".join(f"{one.name} ({one.id})" for one in seen) or "none that are for you"
        text = f"{len(named) or 'no'} sessions of this collaboration are called {session!r}; there are {there}"
        raise FolkmootError(errors_pb2.ERROR_REASON_SESSION_NOT_FOUND, text)

    async def list(self, *, name_prefix: str = "", user: str = "") -> AsyncIterator[AsyncSession]:
        """The sessions that are for the caller, last used first: those that a user made, by name or id, or all."""
        session = self._connection.session
        request = pb.ListSessionsRequest(
            page_size=PAGE_ITEMS,
            genesis=self._connection.reference.genesis,
            name_prefix=name_prefix,
            user_id=await user_id(session, user),
        )
        state = await self._connection.shown_state()
        async for page in session.pages(session.sessions.ListSessions, request):
            for one in page.sessions:
                yield AsyncSession(self._connection, _info(one, state))

    async def update(
        self, session: KnownSession | str, *, name: str | None = None, scope: ForWhom | None = None, etag: str = ""
    ) -> AsyncSession:
        """Change its name, or for whom it is. Raises SESSION_NOT_FOUND, NAME_TAKEN, ETAG_MISMATCH, NOT_ALLOWED."""
        calls = self._connection.session
        request = pb.UpdateSessionRequest(
            session_id=await self._id(session),
            update_mask=mask_of(name=name, scope=scope),
            name=name or "",
            scope=_scope(scope) if scope else Scope.SCOPE_UNSPECIFIED,
            etag=etag or _etag(session),
        )
        return await self._shown((await calls.call(calls.sessions.UpdateSession, request)).session)

    async def delete(self, session: KnownSession | str, *, cancel_tasks: bool = False, etag: str = "") -> None:
        """Delete a session with all of its dataframes: at nodes that are away, when they return.

        Raises SESSION_NOT_FOUND, ETAG_MISMATCH, and HAS_DEPENDENTS while tasks of it go on, unless these are to be cancelled.
        """
        calls = self._connection.session
        request = pb.DeleteSessionRequest(
            session_id=await self._id(session), cancel_tasks=cancel_tasks, etag=etag or _etag(session)
        )
        await calls.call(calls.sessions.DeleteSession, request)

    async def _id(self, session: KnownSession | str) -> str:
        if not isinstance(session, str):
            return session.info.session_id
        return await session_id(self._connection, session)

    async def _shown(self, message: pb.Session) -> AsyncSession:
        return AsyncSession(self._connection, _info(message, await self._connection.shown_state()))


async def session_id(connection: Connection, wanted: str) -> str:
    """A session's id by its name or id; nothing for nothing. Raises SESSION_NOT_FOUND."""
    return wanted if not wanted or is_id(wanted) else (await AsyncSessions(connection).get(wanted)).id


def _etag(session: KnownSession | str) -> str:
    return "" if isinstance(session, str) else session.info.etag


def _scope(word: str) -> Scope.ValueType:
    for known, scope in _SCOPES.items():
        if word == known:
            return scope
    text = f"a session is for {', '.join(_SCOPES)}, not for {word!r}"
    raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("scope", text),))


def _info(message: pb.Session, state: State) -> SessionInfo:
    return SessionInfo(
        session_id=message.session_id,
        name=message.name,
        scope=_WORDS.get(message.scope, "own"),
        organization=name_of(state, message.organization_id),
        created_by=message.user_id,
        created_at=moment(message.created_at),
        last_used_at=moment(message.last_used_at),
        dataframe_names=tuple(message.dataframes),
        etag=message.etag,
    )


def _part(message: pb.DataframePart, state: State) -> DataframePart:
    return DataframePart(
        organization=name_of(state, message.organization_id),
        organization_id=message.organization_id,
        node_id=message.node_id,
        run_id=message.run_id,
        left_at=moment(message.left_at),
        rows=message.left.rows or None,
        columns={column.name: column.type for column in message.left.columns} or None,
    )
