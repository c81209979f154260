"""What nodes say over their links: reports of runs, messages between sibling runs, and what they hold when they attach.

Reports may be late, repeated, or of runs that are not the node's (any more): those change nothing and are no errors.
"""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from enum import Enum, auto

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from folkmoot.server.store import deliveries, runs
from folkmoot.server.store.deliveries import Delivery, Kind
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import IS_OPEN, peer_messages, run_logs
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.link_pb2 import Accepted, HeldRun, PeerMessage, Received, RunUpdate

MOST_UNREAD = 192
"""Messages of one run to another that the latter need not have read; the sender waits with what comes behind."""

# ---- runs ----------------------------------------------------------------------------------------------------------


def update(connection: Connection, link_id: int, told: RunUpdate, *, now: datetime, touched: Touched) -> bool:
    """Note where a run stands, its progress, its log and what it waits for; False if it is not the node's to say."""
    run = next(iter(runs.load(connection, [told.run_id])), None)
    if run is None:
        return False
    if states.last_words(run, link_id=link_id, attempt=told.attempt):
        _append_log(connection, told, now)
        touched.task(run.task_id)
        return True
    if not states.reports(run, link_id=link_id, attempt=told.attempt, state=told.state):
        return False
    values: dict[str, object] = {
        "state": told.state,
        "fraction": told.fraction if 0 <= told.fraction <= 1 else 0.0,
        "waiting": told.waiting.SerializeToString() if told.HasField("waiting") else None,
    }
    if told.progress_envelope:
        values["progress_envelope"] = told.progress_envelope
    if told.HasField("started_at"):
        values["started_at"] = moment_at(nanoseconds(told.started_at))
    runs.move(connection, [run], touched, **values)
    _append_log(connection, told, now)
    return True


def _append_log(connection: Connection, told: RunUpdate, now: datetime) -> None:
    if not told.log_envelopes:
        return
    last = connection.scalar(select(func.max(run_logs.c.position)).where(run_logs.c.run_id == told.run_id)) or 0
    lines = [
        {"run_id": told.run_id, "position": position, "attempt": told.attempt, "envelope": envelope, "received_at": now}
        for position, envelope in enumerate(told.log_envelopes, start=last + 1)
    ]
    connection.execute(insert(run_logs), lines)


# ---- messages ------------------------------------------------------------------------------------------------------


class Fate(Enum):
    """What became of a message."""

    STORED = auto()
    UNREAD = auto()
    """Stored, and the run that receives has so much to read that its sender is to wait."""
    NOT_NEEDED = auto()
    """It is here already, or one of the two runs has ended. The node can forget it."""
    NOT_KNOWN = auto()
    """Not between a run of this node and a sibling of it, as far as this server knows."""


def messages(
    connection: Connection, link_id: int, sent: Sequence[PeerMessage], *, now: datetime, touched: Touched
) -> list[Fate]:
    """Store messages between siblings, each once, and have them delivered to the nodes of the runs that receive them."""
    run_ids = (run_id for each in sent for run_id in (each.from_run_id, each.to_run_id))
    known = {run.run_id: run for run in runs.load(connection, run_ids)}
    pairs = {pair: _stored(connection, pair, sent) for pair in dict.fromkeys(map(_pair, sent))}
    fates, due = [], []
    for each in sent:
        sender, receiver, stored = known.get(each.from_run_id), known.get(each.to_run_id), pairs[_pair(each)]
        if sender is None or receiver is None or not _are_siblings(sender, receiver, each, link_id):
            fates.append(Fate.NOT_KNOWN)
        elif sender.ended or receiver.ended or each.sequence in stored:
            fates.append(Fate.NOT_NEEDED)
        else:
            message_id = _store(connection, each, now)
            stored.add(each.sequence)
            if receiver.link_id is not None:
                due.append(Delivery(receiver.link_id, Kind.MESSAGE, receiver.run_id, receiver.attempt, message_id))
            fates.append(Fate.UNREAD if stored.is_unread(each.sequence) else Fate.STORED)
    deliveries.enqueue(connection, due, touched)
    return fates


def is_unread(connection: Connection, sent: Accepted) -> bool:
    """Tell whether a message lies too far behind what the run that receives it has read."""
    pair = {"to_run": sent.to_run_id, "from_run": sent.from_run_id}
    return _Stored(_OLDEST.row(connection, pair).sequence).is_unread(sent.sequence)


@dataclasses.dataclass
class _Stored:
    """Which messages of a pair of runs are here, as far as somebody asks."""

    oldest: int | None
    asked_for: set[int] = dataclasses.field(default_factory=set)

    def __contains__(self, sequence: int) -> bool:
        """Whether a message is here, or was, until it was read."""
        return sequence in self.asked_for or (self.oldest is not None and sequence < self.oldest)

    def add(self, sequence: int) -> None:
        """Another one is here now."""
        self.asked_for.add(sequence)
        self.oldest = sequence if self.oldest is None else self.oldest

    def is_unread(self, sequence: int) -> bool:
        """Whether a message lies too far behind the oldest, which the run that receives has not read, or read last."""
        return self.oldest is not None and sequence - self.oldest >= MOST_UNREAD


