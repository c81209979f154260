"""How a session of a node's link begins: what comes of its Hello, in one transaction, and what the node is told of that."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from folkmoot.server.audit import events
from folkmoot.server.collaborations.entries import not_admitted
from folkmoot.server.context import Caller
from folkmoot.server.nodes.link_errors import violation
from folkmoot.server.store import deliveries, links, placement, reports
from folkmoot.server.store.touched import Touched
from folkmoot.server.wakers import link_topic
from folkmoot.transport.timeouts import HEARTBEAT_SECONDS
from folkmoot.trust import State, timestamp
from folkmoot.v1.link_pb2 import Hello, Resync, ServerFrame, Welcome

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """What the transaction that began a session found."""

    link_id: int
    epoch: int
    acknowledged: int
    resynced: bool
    has_more: bool
    """Whether there is something to deliver."""
    instance_id: str
    """In whose name."""


def check(hello: Hello, caller: Caller) -> None:
    """Raise PROTOCOL_VIOLATION unless the node that authenticated says Hello, and speaks this version of the protocol."""
    if hello.node_id != caller.node_id:
        raise violation("The node that says Hello is another one than the one that authenticated")
    if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
        raise violation(f"This server speaks version {PROTOCOL} of the link's protocol")


def event(hello: Hello, caller: Caller, now: datetime) -> events.Event:
    """Return what records that a session begins."""
    data = {"node_id": hello.node_id, "boot_id": hello.boot_id, "version": hello.version}
    return events.prepare(intent="node.attach", data=data, now=now, caller=caller, genesis=caller.genesis)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """A session that is to begin; called in a transaction, it does."""

    hello: Hello
    caller: Caller
    state: State
    acknowledged: int
    """What the node says it has journaled."""
    instance_id: str
    now: datetime
    keep_head: Callable[[Connection], None] | None
    is_shared: bool
    """Whether an older session may be at another instance."""
    record: events.Event

    def __call__(self, connection: Connection, touched: Touched) -> Begun:
        """Begin it; raise NODE_NOT_APPROVED."""
        me = self.caller
        if not links.is_admitted(connection, me.genesis, me.node_id):  # any more: its token was good a moment ago
            raise not_admitted(self.state, me.node_id)
        link_id = links.ensure(connection, me.genesis, me.node_id, me.organization_id)
        row = links.attach(connection, link_id, self.hello, instance_id=self.instance_id, now=self.now)
        reached, resynced = row.acknowledged, self.acknowledged > row.last_sequence
        if resynced:
            reached = deliveries.renumber(connection, link_id)
        elif self.acknowledged > reached:
            deliveries.acknowledge(connection, link_id, self.acknowledged, now=self.now, touched=touched)
            reached = self.acknowledged
        resynced = resynced or self.acknowledged < reached  # it has lost its journal
        reports.reconcile(connection, link_id, self.hello.held_runs, touched)
        placement.relocate(connection, me.genesis, me.organization_id, touched)
        if self.keep_head is not None:
            self.keep_head(connection)
        self.record(connection)
        has_more = row.last_sequence > reached or link_topic(link_id) in touched.topics
        if self.is_shared:
            touched.link(link_id)
        return Begun(link_id, row.epoch, reached, resynced, has_more, self.instance_id)


def greeting(begun: Begun, state: State, *, session_id: str, now: datetime) -> Iterator[ServerFrame]:
    """Yield what the node is told first."""
    welcome = Welcome(
        session_epoch=begun.epoch,
        session_id=session_id,
        resume_from=begun.acknowledged + 1,
        server_time=timestamp(now),
        protocol=PROTOCOL,
        ledger_position=state.position.message(),
    )
    welcome.heartbeat_interval.FromMilliseconds(int(HEARTBEAT_SECONDS * 1000))
    yield ServerFrame(welcome=welcome)
    if begun.resynced:
        yield ServerFrame(resync=Resync(last_sequence=begun.acknowledged))
