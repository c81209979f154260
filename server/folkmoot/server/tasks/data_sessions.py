"""Sessions: made by a user for himself, his organization or a collaboration, used by tasks, and deleted with their dataframes.

Who may see one has a rule that reaches it, and is among those whom it is for. A task may use what its creator may see. What
a deletion means for nodes is a delivery to each that may have something of it, which waits for those that are away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, literal, select, tuple_, update

from folkmoot.server import access, etags, pages
from folkmoot.server.audit import events
from folkmoot.server.context import caller
from folkmoot.server.core import Core
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.store import deliveries, endings, session_rows
from folkmoot.server.store.session_tables import IS_THERE
from folkmoot.server.store.session_tables import data_sessions as table
from folkmoot.server.store.tables import EPOCH, Instant
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import session_access
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Session:
    """A session, with the names of its dataframes."""

    row: AnyRow
    dataframes: Sequence[str]

    @property
    def etag(self) -> str:
        """Changes when somebody changes the session, not when it is used."""
        return _etag(self.row)


class DataSessions:
    """The sessions of this server, for whoever calls."""

    def __init__(self, core: Core, dispatch: Dispatch) -> None:
        self._core = core
        self._dispatch = dispatch

    async def create(self, session_id: str, genesis: bytes, name: str, scope: options.Scope.ValueType) -> Session:
        """Make a session; raise NOT_ALLOWED, COLLABORATION_NOT_FOUND, NAME_TAKEN, ID_TAKEN."""
        who, now = caller(), self._core.clock()
        session_access.check_for_whom(who, scope, options.OPERATION_CREATE)
        state = await self._core.ledgers.state_for_caller(genesis)
        if not state.is_member(who.organization_id):
            raise access.not_allowed("Sessions are made by users of the collaboration's members")
        wish = {"session_id": session_id, "genesis": genesis, "name": name, "scope": int(scope), "user_id": who.user_id}
        account = {"organization_account_id": who.organization_account_id, "organization_id": who.organization_id}
        data = {"session_id": session_id, "scope": int(scope)}
        record = events.prepare(intent="session.create", data=data, now=now, genesis=genesis)

        def work(connection: Connection) -> Session:
            known = connection.execute(select(table).where(table.c.session_id == session_id)).one_or_none()
            if known is not None:
                return _repeated(connection, known, wish)
            _check_name(connection, who.user_id, name)
            connection.execute(insert(table).values(wish | account | {"created_at": now, "last_used_at": now}))
            record(connection)
            return _session(connection, session_id)

        return await self._core.store.write(work)

    async def get(self, session_id: str) -> Session:
        """Return a session; raise SESSION_NOT_FOUND."""
        who = caller()

        def work(connection: Connection) -> Session:
            session_access.find(connection, who, session_id)
            return _session(connection, session_id)

        return await self._core.store.read(work)

    async def list(
        self, *conditions: ColumnElement[bool], page_size: int, page_token: str
    ) -> tuple[Sequence[Session], str]:
        """Return a page of sessions, last used first, and the token of the next page."""
        size, query = (
            pages.size(page_size),
            select(table).where(IS_THERE, session_access.visible(caller()), *conditions),
        )
        if after := pages.position("sessions", page_token, int, str):
            last = pages.moment("sessions", after[0])
            query = query.where(
                tuple_(table.c.last_used_at, table.c.session_id) < tuple_(literal(last, Instant()), after[1])
            )
        query = query.order_by(table.c.last_used_at.desc(), table.c.session_id.desc()).limit(size + 1)

        def work(connection: Connection) -> tuple[Sequence[Session], str]:
            rows = connection.execute(query).all()
            names = session_rows.names(connection, [row.session_id for row in rows[:size]])
            found = [Session(row, names[row.session_id]) for row in rows[:size]]
            return found, _page_behind(rows[size - 1]) if len(rows) > size else ""

        return await self._core.store.read(work)

    async def change(self, session_id: str, changes: Mapping[str, Any], etag: str) -> Session:
        """Change a session's name, or for whom it is; raise NOT_ALLOWED, ETAG_MISMATCH, NAME_TAKEN."""
        who, now = caller(), self._core.clock()
        if "scope" in changes:
            session_access.check_for_whom(who, changes["scope"], options.OPERATION_CREATE)
        values: dict[str, Any] = {name: int(value) if name == "scope" else value for name, value in changes.items()}
        author = events.author(now=now)

        def work(connection: Connection) -> Session:
            row = session_access.find(connection, who, session_id, options.OPERATION_EDIT)
            etags.check(etag, _etag(row))
            if values.get("scope", row.scope) > row.scope:
                session_access.require_for(connection, who, session_id)
            if values.get("name", row.name) != row.name:
                _check_name(connection, row.user_id, values["name"])
            connection.execute(update(table).where(table.c.session_id == session_id).values(values))
            data = {"session_id": session_id, "fields": sorted(values)}
            author("session.update", data, genesis=row.genesis)(connection)
            return _session(connection, session_id)

        return await self._core.store.write(work)

    async def delete(self, session_id: str, *, cancel_tasks: bool, etag: str) -> None:
        """Delete a session and all of its dataframes; raise HAS_DEPENDENTS for tasks that go on, ETAG_MISMATCH."""
        who, now = caller(), self._core.clock()
        author = events.author(now=now)

        def work(connection: Connection, touched: Touched) -> None:
            row = session_access.find(connection, who, session_id, options.OPERATION_DELETE, or_deleted=True)
            if row.deleted_at is not None:
                return
            etags.check(etag, _etag(row))
            unfinished = session_rows.open_tasks(connection, session_id)
            if unfinished and not cancel_tasks:
                raise _has_dependents("session", list(unfinished))
            for task_id in unfinished:
                endings.cancel_tree(connection, task_id, now=now, touched=touched)
            told = session_rows.whereabouts(connection, session_id)
            deliveries.drop(connection, told, session_id, "", touched)
            session_rows.drop(connection, session_id)
            connection.execute(update(table).where(table.c.session_id == session_id).values(deleted_at=now))
            data = {"session_id": session_id, "cancelled_tasks": len(unfinished)}
            author("session.delete", data, genesis=row.genesis)(connection)

        await self._dispatch.write(work)

    async def dataframes(self, session_id: str) -> Sequence[AnyRow]:
        """Return what is told of a session's dataframes, by name; raise SESSION_NOT_FOUND."""
        who = caller()

        def work(connection: Connection) -> Sequence[AnyRow]:
            session_access.find(connection, who, session_id)
            return session_rows.parts(connection, session_id)

        return await self._core.store.read(work)

    async def delete_dataframe(self, session_id: str, name: str) -> None:
        """Delete a dataframe; raise DATAFRAME_NOT_FOUND, and HAS_DEPENDENTS for tasks that read or leave it."""
        who, now = caller(), self._core.clock()
        author = events.author(now=now)

        def work(connection: Connection, touched: Touched) -> None:
            row = session_access.find(connection, who, session_id, options.OPERATION_EDIT)
            if name not in session_rows.names(connection, [session_id])[session_id]:
                raise dataframe_not_found(name)
            if using := session_rows.using(session_rows.open_tasks(connection, session_id).values(), name):
                raise _has_dependents("dataframe", using)
            deliveries.drop(connection, session_rows.whereabouts(connection, session_id), session_id, name, touched)
            session_rows.drop(connection, session_id, name)
            data = {"session_id": session_id, "name": name}
            author("dataframe.delete", data, genesis=row.genesis)(connection)

        await self._dispatch.write(work)


