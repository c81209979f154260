"""Placement: which node of an organization executes a run, and when it is told.

The only node, or the attached one with the fewest open runs, those first that offer all labels. Runs that share files
within their job stay at the node where the job's first run of the organization went, even while that node is away.
What can't be placed is placed as soon as a node of the organization attaches.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from folkmoot.server.store import deliveries, links, runs
from folkmoot.server.store.links import Link
from folkmoot.server.store.task_tables import IS_HOMELESS, AnyRow, scratch_bindings
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.v1.task_pb2 import Scratch, TaskChain, TaskSpec


def choose(candidates: Sequence[Link], *, open_runs: Mapping[int, int], labels: Iterable[str]) -> Link | None:
    """Return the node to place a run at, None if the run has to wait for one to attach."""
    if len(candidates) == 1:
        return candidates[0]
    wanted = frozenset(labels)
    attached = [link for link in candidates if link.attached]
    return min(
        attached,
        key=lambda link: (not wanted <= link.labels, open_runs.get(link.link_id or 0, 0), link.node_id),
        default=None,
    )


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the runs of a new task go, by organization."""

    link_ids: Mapping[str, int]
    """Those that are placed."""
    candidates: Mapping[str, Sequence[Link]]
    """What each can reach: the node that it is placed at, or else all nodes of the organization."""


def place(connection: Connection, spec: TaskSpec) -> Placement:
    """Place the runs of a new task."""
    organization_ids = [receiver.organization_id for receiver in spec.receivers]
    by_organization: defaultdict[str, list[Link]] = defaultdict(list)
    for link in links.admitted(connection, spec.genesis, organization_ids):
        by_organization[link.organization_id].append(link)
    crowded = [link for peers in by_organization.values() if len(peers) > 1 for link in peers]
    open_runs = links.open_runs(connection, (link.link_id for link in crowded if link.link_id)) if crowded else {}
    scratch = spec.scratch == Scratch.SCRATCH_JOB
    placed = _bindings(connection, spec.job_id) if scratch else {}
    for organization_id in organization_ids:
        if organization_id in placed:
            bound = placed[organization_id]
            by_organization[organization_id] = [
                link for link in by_organization[organization_id] if link.link_id == bound
            ]
            continue
        chosen = choose(by_organization[organization_id], open_runs=open_runs, labels=spec.labels)
        if chosen is not None:
            by_organization[organization_id] = [chosen]
            placed[organization_id] = links.opened(connection, spec.genesis, chosen)
            if scratch:
                _bind(connection, spec.job_id, organization_id, placed[organization_id])
    return Placement(placed, by_organization)


def place_waiting(connection: Connection, genesis: bytes, link_id: int, organization_id: str, touched: Touched) -> None:
    """Give the organization's runs that are placed nowhere to a node that has just attached."""
    told = []
    for row in connection.execute(_homeless(genesis, organization_id)).all():
        told += _settle_at(connection, link_id, row, touched)
    deliveries.assign(connection, told, touched)


def place_homeless(connection: Connection, genesis: bytes, organization_id: str, touched: Touched) -> None:
    """Place the organization's runs that are placed nowhere, one by one; those that no node can have now wait for one."""
    candidates = links.admitted(connection, genesis, [organization_id])
    told = []
    for row in connection.execute(_homeless(genesis, organization_id)).all():
        open_runs = links.open_runs(connection, (link.link_id for link in candidates if link.link_id))
        chosen = choose(candidates, open_runs=open_runs, labels=_spec(row.chain).labels)
        if chosen is not None:
            told += _settle_at(connection, links.opened(connection, genesis, chosen), row, touched)
            candidates = links.admitted(connection, genesis, [organization_id])
    deliveries.assign(connection, told, touched)


def shares_files(chain: bytes) -> bool:
    """Tell whether a task's runs share files with others of their job."""
    return _spec(chain).scratch == Scratch.SCRATCH_JOB


def _homeless(genesis: bytes, organization_id: str) -> Select[*tuple[Any, ...]]:
    return (
        select(
            *runs.DECISIVE,
            run_table.c.organization_id,
            task_table.c.blocked,
            task_table.c.job_id,
            task_table.c.chain,
        )
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(run_table.c.organization_id == organization_id, IS_HOMELESS, run_table.c.genesis == genesis)
        .order_by(run_table.c.position)
    )


def _settle_at(connection: Connection, link_id: int, row: AnyRow, touched: Touched) -> list[tuple[int, str]]:
    """Place a run at a node; return what to tell the node."""
    runs.move(connection, [runs.run_of(row)], touched, link_id=link_id)
    if shares_files(row.chain) and row.organization_id not in _bindings(connection, row.job_id):
        _bind(connection, row.job_id, row.organization_id, link_id)
    return [] if row.blocked else [(link_id, row.run_id)]


def _spec(chain: bytes) -> TaskSpec:
    return TaskSpec.FromString(TaskChain.FromString(chain).specs[-1].body)


def _bindings(connection: Connection, job_id: str) -> dict[str, int]:
    bound = select(scratch_bindings.c.organization_id, scratch_bindings.c.link_id)
    return {
        row.organization_id: row.link_id for row in connection.execute(bound.where(scratch_bindings.c.job_id == job_id))
    }


def _bind(connection: Connection, job_id: str, organization_id: str, link_id: int) -> None:
    row = {"job_id": job_id, "organization_id": organization_id, "link_id": link_id}
    connection.execute(insert(scratch_bindings).values(row))
