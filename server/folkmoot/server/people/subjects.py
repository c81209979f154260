"""Whose logins, keys and factors a call is about: the caller's own, or those of a user whom his rules reach."""

from sqlalchemy import Connection, select

from folkmoot.server import access, context
from folkmoot.server.context import Caller
from folkmoot.server.people import reach, rights
from folkmoot.server.store import tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options


def logged_in_caller(what: str) -> Caller:
    """Return the caller; raise NOT_ALLOWED if it shows an API key: `what` takes the person."""
    who = context.caller()
    if who.api_key_id:
        raise access.not_allowed(f"An API key can't {what}: log in")
    return who


def visible(connection: Connection, who: Caller, user_id: str, operation: options.Operation.ValueType) -> str:
    """Return the id of the user whom a call is about, empty: the caller's; raise USER_NOT_FOUND."""
    user_id = user_id or who.user_id
    if reaches(connection, who, user_id, operation):
        return user_id
    text = f"There is no user {user_id}, or not for you: you lack {access.words(options.RESOURCE_USER, operation)}"
    raise FolkmootError(errors_pb2.ERROR_REASON_USER_NOT_FOUND, text)


def reaches(connection: Connection, who: Caller, user_id: str, operation: options.Operation.ValueType) -> bool:
    """Tell whether it is the caller himself, or a user whom his rules reach.

    Raises NOT_ALLOWED for a change to somebody who may do what the caller may not.
    """
    if user_id == who.user_id:
        if who.api_key_id and operation == options.OPERATION_EDIT:
            raise access.not_allowed("An API key can't end logins or keys of the user for whom it acts: log in")
        return True
    found = select(tables.users).where(tables.users.c.user_id == user_id, reach.users(who, operation))
    user = connection.execute(found).one_or_none()
    if user is not None and operation == options.OPERATION_EDIT:
        rights.check_not_above(connection, who, user)
    return user is not None
