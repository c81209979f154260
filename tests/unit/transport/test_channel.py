"""Addresses, and the keepalive options that both ends of a connection must agree on."""

import pytest

from folkmoot.transport import CHANNEL_OPTIONS, MESSAGE_BYTES, SERVER_OPTIONS, ServerAddress, timeouts
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
    assert server["grpc.http2.min_recv_ping_interval_without_data_ms"] <= client["grpc.keepalive_time_ms"]
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
