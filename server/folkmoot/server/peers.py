"""Where calls come from, by the name that gRPC gives a peer."""

import ipaddress

_NEIGHBOURHOOD_BITS = 64  # whoever has an IPv6 address has all of these


def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, such as "ipv4:192.0.2.1:5000" or "ipv6:%5B2001:db8::1%5D:5000"."""
    address = peer.partition(":")[2].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return address or peer


def place_of(peer: str) -> str:
    """Return a peer's address, or the network of an IPv6 address: of these everybody has plenty."""
    address = address_of(peer)
    if not peer.startswith("ipv6:"):
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], _NEIGHBOURHOOD_BITS), strict=False))
    except ValueError:
        return peer
