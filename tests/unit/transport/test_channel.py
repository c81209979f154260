"""Addresses, the keepalive options that both ends of a connection must agree on, and how long connecting may take."""

import asyncio
from contextlib import closing
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from folkmoot.transport import CHANNEL_OPTIONS, MESSAGE_BYTES, SERVER_OPTIONS, ServerAddress, open_channel, timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import FolkmootError


@pytest.mark.parametrize("target", ["localhost", "localhost:", ":7443", "https://x", ""])
def test_address_without_host_or_port_is_refused(target: str):
    with pytest.raises(FolkmootError, match="host:port"):
        ServerAddress(target)


@pytest.mark.parametrize("target", ["localhost:1", "127.0.0.1:1", "127.8.9.1:1", "[::1]:1"])
def test_without_tls_this_machine_can_be_used(target: str):
    assert ServerAddress(target, insecure=True).insecure


@pytest.mark.parametrize("target", ["example.org:1", "10.0.0.1:1", "0.0.0.0:1", "localhost.example.org:1"])
def test_without_tls_no_other_machine_can_be_used(target: str):
    with pytest.raises(FolkmootError, match="without TLS"):
        ServerAddress(target, insecure=True)


def test_server_allows_every_probe_that_its_clients_send():
    client, server = dict(CHANNEL_OPTIONS), dict(SERVER_OPTIONS)
    assert int(server["grpc.http2.min_recv_ping_interval_without_data_ms"]) <= int(client["grpc.keepalive_time_ms"])
    assert server["grpc.http2.max_ping_strikes"] == 0
    for end in (client, server):
        assert end["grpc.keepalive_permit_without_calls"] == 1
        assert end["grpc.http2.max_pings_without_data"] == 0
        assert end["grpc.http2.ping_timeout_ms"] == end["grpc.keepalive_timeout_ms"]
        assert end["grpc.max_receive_message_length"] == end["grpc.max_send_message_length"] == MESSAGE_BYTES


def test_there_are_at_most_six_timeouts():
    assert len([name for name in vars(timeouts) if name.endswith("_SECONDS")]) <= 6


def test_pauses_grow_to_a_bound_and_differ():
    assert pause_seconds(1) < 0.3
    assert timeouts.RECONNECT_SECONDS / 2 <= pause_seconds(50) <= timeouts.RECONNECT_SECONDS
    assert len({pause_seconds(20) for _ in range(20)}) > 1


async def test_a_server_that_is_slow_to_greet_is_reached_at_the_first_attempt():
    """As over a slow line, or on a busy machine."""
    server = grpc.aio.server(options=SERVER_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    attempts = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempt = asyncio.current_task()
        assert attempt
        attempts.append(attempt)
        with closing(writer):
            await asyncio.sleep(1)
            there, back = await asyncio.open_connection("127.0.0.1", port)
            with closing(back):
                await asyncio.gather(copy(reader, back), copy(there, writer))

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65536):
            writer.write(some)
        writer.close()

    slow = await asyncio.start_server(relay, "127.0.0.1", 0)
    address = ServerAddress(f"127.0.0.1:{slow.sockets[0].getsockname()[1]}", insecure=True)
    try:
        async with open_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    finally:
        slow.close()
        await server.stop(None)
        await asyncio.gather(*attempts, return_exceptions=True)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert len(attempts) == 1
