"""Departures: what becomes of runs when an entry ends the admission of nodes, because they are revoked or their organization goes.

Settled in the transaction that appends the entry. What such a node has not accepted goes to another node of the
organization, or waits for one; an organization that is no member any more executes nothing new, so its runs end. What a
node has accepted stays its own (docs/decisions/0007): it waits until it is cancelled or expires, since nobody else may
execute it. Files that a job has left at a node can't be had elsewhere: runs that share them stay with it, too.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, select, update

from folkmoot.server import tasks
from folkmoot.server.store import endings, links, placement, runs
from folkmoot.server.store.task_tables import IS_HOMELESS, IS_OPEN, AnyRow, deliveries, node_links, scratch_bindings
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True, slots=True)
class Departure:
    """Who is gone from a collaboration."""

    genesis: bytes
    organization_ids: Collection[str]
    """Members no more."""
    node_ids: Collection[str]
    """Nodes admitted no more, those of these organizations among them."""


def settle(connection: Connection, departure: Departure, *, now: datetime, touched: Touched) -> list[tasks.Run]:
    """Fence the nodes, end or place anew what they have not accepted; return the runs that have ended."""
    mine = (node_links.c.genesis == departure.genesis) & node_links.c.node_id.in_(list(departure.node_ids))
    link_ids = list(connection.scalars(select(node_links.c.link_id).where(mine)))
    _fence(connection, link_ids, now=now)
    left_behind = _left_behind(connection, departure, link_ids)
    runs.move(connection, [runs.run_of(row) for row in left_behind], touched, link_id=None)
    ended = _end(connection, departure, now=now, touched=touched)
    for organization_id in {row.organization_id for row in left_behind} - set(departure.organization_ids):
        placement.place_homeless(connection, departure.genesis, organization_id, touched)
    return ended


def _fence(connection: Connection, link_ids: Collection[int], *, now: datetime) -> None:
    """End the nodes' sessions, whatever instance they are at, and forget what they were to be told."""
    mine = node_links.c.link_id.in_(link_ids)
    connection.execute(update(node_links).where(mine).values(epoch=node_links.c.epoch + 1))
    attached = mine & node_links.c.attached_at.is_not(None) & node_links.c.away_since.is_(None)
    connection.execute(update(node_links).where(attached).values(away_since=now))
    connection.execute(delete(deliveries).where(deliveries.c.link_id.in_(link_ids)))


def _left_behind(connection: Connection, departure: Departure, link_ids: Collection[int]) -> list[AnyRow]:
    """Return the runs that were placed at the nodes and that somebody else may execute, or nobody."""
    began_here = (
        select(run_table.c.run_id.label("began"))
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(run_table.c.assigned_at.is_not(None), run_table.c.link_id.in_(link_ids))
    )
    bindings = select(scratch_bindings).where(scratch_bindings.c.link_id.in_(link_ids))
    bound = {
        (row.job_id, row.organization_id)
        for row in connection.execute(bindings)
        if row.organization_id not in departure.organization_ids
        and connection.execute(
            began_here.where(task_table.c.job_id == row.job_id, run_table.c.organization_id == row.organization_id)
        ).first()
    }
    for row in connection.execute(bindings).all():
        if (row.job_id, row.organization_id) not in bound:
            connection.execute(
                delete(scratch_bindings).where(
                    scratch_bindings.c.job_id == row.job_id, scratch_bindings.c.organization_id == row.organization_id
                )
            )
    placed = (
        select(*runs.DECISIVE, run_table.c.organization_id, task_table.c.job_id, task_table.c.chain)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(IS_OPEN, run_table.c.link_id.in_(link_ids), run_table.c.state == tasks.PENDING)
        .order_by(run_table.c.position)
    )
    return [
        row
        for row in connection.execute(placed)
        if (row.job_id, row.organization_id) not in bound or not placement.shares_files(row.chain)
    ]


def _end(connection: Connection, departure: Departure, *, now: datetime, touched: Touched) -> list[tasks.Run]:
    """End what organizations that are gone would have to execute."""
    theirs = (
        IS_HOMELESS,
        run_table.c.organization_id.in_(list(departure.organization_ids)),
        run_table.c.genesis == departure.genesis,
    )
    ended = runs.where(connection, *theirs)
    reason = ErrorReason.ERROR_REASON_NOT_A_MEMBER
    endings.end(connection, ended, tasks.EXPIRED, reason, now=now, touched=touched)
    return ended


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
        state=tasks.EXPIRED,
        reason=ErrorReason.ERROR_REASON_NODE_NOT_APPROVED,
        waiting=None,
        ended_at=now,
    )
    endings.settle(connection, {run.task_id for run in late}, now=now, touched=touched)
