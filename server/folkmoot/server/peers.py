"""Where calls come from: by the name that gRPC gives a peer, and by the word of proxies that are trusted to know.

A server behind a proxy sees the proxy at the other end of each call. Which proxies may say for whom they call is a setting;
whatever anybody else says of it counts for nothing.
"""

import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TypeAlias

FORWARDED_KEY = "x-forwarded-for"
_NEIGHBOURHOOD_BITS = 64  # whoever has an IPv6 address has all of these

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def networks(text: str) -> tuple[Network, ...]:
    """Return networks and addresses that stand with commas between them; raise ValueError."""
    return tuple(ipaddress.ip_network(each) for each in filter(None, map(str.strip, text.split(","))))


def origin_of(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the address that a call comes from: the last one that no trusted proxy has.

    `forwarded` is what stands in the metadata, to which each proxy adds for whom it calls. It is read from the end: what
    stands before an address that is not trusted was written by who sits there.
    """
    origin = address_of(peer)
    hops = [hop for line in forwarded for hop in line.split(",")]
    while hops and trusted and _is_within(origin, trusted):
        hop = _parsed(hops.pop())
        if hop is None:
            break
        origin = str(hop)
    return origin


def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, such as "ipv4:192.0.2.1:5000" or "ipv6:%5B2001:db8::1%5D:5000"."""
    address = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return address or peer


@lru_cache(4096)
def place_of(origin: str) -> str:
    """Return an address, or the network of an IPv6 address: of these everybody has plenty."""
    address = _parsed(origin)
    if address is None or address.version == 4:
        return origin if address is None else str(address)
    return str(ipaddress.ip_network((int(address), _NEIGHBOURHOOD_BITS), strict=False))


def _is_within(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


def _parsed(text: str) -> Address | None:
    """Return an address, with or without a port or a zone; None of what is none. IPv4 within IPv6 is IPv4."""
    text = text.strip()
    for form in (text, text.partition("]")[0].lstrip("["), text.rpartition(":")[0]):
        with suppress(ValueError):
            address = ipaddress.ip_address(form.partition("%")[0])
            return getattr(address, "ipv4_mapped", None) or address
    return None
