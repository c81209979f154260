"""What the doctor asks about the server: can it be reached, who vouches for it on this line, what does its clock say."""

import asyncio
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import grpc
from cryptography import x509

from folkmoot.node.doctor.findings import Finding, wrong
from folkmoot.transport import ServerAddress, error_from_rpc, timeouts
from folkmoot.transport.channel import open_channel
from folkmoot.trust import FolkmootError
from folkmoot.v1.admin_service_pb2 import GetServerInfoRequest, GetServerInfoResponse
from folkmoot.v1.admin_service_pb2_grpc import AdminServiceStub

PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
SPARED_VARIABLES = ("no_grpc_proxy", "no_proxy")
"""Where gRPC looks for a proxy, and for hosts that it goes to without one, in its order."""

MOST_CLOCK_DIFFERENCE = timedelta(minutes=1)


def proxy_of(target: str) -> str:
    """The proxy that gRPC goes through to a server, by the environment; empty if it goes by itself."""
    host = target.rpartition(":")[0]
    spared = _first_of(SPARED_VARIABLES).split(",")
    if any(host.endswith(each.strip()) for each in spared if each.strip()):
        return ""
    return _first_of(PROXY_VARIABLES)


def _first_of(variables: Sequence[str]) -> str:
    return next((value for name in variables if (value := os.environ.get(name))), "")


def reachable(address: Callable[[], ServerAddress]) -> Iterator[Finding]:
    """A connection gets there, by itself or through the proxy that the environment names."""
    target = address().target
    proxy = proxy_of(target)
    through = f", through the proxy {_without_password(proxy)}" if proxy else ""
    try:
        with _connect(target, proxy):
            pass
    except OSError as error:
        mend = "check the address, the firewall (one outgoing TCP connection is all a node needs), and https_proxy and no_proxy"
        yield wrong("server", f"{target} can't be reached{through}: {error}", mend)
    else:
        yield Finding("server", f"{target} is reached{through}")


def certificate(address: Callable[[], ServerAddress]) -> Iterator[Finding]:
    """The server's certificate is vouched for by whom node.toml says, and nobody on the line presents another one."""
    server = address()
    if server.insecure:
        yield Finding("certificate", "none: insecure = true, on this machine alone")
        return
    host = server.target.rpartition(":")[0].strip("[]")
    pinned = None if server.certificate_authority is None else server.certificate_authority.decode()
    try:
        _handshake(server.target, host, ssl.create_default_context(cadata=pinned))
    except ssl.SSLCertVerificationError as error:
        presented = _presented(server.target, host)
        mend = (
            "if that issuer is your organization's firewall, a proxy opens TLS on the way: have it let this address pass untouched. "
            "Else compare certificate_authority in node.toml with what the server's operator says"
        )
        yield wrong("certificate", f"{error.verify_message}: the certificate that comes is {presented}", mend)
    except (OSError, ValueError) as error:
        yield wrong("certificate", f"TLS with {server.target} fails: {error}", "check that a Folkmoot server is there")
    else:
        yield Finding("certificate", f"{host} is who certificate_authority vouches for")


def clock(address: Callable[[], ServerAddress]) -> Iterator[Finding]:
    """This machine's clock and the server's agree."""
    try:
        info = asyncio.run(_server_info(address()))
    except FolkmootError as error:
        yield wrong("clock", f"the server's is not known: {error.message}", "mend the connection first")
        return
    difference = abs(datetime.now(UTC) - info.time.ToDatetime(UTC))
    if difference > MOST_CLOCK_DIFFERENCE:
        text = f"this machine's and the server's differ by {difference.total_seconds():,.0f} seconds"
        yield wrong(
            "clock", text, "keep both with NTP (`timedatectl`): tasks expire, and entries are refused, by the clock"
        )
    else:
        yield Finding("clock", f"agrees with the server's, of release {info.version}")


async def _server_info(address: ServerAddress) -> GetServerInfoResponse:
    async with open_channel(address) as channel:
        try:
            call = AdminServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=timeouts.CALL_SECONDS)
            answer: GetServerInfoResponse = await call
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, server=address.target) from None
        return answer


def _without_password(proxy: str) -> str:
    """A proxy's address as it may be told."""
    parts = urlsplit(proxy)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _connect(target: str, proxy: str) -> socket.socket:
    host, _, port = (urlsplit(proxy).netloc.rpartition("@")[2] if proxy else target).rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=timeouts.CALL_SECONDS)
    if proxy:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = connection.recv(4096)
        if b" 200" not in answer.partition(b"\r\n")[0]:
            connection.close()
            raise ConnectionRefusedError(
                f"the proxy answers {answer.partition(bytes((13, 10)))[0].decode(errors='replace')}"
            )
    return connection


def _handshake(target: str, host: str, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    with (
        _connect(target, proxy_of(target)) as connection,
        context.wrap_socket(connection, server_hostname=host) as secured,
    ):
        return secured.getpeercert(binary_form=True) or b""


def _presented(target: str, host: str) -> str:
    """Whose certificate comes, and who signed it; looked at, never trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        found = x509.load_der_x509_certificate(_handshake(target, host, context))
    except (OSError, ValueError) as error:
        return f"not readable ({error})"
    return f"that of {found.subject.rfc4514_string()}, issued by {found.issuer.rfc4514_string()}"
