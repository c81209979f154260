"""Guesses: wherever somebody shows a password or a code, it goes through here, and what is wrong is counted.

- Five wrong ones in a row lock a user name out where they came from, for longer each time, and a few times as many everywhere: who
  guesses shuts himself out, and not so easily the one whose name it is: where somebody is logged in, wrong ones from elsewhere
  don't keep him from logging in again, and a new password forgives them all. Names that nobody has behave the same in time and answer,
  so that nothing tells which users exist: as many hashes, as many codes, the same rows.
- A wrong code is answered as a wrong password is. What was wrong stands nowhere.
- Check, verification and count happen in one of a few turns, so that no flood of guesses slips in between.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, delete, func, select

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core, try_later
from folkmoot.server.peers import place_of
from folkmoot.server.people.passwords import Passwords
from folkmoot.server.store import login_tables, tables, upserts
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

FAILURES_BEFORE_LOCK_OUT = 5
FAILURES_FROM_ANYWHERE = 25
"""Wrong ones in a row, from several places, that lock a name out everywhere."""
ANYWHERE = ""
"""The place of those that are counted together."""
FIRST_LOCK_OUT = timedelta(minutes=1)
LONGEST_LOCK_OUT = timedelta(minutes=15)
FAILURES_FORGOTTEN_AFTER = timedelta(hours=1)

AnyRow: TypeAlias = Row[Any]


class WrongGuess(Exception):  # noqa: N818 -- it never leaves the turn in which it is raised
    """Raised within a turn: the guess is wrong, whatever it was about."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the name that a guess is about."""

    user: AnyRow | None
    totp: AnyRow | None
    """The second factor's row; one that was not confirmed is there too."""
    _passwords: Passwords

    async def check_password(self, password: str) -> AnyRow:
        """Return the user whose password it is; raise WrongGuess. It takes as long where there is none."""
        is_right = await self._passwords.matches(password, self.user.password_hash if self.user else None)
        if not is_right or self.user is None:
            raise WrongGuess
        return self.user


class Guesses:
    """Turns to show a password or a code."""

    def __init__(self, core: Core, passwords: Passwords) -> None:
        self._core = core
        self._passwords = passwords
        self._strangers = events.Strangers()

    @asynccontextmanager
    async def turn(self, username: str, intent: str = "user.login") -> AsyncIterator[Known]:
        """Wait for a turn, and tell what is known of the name; raise LOCKED_OUT, TOO_MANY.

        A WrongGuess that is raised in it is counted and recorded with the intent, and leaves as LOGIN_FAILED.
        """
        async with self._passwords.slot():
            now = self._core.clock()
            place = _place()
            known, locked_until = await self._core.store.read(
                lambda connection: self._read(connection, username, place)
            )
            if locked_until is not None and now < locked_until:
                raise try_later(errors_pb2.ERROR_REASON_LOCKED_OUT, "Too many wrong passwords", locked_until - now)
            try:
                yield known
            except WrongGuess:
                await self._count(username, known.user, intent)
                raise login_failed() from None

    def _read(self, connection: Connection, username: str, place: str) -> tuple[Known, datetime | None]:
        users, failures, totp = tables.users, tables.login_failures, login_tables.totp
        user = connection.execute(select(users).where(users.c.username == username)).one_or_none()
        user_id = user.user_id if user else ""
        places = [place] if _is_logged_in(connection, user_id, place) else [ANYWHERE, place]
        counted = (failures.c.username == username) & failures.c.place.in_(places)
        locked_until = connection.scalar(select(func.max(failures.c.locked_until)).where(counted))
        factor = connection.execute(select(totp).where(totp.c.user_id == user_id)).one_or_none()
        return Known(user, factor, self._passwords), locked_until

    async def _count(self, username: str, user: AnyRow | None, intent: str) -> None:
        now = self._core.clock()
        # A name that nobody has may be a password in the wrong field: it is counted, not recorded.
        is_recorded = user is not None or self._strangers.may_be_recorded(now)
        who = as_caller(user) if user else context.ANYONE
        counted_at = ((_place(), FAILURES_BEFORE_LOCK_OUT), (ANYWHERE, FAILURES_FROM_ANYWHERE))
        record = events.prepare(intent=intent, caller=who, data={}, now=now, outcome="LOGIN_FAILED")

        def operation(connection: Connection) -> None:
            table = tables.login_failures
            connection.execute(delete(table).where(table.c.last_at < now - FAILURES_FORGOTTEN_AFTER))
            for where, most in counted_at:
                same = (table.c.username == username) & (table.c.place == where)
                failures = (connection.scalar(select(table.c.failures).where(same)) or 0) + 1
                values = {"failures": failures, "locked_until": lock_out_end(failures, now, most), "last_at": now}
                counted = upserts.insert(connection, table).values(username=username, place=where, **values)
                connection.execute(counted.on_conflict_do_update([table.c.username, table.c.place], set_=values))
            if is_recorded:
                record(connection)

        await self._core.store.write(operation)


def lock_out_end(failures: int, now: datetime, most: int = FAILURES_BEFORE_LOCK_OUT) -> datetime | None:
    """Return until when so many failures in a row lock a name out; None while they are fewer than `most`."""
    over = failures - most
    return None if over < 0 else now + min(FIRST_LOCK_OUT * 2 ** min(over, 10), LONGEST_LOCK_OUT)


def _is_logged_in(connection: Connection, user_id: str, place: str) -> bool:
    """Tell whether a user has a login that was made at that place."""
    peers = select(tables.sessions.c.peer).where(tables.sessions.c.user_id == user_id)
    return place in map(place_of, connection.scalars(peers))


def _place() -> str:
    return context.place() or "nowhere"


def as_caller(user: AnyRow) -> Caller:
    """Return the user in a row as the caller of a call that found out who makes it."""
    return Caller(options.CALLER_USER, user_id=user.user_id, organization_account_id=user.organization_account_id)


def login_failed() -> FolkmootError:
    """Return the one answer to whatever is wrong."""
    return FolkmootError(errors_pb2.ERROR_REASON_LOGIN_FAILED, "Unknown user, wrong password, or wrong code.")
