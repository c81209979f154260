"""Mails: handed to the operator's mail server in the background, so that nobody learns from an answer whether one was sent.

What leaves may let its reader in, so it leaves encrypted: over TLS, or after STARTTLS, with the server's certificate checked;
in the open only to a mail server on this machine that asks for no password. What the mail server refuses is logged without
address and text; what it can't take at the moment is tried again for a while. Mails are kept nowhere, since what they say lets in
whoever reads it: what still waits when this server stops is tried once more, and lost if that fails, as the log says.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import localtime, make_msgid
from ssl import SSLCertVerificationError
from urllib.parse import SplitResult, unquote, urlsplit

from folkmoot.server import libraries
from folkmoot.server.background import Background
from folkmoot.server.config import Config
from folkmoot.server.core import Core, try_later
from folkmoot.transport.channel import is_loopback
from folkmoot.transport.timeouts import CALL_SECONDS
from folkmoot.transport.validation import invalid
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

RETRY_SECONDS = (5, 30, 120, 600)
MOST_CONNECTIONS = 4
_PORTS = {"smtp": 587, "smtps": 465}
_FIRST_PERMANENT_CODE = 500


@dataclass(frozen=True, slots=True)
class Letter:
    """A mail to one address."""

    to: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mails are handed over."""

    host: str
    port: int
    user: str
    password: str
    is_tls: bool
    is_open: bool
    """Whether mails go there in the open."""

    async def hand_over(self, message: EmailMessage, to: str) -> None:
        """Hand one mail over; raises OSError and aiosmtplib.SMTPException."""
        import aiosmtplib  # takes as long as a third of the server's start, for what most servers do once a day

        await aiosmtplib.send(
            message,
            recipients=[to],
            hostname=self.host,
            port=self.port,
            username=self.user or None,
            password=self.password or None,
            use_tls=self.is_tls,
            start_tls=not (self.is_tls or self.is_open),
            timeout=CALL_SECONDS,
        )


class Mail:
    """Sends mails."""

    def __init__(self, core: Core, background: Background) -> None:
        self._core = core
        self._from = core.config.mail_from
        self._log = core.log
        self._background = background
        self._server = mail_server(core.config)
        self._connections = asyncio.Semaphore(MOST_CONNECTIONS)

    def check_configured(self) -> None:
        """Raise NOT_CONFIGURED if this server sends no mails, TOO_MANY if too many wait already."""
        if self._server is None:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_NOT_CONFIGURED, "This server sends no mails: ask an administrator to help you"
            )
        if self._background.is_full:
            raise try_later(errors_pb2.ERROR_REASON_TOO_MANY, "Too many mails are on their way", timedelta(minutes=1))

    def post(self, write: Callable[[], Awaitable[Letter | None]]) -> None:
        """Have a letter written, and sent if there is one, while the caller has its answer."""
        self._background.begin(self._post(write), "mail")

    async def _post(self, write: Callable[[], Awaitable[Letter | None]]) -> None:
        letter = await write()
        if letter is None or self._server is None:
            return
        try:
            message = composed(letter, sender=self._from)
        except ValueError as error:
            self._log.error("mail.failed", problem=str(error))
            return
        for pause in (*RETRY_SECONDS, None):
            failure = await self._try(self._server, message, letter.to)
            if failure is None:
                self._log.info("mail.sent", subject=letter.subject)
                return
            if pause is None or failure.is_permanent:
                self._log.error("mail.failed", problem=failure.text)
                return
            if self._core.draining.is_set():
                self._log.error("mail.failed", problem=f"{failure.text}; this server stops and keeps no mails")
                return
            self._log.warning("mail.delayed", problem=failure.text, next_seconds=pause)
            await self._core.pause(pause)

    async def _try(self, server: MailServer, message: EmailMessage, to: str) -> "Failure | None":
        import aiosmtplib

        async with self._connections:
            try:
                await server.hand_over(message, to)
            except (OSError, aiosmtplib.SMTPException) as error:
                return failure_of(error)
        return None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a mail was not taken: no address, no text of the mail."""

    text: str
    is_permanent: bool


def mail_server(config: Config) -> MailServer | None:
    """Return where mails are handed over, None if none are sent; raise INVALID_FIELD for an address that is none."""
    if not config.smtp:
        return None
    libraries.require("aiosmtplib", setting="smtp", extra="server")
    url = _mail_url(config.smtp)
    user, file = unquote(url.username or ""), config.smtp_password_file
    password = file.read_text().strip() if file else unquote(url.password or "")
    return MailServer(
        host=url.hostname or "",
        port=url.port or _PORTS[url.scheme],
        user=user,
        password=password,
        is_tls=url.scheme == "smtps",
        is_open=url.scheme == "smtp" and not user and is_loopback(url.hostname or ""),
    )


def _mail_url(text: str) -> SplitResult:
    with suppress(ValueError):
        url = urlsplit(text)
        if url.scheme in _PORTS and url.hostname and url.port != 0:
            return url
    problem = "is neither smtp://user@host:port nor smtps://user@host:port"  # what it is instead, may tell a password
    raise invalid([("smtp", problem)])


def composed(letter: Letter, *, sender: str) -> EmailMessage:
    """Return a letter as mail servers take it; raises ValueError if the address is none."""
    message = EmailMessage()
    message["From"] = sender
    try:
        message["To"] = Address(addr_spec=letter.to)
    except (ValueError, IndexError, MessageError):
        raise ValueError("that is no mail address") from None
    message["Subject"] = letter.subject
    message["Date"] = localtime()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2].strip("> ") or "localhost")
    message["Auto-Submitted"] = "auto-generated"  # nobody's absence is answered to it
    message.set_content(letter.text)
    return message


def failure_of(error: Exception) -> Failure:
    """Return what to log of an error, and whether the mail server would say the same the next time."""
    import aiosmtplib

    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        error = error.recipients[0]
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return Failure(f"the mail server answers {error.code}", is_permanent=error.code >= _FIRST_PERMANENT_CODE)
    is_permanent = isinstance(error, aiosmtplib.SMTPNotSupported) or isinstance(
        error.__cause__ or error, SSLCertVerificationError
    )
    return Failure(f"{type(error).__name__}: {error}", is_permanent)
