"""Where a call comes from: proxies are believed as far as the settings say, and nobody else."""

import pytest

from folkmoot.server import peers

TRUSTED = peers.networks("10.0.0.0/8, 2001:db8:f::/48, 127.0.0.1")
PROXY, STRANGER = "ipv4:10.0.0.1:5000", "ipv4:203.0.113.9:5000"


@pytest.mark.parametrize(
    ("peer", "forwarded", "origin"),
    [
        (PROXY, ["192.0.2.7"], "192.0.2.7"),
        (PROXY, ["192.0.2.7, 10.9.9.9"], "192.0.2.7"),
        (PROXY, ["192.0.2.7", "10.9.9.9"], "192.0.2.7"),
        ("ipv6:%5B2001:db8:f::1%5D:5000", ["2001:db8:1::7"], "2001:db8:1::7"),
        ("ipv6:[::ffff:10.0.0.1]:5000", ["192.0.2.7"], "192.0.2.7"),
        (PROXY, ["192.0.2.7:4711"], "192.0.2.7"),
        (PROXY, ["[2001:db8:1::7]:4711"], "2001:db8:1::7"),
        (PROXY, [], "10.0.0.1"),
        (PROXY, ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
    ],
)
def test_trusted_proxy_says_for_whom_it_calls(peer, forwarded, origin):
    assert peers.origin_of(peer, forwarded, TRUSTED) == origin


def test_what_a_stranger_says_of_himself_counts_for_nothing():
    assert peers.origin_of(STRANGER, ["192.0.2.7"], TRUSTED) == "203.0.113.9"
    assert peers.origin_of(PROXY, ["192.0.2.7, 203.0.113.9"], TRUSTED) == "203.0.113.9", "he wrote what stands before"
    assert peers.origin_of(PROXY, ["192.0.2.7"], ()) == "10.0.0.1", "nobody is trusted unless the settings say so"


@pytest.mark.parametrize("nonsense", ["", "unknown", "a" * 5000, "192.0.2.7, for=x", "1.2.3.4.5", "\n"])
def test_nonsense_of_a_proxy_leaves_the_call_with_the_proxy(nonsense):
    assert peers.origin_of(PROXY, [nonsense], TRUSTED) == "10.0.0.1"


def test_networks_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        peers.networks("10.0.0.1/8")
