"""Organizations as an algorithm sees them: an address, and the name that the collaboration's members have signed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from folkmoot.algorithm.errors import OrganizationNotFound
from folkmoot.v1.proxy_service_pb2 import Peer


@dataclass(frozen=True)
class Organization:
    """An organization of the collaboration."""

    organization_id: str
    name: str

    def __str__(self) -> str:
        return self.name


Named = Organization | str
"""How an algorithm may name one: as it got it, or by name, or by address."""


def organization(peer: Peer) -> Organization:
    """Return the organization that the contract calls a peer."""
    return Organization(peer.organization_id, peer.name)


def address(named: Named, known: Sequence[Organization]) -> str:
    """Return an organization's address; OrganizationNotFound names those that are known."""
    if isinstance(named, Organization):
        return named.organization_id
    for one in known:
        if named in (one.name, one.organization_id):
            return one.organization_id
    raise OrganizationNotFound(f"there is no organization {named!r}: there are {', '.join(map(str, known)) or 'none'}")


def addresses(named: Iterable[Named], known: Sequence[Organization]) -> list[str]:
    """Return the addresses of several organizations."""
    return [address(one, known) for one in named]
