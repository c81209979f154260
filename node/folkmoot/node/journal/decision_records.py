"""What the journal knows of people at the station: what they decided, what waits for them, whether the node takes new work.

As in `records`, every function is a change, or a query, for `Journal.transact`.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.node.journal import records
from folkmoot.node.journal.records import ASSIGNED, AWAITING_APPROVAL, FIRST_TERMINAL, HELD, RunRecord, StoredEnvelope
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject

LEAVES_BY_ITSELF, HELD_BY_POLICY, HELD_BY_PERSON = range(3)
"""Why the last word of a run's algorithm waits for a person: column `hold`."""

_DECLINED = {
    ApprovalSubject.APPROVAL_SUBJECT_RUN: ErrorReason.ERROR_REASON_APPROVAL_DECLINED,
    ApprovalSubject.APPROVAL_SUBJECT_RELEASE: ErrorReason.ERROR_REASON_RELEASE_DECLINED,
}


def await_approval(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """Note that a run waits for a person, who is shown its image."""
    return records.change_run(
        connection,
        record,
        "state = ?, image_id = ?, image_signers = ?",
        (AWAITING_APPROVAL, record.image_id, record.image_signers),
        where=f"state = {ASSIGNED}",
    )


def want_to_look(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """Note that a person wants to look at a run's last word before it leaves."""
    return records.change_run(connection, record, "hold = ?", (HELD_BY_PERSON,), where=f"state < {HELD}")


def hold_run(connection: sqlite3.Connection, record: RunRecord, envelopes: Sequence[StoredEnvelope]) -> RunRecord:
    """Let a run's last word stand, for a person to look at; nothing of it leaves."""
    for each in envelopes:
        if each.inline is not None:
            records.put_envelope(connection, each.digest, each.inline)
    return records.change_run(
        connection,
        record,
        "state = ?, held_state = ?, held_exit_class = ?, held_bytes = ?, look_digest = ?, "
        "content_digest = ?, result_digest = ?, result_size_bytes = ?",
        (
            HELD,
            record.held_state,
            record.held_exit_class,
            record.held_bytes,
            record.look_digest,
            record.content_digest,
            record.result_digest,
            record.result_size_bytes,
        ),
        where=f"state < {HELD}",
    )


def insert_approval(
    connection: sqlite3.Connection,
    record: RunRecord,
    subject: ApprovalSubject.ValueType,
    decision: Decision.ValueType,
    signed: Signed,
) -> None:
    """Let a person's decision stand; the first one about a subject stays. An image that was approved once has been used."""
    connection.execute(
        "INSERT OR IGNORE INTO approvals VALUES (?, ?, ?, ?, ?)",
        (*record.key, subject, decision, signed.SerializeToString()),
    )
    approved = decision_about(connection, record, subject) == Decision.DECISION_APPROVE
    if approved and subject == ApprovalSubject.APPROVAL_SUBJECT_RUN:
        connection.execute("INSERT OR IGNORE INTO approved_images VALUES (?)", (record.image_id,))


def decision_about(
    connection: sqlite3.Connection, record: RunRecord, subject: ApprovalSubject.ValueType
) -> Decision.ValueType | None:
    """What a person decided about a run; None if nobody has."""
    row = connection.execute(
        "SELECT decision FROM approvals WHERE run_id = ? AND attempt = ? AND subject = ?", (*record.key, subject)
    ).fetchone()
    return Decision.ValueType(row[0]) if row else None


def declined(connection: sqlite3.Connection, record: RunRecord) -> ErrorReason.ValueType | None:
    """With which reason a person has declined a run, or its release; None if nobody has."""
    decisions = {subject: decision_about(connection, record, subject) for subject in _DECLINED}
    return next((_DECLINED[each] for each, said in decisions.items() if said == Decision.DECISION_DECLINE), None)


def release_of(connection: sqlite3.Connection, record: RunRecord) -> tuple[RunRecord, Decision.ValueType | None]:
    """A held run as it stands, and what a person decided about its release."""
    standing = records.get_run(connection, *record.key) or record
    return standing, decision_about(connection, record, ApprovalSubject.APPROVAL_SUBJECT_RELEASE)


def approvals_of(connection: sqlite3.Connection, record: RunRecord) -> list[Signed]:
    """What people decided about a run, signed."""
    rows = connection.execute(
        "SELECT signed FROM approvals WHERE run_id = ? AND attempt = ? ORDER BY subject", record.key
    )
    return [Signed.FromString(signed) for (signed,) in rows]


def image_approved(connection: sqlite3.Connection, image_id: str) -> bool:
    """Whether a person has approved a run of an image before."""
    row = connection.execute("SELECT 1 FROM approved_images WHERE image_id = ?", (image_id,)).fetchone()
    return row is not None


def availability(connection: sqlite3.Connection) -> Availability.ValueType:
    """Whether the node takes new work, as a person has set it."""
    (value,) = connection.execute("SELECT availability FROM availability").fetchone()
    return Availability.ValueType(value)


def set_availability(connection: sqlite3.Connection, value: Availability.ValueType) -> None:
    """Note whether the node takes new work."""
    connection.execute("UPDATE availability SET availability = ?", (value,))


def runs_like(connection: sqlite3.Connection, beginning: str) -> list[RunRecord]:
    """The newest attempts of runs whose id begins like this, two at most: more than one is as bad as none."""
    found: dict[str, RunRecord] = {}
    rows = connection.execute(
        "SELECT DISTINCT run_id FROM runs WHERE substr(run_id, 1, length(?)) = ? LIMIT 2", (beginning, beginning)
    )
    for (run_id,) in rows.fetchall():
        found[run_id] = records.attempts_of(connection, run_id)[-1]
    return list(found.values())


def page_of_runs(
    connection: sqlite3.Connection, before: tuple[int, str, int], states: Sequence[int], number: int
) -> list[RunRecord]:
    """Runs accepted before one (when, its id, its attempt), the newest first, so many at most; only in these states if any are named."""
    wanted = f"AND state IN ({', '.join('?' * len(states))})" if states else ""
    return records.select_runs(
        connection,
        f"WHERE (accepted_at_us, run_id, attempt) < (?, ?, ?) {wanted} ORDER BY accepted_at_us DESC, run_id DESC, attempt DESC LIMIT ?",
        *before,
        *states,
        number,
    )


@dataclass(frozen=True)
class Counts:
    """How many runs are where."""

    open: int
    awaiting_approval: int
    held: int
    undelivered: int


def count_runs(connection: sqlite3.Connection) -> Counts:
    """How many runs are where, of those whose end the server does not have."""
    row = connection.execute(
        "SELECT coalesce(sum(state < ?), 0), coalesce(sum(state = ?), 0), coalesce(sum(state = ?), 0), "
        "coalesce(sum(state >= ?), 0) FROM runs WHERE committed_at_us = 0",
        (FIRST_TERMINAL, AWAITING_APPROVAL, HELD, FIRST_TERMINAL),
    ).fetchone()
    return Counts(*row)
