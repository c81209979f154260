"""What the journal knows of runs, and the few changes that these may go through.

    ASSIGNED -> (AWAITING_APPROVAL ->) RUNNING -> (HELD ->) a terminal state with its receipt -> committed

Every function takes a connection and is a change for `Journal.transact`: repeatable, without other effects. A run that was RUNNING is
never started again (the journal rule: at most once per station), and what stands in a terminal state stays.
"""

import dataclasses
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from folkmoot.node.proxy.ports import Limits
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.v1.task_pb2 import MessageGrant, RunState, TaskChain, TaskSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ASSIGNED = RunState.RUN_STATE_ASSIGNED
AWAITING_APPROVAL = RunState.RUN_STATE_AWAITING_APPROVAL
RUNNING = RunState.RUN_STATE_RUNNING
HELD = RunState.RUN_STATE_HELD
FIRST_TERMINAL = RunState.RUN_STATE_COMPLETED
FENCED = 9
"""`cancelled` of an attempt that another node has been given in its place; also where it had ended here already."""

CANCELLED_BY_INITIATOR, CANCELLED_AT_STATION = 1, 2
"""Who did not want a run any more: column `cancelled`."""


def microseconds(moment: datetime) -> int:
    """A time as the journal keeps it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds_: int) -> datetime:
    """A time as the journal kept it."""
    return _EPOCH + timedelta(microseconds=microseconds_)


@dataclass(frozen=True)
class StoredEnvelope:
    """An envelope of this station. `inline` holds it if it is small, and belongs in the journal; else it lies in a file."""

    digest: bytes
    size_bytes: int
    inline: bytes | None


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, as the journal has it: the columns of `runs`."""

    run_id: str
    attempt: int
    task_id: str
    job_id: str
    task_digest: bytes
    chain: bytes
    policy_digest: bytes
    input_digest: bytes
    memory_bytes: int
    cpu_millis: int
    run_time_seconds: int
    result_limit_bytes: int
    accepted_at_us: int
    state: int
    run_name: str = ""
    image_id: str = ""
    started_at_us: int = 0
    scratch: int = 0
    cancelled: int = 0
    log_sequence: int = 0
    log_lines: int = 0
    progress_sequence: int = 0
    bytes_out: int = 0
    content_digest: bytes = b""
    result_digest: bytes = b""
    result_size_bytes: int = 0
    receipt: bytes = b""
    ended_at_us: int = 0
    committed_at_us: int = 0
    forgotten: int = 0
    image_signers: str = ""
    hold: int = 0
    held_state: int = 0
    held_exit_class: int = 0
    held_bytes: int = 0
    look_digest: bytes = b""
    unrecorded_bytes: int = 0
    pids: int = 256
    scratch_bytes: int = 10 << 30
    temporary_bytes: int = 64 << 20
    gpus: int = 0
    minimum_rows: int = 0
    initiator_id: str = ""
    """The organization whose user made the root task, once that is proven."""

    @property
    def key(self) -> tuple[str, int]:
        """Its name in the journal."""
        return (self.run_id, self.attempt)

    @property
    def ended(self) -> bool:
        """Whether its end stands, signed."""
        return self.state >= FIRST_TERMINAL

    @property
    def stands(self) -> bool:
        """Whether the algorithm's last word is taken: it has ended, or is held until a person has looked at it."""
        return self.state >= HELD

    @property
    def started(self) -> bool:
        """Whether it is past the point from which on it is never started again."""
        return bool(self.started_at_us)

    @property
    def decided(self) -> bool:
        """Whether it was accepted or refused; one that is neither waits until its ledger can be relied on."""
        return bool(self.policy_digest)

    @property
    def limits(self) -> Limits:
        """What it may use."""
        return Limits(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Limits)})

    @property
    def may_send(self) -> bool:
        """Whether it can have sent messages: it was started, and its task grants them."""
        if not self.started_at_us:
            return False
        spec = TaskSpec.FromString(self.task_chain().specs[-1].body)
        return spec.grant.messages == MessageGrant.MESSAGE_GRANT_SIBLINGS

    def task_chain(self) -> TaskChain:
        """Its task's signed specs."""
        return TaskChain.FromString(self.chain)


