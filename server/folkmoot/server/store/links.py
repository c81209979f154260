"""Links: one row for each node of each collaboration, with its session's epoch and how far it has acknowledged.

The newest attach has the highest epoch and is the only live one: whatever an older session still tries is refused here,
whichever instance of the server it runs in.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, exists, func, insert, select, update

from folkmoot.server.store import task_tables
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import nodes
from folkmoot.server.store.task_tables import AnyRow, node_links
from folkmoot.server.tasks.states import Station
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Availability, Hello, Offer, PolicySummary


@dataclass(frozen=True, slots=True)
class Link:
    """A node of an organization, and what the server knows of its connection."""

    node_id: str
    organization_id: str
    link_id: int | None
    """None: the server never had to do with this node."""
    attached: bool
    away_since: datetime | None
    labels: frozenset[str]
    """Data that the node says it offers."""
    slots: int = 0
    """How many runs it says it executes at once."""
    free_slots: int = 0
    """How many of these were free when it last said so: other collaborations may share them."""
    instance_id: str = ""
    """The instance of the server that has its session, if it is attached."""
    availability: Availability.ValueType = Availability.AVAILABILITY_OPEN
    """Whether the node says that it takes new work."""

    @property
    def draining(self) -> bool:
        """Whether it is about to go."""
        return self.availability == Availability.AVAILABILITY_DRAINING


Peers = tuple[bytes, str]
"""The nodes of an organization in a collaboration: its genesis, and the organization."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Where a node's order of deliveries stands as a session begins."""

    epoch: int
    last_sequence: int
    acknowledged: int


_ADMITTED = Prepared(
    select(
        nodes.c.node_id,
        nodes.c.organization_id,
        node_links.c.link_id,
        node_links.c.instance_id,
        node_links.c.attached_at,
        node_links.c.away_since,
        node_links.c.policy,
        node_links.c.free_slots,
        node_links.c.availability,
    )
    .outerjoin_from(
        nodes, node_links, and_(node_links.c.genesis == nodes.c.genesis, node_links.c.node_id == nodes.c.node_id)
    )
    .where(
        nodes.c.genesis == bindparam("genesis"),
        nodes.c.organization_id == bindparam("organization_id"),
    )
    .order_by(nodes.c.node_id)
)


def admitted(connection: Connection, genesis: bytes, organization_ids: Iterable[str]) -> list[Link]:
    """Return the nodes that the ledger admits for these organizations."""
    found = admitted_of(connection, [(genesis, organization_id) for organization_id in organization_ids])
    return [link for links in found.values() for link in links]


def admitted_of(connection: Connection, wanted: Iterable[Peers]) -> dict[Peers, list[Link]]:
    """Return, of each of the organizations in its collaboration, the nodes that the ledger admits."""
    peers = list(dict.fromkeys(wanted))
    parameters = [{"genesis": genesis, "organization_id": organization_id} for genesis, organization_id in peers]
    found = _ADMITTED.rows_of_each(connection, parameters)
    return {each: [_link(row) for row in rows] for each, rows in zip(peers, found, strict=True)}


def of_organization(*, attached: bool) -> Select[int]:
    """Return what selects the nodes of `of_organization` in `of_genesis`, admitted or not, that are attached, or are not."""
    is_attached = and_(node_links.c.attached_at.is_not(None), node_links.c.away_since.is_(None))
    return select(node_links.c.link_id).where(
        node_links.c.organization_id == bindparam("of_organization"),
        node_links.c.genesis == bindparam("of_genesis"),
        is_attached if attached else ~is_attached,
    )


_IS_ADMITTED = Prepared(
    select(nodes.c.node_id).where(nodes.c.genesis == bindparam("genesis"), nodes.c.node_id == bindparam("node_id"))
)


def is_admitted(connection: Connection, genesis: bytes, node_id: str) -> bool:
    """Tell whether the ledger admits a node now."""
    return _IS_ADMITTED.row(connection, {"genesis": genesis, "node_id": node_id}) is not None


def _link(row: AnyRow) -> Link:
    offered = PolicySummary.FromString(row.policy) if row.policy else PolicySummary()
    return Link(
        node_id=row.node_id,
        organization_id=row.organization_id,
        link_id=row.link_id,
        attached=row.attached_at is not None and row.away_since is None,
        away_since=row.away_since,
        labels=frozenset(offered.labels),
        slots=offered.slots,
        free_slots=row.free_slots or 0,
        instance_id=row.instance_id or "",
        availability=row.availability or Availability.AVAILABILITY_OPEN,
    )


def station(links: Iterable[Link], *, created_at: datetime) -> Station:
    """Say how a run reaches the node that it is placed at, or else what all nodes of the organization keep it waiting for.

    A node that never attached is away since the run was made. What is placed nowhere while nodes are attached waits for
    others, which offer its data, or for one that takes new runs.
    """
    known = list(links)
    if not known:
        return Station(admitted=False, away_since=None)
    away_since = [link.away_since or created_at for link in known if not link.attached]
    if len(known) == 1:
        return Station(admitted=True, away_since=max(away_since, default=None), node_id=known[0].node_id)
    draining_since = None if away_since else created_at
    return Station(admitted=True, away_since=max(away_since, default=None), draining_since=draining_since)


def opened(connection: Connection, genesis: bytes, link: Link) -> int:
    """Return the link's id, making its row if there is none."""
    return link.link_id or ensure(connection, genesis, link.node_id, link.organization_id)


