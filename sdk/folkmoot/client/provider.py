"""Logging in at the server's identity provider (OpenID Connect), in a browser on this machine or on another device.

The server talks to the provider and checks what it says; this end only brings a person there. In a browser: RFC 8252, the browser comes
back to a port of this machine's loopback interface. On another device: RFC 8628, for machines without a browser.
"""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from urllib.parse import parse_qs, urlsplit

from folkmoot.client.logins import refreshed
from folkmoot.client.names import moment, printable
from folkmoot.client.session import Session
from folkmoot.transport import RemoteError
from folkmoot.trust import FolkmootError
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import Tokens

PATIENCE_SECONDS = 300.0
"""How long a person may take in the browser."""

_LONGEST_REQUEST_LINE = 8192
_PATH = "/callback"
"""What providers know this program by: http://127.0.0.1/callback, on whatever port is free."""
_DONE = "You are logged in. You can close this window."
_NOT_DONE = "This did not log you in. Go back to where you began, and try again."


def show_address(address: str) -> None:
    """Open a browser, and print the address for those whose browser did not open."""
    import webbrowser

    print(f"Log in here: {printable(address)}", file=sys.stderr)  # noqa: T201 - a person has to see it
    webbrowser.open(address)


@dataclass(frozen=True)
class CodeLogin:
    """A login in a browser on this machine. `show` brings the person to an address."""

    show: Callable[[str], None] = show_address

    async def tokens(self, session: Session, /, *, refused: Tokens | None) -> Tokens:
        """Renew the login, or begin one. Raises NOT_CONFIGURED, PROVIDER_UNREACHABLE, LOGIN_FAILED."""
        return await refreshed(session, refused) or await self._login(session)

    async def _login(self, session: Session) -> Tokens:
        browser = _Browser()
        server = await asyncio.start_server(browser.answer, "127.0.0.1", 0, limit=_LONGEST_REQUEST_LINE)
        async with server:
            port = server.sockets[0].getsockname()[1]
            request = auth.StartCodeLoginRequest(redirect_uri=f"http://127.0.0.1:{port}{_PATH}")
            began = await session.call_anonymously(session.auth.StartCodeLogin, request)
            browser.state = began.state
            await asyncio.to_thread(self.show, began.authorization_uri)
            answer = await browser.back()
        if "code" not in answer:
            told = answer.get("error_description") or answer.get("error") or "nothing"
            raise _failed(f"the provider says: {printable(told)}")
        finish = auth.FinishCodeLoginRequest(code_login_id=began.code_login_id, state=began.state, code=answer["code"])
        return (await session.call_anonymously(session.auth.FinishCodeLogin, finish)).tokens


@dataclass(frozen=True)
class DeviceCode:
    """What a person needs to log in on another device."""

    address: str
    """Where to go."""
    address_with_code: str
    """The same with the code in it; empty if the provider has none."""
    code: str
    """What to type there."""
    expires_at: datetime


def show_device_code(code: DeviceCode) -> None:
    """Print where to go and what to type."""
    text = (
        f"On any device, open {printable(code.address)} and type {printable(code.code)}"
        " (and never a code that somebody else sends you: it logs him in as you)"
    )
    print(text, file=sys.stderr)  # noqa: T201 - a person has to see it


@dataclass(frozen=True)
class DeviceLogin:
    """A login on another device. `show` tells the person where to go and what to type."""

    show: Callable[[DeviceCode], None] = show_device_code

    async def tokens(self, session: Session, /, *, refused: Tokens | None) -> Tokens:
        """Renew the login, or begin one. Raises NOT_CONFIGURED, PROVIDER_UNREACHABLE, LOGIN_FAILED."""
        return await refreshed(session, refused) or await self._login(session)

    async def _login(self, session: Session) -> Tokens:
        began = await session.call_anonymously(session.auth.StartDeviceLogin, auth.StartDeviceLoginRequest())
        self.show(
            DeviceCode(
                began.verification_uri, began.verification_uri_complete, began.user_code, moment(began.expires_at)
            )
        )
        request = auth.FinishDeviceLoginRequest(device_login_id=began.device_login_id)
        while True:
            try:
                return (await session.call_anonymously(session.auth.FinishDeviceLogin, request)).tokens
            except RemoteError as error:
                if error.reason != errors_pb2.ERROR_REASON_LOGIN_PENDING:
                    raise
                await asyncio.sleep(max(error.retry_after_seconds or 0, began.interval_seconds, 1))


class _Browser:
    """The browser that comes back from the provider: the first request with this login's state. All others are told nothing."""

    def __init__(self) -> None:
        self.state = ""
        self._back: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

    async def back(self) -> dict[str, str]:
        """What the provider has sent it back with. Raises LOGIN_FAILED when nobody came."""
        try:
            return await asyncio.wait_for(self._back, PATIENCE_SECONDS)
        except TimeoutError:
            raise _failed(f"nobody has logged in within {PATIENCE_SECONDS / 60:.0f} minutes") from None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a request of the loopback interface, whoever makes it."""
        try:
            told = _query((await reader.readline()).decode("ascii", "replace"))
            is_it = bool(self.state) and compare_digest(told.get("state", "").encode(), self.state.encode())
            text = _DONE if is_it and "code" in told else _NOT_DONE
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            writer.write((head + text).encode())
            await writer.drain()
            if is_it and not self._back.done():
                self._back.set_result(told)
        except (ValueError, ConnectionError):
            pass  # A line that is too long, or nobody who listens: no browser that comes from the provider.
        finally:
            writer.close()


def _query(request_line: str) -> dict[str, str]:
    """The parameters of a GET request."""
    match request_line.split():
        case ["GET", target, _]:
            return {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        case _:
            return {}


def _failed(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_LOGIN_FAILED, text)