_COLUMNS = tuple(item.name for item in dataclasses.fields(RunRecord))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM runs"  # noqa: S608 - our own names
_INSERT = f"INSERT INTO runs ({', '.join(_COLUMNS)}) VALUES ({', '.join(':' + name for name in _COLUMNS)})"  # noqa: S608
KEY = "run_id = ? AND attempt = ?"
"""A run in one attempt, in SQL."""
_GRANTED = (
    "policy_digest",
    *(item.name for item in dataclasses.fields(Limits)),
    "result_limit_bytes",
    "minimum_rows",
)
"""What a policy gives to a run."""


def acknowledged(connection: sqlite3.Connection) -> int:
    """The highest delivery that is journaled."""
    (sequence,) = connection.execute("SELECT acknowledged FROM link").fetchone()
    return int(sequence)


def acknowledge(connection: sqlite3.Connection, sequence: int) -> None:
    """Everything up to this delivery is journaled."""
    connection.execute("UPDATE link SET acknowledged = ?", (sequence,))


def insert_run(connection: sqlite3.Connection, record: RunRecord) -> None:
    """Accept or refuse a run."""
    connection.execute(_INSERT, dataclasses.asdict(record))


def select_runs(connection: sqlite3.Connection, condition: str, *values: object) -> list[RunRecord]:
    """Runs by a condition in SQL."""
    return [RunRecord(**dict(row)) for row in connection.execute(f"{_SELECT} {condition}", values)]


def get_run(connection: sqlite3.Connection, run_id: str, attempt: int) -> RunRecord | None:
    """A run in one attempt."""
    return next(iter(select_runs(connection, f"WHERE {KEY}", run_id, attempt)), None)


