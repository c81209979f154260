"""What a server says of itself, to anybody."""

from dataclasses import dataclass
from datetime import datetime

from folkmoot.client.names import moment
from folkmoot.client.session import Session
from folkmoot.v1.admin_service_pb2 import GetServerInfoRequest, LoginMethod


@dataclass(frozen=True)
class ServerInfo:
    """A server, in its own words."""

    version: str
    time: datetime
    """Its clock."""
    login_methods: tuple[str, ...]
    """password, code (in a browser), device (on another device)."""
    registration_is_open: bool
    """Whether organizations may register themselves."""
    totp_is_required: bool
    """Whether every user needs a second factor."""
    max_payload_bytes: int


async def server_info(session: Session) -> ServerInfo:
    """Ask a server what it is; needs no login."""
    answer = await session.call_anonymously(session.admin.GetServerInfo, GetServerInfoRequest())
    return ServerInfo(
        version=answer.version,
        time=moment(answer.time),
        login_methods=tuple(
            LoginMethod.Name(one).removeprefix("LOGIN_METHOD_").lower()
            for one in answer.login_methods
            if one in LoginMethod.values()
        ),
        registration_is_open=answer.registration_is_open,
        totp_is_required=answer.totp_is_required,
        max_payload_bytes=answer.max_payload_bytes,
    )
