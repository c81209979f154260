"""A login is renewed with its refresh token; only a server that does not take that one any more has ended it."""

from typing import Any

import pytest

from folkmoot.client.logins import refreshed
from folkmoot.transport import RemoteError, Unreachable
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.auth_service_pb2 import RefreshResponse, Tokens

KEPT = Tokens(access_token="old", refresh_token="once")


class Session:
    """A server that answers with an error."""

    auth = type("Auth", (), {"Refresh": None})

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def call_anonymously(self, _method: Any, _request: Any) -> RefreshResponse:
        if self.error is not None:
            raise self.error
        return RefreshResponse(tokens=Tokens(access_token="new"))


async def renewed(error: Exception | None) -> Tokens | None:
    return await refreshed(Session(error), KEPT)  # type: ignore[arg-type]


async def test_a_login_goes_on_silently():
    assert (await renewed(None)) == Tokens(access_token="new")


async def test_a_token_that_was_ended_takes_a_new_login():
    assert await renewed(RemoteError(reasons.ERROR_REASON_TOKEN_INVALID, "it has ended")) is None
    assert await refreshed(Session(None), Tokens(access_token="of an API key")) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error",
    [
        RemoteError(reasons.ERROR_REASON_INTERNAL, "a fault"),
        RemoteError(reasons.ERROR_REASON_TOO_MANY, "too many calls"),
        Unreachable(0, "away"),
    ],
    ids=["fault", "busy", "away"],
)
async def test_a_server_in_trouble_has_ended_no_login(error: Exception):
    with pytest.raises(type(error)):
        await renewed(error)
