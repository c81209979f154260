"""Collaborations and nodes as a server shows them, to those who look after it.

What a collaboration's members rely on is its verified ledger: `client.collaboration`, `client.organizations`, `client.nodes()`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from folkmoot.client.admin.resolving import account
from folkmoot.client.names import moment
from folkmoot.client.offers import Offer, availability_text
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust import Reference, fingerprint
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1.ledger_pb2 import Encryption


@dataclass(frozen=True)
class ListedMember:
    """A member of a collaboration, by the server's word."""

    name: str
    organization_id: str


@dataclass(frozen=True)
class ListedCollaboration:
    """A collaboration, by the server's word."""

    name: str
    reference: str
    """name@fingerprint: compare it with what a member told you."""
    encrypted: bool
    members: tuple[ListedMember, ...]
    sequence: int
    """The newest entry of its ledger."""


@dataclass(frozen=True)
class ListedNode:
    """A data station, by the server's word."""

    name: str
    node_id: str
    organization_id: str
    collaboration_fingerprint: str
    """The fingerprint of its collaboration."""
    online: bool
    since: datetime | None
    """Since when it is online or away; None if the server never saw it."""
    version: str
    availability: str
    offer: Offer | None
    """What it offers, in its own words; None if the server never saw it."""
    offered_at: datetime | None


class AsyncCollaborations:
    """The collaborations that the caller may see, named by their references."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self, *, name_prefix: str = "", organization: str = "") -> AsyncIterator[ListedCollaboration]:
        """The collaborations: those of an organization, by its account's name or its address, or all."""
        session = self._session
        request = admin.ListCollaborationsRequest(
            page_size=PAGE_ITEMS, name_prefix=name_prefix, organization_id=await self._address(organization)
        )
        async for page in session.pages(session.admin.ListCollaborations, request):
            for one in page.collaborations:
                yield _collaboration(one)

    async def get(self, collaboration: str) -> ListedCollaboration:
        """A collaboration by name@fingerprint. Raises COLLABORATION_NOT_FOUND, FINGERPRINT_MISSING."""
        request = admin.GetCollaborationRequest(genesis=Reference.parse(collaboration).genesis)
        return _collaboration((await self._session.call(self._session.admin.GetCollaboration, request)).collaboration)

    async def nodes(
        self, *, collaboration: str = "", organization: str = "", online: bool | None = None, label: str = ""
    ) -> AsyncIterator[ListedNode]:
        """The nodes of a collaboration, of an organization, that are connected or not, that offer data of a name, or all."""
        session = self._session
        request = admin.ListNodesRequest(
            page_size=PAGE_ITEMS,
            genesis=Reference.parse(collaboration).genesis if collaboration else b"",
            organization_id=await self._address(organization),
            connection=_CONNECTIONS[online],
            label=label,
        )
        async for page in session.pages(session.admin.ListNodes, request):
            for one in page.nodes:
                yield _node(one)

    async def node(self, collaboration: str, node_id: str) -> ListedNode:
        """A node by its id. Raises NODE_NOT_FOUND."""
        request = admin.GetNodeRequest(genesis=Reference.parse(collaboration).genesis, node_id=node_id)
        return _node((await self._session.call(self._session.admin.GetNode, request)).node)

    async def _address(self, organization: str) -> str:
        return (await account(self._session, organization)).organization_id if organization else ""


_CONNECTIONS = {
    None: admin.CONNECTION_UNSPECIFIED,
    True: admin.CONNECTION_ONLINE,
    False: admin.CONNECTION_AWAY,
}


def _collaboration(message: admin.Collaboration) -> ListedCollaboration:
    return ListedCollaboration(
        name=message.name,
        reference=message.reference,
        encrypted=message.encryption == Encryption.ENCRYPTION_SEALED,
        members=tuple(ListedMember(one.name, one.organization_id) for one in message.members),
        sequence=message.head.sequence,
    )


def _node(message: admin.Node) -> ListedNode:
    return ListedNode(
        name=message.name,
        node_id=message.node_id,
        organization_id=message.organization_id,
        collaboration_fingerprint=fingerprint(message.genesis),
        online=message.connection == admin.CONNECTION_ONLINE,
        since=moment(message.connection_since) if message.HasField("connection_since") else None,
        version=message.version,
        availability=availability_text(message.availability),
        offer=Offer.of(message.policy) if message.HasField("policy") else None,
        offered_at=moment(message.offered_at) if message.HasField("offered_at") else None,
    )