# ---- rows ----------------------------------------------------------------------------------------------------------


def named(prefix: str) -> ColumnElement[bool]:
    """Meet sessions whose names begin so, whatever the case."""
    return func.lower(table.c.name).startswith(prefix.lower(), autoescape=True)


def dataframe_not_found(name: str) -> FolkmootError:
    """Return the error of a dataframe that nobody has told of."""
    text = f"The session has no dataframe '{name}'"
    return FolkmootError(ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND, text, metadata={"name": name})


def _has_dependents(what: str, task_ids: Sequence[str]) -> FolkmootError:
    tasks = (
        f"{len(task_ids)} task{'s' * (len(task_ids) > 1)} that use the {what} and have not ended, such as {task_ids[0]}"
    )
    return FolkmootError(
        ErrorReason.ERROR_REASON_HAS_DEPENDENTS,
        f"There are {tasks}: wait for them or cancel them",
        metadata={"tasks": str(len(task_ids)), "task_id": task_ids[0]},
    )


def _check_name(connection: Connection, user_id: str, name: str) -> None:
    taken = select(table.c.session_id).where(table.c.user_id == user_id, table.c.name == name, IS_THERE)
    if connection.execute(taken).first() is not None:
        text = f"Its maker has another session '{name}'"
        raise FolkmootError(ErrorReason.ERROR_REASON_NAME_TAKEN, text, metadata={"name": name})


def _repeated(connection: Connection, known: AnyRow, wish: Mapping[str, object]) -> Session:
    """Return what the same call has made before; raise ID_TAKEN if it was another one, or that was deleted."""
    made_by_it = all(getattr(known, field) == wish[field] for field in ("genesis", "name", "scope", "user_id"))
    if known.deleted_at is not None or not made_by_it:
        text = f"There is, or was, another session {known.session_id}"
        raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"session_id": known.session_id})
    return _session(connection, known.session_id)


def _session(connection: Connection, session_id: str) -> Session:
    row = connection.execute(select(table).where(table.c.session_id == session_id)).one()
    return Session(row, session_rows.names(connection, [session_id])[session_id])


def _etag(row: AnyRow) -> str:
    return etags.of(row.session_id, row.name, row.scope)


def _page_behind(row: AnyRow) -> str:
    return pages.token("sessions", (row.last_used_at - EPOCH) // EPOCH.resolution, row.session_id)
