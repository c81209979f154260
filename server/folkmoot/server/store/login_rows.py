"""What several parts do to logins within a transaction of their own."""

from sqlalchemy import Connection, delete

from folkmoot.server.store import tables


def end_sessions(connection: Connection, user_id: str, *, but: str) -> None:
    """End the sessions of a user, but for the one with that id."""
    sessions = tables.sessions
    connection.execute(delete(sessions).where(sessions.c.user_id == user_id, sessions.c.session_id != but))


def forgive(connection: Connection, username: str, place: str) -> None:
    """Forget the wrong guesses about a name, but for those from elsewhere: somebody at that place has shown all that it takes."""
    failures = tables.login_failures
    connection.execute(delete(failures).where(failures.c.username == username, failures.c.place.in_(["", place])))


def forgive_all(connection: Connection, username: str) -> None:
    """Forget the wrong guesses about a name from wherever: they were about a password that it has no more."""
    failures = tables.login_failures
    connection.execute(delete(failures).where(failures.c.username == username))
