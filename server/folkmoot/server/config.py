"""Every setting of the server, in one table.

The fields of `Config` are the settings: command line options, environment variables (FOLKMOOT_SERVER_<NAME>), keys of
the settings file and documentation derive from them, so none of these can drift. `settings` says which of them wins, `config_rules` which values they may have.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from folkmoot.server import config_rules
from folkmoot.server.config_rules import LOG_LEVELS, Between

ENVIRONMENT_PREFIX = "FOLKMOOT_SERVER_"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one server."""

    data: Annotated[Path, "Folder of database, payloads, keys and certificates."] = Path("folkmoot-server")
    database: Annotated[
        str,
        "PostgreSQL, as postgresql://user@host/name, which several servers may share; empty: SQLite in the data folder.",
    ] = ""
    database_password_file: Annotated[
        Path | None,
        "File with the password of database's user, as it is; in the URL it would have to be percent-encoded.",
    ] = None
    waker: Annotated[
        str,
        "What tells other servers on the database that something has changed: postgres, amqp://user@host, or local for none;"
        " empty: postgres with PostgreSQL, else local.",
    ] = ""
    waker_password_file: Annotated[Path | None, "File with the password of the user in waker's URL, as it is."] = None
    payloads: Annotated[
        str,
        "Where large payloads rest: file:///folder, s3://bucket/prefix, gs:// or az://; empty: a folder in the data folder.",
    ] = ""
    listen: Annotated[str, "Address to listen on, host:port; port 0 takes a free one."] = "127.0.0.1:7443"
    insecure: Annotated[bool, "Without TLS; only on a loopback address."] = False
    certificate_names: Annotated[str, "More names and addresses for the server's certificate, with commas."] = ""
    reflection: Annotated[bool, "Let tools such as grpcurl read the contract from the server."] = True
    log_level: Annotated[str, f"What goes to the log: {', '.join(LOG_LEVELS)}."] = "info"
    access_token_minutes: Annotated[int, "How long an access token is good.", Between(1, 1440)] = 15
    refresh_token_days: Annotated[int, "How long a session lasts without being used.", Between(1, 3650)] = 30
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
    open_join_requests: Annotated[int, "Most open join requests of one organization's account.", Between(0, 10_000)] = (
        10
    )
    reassign_after_minutes: Annotated[
        int,
        "How long a node may be away before its runs go to another node, where their tasks allow another attempt.",
        Between(0, 525_600),
    ] = 15
    retention_input_days: Annotated[
        int, "How long inputs of tasks that have ended are kept; 0: for ever.", Between(0, 36_500)
    ] = 0
    retention_result_days: Annotated[
        int, "How long results and failures of tasks that have ended are kept; 0: for ever.", Between(0, 36_500)
    ] = 0
    retention_log_days: Annotated[
        int, "How long logs and progress of tasks that have ended are kept; 0: for ever.", Between(0, 36_500)
    ] = 0
    quota_gib: Annotated[
        float, "Most GiB of payloads that one organization may have here; 0: any.", Between(0, 1e9)
    ] = 0.0
    calls_per_second: Annotated[
        float, "Most calls a second of one user, node or unknown address; 0: any.", Between(0, 1e6)
    ] = 1000.0
    call_burst: Annotated[
        int, "How many calls one of them may make at once, after a while of silence.", Between(1, 1e9)
    ] = 10_000
    streams_per_caller: Annotated[int, "Most streams that one of them may have open; 0: any.", Between(0, 1e6)] = 1000
    trusted_proxies: Annotated[
        str,
        "Proxies in front of this server that may say where a call comes from (x-forwarded-for), as addresses or networks with"
        " commas; empty: nobody may.",
    ] = ""
    max_connection_age_minutes: Annotated[
        float,
        "When nodes and clients are asked to connect again, so that they spread over the instances; 0: never.",
        Between(0, 525_600),
    ] = 0.0
    metrics_listen: Annotated[
        str, "Where Prometheus reads metrics, host:port, without TLS or password: a loopback address; empty: nowhere."
    ] = ""
    traces: Annotated[
        str, "Where traces go by OpenTelemetry's protocol, http://host:4317 or https://; empty: nowhere."
    ] = ""
    traces_one_in: Annotated[
        int, "Of so many jobs one is traced, the same one at server, nodes and clients; 1: all.", Between(1, 1e9)
    ] = 1
    drain_seconds: Annotated[
        float, "How long calls in flight may take to end when the server stops.", Between(0, 3600)
    ] = 10.0

    def __post_init__(self) -> None:
        config_rules.check(self, RANGES)

    @property
    def totp_is_required(self) -> bool:
        """Whether every user who logs in with a password needs a second factor."""
        return self.totp == "required"

    @property
    def host(self) -> str:
        """The address to listen on, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")


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
RANGES: Mapping[str, Between] = {
    name: hint.__metadata__[1]
    for name, hint in get_type_hints(Config, include_extras=True).items()
    if len(hint.__metadata__) > 1
}