def standing(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """A run that the journal has, as it stands now."""
    found = get_run(connection, *record.key)
    if found is None:
        raise LookupError(f"run {record.run_id} is not in the journal")
    return found


def attempts_of(connection: sqlite3.Connection, run_id: str) -> list[RunRecord]:
    """All attempts of a run that this station knows, the newest last."""
    return select_runs(connection, "WHERE run_id = ? ORDER BY attempt", run_id)


def uncommitted_runs(connection: sqlite3.Connection) -> list[RunRecord]:
    """Runs that the server does not have the end of, in task order."""
    return select_runs(connection, "WHERE committed_at_us = 0 ORDER BY task_id, run_id")


def recent_runs(connection: sqlite3.Connection, number: int) -> list[RunRecord]:
    """The newest runs."""
    return select_runs(connection, "ORDER BY accepted_at_us DESC LIMIT ?", number)


def decide_run(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """Note what a run that waited was decided to be, under which policy."""
    return change_run(
        connection,
        record,
        *_assignments(record, "input_digest", "initiator_id", "accepted_at_us", *_GRANTED),
        where=f"state = {ASSIGNED} AND policy_digest = x''",
    )


def grant_run(connection: sqlite3.Connection, record: RunRecord) -> None:
    """Note what the policy in force gives to a run that was not started."""
    assignments, values = _assignments(record, *_GRANTED)
    connection.execute(f"UPDATE runs SET {assignments} WHERE {KEY} AND started_at_us = 0", (*values, *record.key))  # noqa: S608


def start_run(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """Note that a run is about to be started, and with what: from here on it is never started again."""
    grant_run(connection, record)
    return change_run(
        connection,
        record,
        "state = ?, run_name = ?, image_id = ?, image_signers = ?, started_at_us = ?, scratch = ?, hold = max(hold, ?)",
        (
            RUNNING,
            record.run_name,
            record.image_id,
            record.image_signers,
            record.started_at_us,
            record.scratch,
            record.hold,
        ),
        where=f"state IN ({ASSIGNED}, {AWAITING_APPROVAL})",
    )


def scratch_used(connection: sqlite3.Connection, job_id: str) -> bool:
    """Whether a run of a job has opened its scratch volume here."""
    return connection.execute("SELECT 1 FROM runs WHERE job_id = ? AND scratch = 1", (job_id,)).fetchone() is not None


def end_run(
    connection: sqlite3.Connection,
    record: RunRecord,
    stored: StoredEnvelope | None,
    departures: Sequence[Departure] = (),
) -> RunRecord:
    """Let a run's end stand, with its receipt and what that names and lets leave; if another end stands already, that one stays."""
    standing = get_run(connection, *record.key)
    if standing is not None and standing.ended:
        return standing
    if stored is not None and stored.inline is not None:
        put_envelope(connection, stored.digest, stored.inline)
    if standing is not None:
        kept = {stored.digest if stored else b"", record.result_digest}
        drop_envelopes(connection, {standing.result_digest, standing.look_digest} - kept)
    egress.leave(connection, record.key, record.task_id, departures)
    return change_run(
        connection,
        record,
        "state = ?, content_digest = ?, result_digest = ?, result_size_bytes = ?, receipt = ?, ended_at_us = ?, "
        "look_digest = x'', held_bytes = 0",
        (
            record.state,
            record.content_digest,
            record.result_digest,
            record.result_size_bytes,
            record.receipt,
            record.ended_at_us,
        ),
        where=f"state < {FIRST_TERMINAL}",
    )


def count_reports(connection: sqlite3.Connection, record: RunRecord, departure: Departure) -> None:
    """Keep how far a run's log and progress have come, and let one more envelope of them leave."""
    connection.execute(
        f"UPDATE runs SET log_sequence = ?, log_lines = ?, progress_sequence = ? WHERE {KEY}",  # noqa: S608
        (record.log_sequence, record.log_lines, record.progress_sequence, *record.key),
    )
    egress.leave(connection, record.key, record.task_id, (departure,))


def cancel_run(connection: sqlite3.Connection, run_id: str, *, by: int = CANCELLED_BY_INITIATOR) -> None:
    """Note that a run is not wanted any more; who was first to say so stays."""
    connection.execute(
        f"UPDATE runs SET cancelled = ? WHERE run_id = ? AND cancelled = 0 AND state < {FIRST_TERMINAL}",  # noqa: S608
        (by, run_id),
    )


def fence_run(connection: sqlite3.Connection, run_id: str, attempt: int) -> bool:
    """Note that an attempt was given to another node: whatever comes of it counts no more. False if a later one is here."""
    unless = f"cancelled <> {CANCELLED_AT_STATION}"  # what a person here has ended does not begin here again
    connection.execute(f"UPDATE runs SET cancelled = ? WHERE {KEY} AND {unless}", (FENCED, run_id, attempt))  # noqa: S608
    known = attempts_of(connection, run_id)
    return bool(known) and known[-1].attempt == attempt


def reopen_run(connection: sqlite3.Connection, record: RunRecord) -> RunRecord:
    """The server asks for a run that this journal knows: what stands is delivered once more."""
    connection.execute(f"UPDATE runs SET committed_at_us = 0 WHERE {KEY} AND forgotten = 0", record.key)  # noqa: S608
    return dataclasses.replace(record, committed_at_us=0)


def reopen_all_runs(connection: sqlite3.Connection) -> list[RunRecord]:
    """The server has lost its newest past: every end whose payload is kept is delivered once more."""
    connection.execute("UPDATE runs SET committed_at_us = 0 WHERE forgotten = 0")
    return uncommitted_runs(connection)


def commit_run(connection: sqlite3.Connection, record: RunRecord, now: datetime) -> None:
    """Note that the server has a run's end."""
    connection.execute(f"UPDATE runs SET committed_at_us = ? WHERE {KEY}", (microseconds(now), *record.key))  # noqa: S608


def put_envelope(connection: sqlite3.Connection, digest: bytes, data: bytes) -> None:
    """Keep a small envelope."""
    connection.execute("INSERT OR IGNORE INTO envelopes VALUES (?, ?)", (digest, data))


def get_envelope(connection: sqlite3.Connection, digest: bytes) -> bytes | None:
    """A small envelope, if it is kept here."""
    row = connection.execute("SELECT data FROM envelopes WHERE digest = ?", (digest,)).fetchone()
    return bytes(row[0]) if row else None


def drop_envelopes(connection: sqlite3.Connection, digests: Iterable[bytes]) -> None:
    """Remove small envelopes."""
    connection.executemany("DELETE FROM envelopes WHERE digest = ?", [(digest,) for digest in digests])


def change_run(
    connection: sqlite3.Connection, record: RunRecord, assignments: str, values: tuple[object, ...], *, where: str
) -> RunRecord:
    """Change a run where its state allows it, and give it as it stands then."""
    statement = f"UPDATE runs SET {assignments} WHERE {KEY} AND {where}"  # noqa: S608 - our own names
    connection.execute(statement, (*values, *record.key))
    return standing(connection, record)


def _assignments(record: RunRecord, *names: str) -> tuple[str, tuple[object, ...]]:
    """Assignments of a record's columns, and what is assigned."""
    return ", ".join(f"{name} = ?" for name in names), tuple(getattr(record, name) for name in names)
