"""Quotas: what an organization has used of its day, counted from the journal.

Promises: runs and bytes count for the organization whose user made the root task, whoever created what came below. Of runs, those count
that were accepted; of two that arrive for the last place the one that came first has it, also after a restart. Bytes count when they
leave (`egress`): results, subtasks' inputs, messages, log and progress leave only if they fit. What is said of a failure, and what a
person has released, leaves in any case, and counts.
"""

import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from folkmoot.node.journal.database import Journal
from folkmoot.node.journal.records import RunRecord, microseconds
from folkmoot.node.policy.opening_hours import day_of
from folkmoot.node.policy.policy_file import Policy, PolicyFile
from folkmoot.node.policy.verdict import Usage
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Allowance
from folkmoot.v1.task_pb2 import RunState


class Station(Protocol):
    """Where the journal, the policy and the clock are."""

    @property
    def journal(self) -> Journal:
        """What is counted."""

    @property
    def policy_file(self) -> PolicyFile:
        """By which policy."""

    @property
    def now(self) -> Callable[[], datetime]:
        """The clock."""


def has_quotas(policy: Policy) -> bool:
    """Whether anything is counted."""
    return bool(policy.quotas.runs_per_day or policy.quotas.bytes_out_per_day)


def allowance(policy: Policy, now: datetime) -> Allowance | None:
    """What may leave for an organization today; None: anything."""
    if not policy.quotas.bytes_out_per_day:
        return None
    begins_at, ends_at = day_of(policy.zone, now)
    return Allowance(policy.quotas.bytes_out_per_day, begins_at, ends_at.astimezone(policy.zone))


def usage(
    connection: sqlite3.Connection, policy: Policy, now: datetime, initiator_id: str, run: RunRecord | None = None
) -> Usage:
    """What an organization has used today; apart from a run of it and from those that came after that, if one is given."""
    begins_at, ends_at = day_of(policy.zone, now)
    return Usage(
        runs=_accepted_since(connection, initiator_id, begins_at, run.key if run else ("", 0)),
        bytes_out=egress.left_since(connection, initiator_id, begins_at),
        ends_at=ends_at.astimezone(policy.zone),
    )


async def used_today(station: Station, initiator_id: str, run: RunRecord | None = None) -> Usage | None:
    """`usage`, as the station's journal has it; None where nothing is counted."""
    policy, now = station.policy_file.policy, station.now()
    if not has_quotas(policy):
        return None
    return await station.journal.transact(lambda connection: usage(connection, policy, now, initiator_id, run))


def _accepted_since(connection: sqlite3.Connection, initiator_id: str, since: datetime, run: tuple[str, int]) -> int:
    """Runs that were accepted, and came before that one."""
    (number,) = connection.execute(
        "SELECT count(*) FROM runs WHERE initiator_id = ? AND accepted_at_us >= ? AND policy_digest <> x'' AND state <> ? "
        "AND rowid < coalesce((SELECT rowid FROM runs WHERE run_id = ? AND attempt = ?), 9223372036854775807)",
        (initiator_id, microseconds(since), RunState.RUN_STATE_REFUSED, *run),
    ).fetchone()
    return int(number)
