"""The client's core, for programs with an event loop of their own. `folkmoot.client.Client` is the same without `await`."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from folkmoot.client.admin.aio import AsyncServerClient, Source
from folkmoot.client.algorithms import AsyncAlgorithms
from folkmoot.client.connection import Connection, default_state_directory
from folkmoot.client.data_sessions import AsyncSessions
from folkmoot.client.drafting import Earlier
from folkmoot.client.encryption import Expectation
from folkmoot.client.governing import AsyncGovernance
from folkmoot.client.keyfiles import read_signing_key
from folkmoot.client.logins import Credentials, TotpCode
from folkmoot.client.names import made_at, moment, name_of
from folkmoot.client.offers import Offer, availability_text
from folkmoot.client.proofs import export_proof
from folkmoot.client.rekeying import AsyncKeys
from folkmoot.client.session import PAGE_ITEMS
from folkmoot.client.tasks import AsyncTasks
from folkmoot.client.vault import AsyncVault
from folkmoot.transport import Keyring
from folkmoot.transport.heads import MAX_HEAD_AGE
from folkmoot.transport.tracing import Tracer
from folkmoot.trust import Member, Reference, State, fingerprint, fingerprint_words, key_id
from folkmoot.trust import Node as AdmittedNode
from folkmoot.v1 import admin_service_pb2
from folkmoot.v1.admin_service_pb2 import ListNodesRequest
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.ledger_pb2 import Encryption, PostQuantum, Quorum

if TYPE_CHECKING:
    from folkmoot.client.admin.studies import AsyncStudies

log = logging.getLogger("folkmoot.client")


@dataclass(frozen=True)
class Organization:
    """A member of the collaboration, by the verified ledger."""

    name: str
    organization_id: str
    """Its address: the fingerprint of its governance key."""
    words: str
    """The address in words, to compare over the phone."""
    key_fingerprint: str
    """The key that its payloads are sealed to; empty while it has none."""
    key_kind: str
    """x-wing or rsa; empty while it has none."""
    post_quantum: bool
    """Whether what is sealed to it stays closed to a quantum computer."""
    since: datetime
    """When it became a member."""
    own: bool
    """Whether it is the client's own organization."""


@dataclass(frozen=True)
class Collaboration:
    """What the verified ledger says of the collaboration itself."""

    name: str
    reference: str
    """name@fingerprint."""
    encrypted: bool
    post_quantum_required: bool
    quorum: str
    members: int
    sequence: int
    """The newest verified entry."""
    predecessor: str
    """The fingerprint of the collaboration that it succeeds; empty if it succeeds none."""


@dataclass(frozen=True)
class Node:
    """A data station: its identity by the verified ledger, its connection as the server tells it."""

    name: str
    node_id: str
    organization: str
    online: bool
    since: datetime | None
    """Since when it is online or away; None if the server never saw it."""
    version: str
    """Its release; empty if the server never saw it."""
    availability: str
    """Whether it takes new work: "open"; "paused": it accepts runs and starts none; "draining": it is about to go."""
    offer: Offer | None
    """What it offers, in its own words; None if the server never saw it."""
    offered_at: datetime | None
    """When it said what its policy and its availability are."""