_LINK_ID = Prepared(
    select(node_links.c.link_id).where(
        node_links.c.genesis == bindparam("genesis"), node_links.c.node_id == bindparam("node_id")
    )
)
_UNTOUCHED = {"epoch": 0, "last_sequence": 0, "acknowledged": 0, "version": "", "policy": b"", "free_slots": 0}
_NEW_LINK = Prepared(insert(node_links).returning(node_links.c.link_id))


def ensure(connection: Connection, genesis: bytes, node_id: str, organization_id: str) -> int:
    """Return the id of a node's link, making its row if there is none."""
    if (row := _LINK_ID.row(connection, {"genesis": genesis, "node_id": node_id})) is not None:
        return int(row.link_id)
    fresh = {"genesis": genesis, "node_id": node_id, "organization_id": organization_id}
    return int(_NEW_LINK.row(connection, fresh | _UNTOUCHED).link_id)


def open_runs(connection: Connection, link_ids: Iterable[int]) -> dict[int, int]:
    """Return how many runs that have not ended are placed at each of the nodes."""
    runs = task_tables.runs
    counted = (
        select(runs.c.link_id, func.count().label("number"))
        .where(runs.c.link_id.in_(list(link_ids)), task_tables.IS_OPEN)
        .group_by(runs.c.link_id)
    )
    return {row.link_id: row.number for row in connection.execute(counted)}


# ---- sessions ------------------------------------------------------------------------------------------------------


_NOT_AWAY = and_(node_links.c.attached_at.is_not(None), node_links.c.away_since.is_(None))
_ATTACH = Prepared(
    update(node_links)
    .where(node_links.c.link_id == bindparam("of_link"))
    .values(
        epoch=node_links.c.epoch + 1,
        instance_id=bindparam("at_instance"),
        attached_at=bindparam("now"),
        away_since=None,
        sent=case((_NOT_AWAY, node_links.c.last_sequence), else_=node_links.c.sent),
        version=bindparam("of_version"),
        policy=bindparam("says_policy"),
        free_slots=bindparam("says_free_slots"),
        availability=bindparam("says_availability"),
        offered_at=bindparam("now"),
    )
    .returning(node_links.c.epoch, node_links.c.last_sequence, node_links.c.acknowledged)
)


def attach(connection: Connection, link_id: int, hello: Hello, *, instance_id: str, now: datetime) -> Attached:
    """Begin a session: the epoch grows, and whatever an older session does from here on is refused.

    One that has not ended yet may have told the node of everything.
    """
    row = _ATTACH.row(
        connection,
        {
            "of_link": link_id,
            "at_instance": instance_id,
            "now": now,
            "of_version": hello.version,
            "says_policy": hello.policy.SerializeToString(),
            "says_free_slots": hello.free_slots,
            "says_availability": hello.availability,
        },
    )
    return Attached(*row)


def offer(connection: Connection, link_id: int, offered: Offer, *, now: datetime) -> None:
    """Note what a node offers from now on."""
    values = {
        "policy": offered.policy.SerializeToString(),
        "free_slots": offered.free_slots,
        "availability": offered.availability,
        "offered_at": now,
    }
    connection.execute(update(node_links).where(node_links.c.link_id == link_id).values(values))


_EPOCH = Prepared(select(node_links.c.epoch).where(node_links.c.link_id == bindparam("link_id")))


def require(connection: Connection, link_id: int, epoch: int) -> None:
    """Raise SESSION_REPLACED unless the session is the node's newest."""
    row = _EPOCH.row(connection, {"link_id": link_id})
    if row is None or row.epoch != epoch:
        raise session_replaced()


_DETACH = Prepared(
    update(node_links)
    .where(
        node_links.c.link_id == bindparam("of_link"),
        node_links.c.epoch == bindparam("in_epoch"),
        node_links.c.away_since.is_(None),
    )
    .values(
        away_since=bindparam("now"),
        sent=case((node_links.c.sent > bindparam("was_sent"), node_links.c.sent), else_=bindparam("was_sent")),
    )
    .returning(node_links.c.link_id)
)


def detach(connection: Connection, link_id: int, epoch: int, *, sent: int, now: datetime) -> bool:
    """End a session in which deliveries up to `sent` may have reached the node.

    The node is away from now on; False if it has attached anew already.
    """
    session = {"of_link": link_id, "in_epoch": epoch, "was_sent": sent, "now": now}
    return _DETACH.row(connection, session) is not None


def detach_all(connection: Connection, *, now: datetime) -> None:
    """Take all nodes for away: a server that starts has no sessions, and the one before it may have been killed."""
    lost = and_(node_links.c.attached_at.is_not(None), node_links.c.away_since.is_(None))
    connection.execute(update(node_links).where(lost).values(away_since=now, sent=node_links.c.last_sequence))


def session_replaced() -> FolkmootError:
    """Return the error of a session that a newer one of the same node has ended."""
    return FolkmootError(ErrorReason.ERROR_REASON_SESSION_REPLACED, "The node has attached anew")


def abandoned() -> ColumnElement[bool]:
    """Meet runs that a node holds which the ledger admits no more: no receipt can end them."""
    runs = task_tables.runs
    admitted = exists().where(nodes.c.genesis == node_links.c.genesis, nodes.c.node_id == node_links.c.node_id)
    gone = select(node_links.c.link_id).where(~admitted)
    return and_(task_tables.IS_OPEN, runs.c.assigned_at.is_not(None), runs.c.link_id.in_(gone))
