"""Who may do what with sessions: a rule reaches one, and who is to see it is among those whom it is for.

| a rule's scope | sessions that it reaches | whom a session of that scope is for |
|---|---|---|
| OWN | that the caller made | who made it |
| ORGANIZATION | that users of his organization made | users of its maker's organization |
| COLLABORATION | of collaborations that his organization is a member of | users of its collaboration's members |
| GLOBAL | all | - |
"""

from sqlalchemy import ColumnElement, Connection, and_, false, or_, select, true

from folkmoot.server import access
from folkmoot.server.context import Caller
from folkmoot.server.store import session_rows
from folkmoot.server.store.session_tables import IS_THERE
from folkmoot.server.store.session_tables import data_sessions as table
from folkmoot.server.store.tables import members
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.transport.validation import invalid
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.errors_pb2 import ErrorReason

SESSION = options.RESOURCE_SESSION
VIEW, CREATE, EDIT, DELETE = (
    options.OPERATION_VIEW,
    options.OPERATION_CREATE,
    options.OPERATION_EDIT,
    options.OPERATION_DELETE,
)
FOR_WHOM = (options.SCOPE_OWN, options.SCOPE_ORGANIZATION, options.SCOPE_COLLABORATION)


def find(
    connection: Connection,
    who: Caller,
    session_id: str,
    operation: options.Operation.ValueType = VIEW,
    *,
    or_deleted: bool = False,
) -> AnyRow:
    """Return a session's row; raise SESSION_NOT_FOUND, and NOT_ALLOWED for one that may be seen and no more."""
    named = table.c.session_id == session_id if or_deleted else and_(table.c.session_id == session_id, IS_THERE)
    row: AnyRow | None = connection.execute(select(table).where(named, _may(who, operation))).one_or_none()
    if row is not None:
        return row
    if operation != VIEW and connection.execute(select(table).where(named, visible(who))).first() is not None:
        raise access.lacking(SESSION, operation)
    raise session_not_found(session_id)


def require_open(connection: Connection, who: Caller, session_id: str, genesis: bytes) -> None:
    """Check that a task may use a session; raise SESSION_NOT_FOUND.

    A subtask uses the session of the task above it, as the signed specs say: there its user was asked for.
    """
    if who.kind != options.CALLER_NODE:
        find(connection, who, session_id)
    if not session_rows.is_there(connection, session_id, genesis):
        raise session_not_found(session_id)


def require_for(connection: Connection, who: Caller, session_id: str) -> None:
    """Raise NOT_ALLOWED unless a session is for this caller: who administers others' opens to nobody what is not his to see."""
    if connection.execute(select(table).where(table.c.session_id == session_id, _is_for(who))).first() is None:
        raise access.not_allowed("The session is not for you: only those whom it is for let others see and use it")


def visible(who: Caller) -> ColumnElement[bool]:
    """Meet the sessions that somebody may see: his rules reach them, and they are for him."""
    return and_(_reached(who, VIEW), _is_for(who))


def _may(who: Caller, operation: options.Operation.ValueType) -> ColumnElement[bool]:
    return visible(who) if operation == VIEW else _reached(who, operation)


def _reached(who: Caller, operation: options.Operation.ValueType) -> ColumnElement[bool]:
    match access.scope(who, SESSION, operation):
        case options.SCOPE_GLOBAL:
            return true()
        case options.SCOPE_COLLABORATION:
            return or_(table.c.user_id == who.user_id, _is_of_member(who))
        case options.SCOPE_ORGANIZATION:
            return table.c.organization_account_id == who.organization_account_id
        case options.SCOPE_OWN:
            return table.c.user_id == who.user_id
        case _:
            return false()


def _is_for(who: Caller) -> ColumnElement[bool]:
    of_organization = and_(
        table.c.scope >= int(options.SCOPE_ORGANIZATION),
        table.c.organization_account_id == who.organization_account_id,
    )
    of_collaboration = and_(table.c.scope >= int(options.SCOPE_COLLABORATION), _is_of_member(who))
    return or_(table.c.user_id == who.user_id, of_organization, of_collaboration)


def _is_of_member(who: Caller) -> ColumnElement[bool]:
    return table.c.genesis.in_(select(members.c.genesis).where(members.c.organization_id == who.organization_id))


def check_for_whom(who: Caller, scope: options.Scope.ValueType, operation: options.Operation.ValueType) -> None:
    """Check that a session is for no more people than its maker's rule reaches."""
    if scope not in FOR_WHOM:
        raise invalid([("scope", "must be SCOPE_OWN, SCOPE_ORGANIZATION or SCOPE_COLLABORATION")])
    reach = access.scope(who, SESSION, operation)
    if reach is None or reach < scope:
        raise access.lacking(SESSION, operation)


def session_not_found(session_id: str) -> FolkmootError:
    """Return the error of a session that is not there, or not for this caller."""
    text = f"There is no session {session_id}"
    return FolkmootError(ErrorReason.ERROR_REASON_SESSION_NOT_FOUND, text, metadata={"session_id": session_id})
