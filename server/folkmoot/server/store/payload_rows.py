"""Rows of payloads: what an envelope is for, whether all of it is there, and which organizations may read it.

An envelope that is complete never changes. Small ones are in the row; of large ones the payload store has the bytes. One that is
deleted leaves its row to say so, until its task is deleted too: removal_rows.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from folkmoot.server.payloads.quotas import Quota
from folkmoot.server.store import usage_rows
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import IS_KEPT, AnyRow, payloads
from folkmoot.server.store.usage_rows import Counted
from folkmoot.trust import Inspected
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Place:
    """What an envelope is bound to, by its own words: its kind, its task, and its run unless it is an input."""

    kind: EnvelopeKind.ValueType
    task_id: str
    run_id: str = ""

    @classmethod
    def of(cls, inspected: Inspected) -> "Place":
        """Return what a parsed envelope is bound to."""
        context = inspected.context
        return cls(context.kind, context.task_id, context.run_id)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that a task or a receipt names: where it belongs, and who may read it besides its sender."""

    digest: bytes
    place: Place
    readers: Collection[str]
    inline: bytes | None
    """Its bytes if they rode along; None if they were uploaded before."""


@dataclass(frozen=True, slots=True)
class Sending:
    """Envelopes that an organization sends, in one go."""

    sender_organization_id: str
    envelopes: Collection[Envelope]
    at: datetime


def not_found(digest: bytes, text: str) -> FolkmootError:
    """Return the error of a payload that is not there, not complete, or not for this caller."""
    name = digest.hex()
    return FolkmootError(
        ErrorReason.ERROR_REASON_PAYLOAD_NOT_FOUND, f"{text}: {name}", metadata={"envelope_digest": name}
    )


def deleted(digest: bytes, when: datetime) -> FolkmootError:
    """Return the error of a payload that was deleted."""
    text = f"It was deleted on {when:%Y-%m-%d}, on request or because it was old; nothing brings it back"
    return not_found(digest, text)


_FIND = Prepared(
    select(
        *(column for column in payloads.c if column is not payloads.c.envelope),
        payloads.c.envelope.is_not(None).label("inline"),
    ).where(payloads.c.envelope_digest == bindparam("digest"))
)


def find(connection: Connection, digest: bytes) -> AnyRow | None:
    """Return a payload's row, without its bytes."""
    row: AnyRow | None = _FIND.row(connection, {"digest": digest})
    return row


def inline_bytes(connection: Connection, digest: bytes) -> bytes | None:
    """Return the bytes of an envelope that is in its row; None if it is not, any more."""
    envelope = connection.scalar(select(payloads.c.envelope).where(payloads.c.envelope_digest == digest))
    return None if envelope is None else bytes(envelope)


def may_read(row: AnyRow, organization_id: str) -> bool:
    """Whether an organization has sent the payload or receives it."""
    return bool(organization_id) and organization_id in (row.sender_organization_id, *row.readers.split(" "))


# ---- named by something ----------------------------------------------------------------------------------------------


def store(connection: Connection, sendings: Sequence[Sending], quota: Quota) -> dict[bytes, int]:
    """Store envelopes that rode along and take those that were uploaded; return the size of each in bytes.

    Raises PAYLOAD_NOT_FOUND for one that did neither, that was uploaded for another place or deleted; STORAGE_QUOTA_EXCEEDED.
    """
    digests = list({envelope.digest for sending in sendings for envelope in sending.envelopes})
    found = _FIND.rows_of_each(connection, [{"digest": digest} for digest in digests])
    there = {row.envelope_digest: row for rows in found for row in rows}
    new = [
        row
        for sending in sendings
        for envelope in sending.envelopes
        if (row := _settle(connection, sending, envelope, there.get(envelope.digest), quota))
    ]
    _INSERT.each(connection, new)
    _count(connection, new, quota)
    sizes = {digest: int(row.size_bytes) for digest, row in there.items()}
    inline = (envelope for sending in sendings for envelope in sending.envelopes if envelope.inline is not None)
    return sizes | {envelope.digest: len(envelope.inline or b"") for envelope in inline}


def _settle(
    connection: Connection, sending: Sending, envelope: Envelope, there: AnyRow | None, quota: Quota
) -> dict[str, Any] | None:
    """Return the row of an envelope that has none; of one that has, take or replace what is there."""
    sender = sending.sender_organization_id
    if there is not None and there.deleted_at is not None:
        raise deleted(envelope.digest, there.deleted_at)
    if there is not None and there.completed_at is not None and there.sender_organization_id == sender:
        _take(connection, there, envelope)
        return None
    if envelope.inline is None:
        raise not_found(envelope.digest, "The envelope was neither sent along nor uploaded completely")
    row = _row(envelope, sender, sending.at)
    if there is None:
        return row
    _replace(connection, there, row, quota)
    return None


