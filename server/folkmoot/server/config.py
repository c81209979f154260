"""Every setting of the server, in one table.

The fields of `Config` are the settings: command line options, environment variables (FOLKMOOT_SERVER_<NAME>) and
documentation derive from them, so none of these can drift.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from folkmoot.transport.channel import is_loopback
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

ENVIRONMENT_PREFIX = "FOLKMOOT_SERVER_"


def setting(default: Any, text: str) -> Any:  # noqa: ANN401 -- the field's own annotation types it
    """Declare a setting with its default and what it does."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one server."""

    data: Path = setting(Path("folkmoot-server"), "Folder of database, payloads, keys and certificates.")
    listen: str = setting("127.0.0.1:7443", "Address to listen on, host:port; port 0 takes a free one.")
    insecure: bool = setting(default=False, text="Without TLS; only on a loopback address.")
    certificate_names: str = setting("", "More names and addresses for the server's certificate, with commas.")
    reflection: bool = setting(default=True, text="Let tools such as grpcurl read the contract from the server.")
    log_level: str = setting("info", "What goes to the log: debug, info, warning or error.")
    access_token_minutes: int = setting(15, "How long an access token is good.")
    refresh_token_days: int = setting(30, "How long a session lasts without being used.")
    open_join_requests: int = setting(10, "Most open join requests of one organization's account.")
    drain_seconds: float = setting(10.0, "How long calls in flight may take to end when the server stops.")

    def __post_init__(self) -> None:
        host, separator, port = self.listen.rpartition(":")
        if not (separator and host and port.isdigit() and int(port) <= 65535):  # noqa: PLR2004
            raise _invalid("listen", f"'{self.listen}' is not host:port.")
        if self.insecure and not is_loopback(self.host):
            raise _invalid(
                "insecure",
                f"Without TLS everybody on the way reads passwords and tokens, so it is refused on {self.host}."
                " Listen on 127.0.0.1, or leave 'insecure' out.",
            )
        if self.log_level not in LOG_LEVELS:
            raise _invalid("log_level", f"'{self.log_level}' is none of {', '.join(LOG_LEVELS)}.")

    @property
    def host(self) -> str:
        """The address to listen on, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")


LOG_LEVELS = ("debug", "info", "warning", "error")
SETTINGS: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(Config)


def environment_variable(field: dataclasses.Field[Any]) -> str:
    """Return the variable that sets a setting."""
    return ENVIRONMENT_PREFIX + field.name.upper()


def option(field: dataclasses.Field[Any]) -> str:
    """Return the command line option that sets a setting."""
    return "--" + field.name.replace("_", "-")


def _invalid(field: str, text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((field, text),))
