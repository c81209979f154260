"""Channels to a server, and the options that both ends of a connection need."""

import ipaddress
import ssl
from dataclasses import dataclass
from importlib.metadata import version

import grpc
import grpc.aio

from folkmoot.transport import keepalive, timeouts
from folkmoot.transport.limits import MESSAGE_BYTES
from folkmoot.trust.encoding import digest
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

TOKEN_METADATA_KEY = "authorization"  # noqa: S105 - a name, not a token
"""Metadata key of the token: `Bearer TOKEN`."""

_SIZES = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
)

CHANNEL_OPTIONS: keepalive.Options = (
    *keepalive.CLIENT,
    *_SIZES,
    # What a list of logins calls this program.
    ("grpc.primary_user_agent", f"folkmoot/{version('folkmoot')}"),
    ("grpc.initial_reconnect_backoff_ms", int(timeouts.RECONNECT_SECONDS * 1000 / 50)),
    ("grpc.max_reconnect_backoff_ms", int(timeouts.RECONNECT_SECONDS * 1000)),
    # Despite its name, how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", int(timeouts.RECONNECT_SECONDS * 1000)),
)
"""Options of every channel that Folkmoot opens to a server."""

SERVER_OPTIONS: keepalive.Options = (
    *keepalive.SERVER,
    *_SIZES,
    ("grpc.so_reuseport", 0),
)
"""Options of every server that Folkmoot starts on TCP. Without `so_reuseport` a second server on the same port fails at once."""


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is and who vouches for it.

    `certificate_authority` is PEM; None means the machine's own authorities. `insecure` means no TLS, and is refused unless the
    server is on this machine.
    """

    target: str
    certificate_authority: bytes | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        host, separator, port = self.target.rpartition(":")
        if not separator or not host or not port.isdigit():
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD, f"{self.target!r} is no server address: write host:port"
            )
        if self.insecure and not is_loopback(host):
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD,
                f"without TLS only a server on this machine can be used, and {host} is not: remove 'insecure'",
            )

    @property
    def authority_digest(self) -> bytes:
        """SHA-256 of the certificate that vouches for the server, as authentications name it; empty without one."""
        if self.certificate_authority is None:
            return b""
        return digest(ssl.PEM_cert_to_DER_cert(self.certificate_authority.decode()))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def open_channel(address: ServerAddress) -> grpc.aio.Channel:
    """A channel to the server; it connects by itself, again and again."""
    if address.insecure:
        return grpc.aio.insecure_channel(address.target, options=CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(root_certificates=address.certificate_authority)
    return grpc.aio.secure_channel(address.target, credentials, options=CHANNEL_OPTIONS)
