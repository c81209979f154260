"""Placement: which node of an organization executes a run, and when it is told.

A single node gets its organization's runs whatever it offers, also while it is away: it says itself what it refuses. Of
several, one that offers all labels (as far as any does), that is attached and not about to go; then one that starts what
it gets; then the one with most room. Where there is none now, the run is placed nowhere, until there is: a node attaches,
or says what it offers from now on.

Runs that share files within their job, or dataframes within their session, stay at the node where the first of these runs
of the organization went, even while that node is away (bindings.py). If it is gone for good, so are the files: such runs
end with SCRATCH_LOST.

A run is moved from one node to another, in the same attempt, only as long as no node can have got it: what a node was
sent, it may have journaled (docs/decisions/0029-several-nodes.md).
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, literal_column, select

from folkmoot.server.store import bindings, deliveries, links, runs, scratch
from folkmoot.server.store.links import Link, Peers
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import IS_HOMELESS, IS_OPEN, AnyRow
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.task_pb2 import TaskSpec


def choose(candidates: Sequence[Link], *, open_runs: Mapping[int, int], labels: Iterable[str]) -> Link | None:
    """Return the node to place a run at, None if the run has to wait for one."""
    if len(candidates) == 1:
        return candidates[0]
    return best([link for link in offering(candidates, labels) if not link.draining], open_runs=open_runs)


def offering(candidates: Sequence[Link], labels: Iterable[str]) -> Sequence[Link]:
    """Return the nodes that offer all labels; if none does, all: whichever gets the run refuses it and says why."""
    wanted = frozenset(labels)
    return [link for link in candidates if wanted <= link.labels] or candidates


def best(candidates: Iterable[Link], *, open_runs: Mapping[int, int]) -> Link | None:
    """Return the attached node that is likely to begin first: not paused, with most room, with fewest runs."""

    def rank(link: Link) -> tuple[object, ...]:
        number = open_runs.get(link.link_id or 0, 0)
        paused = link.availability == Availability.AVAILABILITY_PAUSED
        return paused, number - link.slots, -link.free_slots, number, link.node_id

    return min((link for link in candidates if link.attached), key=rank, default=None)


# ---- new tasks -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the runs of a new task go, by organization."""

    link_ids: Mapping[str, int]
    """Those that are placed."""
    candidates: Mapping[str, Sequence[Link]]
    """What each can reach: the node that it is placed at, or else all nodes of the organization."""
    lost: Mapping[str, ErrorReason.ValueType]
    """Those that need what is at a node which is gone, or at two different ones; and what that is."""


def place(connection: Connection, specs: Sequence[TaskSpec]) -> list[Placement]:
    """Place the runs of new tasks, one task after the other."""
    wanted = [(spec.genesis, receiver.organization_id) for spec in specs for receiver in spec.receivers]
    candidates = links.admitted_of(connection, wanted)
    crowded = [link for peers in candidates.values() if len(peers) > 1 for link in peers]
    open_runs = _open_runs(connection, crowded)
    return [_place(connection, spec, candidates, open_runs) for spec in specs]


def _place(
    connection: Connection, spec: TaskSpec, candidates: dict[Peers, list[Link]], open_runs: dict[int, int]
) -> Placement:
    """Place a task's runs, and count them as open."""
    tied = bindings.places(connection, spec)
    placed: dict[str, int] = {}
    lost: dict[str, ErrorReason.ValueType] = {}
    reached: dict[str, Sequence[Link]] = {}
    for organization_id in [receiver.organization_id for receiver in spec.receivers]:
        peers = candidates[spec.genesis, organization_id]
        possible = peers
        if organization_id in tied:
            lost |= _lost(peers, organization_id, tied[organization_id])
            possible = at(peers, tied[organization_id])
        chosen = choose(possible, open_runs=open_runs, labels=spec.labels)
        reached[organization_id] = possible if chosen is None else [chosen]
        if chosen is not None:
            link_id = placed[organization_id] = links.opened(connection, spec.genesis, chosen)
            open_runs[link_id] = open_runs.get(link_id, 0) + 1
            peers[peers.index(chosen)] = dataclasses.replace(chosen, link_id=link_id)
            bindings.bind(connection, spec, organization_id, link_id)
    return Placement(placed, reached, lost)


