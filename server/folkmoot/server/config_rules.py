"""What values settings may have: what would fail only in the night, or only when somebody is in need of it, is refused here.

Every refusal names its setting and what to write instead, and repeats no URL that may hold a password. Whether what is
named answers, `folkmoot server check` finds out (`check`); here nothing is opened, nothing asked.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parseaddr
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from folkmoot.server.peers import networks
from folkmoot.transport.channel import is_loopback
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

if TYPE_CHECKING:
    from folkmoot.server.config import Config

WAKERS = ("", "local", "postgres")
BROKERS = ("amqp://", "amqps://")
LOG_LEVELS = ("debug", "info", "warning", "error")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "log_level": LOG_LEVELS,
    "totp": ("optional", "required"),
    "registration": ("closed", "open"),
}
_HIGHEST_PORT = 65535
_ENCODED = (
    "in a password write @ as %40, : as %3A, / as %2F, % as %25, or name a file that holds it as it is by"
    " database_password_file or waker_password_file"
)
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*", re.IGNORECASE)


@dataclass(frozen=True)
class Between:
    """The least and the most that a number may be; it stands beside the setting's help."""

    least: float
    most: float

    def __str__(self) -> str:
        """Return both, as people read it."""
        return f"{self.least:,.0f} to {self.most:,.0f}"


def check(config: "Config", ranges: Mapping[str, Between]) -> None:
    """Raise INVALID_FIELD for the first setting that has a value with which no server works."""
    for name, range_ in ranges.items():
        value = getattr(config, name)
        if not (math.isfinite(value) and range_.least <= value <= range_.most):
            raise wrong(name, f"{value} is not possible: write a number from {range_}")
    for name, choices in CHOICES.items():
        if getattr(config, name) not in choices:
            raise wrong(name, f"'{getattr(config, name)}' is none of {', '.join(choices)}")
    for rule in _RULES:
        rule(config)


def host_and_port(address: str, *, setting: str = "listen") -> tuple[str, int]:
    """Return both parts of an address to listen on; raise INVALID_FIELD."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise wrong(setting, f"'{address}' is not host:port, such as 127.0.0.1:7443")
    return host.strip("[]"), int(port)


def wrong(name: str, text: str) -> FolkmootError:
    """Return the error of a setting, which its message names."""
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"{name}: {text}", violations=((name, text),))


def _listening(config: "Config") -> None:
    host_and_port(config.listen)
    if config.metrics_listen:
        host_and_port(config.metrics_listen, setting="metrics_listen")
    if config.insecure and not is_loopback(config.host):
        raise wrong(
            "insecure",
            f"without TLS everybody on the way reads passwords and tokens, so it is refused on {config.host}:"
            " listen on 127.0.0.1, or leave 'insecure' out",
        )
    for name in filter(None, map(str.strip, config.certificate_names.split(","))):
        if not (_NAME.fullmatch(name) or _is_address(name)):
            raise wrong("certificate_names", f"'{name}' is no name or address: write hub.example.org, 192.0.2.7")


def _proxies(config: "Config") -> None:
    try:
        networks(config.trusted_proxies)
    except ValueError as error:
        raise wrong("trusted_proxies", f"{error}: write addresses or networks, 10.0.0.7, 2001:db8::/64") from error


def _database(config: "Config") -> None:
    if config.database and _authority(config.database).count("@") > 1:
        raise wrong("database", f"its password has an @ in it: {_ENCODED}")


def _waker(config: "Config") -> None:
    if config.waker.startswith(BROKERS) and ("@" in _url(config.waker).path or _authority(config.waker).count("@") > 1):
        raise wrong("waker", f"its password can't be told from the rest: {_ENCODED}")
    if config.waker not in WAKERS and not (config.waker.startswith(BROKERS) and _url(config.waker).hostname):
        raise wrong("waker", f"it is none of {', '.join(filter(None, WAKERS))} and amqp://user@host; {_ENCODED}")
    if config.waker == "postgres" and not config.database:
        raise wrong("waker", "postgres needs PostgreSQL: say which by the setting database")


def _addresses(config: "Config") -> None:
    for name in ("public_url", "traces"):
        value = getattr(config, name)
        if value and not _is_web(_url(value)):
            raise wrong(name, f"'{value}' is no https://host:port")
    for value in filter(None, map(str.strip, config.oidc_redirect_uris.split(","))):
        if not urlsplit(value).scheme:
            raise wrong("oidc_redirect_uris", f"'{value}' is no address such as https://portal.example.org/back")


def _mail(config: "Config") -> None:
    if not config.smtp:
        return
    url = _url(config.smtp)
    if url.scheme not in ("smtp", "smtps") or not url.hostname:
        raise wrong("smtp", "it is neither smtp://user@host:587 nor smtps://user@host")
    if not (config.mail_from and config.public_url):
        raise wrong("smtp", "mails need mail_from, their sender, and public_url, the server that they speak of")
    if "@" not in parseaddr(config.mail_from)[1]:
        raise wrong("mail_from", f"'{config.mail_from}' is no mail address: write hub@example.org")


def _provider(config: "Config") -> None:
    if not config.oidc_issuer:
        return
    if not config.oidc_client_id:
        raise wrong("oidc_issuer", "the provider needs oidc_client_id, this server's name at it")
    issuer = _url(config.oidc_issuer)
    if not (_is_web(issuer) and (issuer.scheme == "https" or is_loopback(issuer.hostname or ""))):
        raise wrong("oidc_issuer", f"'{config.oidc_issuer}' is no https address")


_RULES: tuple[Callable[[Any], None], ...] = (_listening, _proxies, _database, _waker, _addresses, _mail, _provider)


def _url(text: str) -> SplitResult:
    """Return the parts of a URL, none of one whose host or port is none."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 -- raises for one that is none
    except ValueError:
        return urlsplit("")
    return parts


def _authority(text: str) -> str:
    """Return user, password and host of a URL, also of one whose password breaks it."""
    return text.partition("://")[2].partition("?")[0]


def _is_web(parts: SplitResult) -> bool:
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
