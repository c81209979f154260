"""Deliveries: what each node is to be told, in order, until it has acknowledged it.

A delivery says what to tell about which attempt of which run; what is told is read when it is sent, from the run as it is
then. Sequences of a node have no gaps: what is no use to the node any more, because the run has ended meanwhile or is
another node's, is told as a cancellation.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, exists, insert, select, update

from folkmoot.server.store import runs
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import AnyRow, deliveries, node_links, payloads, peer_messages
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.v1.link_pb2 import Assign, Cancel, DropDataframes, PeerMessage, ServerFrame
from folkmoot.v1.task_pb2 import TaskChain

BATCH_BYTES = 1024 * 1024


class Kind(IntEnum):
    """What is told."""

    ASSIGN = 1
    CANCEL = 2
    MESSAGE = 3
    DROP = 4


@dataclass(frozen=True, slots=True)
class Delivery:
    """Something to tell a node."""

    link_id: int
    kind: Kind
    run_id: str
    attempt: int = 0
    """0: whichever the node has."""
    message_id: int | None = None
    session_id: str | None = None
    dataframe: str | None = None


_INSERT = Prepared(insert(deliveries))


def enqueue(connection: Connection, items: Sequence[Delivery], touched: Touched) -> None:
    """Append to the nodes' orders."""
    numbers = sorted(Counter(item.link_id for item in items).items())  # in one order, so that nobody waits in a circle
    taken = _TAKE.rows_of_each(connection, [{"of_link": link_id, "number": number} for link_id, number in numbers])
    last = {link_id: row.last_sequence for (link_id, _), (row,) in zip(numbers, taken, strict=True)}
    rows = []
    for item in reversed(items):
        row = {"link_id": item.link_id, "kind": item.kind, "run_id": item.run_id, "attempt": item.attempt}
        row |= {"message_id": item.message_id, "session_id": item.session_id, "dataframe": item.dataframe}
        rows.append(row | {"sequence": last[item.link_id]})
        last[item.link_id] -= 1
        touched.link(item.link_id)
    _INSERT.each(connection, rows)


_TAKE = Prepared(
    update(node_links)
    .where(node_links.c.link_id == bindparam("of_link"))
    .values(last_sequence=node_links.c.last_sequence + bindparam("number"))
    .returning(node_links.c.last_sequence)
)


def assign(connection: Connection, placed: Iterable[states.Run], touched: Touched) -> None:
    """Tell the nodes that runs are placed at of these, and of the messages that siblings have sent to them meanwhile."""
    items = []
    for run in placed:
        if run.link_id is None:
            continue
        items.append(Delivery(run.link_id, Kind.ASSIGN, run.run_id, run.attempt))
        sent = select(peer_messages.c.message_id).where(peer_messages.c.to_run_id == run.run_id)
        messages = connection.scalars(sent.order_by(peer_messages.c.message_id))
        items.extend(
            Delivery(run.link_id, Kind.MESSAGE, run.run_id, run.attempt, message_id) for message_id in messages
        )
    enqueue(connection, items, touched)


def cancel(connection: Connection, cancelled: Iterable[states.Run], touched: Touched) -> None:
    """Tell the nodes that runs are placed at that these are not wanted any more."""
    placed = [Delivery(run.link_id, Kind.CANCEL, run.run_id) for run in cancelled if run.link_id is not None]
    enqueue(connection, placed, touched)


def fence(connection: Connection, attempts: Iterable[states.Run], touched: Touched) -> None:
    """Tell nodes that attempts, as they were when they had them, are not theirs any more: nothing of these counts."""
    fenced = [
        Delivery(run.link_id, Kind.CANCEL, run.run_id, run.attempt) for run in attempts if run.link_id is not None
    ]
    enqueue(connection, fenced, touched)


def drop(connection: Connection, link_ids: Iterable[int], session_id: str, dataframe: str, touched: Touched) -> None:
    """Tell nodes, away or not, that a session's dataframe is not wanted any more; without a name, all of them."""
    told = [Delivery(each, Kind.DROP, "", session_id=session_id, dataframe=dataframe) for each in link_ids]
    enqueue(connection, told, touched)


def may_have_reached() -> ColumnElement[bool]:
    """Meet runs that the node where they are placed, and which is away, may have been told of: they are nobody else's to begin.

    What it was sent, it may have journaled, whether or not its acknowledgement has arrived.
    """
    sent = select(node_links.c.sent).where(node_links.c.link_id == run_table.c.link_id).correlate(run_table)
    return (
        exists()
        .where(
            deliveries.c.link_id == run_table.c.link_id,
            deliveries.c.run_id == run_table.c.run_id,
            deliveries.c.kind == Kind.ASSIGN,
            deliveries.c.sequence <= sent.scalar_subquery(),
        )
        .correlate(run_table)
    )


# ---- acknowledged --------------------------------------------------------------------------------------------------