def at(candidates: Iterable[Link], tied: frozenset[int]) -> list[Link]:
    """Return the one of the nodes that has what a run shares with others: none if no single one has all of it."""
    return [link for link in candidates if {link.link_id} == tied]


def _lost(
    candidates: Iterable[Link], organization_id: str, tied: frozenset[int]
) -> Mapping[str, ErrorReason.ValueType]:
    """Say what a run can't have: files whose node is gone (of dataframes there that is forgotten), or both at once."""
    if tied <= {link.link_id for link in candidates}:
        return {organization_id: ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND} if len(tied) > 1 else {}
    return {organization_id: ErrorReason.ERROR_REASON_SCRATCH_LOST}


# ---- runs that no node can have got --------------------------------------------------------------------------------


def relocate(connection: Connection, genesis: bytes, organization_id: str, touched: Touched) -> None:
    """Give the organization's runs that no node can have got to those that are there now, one by one."""
    here = {"of_genesis": genesis, "of_organization": organization_id}
    rows = _HOMELESS.rows(connection, here) + _NEVER_SENT.rows(connection, here)
    if not rows:
        return  # as nearly always when a node comes or goes: that must not cost a look at each of the organization's
    candidates = links.admitted(connection, genesis, [organization_id])
    rows = [row for row in rows if row.link_id is None or _may_leave(row, candidates)]
    open_runs = _open_runs(connection, candidates)
    told = []
    for row in rows:
        spec = scratch.spec_of(row.chain)
        tied = bindings.places(connection, spec).get(organization_id)
        possible = candidates if tied is None else at(candidates, tied)
        chosen = choose(possible, open_runs=open_runs, labels=spec.labels)
        if chosen is None or chosen.link_id == row.link_id:
            continue
        link_id = links.opened(connection, genesis, chosen)
        open_runs[link_id] = open_runs.get(link_id, 0) + 1
        told += _settle_at(connection, link_id, row, touched)
    deliveries.assign(connection, told, touched)


def _may_leave(row: AnyRow, candidates: Iterable[Link]) -> bool:
    """Tell whether a run may go from a node that does not know of it: not from one that is gone, nor if it is tied to it."""
    is_at_one = row.link_id in {link.link_id for link in candidates}
    return is_at_one and not bindings.is_tied(scratch.spec_of(row.chain))


_PLACEABLE = (
    select(
        *runs.DECISIVE,
        run_table.c.organization_id,
        task_table.c.blocked,
        task_table.c.job_id,
        task_table.c.chain,
    )
    .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
    .order_by(run_table.c.position)
)
_HOMELESS = Prepared(
    _PLACEABLE.where(
        run_table.c.organization_id == bindparam("of_organization"),
        run_table.c.genesis == bindparam("of_genesis"),
        IS_HOMELESS,
    )
)
_NEVER_SENT = Prepared(
    _PLACEABLE.where(
        IS_OPEN,
        run_table.c.state + literal_column("0") == states.PENDING,  # SQLite must go by the nodes, not by all that waits
        run_table.c.link_id.in_(links.of_organization(attached=False)),
        ~deliveries.may_have_reached(),
        links.of_organization(attached=True).exists(),
    )
)
"""What is placed at nodes that are away and can't know of it, as long as others are there."""


def _settle_at(connection: Connection, link_id: int, row: AnyRow, touched: Touched) -> list[states.Run]:
    """Place a run at a node; return what to tell the node."""
    run = runs.run_of(row)
    runs.move(connection, [run], touched, link_id=link_id)
    bindings.bind(connection, scratch.spec_of(row.chain), row.organization_id, link_id)
    return [] if row.blocked else [dataclasses.replace(run, link_id=link_id)]


def _open_runs(connection: Connection, candidates: Iterable[Link]) -> dict[int, int]:
    link_ids = [link.link_id for link in candidates if link.link_id]
    return links.open_runs(connection, link_ids) if link_ids else {}