class AsyncClient(AsyncServerClient):
    """A researcher's access to one collaboration, and to the server where it meets (see `AsyncServerClient`, also for ways to log in).

        async with AsyncClient("lung@<fingerprint>", server="localhost:7443", certificate_authority="ca.pem", username="ada",
                               password="...", organization_key="organization.pem") as client:
            task = await client.tasks.create(image=..., function="average", organizations=["Alpha"], arguments={"column": "age"})
            async for result in task.results():
                print(result.organization, result.value)

    Nothing is sent before the first use; that logs in, fetches and verifies the ledger, and compares the organization's key with it.
    `encryption` ("sealed" or "plain"): what the ledger must say, ENCRYPTION_DISAGREES if it says otherwise. `max_head_age`: when no other
    member has shown for so long that the ledger is the newest, no tasks are made (LEDGER_STALE). `traces`: an OpenTelemetry collector that
    hears of tasks, http://host:4317; with `traces_one_in` of one job in so many, the same that server and nodes choose. Raises FINGERPRINT_MISSING for a collaboration without its fingerprint, KEY_MISMATCH for a key file that can't be read.
    """

    def __init__(
        self,
        collaboration: str,
        *,
        server: str,
        username: str = "",
        password: str = "",
        totp_code: TotpCode | None = None,
        api_key: str = "",
        login: Credentials | None = None,
        certificate_authority: Source | None = None,
        organization_key: Source | None = None,
        organization_key_passphrase: str | None = None,
        governance_key: Source | None = None,
        governance_key_passphrase: str | None = None,
        state_directory: Source | None = None,
        insecure: bool = False,
        encryption: str | None = None,
        max_head_age: timedelta = MAX_HEAD_AGE,
        traces: str = "",
        traces_one_in: int = 1,
    ) -> None:
        reference = Reference.parse(collaboration)
        super().__init__(
            server=server,
            username=username,
            password=password,
            totp_code=totp_code,
            api_key=api_key,
            login=login,
            certificate_authority=certificate_authority,
            insecure=insecure,
        )
        if traces:
            self.session.tracer = Tracer(traces, service="folkmoot-client", one_in=traces_one_in)
        keyring = Keyring.load(Path(organization_key), organization_key_passphrase) if organization_key else None
        self.connection = Connection(
            self.session,
            reference,
            keyring=keyring,
            state_directory=Path(state_directory) if state_directory else default_state_directory(),
            encryption=Expectation.parse(encryption),
            max_head_age=max_head_age,
        )
        governing = read_signing_key(Path(governance_key), governance_key_passphrase) if governance_key else None
        self.algorithms = AsyncAlgorithms(self.connection, governing)
        self.governance = AsyncGovernance(self.connection, governing)
        self.keys = AsyncKeys(self.connection, keyring, governing)
        self.sessions = AsyncSessions(self.connection)
        self.tasks = AsyncTasks(self.connection)
        self.vault = AsyncVault(self.connection)

    @cached_property
    def studies(self) -> "AsyncStudies":
        """The collaboration's studies."""
        from folkmoot.client.admin.studies import AsyncStudies

        return AsyncStudies(self.connection)

    @property
    async def organizations(self) -> tuple[Organization, ...]:
        """The members, by the verified ledger, by name."""
        connection = self.connection
        state = await connection.shown_state()
        own = (await connection.own(state)).member.organization_id
        entries = (await connection.replica()).entries
        return tuple(
            _organization(member, since=made_at(entries[member.since.sequence]), own=member.organization_id == own)
            for member in sorted(state.members.values(), key=lambda member: member.name.lower())
        )

    @property
    async def collaboration(self) -> Collaboration:
        """The collaboration, by the verified ledger."""
        state = await self.connection.shown_state()
        return Collaboration(
            name=state.name,
            reference=str(state.reference),
            encrypted=state.encryption == Encryption.ENCRYPTION_SEALED,
            post_quantum_required=state.post_quantum == PostQuantum.POST_QUANTUM_REQUIRED,
            quorum=Quorum.Name(state.quorum).removeprefix("QUORUM_").lower().replace("_", " "),
            members=len(state.members),
            sequence=state.position.sequence,
            predecessor=fingerprint(state.predecessor.genesis) if state.predecessor else "",
        )

    async def nodes(self, *, organization: str = "", online: bool | None = None, label: str = "") -> tuple[Node, ...]:
        """The admitted nodes, with whether they are connected and what they offer; that is the server's word.

        Those of an organization, by name or address; those that are connected, or are not; those that offer data of that name; or all.
        """
        state = await self.connection.shown_state()
        session = self.connection.session
        request = ListNodesRequest(page_size=PAGE_ITEMS, genesis=state.genesis)
        pages = session.pages(session.admin.ListNodes, request)
        told = {node.node_id: node async for page in pages for node in page.nodes}
        wanted = (await self.connection.member(organization)).organization_id if organization else ""
        nodes = sorted(state.nodes.values(), key=lambda node: (name_of(state, node.organization_id), node.name))
        shown = [_node(one, told.get(one.node_id), state) for one in nodes if wanted in ("", one.organization_id)]
        return tuple(
            one
            for one in shown
            if online in (None, one.online) and (not label or (one.offer is not None and label in one.offer.labels))
        )

    async def export_proof(self, task: Earlier | str) -> bytes:
        """Make the proof file of a task (or task id) and all below it: `folkmoot proof verify` needs no server to read it.

        What no node signed is logged as a warning, with what the server says of it. Raises TASK_NOT_FOUND, TASK_NOT_PROVEN.
        """
        exported = await export_proof(self.connection, task if isinstance(task, str) else task.id)
        for each in exported.missing:
            log.warning("not in the proof: %s", each)
        return exported.data


def _node(node: AdmittedNode, told: admin_service_pb2.Node | None, state: State) -> Node:
    told = told or admin_service_pb2.Node()
    return Node(
        name=node.name,
        node_id=node.node_id,
        organization=name_of(state, node.organization_id),
        online=told.connection == admin_service_pb2.CONNECTION_ONLINE,
        since=moment(told.connection_since) if told.HasField("connection_since") else None,
        version=told.version,
        availability=availability_text(told.availability),
        offer=Offer.of(told.policy) if told.HasField("policy") else None,
        offered_at=moment(told.offered_at) if told.HasField("offered_at") else None,
    )


def _organization(member: Member, *, since: datetime, own: bool) -> Organization:
    key = member.keys.encryption if member.keys else None
    return Organization(
        name=member.name,
        organization_id=member.organization_id,
        words=fingerprint_words(member.organization_id),
        key_fingerprint=fingerprint(key_id(key)) if key else "",
        key_kind=KeyKind.Name(key.kind).removeprefix("KEY_KIND_").lower().replace("_", "-") if key else "",
        post_quantum=key is not None and key.kind == KeyKind.KEY_KIND_X_WING,
        since=since,
        own=own,
    )