def acknowledge(connection: Connection, link_id: int, sequence: int, *, now: datetime, touched: Touched) -> None:
    """Forget deliveries up to there: the node has them. Runs assigned by them are the node's from here on."""
    here = {"of_link": link_id, "up_to": sequence}
    assigned = {row.run_id: row.attempt for row in _FORGET.rows(connection, here) if row.kind == Kind.ASSIGN}
    _REACHED.each(connection, [here])
    if assigned:
        accepted = [
            run
            for run in runs.load(connection, assigned)
            if states.accepts(run, link_id, assigned[run.run_id] or run.attempt)
        ]
        runs.move(connection, accepted, touched, state=states.ASSIGNED, assigned_at=now)


_FORGET = Prepared(
    delete(deliveries)
    .where(deliveries.c.link_id == bindparam("of_link"), deliveries.c.sequence <= bindparam("up_to"))
    .returning(deliveries.c.kind, deliveries.c.run_id, deliveries.c.attempt)
)
_REACHED = Prepared(
    update(node_links).where(node_links.c.link_id == bindparam("of_link")).values(acknowledged=bindparam("up_to"))
)


def renumber(connection: Connection, link_id: int) -> int:
    """Start a node's order over behind the last sequence, and return that.

    A node that knows of sequences which the server has not given was served by a later state of this database: its
    count starts here, and everything that it has not acknowledged follows under new sequences.
    """
    row = connection.execute(select(node_links).where(node_links.c.link_id == link_id)).one()
    shift = row.last_sequence - row.acknowledged
    # By way of negative numbers, so that no sequence is taken twice meanwhile.
    here = update(deliveries).where(deliveries.c.link_id == link_id)
    connection.execute(here.values(sequence=-(deliveries.c.sequence + shift)))
    connection.execute(here.values(sequence=-deliveries.c.sequence))
    moved = {"acknowledged": row.last_sequence, "last_sequence": row.last_sequence + shift}
    moved |= {"sent": row.last_sequence + shift}  # which of them were sent before is not known any more
    connection.execute(update(node_links).where(node_links.c.link_id == link_id).values(moved))
    return int(row.last_sequence)


# ---- sent ----------------------------------------------------------------------------------------------------------

_PENDING = Prepared(
    select(
        deliveries.c.sequence,
        deliveries.c.kind,
        deliveries.c.run_id,
        deliveries.c.link_id,
        deliveries.c.attempt,
        deliveries.c.session_id,
        deliveries.c.dataframe,
        run_table.c.task_id,
        run_table.c.state,
        run_table.c.link_id.label("placed_at"),
        run_table.c.attempt.label("in_attempt"),
        task_table.c.chain,
        payloads.c.envelope.label("input"),
        peer_messages.c.from_run_id,
        peer_messages.c.sequence.label("message_sequence"),
        peer_messages.c.envelope.label("message"),
    )
    .outerjoin_from(deliveries, run_table, run_table.c.run_id == deliveries.c.run_id)
    .outerjoin(task_table, and_(deliveries.c.kind == Kind.ASSIGN, task_table.c.task_id == run_table.c.task_id))
    .outerjoin(payloads, and_(deliveries.c.kind == Kind.ASSIGN, payloads.c.envelope_digest == run_table.c.input_digest))
    .outerjoin(peer_messages, peer_messages.c.message_id == deliveries.c.message_id)
    .where(deliveries.c.link_id == bindparam("link_id"), deliveries.c.sequence > bindparam("after"))
    .order_by(deliveries.c.sequence)
    .limit(bindparam("most"))
)


def pending(connection: Connection, link_id: int, *, after: int, most: int) -> tuple[list[ServerFrame], bool]:
    """Return the next deliveries behind a sequence as frames, at most so many and about a MiB, and whether there may be more."""
    frames: list[ServerFrame] = []
    size_bytes = 0
    for row in _PENDING.stream(connection, {"link_id": link_id, "after": after, "most": most}):
        frame = _frame(row)
        frames.append(frame)
        size_bytes += frame.ByteSize()
        if size_bytes >= BATCH_BYTES:
            break
    return frames, size_bytes >= BATCH_BYTES or len(frames) == most


def _frame(row: AnyRow) -> ServerFrame:
    if row.kind == Kind.DROP:
        unwanted = DropDataframes(session_id=row.session_id, name=row.dataframe)
        return ServerFrame(sequence=row.sequence, drop_dataframes=unwanted)
    is_its_own = row.placed_at == row.link_id and row.attempt in (0, row.in_attempt)
    if row.kind == Kind.CANCEL or not is_its_own:
        return ServerFrame(sequence=row.sequence, cancel=Cancel(run_id=row.run_id, attempt=row.attempt))
    if row.kind == Kind.MESSAGE:
        message = PeerMessage(
            task_id=row.task_id,
            from_run_id=row.from_run_id,
            to_run_id=row.run_id,
            sequence=row.message_sequence,
            envelope=row.message,
        )
        return ServerFrame(sequence=row.sequence, peer_message=message)
    if row.state in states.TERMINAL:
        return ServerFrame(sequence=row.sequence, cancel=Cancel(run_id=row.run_id))
    assigned = Assign(
        run_id=row.run_id,
        attempt=row.in_attempt,
        chain=TaskChain.FromString(row.chain),
        input_envelope=row.input or b"",
    )
    return ServerFrame(sequence=row.sequence, assign=assigned)