def _pair(sent: PeerMessage) -> tuple[str, str]:
    return sent.from_run_id, sent.to_run_id


def _are_siblings(sender: states.Run, receiver: states.Run, sent: PeerMessage, link_id: int) -> bool:
    """Tell whether a message is one of a node's run to a sibling."""
    is_one_task = {sender.task_id, receiver.task_id} == {sent.task_id}
    return sender.link_id == link_id and sender is not receiver and is_one_task


def _stored(connection: Connection, pair: tuple[str, str], sent: Sequence[PeerMessage]) -> _Stored:
    """Find out which of the messages of a pair are here already."""
    here = {"from_run": pair[0], "to_run": pair[1]}
    sequences = [each.sequence for each in sent if _pair(each) == pair]
    same = _SAME.rows(connection, here | {"first": min(sequences), "last": max(sequences)})
    return _Stored(_OLDEST.row(connection, here).sequence, {row.sequence for row in same})


def _store(connection: Connection, sent: PeerMessage, now: datetime) -> int:
    values = {"from_run_id": sent.from_run_id, "to_run_id": sent.to_run_id, "sequence": sent.sequence}
    return int(_STORE.row(connection, values | {"envelope": sent.envelope, "received_at": now}).message_id)


_PAIR = (peer_messages.c.to_run_id == bindparam("to_run"), peer_messages.c.from_run_id == bindparam("from_run"))
_OLDEST = Prepared(select(func.min(peer_messages.c.sequence).label("sequence")).where(*_PAIR))
_SAME = Prepared(
    select(peer_messages.c.sequence).where(
        *_PAIR, peer_messages.c.sequence.between(bindparam("first"), bindparam("last"))
    )
)
_STORE = Prepared(insert(peer_messages).returning(peer_messages.c.message_id))
_FORGET_READ = Prepared(delete(peer_messages).where(*_PAIR, peer_messages.c.sequence < bindparam("number")))


def read(connection: Connection, link_id: int, told: Received, touched: Touched) -> None:
    """Forget what a node's run has read of a sibling's messages, but for the newest, which tells how far it is."""
    known = {run.run_id: run for run in runs.load(connection, [told.from_run_id, told.to_run_id])}
    sender, reader = known.get(told.from_run_id), known.get(told.to_run_id)
    if sender is None or reader is None or reader.link_id != link_id or sender.task_id != reader.task_id:
        return
    pair = {"to_run": told.to_run_id, "from_run": told.from_run_id}
    _FORGET_READ.each(connection, [pair | {"number": told.sequence}])
    if sender.link_id is not None:
        touched.link(sender.link_id)


# ---- what a node holds ---------------------------------------------------------------------------------------------


_HELD = Prepared(
    select(*runs.DECISIVE)
    .where(run_table.c.link_id == bindparam("of_link"), IS_OPEN, run_table.c.assigned_at.is_not(None))
    .order_by(run_table.c.position)
    .with_for_update()
)


def reconcile(connection: Connection, link_id: int, held: Sequence[HeldRun], touched: Touched) -> None:
    """Bring a node that attaches and the server to the same view of who has which run.

    A run that the node holds and that has ended, or is to be cancelled, is cancelled again; the node ignores that where
    its own result stands already, and commits it. An attempt that was given to another node meanwhile is fenced. A run that is the node's and that it does not hold is delivered
    again: a node whose journal knows the run answers with what is in it, and one that has lost its journal has lost the
    run, and executes it. The server can't tell the one from the other, and never gives the run to somebody else.
    """
    known = {run.run_id: run for run in runs.load(connection, [each.run_id for each in held])}
    here = {(each.run_id, each.attempt) for each in held}
    own = [run for run in known.values() if run.link_id == link_id and (run.run_id, run.attempt) in here]
    unwanted = [run for run in own if run.ended or run.cancelling]
    mine = [runs.run_of(row) for row in _HELD.rows(connection, {"of_link": link_id})]
    lost = [run for run in mine if (run.run_id, run.attempt) not in here]
    former = here - {(run.run_id, run.attempt) for run in own}
    fenced = [
        dataclasses.replace(known[run_id], attempt=attempt, link_id=link_id)
        for run_id, attempt in sorted(former)
        if run_id in known and (known[run_id].attempt > attempt or known[run_id].link_id not in (None, link_id))
    ]
    deliveries.fence(connection, fenced, touched)
    deliveries.assign(connection, lost, touched)
    deliveries.cancel(connection, unwanted + [run for run in lost if run.cancelling], touched)
