"""Second factors: setting one up, and what its codes are good for.

A secret counts once a code of it was seen. Each code is good once: the step of the last one is remembered, and moved on in
the transaction that the code lets in, so that of two who show the same code one is turned away. The secret is sealed in
the database, told once, and stands in no log and no event.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection, update

from folkmoot.server.audit import events
from folkmoot.server.core import Core
from folkmoot.server.people import subjects, totp
from folkmoot.server.people.guesses import AnyRow, Guesses, Known, WrongGuess
from folkmoot.server.people.sealing import Sealer
from folkmoot.server.store import login_rows, login_tables, upserts
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

_PURPOSE = "totp"
_TOTP = login_tables.totp


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What an authenticator app needs, in three forms."""

    secret: str
    uri: str
    qr_code: bytes


class Codes:
    """Codes of second factors."""

    def __init__(self, core: Core, sealer: Sealer) -> None:
        self._core = core
        self._sealer = sealer
        self._nobodys = totp.new_secret(core.random)

    def matching_step(self, known: Known, code: str) -> int | None:
        """Return the step whose code it is, None if it is wrong or was used; for who has no factor it takes as long."""
        row = known.totp
        secret = self._secret(row) if row else self._nobodys
        step = totp.matching_step(secret, code, self._core.clock())
        return step if step is not None and row is not None and step > row.last_step else None

    def using(self, user_id: str, step: int) -> Callable[[Connection], bool]:
        """Return what uses a code up within a transaction, and tells whether nobody did before."""
        unused = (_TOTP.c.user_id == user_id) & _TOTP.c.confirmed_at.is_not(None) & (_TOTP.c.last_step < step)
        # With a code and the password together, the password is no longer what a mailbox alone has set.
        used = update(_TOTP).where(unused).values(last_step=step, password_is_mailed=False)
        return lambda connection: connection.execute(used).rowcount == 1

    def sealed(self, secret: bytes, user_id: str) -> bytes:
        """Return a secret as a row keeps it."""
        return self._sealer.seal(secret, purpose=_PURPOSE, owner=user_id)

    def _secret(self, row: AnyRow) -> bytes:
        """Return the secret in a row; one that nobody knows if the key is gone with which it was sealed."""
        try:
            return self._sealer.open(row.sealed_secret, purpose=_PURPOSE, owner=row.user_id)
        except InvalidTag:
            # No error of its own: it would tell who asks, whoever that is, that there is such a user with a factor.
            self._core.log.critical(
                "totp.unreadable", user_id=row.user_id, help="restore keys/token.pem, or remove the factor"
            )
            return self._nobodys


class SecondFactors:
    """Sets second factors up."""

    def __init__(self, core: Core, guesses: Guesses, codes: Codes, forget: Callable[[], None]) -> None:
        self._core = core
        self._guesses = guesses
        self._codes = codes
        self._forget = forget

    async def enroll(self, password: str) -> Enrollment:
        """Begin to set one up for the caller; raise LOGIN_FAILED, LOCKED_OUT, TOTP_ALREADY_SET, NOT_ALLOWED."""
        who = subjects.logged_in_caller("set up a second factor")
        async with self._guesses.turn(who.username, "user.begin_totp") as known:
            user = await known.check_password(password)
        now, secret = self._core.clock(), totp.new_secret(self._core.random)
        values = {"sealed_secret": self._codes.sealed(secret, user.user_id), "created_at": now}
        record = events.prepare(intent="user.begin_totp", data={"user_id": user.user_id}, now=now)

        def operation(connection: Connection) -> None:
            begun = upserts.insert(connection, _TOTP).values(user_id=user.user_id, **values)
            is_open = _TOTP.c.confirmed_at.is_(None)
            begun = begun.on_conflict_do_update([_TOTP.c.user_id], set_=values, where=is_open)
            if not connection.execute(begun.returning(_TOTP.c.user_id)).all():
                raise _already_set()
            record(connection)

        await self._core.store.write(operation)
        text = totp.uri(secret, username=who.username, issuer=_issuer(self._core.config.public_url))
        return Enrollment(totp.in_base32(secret), text, totp.qr_code(text))

    async def confirm(self, code: str) -> None:
        """Finish it; the caller's other sessions end. Raises LOGIN_FAILED, LOCKED_OUT, TOTP_ALREADY_SET, NOT_ALLOWED."""
        who = subjects.logged_in_caller("set up a second factor")
        async with self._guesses.turn(who.username, "user.enroll_totp") as known:
            begun = known.totp
            if begun is None:
                text = "No second factor was begun for you: call EnrollTotp first"
                raise FolkmootError(errors_pb2.ERROR_REASON_NOT_ALLOWED, text)
            if begun.confirmed_at is not None:
                raise _already_set()
            step = self._codes.matching_step(known, code)
            if step is None:
                raise WrongGuess
        now = self._core.clock()
        record = events.prepare(intent="user.enroll_totp", data={"user_id": who.user_id}, now=now)
        # The very secret whose code was seen: another one may have been begun meanwhile.
        same = (_TOTP.c.user_id == who.user_id) & (_TOTP.c.sealed_secret == begun.sealed_secret)
        confirmed = update(_TOTP).where(same, _TOTP.c.confirmed_at.is_(None)).values(confirmed_at=now, last_step=step)

        def operation(connection: Connection) -> None:
            if connection.execute(confirmed).rowcount != 1:
                raise _already_set()
            login_rows.end_sessions(connection, who.user_id, but=who.session_id)
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())


def counts(row: AnyRow | None) -> bool:
    """Tell whether a row is a second factor that Login asks for."""
    return row is not None and row.confirmed_at is not None


def code_required() -> FolkmootError:
    """Return the answer to a right password without a code."""
    return FolkmootError(
        errors_pb2.ERROR_REASON_TOTP_REQUIRED, "Your account has a second factor: give its present code"
    )


def _already_set() -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_TOTP_ALREADY_SET, "You have a second factor")


def _issuer(public_url: str) -> str:
    return urlsplit(public_url).hostname or "Folkmoot"
