"""Every setting of the server, in one table.

The fields of `Config` are the settings: command line options, environment variables (FOLKMOOT_SERVER_<NAME>), keys of
the settings file and documentation derive from them, so none of these can drift. `settings` says which of them wins.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints
from urllib.parse import urlsplit

from folkmoot.transport.channel import is_loopback
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

ENVIRONMENT_PREFIX = "FOLKMOOT_SERVER_"
WAKERS = ("", "local", "postgres")
BROKERS = ("amqp://", "amqps://")
LOG_LEVELS = ("debug", "info", "warning", "error")
CHOICES = {"totp": ("optional", "required"), "registration": ("closed", "open")}
_HIGHEST_PORT = 65535


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one server."""

    data: Annotated[Path, "Folder of database, payloads, keys and certificates."] = Path("folkmoot-server")
    database: Annotated[
        str,
        "PostgreSQL, as postgresql://user@host/name, which several servers may share; empty: SQLite in the data folder.",
    ] = ""
    waker: Annotated[
        str,
        "What tells other servers on the database that something has changed: postgres, amqp://user@host, or local for none;"
        " empty: postgres with PostgreSQL, else local.",
    ] = ""
    payloads: Annotated[
        str,
        "Where large payloads rest: file:///folder, s3://bucket/prefix, gs:// or az://; empty: a folder in the data folder.",
    ] = ""
    listen: Annotated[str, "Address to listen on, host:port; port 0 takes a free one."] = "127.0.0.1:7443"
    insecure: Annotated[bool, "Without TLS; only on a loopback address."] = False
    certificate_names: Annotated[str, "More names and addresses for the server's certificate, with commas."] = ""
    reflection: Annotated[bool, "Let tools such as grpcurl read the contract from the server."] = True
    log_level: Annotated[str, f"What goes to the log: {', '.join(LOG_LEVELS)}."] = "info"
    access_token_minutes: Annotated[int, "How long an access token is good."] = 15
    refresh_token_days: Annotated[int, "How long a session lasts without being used."] = 30
    totp: Annotated[
        str,
        "Whether users need a second factor, an authenticator app: optional, or required (it is set up at the next login).",
    ] = "optional"
    registration: Annotated[str, "Whether organizations make their accounts themselves: closed or open."] = "closed"
    public_url: Annotated[str, "What people call this server, for mails and authenticator apps: https://host:port."] = (
        ""
    )
    smtp: Annotated[
        str,
        "Mail server for lost passwords and second factors: smtp://user@host:587 (with STARTTLS) or smtps://user@host;"
        " empty: no mails.",
    ] = ""
    smtp_password_file: Annotated[Path | None, "File with the password of smtp's user."] = None
    mail_from: Annotated[str, "The sender of mails."] = ""
    oidc_issuer: Annotated[
        str, "OpenID Connect provider at which people log in, by its issuer's https address; empty: none."
    ] = ""
    oidc_client_id: Annotated[str, "This server's name at the provider."] = ""
    oidc_client_secret_file: Annotated[
        Path | None, "File with this server's secret at the provider, if it has one."
    ] = None
    oidc_redirect_uris: Annotated[
        str, "Where the provider may send browsers back to besides loopback addresses, with commas."
    ] = ""
    oidc_new_users: Annotated[
        str,
        "Name of the organization's account in which people are made users, without a role, when they first come from the"
        " provider and nobody has their mail address; empty: only users who are there log in.",
    ] = ""
    open_join_requests: Annotated[int, "Most open join requests of one organization's account."] = 10
    reassign_after_minutes: Annotated[
        int, "How long a node may be away before its runs go to another node, where their tasks allow another attempt."
    ] = 15
    retention_input_days: Annotated[int, "How long inputs of tasks that have ended are kept; 0: for ever."] = 0
    retention_result_days: Annotated[
        int, "How long results and failures of tasks that have ended are kept; 0: for ever."
    ] = 0
    retention_log_days: Annotated[int, "How long logs and progress of tasks that have ended are kept; 0: for ever."] = 0
    quota_gib: Annotated[float, "Most GiB of payloads that one organization may have here; 0: any."] = 0.0
    calls_per_second: Annotated[float, "Most calls a second of one user, node or unknown address; 0: any."] = 1000.0
    call_burst: Annotated[int, "How many calls one of them may make at once, after a while of silence."] = 10_000
    streams_per_caller: Annotated[int, "Most streams that one of them may have open; 0: any."] = 1000
    max_connection_age_minutes: Annotated[
        float, "When nodes and clients are asked to connect again, so that they spread over the instances; 0: never."
    ] = 0.0
    metrics_listen: Annotated[
        str, "Where Prometheus reads metrics, host:port, without TLS or password: a loopback address; empty: nowhere."
    ] = ""
    traces: Annotated[
        str, "Where traces go by OpenTelemetry's protocol, http://host:4317 or https://; empty: nowhere."
    ] = ""
    drain_seconds: Annotated[float, "How long calls in flight may take to end when the server stops."] = 10.0

    def __post_init__(self) -> None:
        host_and_port(self.listen, setting="listen")
        if self.metrics_listen:
            host_and_port(self.metrics_listen, setting="metrics_listen")
        if self.insecure and not is_loopback(self.host):
            raise _invalid(
                "insecure",
                f"without TLS everybody on the way reads passwords and tokens, so it is refused on {self.host}:"
                " listen on 127.0.0.1, or leave 'insecure' out",
            )
        if self.waker not in WAKERS and not self.waker.startswith(BROKERS):
            raise _invalid("waker", f"it is none of {', '.join(filter(None, WAKERS))} and amqp://user@host")
        if self.waker == "postgres" and not self.database:
            raise _invalid("waker", "postgres needs PostgreSQL: say which by the setting database")
        if self.log_level not in LOG_LEVELS:
            raise _invalid("log_level", f"'{self.log_level}' is none of {', '.join(LOG_LEVELS)}")
        for name in ("retention_input_days", "retention_result_days", "retention_log_days", "quota_gib"):
            if getattr(self, name) < 0:
                raise _invalid(name, f"{getattr(self, name)} is less than nothing; 0 sets no limit")
        self._check_logins()

    def _check_logins(self) -> None:
        """Refuse what would fail only when somebody is in need of it."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise _invalid(name, f"'{getattr(self, name)}' is none of {', '.join(choices)}")
        if self.smtp and not (self.mail_from and self.public_url):
            raise _invalid("smtp", "mails need mail_from, their sender, and public_url, the server that they speak of")
        if self.oidc_issuer and not self.oidc_client_id:
            raise _invalid("oidc_issuer", "the provider needs oidc_client_id, this server's name at it")
        issuer = urlsplit(self.oidc_issuer)
        is_safe = issuer.scheme == "https" or (issuer.scheme == "http" and is_loopback(issuer.hostname or ""))
        if self.oidc_issuer and not is_safe:
            raise _invalid("oidc_issuer", f"'{self.oidc_issuer}' is no https address")

    @property
    def totp_is_required(self) -> bool:
        """Whether every user who logs in with a password needs a second factor."""
        return self.totp == "required"

    @property
    def host(self) -> str:
        """The address to listen on, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")


def host_and_port(address: str, *, setting: str = "listen") -> tuple[str, int]:
    """Return both parts of an address to listen on; raise INVALID_FIELD."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise _invalid(setting, f"'{address}' is not host:port")
    return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Setting:
    """A line of the table: one field of Config."""

    name: str
    type: type
    default: Any
    help: str

    @property
    def option(self) -> str:
        """The command line option that sets it."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.upper()


def _settings() -> tuple[Setting, ...]:
    hints = get_type_hints(Config, include_extras=True)
    return tuple(
        Setting(each.name, _kind(hints[each.name].__origin__), each.default, hints[each.name].__metadata__[0])
        for each in fields(Config)
    )


def _kind(annotation: Any) -> type:
    """Return the type of a setting; of one that may be missing, the type that it has otherwise."""
    [kind] = set(get_args(annotation) or (annotation,)) - {NoneType}
    return kind  # type: ignore[no-any-return]


SETTINGS = _settings()


def _invalid(field: str, text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((field, text),))
