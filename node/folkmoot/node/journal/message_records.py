"""What the journal knows of messages between sibling runs: those that leave, until the server has them, and those that came.

As in `records`, every function is a change, or a query, for `Journal.transact`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from folkmoot.node.journal.records import RunRecord
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Accepted, PeerMessage


@dataclass(frozen=True)
class Outgoing:
    """A message that is about to leave."""

    message: PeerMessage
    content_digest: bytes
    departure: Departure


def insert_outgoing(connection: sqlite3.Connection, run: RunRecord, outgoing: Sequence[Outgoing]) -> list[PeerMessage]:
    """Let messages stand that a run sends; return those that did not stand before.

    Raises REPEAT_DIFFERS, or INVALID_FIELD out of order: then none of them stands.
    """
    last: dict[str, int] = {}
    new = []
    for each in outgoing:
        message, pair = each.message, (each.message.from_run_id, each.message.to_run_id)
        before = last.get(message.to_run_id)
        before = last_outgoing(connection, *pair) if before is None else before
        last[message.to_run_id] = max(before, message.sequence)
        if message.sequence <= before:
            _require_same(connection, each)
            continue
        if message.sequence != before + 1:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_INVALID_FIELD, f"the next message is {before + 1}, not {message.sequence}"
            )
        connection.execute(
            "INSERT INTO outgoing_messages (from_run_id, to_run_id, sequence, content_digest, frame) VALUES (?, ?, ?, ?, ?)",
            (*pair, message.sequence, each.content_digest, message.SerializeToString()),
        )
        new.append(each)
    if new:
        egress.leave(connection, run.key, run.task_id, [each.departure for each in new])
    return [each.message for each in new]


def _require_same(connection: sqlite3.Connection, outgoing: Outgoing) -> None:
    """Raise REPEAT_DIFFERS unless a message stands as it is sent again."""
    message = outgoing.message
    known = connection.execute(
        "SELECT content_digest FROM outgoing_messages WHERE from_run_id = ? AND to_run_id = ? AND sequence = ?",
        (message.from_run_id, message.to_run_id, message.sequence),
    ).fetchone()
    if known is None or known[0] != outgoing.content_digest:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_REPEAT_DIFFERS, f"message {message.sequence} was sent before, and differs"
        )


def last_outgoing(connection: sqlite3.Connection, from_run_id: str, to_run_id: str) -> int:
    """The number of the last message that one run has sent to another."""
    (last,) = connection.execute(
        "SELECT coalesce(max(sequence), 0) FROM outgoing_messages WHERE from_run_id = ? AND to_run_id = ?",
        (from_run_id, to_run_id),
    ).fetchone()
    return int(last)


def accept_outgoing(connection: sqlite3.Connection, accepted: Iterable[Accepted]) -> None:
    """Note that the server has stored messages: what they were is not needed any more, only that a repeat is the same."""
    connection.executemany(
        "UPDATE outgoing_messages SET accepted = 1, frame = x'' WHERE from_run_id = ? AND to_run_id = ? AND sequence = ?",
        [(each.from_run_id, each.to_run_id, each.sequence) for each in accepted],
    )


def count_unaccepted(connection: sqlite3.Connection, run_id: str) -> int:
    """How many messages that a run has sent the server may lack."""
    (number,) = connection.execute(
        "SELECT count(*) FROM outgoing_messages WHERE accepted = 0 AND from_run_id = ?", (run_id,)
    ).fetchone()
    return int(number)


def count_unaccepted_to(connection: sqlite3.Connection, from_run_id: str, to_run_id: str) -> int:
    """How many messages from one run to another the server may lack."""
    (number,) = connection.execute(
        "SELECT count(*) FROM outgoing_messages WHERE accepted = 0 AND from_run_id = ? AND to_run_id = ?",
        (from_run_id, to_run_id),
    ).fetchone()
    return int(number)


def unaccepted_outgoing(connection: sqlite3.Connection) -> list[PeerMessage]:
    """Messages that the server may not have, in order."""
    rows = connection.execute(
        "SELECT frame FROM outgoing_messages WHERE accepted = 0 ORDER BY from_run_id, to_run_id, sequence"
    )
    return [PeerMessage.FromString(frame) for (frame,) in rows]


def insert_incoming(connection: sqlite3.Connection, message: PeerMessage) -> bool:
    """Let a message stand that came in; the first one with its number stays, and then this is False."""
    inserted = connection.execute(
        "INSERT OR IGNORE INTO incoming_messages VALUES (?, ?, ?, ?)",
        (message.to_run_id, message.from_run_id, message.sequence, message.envelope),
    )
    return inserted.rowcount == 1


def incoming_after(
    connection: sqlite3.Connection, to_run_id: str, from_run_id: str, sequence: int
) -> list[tuple[int, bytes]]:
    """Messages from one run to another behind a number, in order, a batch at most."""
    rows = connection.execute(
        "SELECT sequence, envelope FROM incoming_messages "
        "WHERE to_run_id = ? AND from_run_id = ? AND sequence > ? ORDER BY sequence LIMIT 100",
        (to_run_id, from_run_id, sequence),
    )
    return [(int(number), bytes(envelope)) for number, envelope in rows]


def forget_read(connection: sqlite3.Connection, to_run_id: str, from_run_id: str, sequence: int) -> None:
    """Drop what an algorithm has had of a sibling."""
    connection.execute(
        "DELETE FROM incoming_messages WHERE to_run_id = ? AND from_run_id = ? AND sequence <= ?",
        (to_run_id, from_run_id, sequence),
    )


def incoming_of(connection: sqlite3.Connection, to_run_id: str) -> list[PeerMessage]:
    """All messages that came for a run."""
    rows = connection.execute(
        "SELECT from_run_id, sequence, envelope FROM incoming_messages WHERE to_run_id = ? ORDER BY from_run_id, sequence",
        (to_run_id,),
    )
    return [
        PeerMessage(from_run_id=from_run_id, to_run_id=to_run_id, sequence=sequence, envelope=envelope)
        for from_run_id, sequence, envelope in rows
    ]


def drop_incoming(connection: sqlite3.Connection, message: PeerMessage) -> None:
    """Let a message be as if it had never come."""
    connection.execute(
        "DELETE FROM incoming_messages WHERE to_run_id = ? AND from_run_id = ? AND sequence = ?",
        (message.to_run_id, message.from_run_id, message.sequence),
    )
