"""Reassignment: runs that their node keeps from ending begin anew at another node of the organization.

Only where the signed task allows another attempt, and another node offers every label, is attached and starts what it
gets. The former attempt is fenced from then on: its receipt and its reports count no more, what its central function has
created is cancelled, and its node is told to end it when it comes back. Which runs: those of a node that has been away for
long, or was revoked; those that a node has not started and that is about to go (docs/decisions/0029-several-nodes.md).
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Select, and_, or_, select

from folkmoot.server.store import deliveries, endings, links, placement, runs, scratch
from folkmoot.server.store.links import Link
from folkmoot.server.store.task_tables import IS_OPEN, AnyRow, node_links
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.v1.link_pb2 import Availability

MAY_BE_TRIED_AGAIN = (IS_OPEN, run_table.c.attempt < run_table.c.attempts_allowed)


@dataclass(frozen=True, slots=True)
class Moved:
    """An attempt that was given to another node, as it was before."""

    former: states.Run
    link_id: int
    """Who has the next one."""


@dataclass(frozen=True, slots=True)
class Held:
    """A node with runs that may be tried again."""

    link_id: int
    genesis: bytes
    away: bool
    """If not, it is about to go."""


def holding(connection: Connection, *, away_since: datetime) -> list[Held]:
    """Return the nodes that keep runs which may be tried again: away at least since then, or about to go."""
    has_runs = node_links.c.link_id.in_(select(run_table.c.link_id).where(*MAY_BE_TRIED_AGAIN))
    away = node_links.c.away_since <= away_since
    draining = and_(
        node_links.c.away_since.is_(None), node_links.c.availability == int(Availability.AVAILABILITY_DRAINING)
    )
    found = select(node_links).where(has_runs, or_(away, draining)).order_by(node_links.c.link_id)
    return [Held(row.link_id, row.genesis, row.away_since is not None) for row in connection.execute(found)]


def take_over(
    connection: Connection, link_id: int, *, only_unstarted: bool, now: datetime, touched: Touched, most: int
) -> list[Moved]:
    """Give runs of a node to others, as far as these can have them, at most so many; return what they were."""
    node = connection.execute(select(node_links).where(node_links.c.link_id == link_id)).one()
    peers = [
        link
        for link in links.admitted(connection, node.genesis, [node.organization_id])
        if link.attached and link.link_id != link_id and link.availability == Availability.AVAILABILITY_OPEN
    ]
    if not peers:
        return []
    is_admitted = links.is_admitted(connection, node.genesis, node.node_id)
    open_runs = links.open_runs(connection, [link.link_id for link in peers if link.link_id])
    moved = []
    for row in connection.execute(_held(link_id)).all():
        run = runs.run_of(row)
        if not states.may_be_tried_again(run, only_unstarted=only_unstarted):
            continue
        chosen = _offering_all(peers, row, open_runs)
        if chosen is None:
            continue
        _begin_anew(connection, run, chosen, touched)
        if is_admitted:
            deliveries.fence(connection, [run], touched)
        _cancel_subtasks(connection, run, now=now, touched=touched)
        open_runs[chosen] = open_runs.get(chosen, 0) + 1
        moved.append(Moved(run, chosen))
        if len(moved) == most:
            break
    return moved


def _held(link_id: int) -> Select[tuple[object, ...]]:
    held = select(*runs.DECISIVE, task_table.c.chain).join_from(
        run_table, task_table, task_table.c.task_id == run_table.c.task_id
    )
    return held.where(*MAY_BE_TRIED_AGAIN, run_table.c.link_id == link_id).order_by(run_table.c.position)


def _offering_all(peers: Iterable[Link], row: AnyRow, open_runs: dict[int, int]) -> int | None:
    wanted = frozenset(scratch.spec_of(row.chain).labels)
    chosen = placement.best([link for link in peers if wanted <= link.labels], open_runs=open_runs)
    return chosen.link_id if chosen else None


def _begin_anew(connection: Connection, run: states.Run, link_id: int, touched: Touched) -> None:
    """Let the next attempt begin at a node; nothing remains of what the former one said."""
    runs.move(
        connection,
        [run],
        touched,
        attempt=run.attempt + 1,
        state=states.PENDING,
        link_id=link_id,
        waiting=None,
        fraction=0.0,
        progress_envelope=b"",
        approvals=None,
        assigned_at=None,
        started_at=None,
    )
    anew = dataclasses.replace(run, attempt=run.attempt + 1, state=states.PENDING, link_id=link_id)
    deliveries.assign(connection, [anew], touched)


def _cancel_subtasks(connection: Connection, run: states.Run, *, now: datetime, touched: Touched) -> None:
    """Cancel what the former attempt has created: the next one creates its own."""
    below = select(task_table.c.task_id, task_table.c.chain).where(task_table.c.parent_task_id == run.task_id)
    for row in connection.execute(below).all():
        parent = scratch.spec_of(row.chain).parent
        if (parent.run_id, parent.attempt) == (run.run_id, run.attempt):
            endings.cancel_tree(connection, row.task_id, now=now, touched=touched)
