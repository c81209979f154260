"""Departures: what becomes of runs when an entry ends the admission of nodes, because they are revoked or their organization goes.

Settled in the transaction that appends the entry. What such a node has not accepted goes to another node of the
organization, or waits for one; an organization that is no member any more executes nothing new, so its runs end. What a
node has accepted begins anew at another one, if its task allows another attempt; if not, it stays the node's own
(docs/decisions/0007), and waits until it is cancelled or expires. Files that a job has left at the node are gone: runs
that share them and have not begun end with SCRATCH_LOST, and those that read dataframes there with DATAFRAME_NOT_FOUND.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, select, update

from folkmoot.server.store import endings, links, placement, reassignment, runs, scratch, session_rows
from folkmoot.server.store.reassignment import Moved
from folkmoot.server.store.task_tables import IS_HOMELESS, IS_OPEN, AnyRow, deliveries, node_links
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.errors_pb2 import ErrorReason

MOST_MOVED = 100_000
"""All of them: the transaction that appends the entry settles what becomes of the node's runs."""


@dataclass(frozen=True, slots=True)
class Departure:
    """Who is gone from a collaboration."""

    genesis: bytes
    organization_ids: Collection[str]
    """Members no more."""
    node_ids: Collection[str]
    """Nodes admitted no more, those of these organizations among them."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What has become of runs."""

    ended: Sequence[tuple[states.Run, str]]
    """With the reasons."""
    moved: Sequence[Moved]


def settle(connection: Connection, departure: Departure, *, now: datetime, touched: Touched) -> Settled:
    """Fence the nodes; end, or give to others, what they would have executed."""
    mine = (node_links.c.genesis == departure.genesis) & node_links.c.node_id.in_(list(departure.node_ids))
    link_ids = list(connection.scalars(select(node_links.c.link_id).where(mine)))
    _fence(connection, link_ids, now=now)
    left_behind = _left_behind(connection, link_ids)
    bound = scratch.bound_to(connection, link_ids)
    lost = [row for row in left_behind if _has_lost_files(row, bound, departure)]
    unread = [
        row for row in left_behind if row not in lost and _has_lost_dataframes(connection, row, link_ids, departure)
    ]
    session_rows.forget(connection, link_ids)
    runs.move(connection, [runs.run_of(row) for row in left_behind], touched, link_id=None)
    ended = _end_lost(connection, lost, ErrorReason.ERROR_REASON_SCRATCH_LOST, now=now, touched=touched)
    ended += _end_lost(connection, unread, ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND, now=now, touched=touched)
    ended += _end_of_organizations(connection, departure, now=now, touched=touched)
    for organization_id in {row.organization_id for row in left_behind} - set(departure.organization_ids):
        placement.relocate(connection, departure.genesis, organization_id, touched)
    moved = [
        each
        for link_id in link_ids
        for each in reassignment.take_over(
            connection, link_id, only_unstarted=False, now=now, touched=touched, most=MOST_MOVED
        )
    ]
    return Settled(ended, moved)


def _fence(connection: Connection, link_ids: Collection[int], *, now: datetime) -> None:
    """End the nodes' sessions, whatever instance they are at, and forget what they were to be told."""
    mine = node_links.c.link_id.in_(link_ids)
    connection.execute(update(node_links).where(mine).values(epoch=node_links.c.epoch + 1))
    attached = mine & node_links.c.attached_at.is_not(None) & node_links.c.away_since.is_(None)
    connection.execute(update(node_links).where(attached).values(away_since=now))
    connection.execute(delete(deliveries).where(deliveries.c.link_id.in_(link_ids)))


def _left_behind(connection: Connection, link_ids: Collection[int]) -> list[AnyRow]:
    """Return the runs that were placed at the nodes, which have not accepted them."""
    placed = (
        select(*runs.DECISIVE, run_table.c.organization_id, task_table.c.job_id, task_table.c.chain)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(IS_OPEN, run_table.c.link_id.in_(link_ids), run_table.c.state == states.PENDING)
        .order_by(run_table.c.position)
    )
    return list(connection.execute(placed))


def _has_lost_files(row: AnyRow, bound: Collection[tuple[str, str]], departure: Departure) -> bool:
    """Tell whether a member's run needs files that its job has left at a node that is gone."""
    is_member = row.organization_id not in departure.organization_ids
    return is_member and (row.job_id, row.organization_id) in bound and scratch.shares_files(row.chain)


def _has_lost_dataframes(connection: Connection, row: AnyRow, link_ids: Collection[int], departure: Departure) -> bool:
    """Tell whether a member's run would read dataframes that are at a node which is gone."""
    is_member = row.organization_id not in departure.organization_ids
    return is_member and session_rows.reads_from(connection, row, link_ids)


def _end_lost(
    connection: Connection,
    lost: Sequence[AnyRow],
    reason: ErrorReason.ValueType,
    *,
    now: datetime,
    touched: Touched,
) -> list[tuple[states.Run, str]]:
    """End what can't go on without files or dataframes that are gone."""
    ended = runs.load(connection, [row.run_id for row in lost])
    endings.end(connection, ended, states.EXPIRED, reason, now=now, touched=touched)
    return [(run, reason_name(reason)) for run in ended]


def _end_of_organizations(
    connection: Connection, departure: Departure, *, now: datetime, touched: Touched
) -> list[tuple[states.Run, str]]:
    """End what organizations that are gone would have to execute."""
    theirs = (
        IS_HOMELESS,
        run_table.c.organization_id.in_(list(departure.organization_ids)),
        run_table.c.genesis == departure.genesis,
    )
    ended = runs.where(connection, *theirs)
    reason = ErrorReason.ERROR_REASON_NOT_A_MEMBER
    endings.end(connection, ended, states.EXPIRED, reason, now=now, touched=touched)
    return [(run, reason_name(reason)) for run in ended]


# ---- what nobody can end but the server ----------------------------------------------------------------------------


def _late(now: datetime) -> Select[*tuple[Any, ...]]:
    return select(*runs.DECISIVE).where(links.abandoned(), run_table.c.expires_at <= now)


def are_late(connection: Connection, *, now: datetime) -> bool:
    """Whether there are abandoned runs whose time is over."""
    return connection.execute(_late(now).limit(1)).first() is not None


def expire(connection: Connection, *, now: datetime, touched: Touched, most: int) -> None:
    """End abandoned runs whose time is over."""
    late = [runs.run_of(row) for row in connection.execute(_late(now).limit(most))]
    runs.move(
        connection,
        late,
        touched,
        state=states.EXPIRED,
        reason=ErrorReason.ERROR_REASON_NODE_NOT_APPROVED,
        waiting=None,
        ended_at=now,
    )
    endings.settle(connection, {run.task_id for run in late}, now=now, touched=touched)