def _count(connection: Connection, new: Iterable[dict[str, Any]], quota: Quota) -> None:
    """Count what is new, for each organization and day."""
    stored: Counter[tuple[str, datetime]] = Counter()
    for row in new:
        stored[row["sender_organization_id"], usage_rows.midnight(row["created_at"])] += row["size_bytes"]
    for (organization_id, day), size_bytes in sorted(stored.items()):
        quota.take(connection, organization_id, size_bytes)
        if size_bytes:
            usage_rows.add(connection, day, Counted(organization_id=organization_id, bytes_stored=size_bytes))


def _replace(connection: Connection, row: AnyRow, new: dict[str, Any], quota: Quota) -> None:
    """Put what rode along in the place of an upload of it; of that, parts may be there."""
    here = update(payloads).where(payloads.c.envelope_digest == row.envelope_digest)
    connection.execute(here.values(new | {"remove_at": new["completed_at"]}))
    quota.give_back(connection, row.sender_organization_id, row.size_bytes)
    quota.take(connection, new["sender_organization_id"], new["size_bytes"])


_INSERT = Prepared(insert(payloads))


def _row(envelope: Envelope, sender_organization_id: str, now: datetime) -> dict[str, Any]:
    return {
        "envelope_digest": envelope.digest,
        "size_bytes": len(envelope.inline or b""),
        "sender_organization_id": sender_organization_id,
        "readers": " ".join(envelope.readers),
        "envelope": envelope.inline,
        "kind": envelope.place.kind,
        "task_id": envelope.place.task_id,
        "run_id": envelope.place.run_id,
        "created_at": now,
        "completed_at": now,
    }


def _take(connection: Connection, row: AnyRow, envelope: Envelope) -> None:
    if Place(row.kind, row.task_id, row.run_id) != envelope.place:
        raise not_found(envelope.digest, "The envelope that was uploaded is for another task or run")
    change = update(payloads).where(payloads.c.envelope_digest == envelope.digest)
    connection.execute(change.values(readers=" ".join(envelope.readers)))


# ---- uploads -------------------------------------------------------------------------------------------------------


def begin(
    connection: Connection,
    digest: bytes,
    size_bytes: int,
    *,
    sender_organization_id: str,
    now: datetime,
    quota: Quota,
) -> bool:
    """Begin or resume an upload, and return whether there is something to upload; raise ID_TAKEN, STORAGE_QUOTA_EXCEEDED.

    What was deleted is not taken again as long as anything tells of it: its receipt can still be committed.
    """
    row = find(connection, digest)
    if row is not None:
        if row.deleted_at is not None and row.remove_at is not None:
            text = (
                "A payload of this name was deleted, and its bytes are just being removed: try again in a few seconds"
            )
            raise FolkmootError(ErrorReason.ERROR_REASON_PROVIDER_UNREACHABLE, text)
        if (row.size_bytes, row.sender_organization_id) == (size_bytes, sender_organization_id):
            return row.completed_at is None
        text = "There is a payload of this name, of another size or from another organization"
        raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"envelope_digest": digest.hex()})
    quota.take(connection, sender_organization_id, size_bytes)
    new = {
        "envelope_digest": digest,
        "size_bytes": size_bytes,
        "sender_organization_id": sender_organization_id,
        "readers": "",
        "kind": EnvelopeKind.ENVELOPE_KIND_UNSPECIFIED,
        "task_id": "",
        "run_id": "",
        "created_at": now,
    }
    connection.execute(insert(payloads).values(new))
    return True


def complete(connection: Connection, digest: bytes, place: Place, *, now: datetime) -> bool:
    """Note that all of a payload is on disk, and where it belongs; False if somebody else has, or it was deleted meanwhile."""
    done = {"kind": place.kind, "task_id": place.task_id, "run_id": place.run_id, "completed_at": now}
    begun = update(payloads).where(payloads.c.envelope_digest == digest, IS_KEPT, payloads.c.completed_at.is_(None))
    stored = connection.execute(
        begun.values(done).returning(payloads.c.sender_organization_id, payloads.c.size_bytes)
    ).first()
    if stored is not None:
        counted = Counted(organization_id=stored.sender_organization_id, bytes_stored=stored.size_bytes)
        usage_rows.add(connection, now, counted)
    return stored is not None
