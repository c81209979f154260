"""People with authenticator apps."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyotp

from folkmoot.v1 import auth_service_pb2 as auth
from tests.integration.harness import PASSWORD, Clock, Server, User, bearer


@dataclass
class App:
    """An authenticator app; each code that it shows is a new one: the clock is moved on to the next step."""

    secret: str
    clock: Clock

    def code(self, steps_ahead: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(self.clock() + timedelta(seconds=30 * steps_ahead))

    def next_code(self) -> str:
        self.clock.ahead += timedelta(seconds=30)
        return self.code()


def login(s: Server, username: str, password: str = PASSWORD, code: str = "") -> Any:
    return s.auth.Login(auth.LoginRequest(username=username, password=password, totp_code=code))


def who_am_i(s: Server, user: User) -> Any:
    return s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=user.metadata)


def logged_in(user: User, tokens: auth.Tokens) -> User:
    return User(user.username, user.user_id, user.organization_account_id, tokens)


async def begin(s: Server, user: User, clock: Clock) -> App:
    """Begin to set up a second factor."""
    answer = await s.auth.EnrollTotp(auth.EnrollTotpRequest(password=PASSWORD), metadata=user.metadata)
    return App(answer.secret, clock)


async def enroll(s: Server, user: User, clock: Clock) -> App:
    """Set up a second factor."""
    app = await begin(s, user, clock)
    await s.auth.ConfirmTotp(auth.ConfirmTotpRequest(totp_code=app.code()), metadata=user.metadata)
    return app


def wrong(code: str) -> str:
    """Return a code that is not the one, nor a neighbour's in all likelihood."""
    return f"{(int(code) + 500_000) % 1_000_000:06}"


__all__ = ["App", "bearer", "begin", "enroll", "logged_in", "login", "who_am_i", "wrong"]
