"""What leaves the station: a record of every sealed byte, chained, in the journal.

Promises: what is counted in a run's bytes_out is recorded, in the same transaction, and nothing else is: the sizes of a run's records add up
to the bytes_out of its receipt. Each record names the hash of the one before, so one that is altered, dropped or moved is found by
`verify`; one that is dropped at the end is missed by the run that counted it.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust import FolkmootError, digest, parse, serialize, timestamp
from folkmoot.trust.encoding import DIGEST_BYTES
from folkmoot.trust.times import nanoseconds_at
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.station_service_pb2 import EgressRecord
from folkmoot.v1.task_pb2 import Receipt

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Allowance:
    """How many bytes may leave between two times for the organization whose user made the root task."""

    most_bytes: int
    begins_at: datetime
    ends_at: datetime


@dataclass(frozen=True)
class Departure:
    """An envelope that is about to leave."""

    genesis: bytes
    time: datetime
    kind: EnvelopeKind.ValueType
    envelope_digest: bytes
    size_bytes: int
    receivers: tuple[str, ...]
    allowance: Allowance | None = None
    """It leaves only if it fits into that; None: in any case."""


def leave(connection: sqlite3.Connection, run: tuple[str, int], task_id: str, departures: Sequence[Departure]) -> None:
    """Record what leaves for a run (its id, its attempt), and count its bytes. Raises QUOTA_EXCEEDED where it does not fit."""
    row = connection.execute("SELECT initiator_id FROM runs WHERE run_id = ? AND attempt = ?", run).fetchone()
    initiator_id = row[0] if row else ""
    sequence, previous_hash = head(connection)
    for departure in departures:
        require_room(connection, initiator_id, departure)
        sequence += 1
        record = serialize(
            EgressRecord(
                version=FORMAT_VERSION,
                sequence=sequence,
                previous_hash=previous_hash,
                time=timestamp(departure.time),
                genesis=departure.genesis,
                task_id=task_id,
                run_id=run[0],
                attempt=run[1],
                kind=departure.kind,
                envelope_digest=departure.envelope_digest,
                size_bytes=departure.size_bytes,
                receivers=departure.receivers,
            )
        )
        connection.execute(
            "INSERT INTO egress (sequence, record, initiator_id, left_at_us, size_bytes) VALUES (?, ?, ?, ?, ?)",
            (sequence, record, initiator_id, _microseconds(departure.time), departure.size_bytes),
        )
        previous_hash = digest(record)
    connection.execute(
        "UPDATE runs SET bytes_out = bytes_out + ? WHERE run_id = ? AND attempt = ?",
        (sum(departure.size_bytes for departure in departures), *run),
    )


def left_since(connection: sqlite3.Connection, initiator_id: str, since: datetime) -> int:
    """Bytes that have left for an organization since a time."""
    (size_bytes,) = connection.execute(
        "SELECT coalesce(sum(size_bytes), 0) FROM egress WHERE initiator_id = ? AND left_at_us >= ?",
        (initiator_id, _microseconds(since)),
    ).fetchone()
    return int(size_bytes)


def require_room(connection: sqlite3.Connection, initiator_id: str, departure: Departure) -> None:
    """Raise QUOTA_EXCEEDED if something does not fit into what may leave for an organization."""
    allowance = departure.allowance
    if allowance is None:
        return
    left = left_since(connection, initiator_id, allowance.begins_at)
    if left + departure.size_bytes > allowance.most_bytes:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            f"the node's policy lets {allowance.most_bytes} bytes leave for an organization per day; {left} have left, and this is "
            f"{departure.size_bytes} more: make it smaller, or try again after {allowance.ends_at.isoformat(timespec='minutes')}",
        )


def _microseconds(time: datetime) -> int:
    return nanoseconds_at(time) // 1000


def head(connection: sqlite3.Connection) -> tuple[int, bytes]:
    """The newest record's position and hash; 0 and zero bytes if there is none."""
    row = connection.execute("SELECT sequence, record FROM egress ORDER BY sequence DESC LIMIT 1").fetchone()
    return (int(row[0]), digest(bytes(row[1]))) if row else (0, bytes(DIGEST_BYTES))


def records_after(connection: sqlite3.Connection, sequence: int, number: int) -> list[bytes]:
    """Serialized records behind a position, in order, so many at most."""
    rows = connection.execute(
        "SELECT record FROM egress WHERE sequence > ? ORDER BY sequence LIMIT ?", (sequence, number)
    )
    return [bytes(record) for (record,) in rows]


def all_records(connection: sqlite3.Connection) -> Iterator[bytes]:
    """All serialized records, in order."""
    for (record,) in connection.execute("SELECT record FROM egress ORDER BY sequence"):
        yield bytes(record)


def verify(connection: sqlite3.Connection) -> int:
    """Return how many records there are, if nothing was altered, dropped or moved; raise FolkmootError, saying what, otherwise."""
    sizes = chained_sizes(all_records(connection))
    for row in connection.execute("SELECT run_id, attempt, bytes_out, unrecorded_bytes, receipt FROM runs"):
        run_id, attempt, bytes_out, unrecorded_bytes, receipt = row
        recorded = sizes.bytes_out.pop((run_id, attempt), 0)
        signed = signed_bytes_out(bytes(receipt), default=bytes_out)
        if not recorded + unrecorded_bytes == bytes_out == signed:
            raise _broken(
                f"{recorded} bytes are recorded to have left for run {run_id}, attempt {attempt}; the journal counted "
                f"{bytes_out - unrecorded_bytes}, and its receipt says {signed - unrecorded_bytes}"
            )
    if sizes.bytes_out:
        raise _broken(f"bytes left for run {next(iter(sizes.bytes_out))[0]}, which the journal does not know")
    return sizes.number


@dataclass(frozen=True)
class ChainedSizes:
    """What a chain of records adds up to."""

    number: int
    bytes_out: dict[tuple[str, int], int]
    """By run and attempt."""


def chained_sizes(serialized: Iterable[bytes]) -> ChainedSizes:
    """Add up records; raise FolkmootError, naming the position, where they are not chained one to the other from the first one on."""
    bytes_out: dict[tuple[str, int], int] = {}
    previous_hash, sequence = bytes(DIGEST_BYTES), 0
    for data in serialized:
        sequence += 1
        try:
            record = parse(EgressRecord, data)
        except FolkmootError as error:
            raise _broken(f"record {sequence} can't be read: {error.message}") from error
        if (record.version, record.sequence, record.previous_hash) != (FORMAT_VERSION, sequence, previous_hash):
            raise _broken(f"record {sequence} does not follow from the one before: one was altered, dropped or moved")
        previous_hash = digest(data)
        run = record.run_id, record.attempt
        bytes_out[run] = bytes_out.get(run, 0) + record.size_bytes
    return ChainedSizes(sequence, bytes_out)


def signed_bytes_out(receipt: bytes, *, default: int) -> int:
    """What a signed receipt says has left; the default where there is none yet."""
    return Receipt.FromString(Signed.FromString(receipt).body).bytes_out if receipt else default


def _broken(text: str) -> FolkmootError:
    return FolkmootError(
        ErrorReason.ERROR_REASON_MALFORMED, f"what the journal records to have left is not whole: {text}"
    )
