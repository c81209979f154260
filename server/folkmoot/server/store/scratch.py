"""Where the files are that runs of a job share: at the node that the job's first run of the organization was placed at.

A job is bound to that node, for as long as it may have left files there. Nobody is ever given an empty volume instead.
"""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select

from folkmoot.server.store.task_tables import AnyRow, node_links, scratch_bindings
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.tasks import states
from folkmoot.v1.task_pb2 import Scratch, TaskChain, TaskSpec


def spec_of(chain: bytes) -> TaskSpec:
    """Return the task that a stored chain is of."""
    return TaskSpec.FromString(TaskChain.FromString(chain).specs[-1].body)


def shares_files(chain: bytes) -> bool:
    """Tell whether a task's runs share files with others of their job."""
    return spec_of(chain).scratch == Scratch.SCRATCH_JOB


def bound_to(connection: Connection, link_ids: Iterable[int]) -> frozenset[tuple[str, str]]:
    """Return the jobs and organizations whose files are at these nodes; what only was to begin there is bound no more."""
    bindings = connection.execute(select(scratch_bindings).where(scratch_bindings.c.link_id.in_(list(link_ids)))).all()
    began = {(row.job_id, row.organization_id) for row in bindings if _began(connection, row)}
    for row in bindings:
        if (row.job_id, row.organization_id) not in began:
            of_job = scratch_bindings.c.job_id == row.job_id
            connection.execute(
                delete(scratch_bindings).where(of_job, scratch_bindings.c.organization_id == row.organization_id)
            )
    return frozenset(began)


def out_of_reach(connection: Connection, run: states.Run) -> bool:
    """Tell whether a run has waited for files of its job, at a node that is away."""
    bound = (
        select(scratch_bindings, node_links.c.away_since, task_table.c.chain)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .join(
            scratch_bindings,
            (scratch_bindings.c.job_id == task_table.c.job_id)
            & (scratch_bindings.c.organization_id == run_table.c.organization_id),
        )
        .join(node_links, node_links.c.link_id == scratch_bindings.c.link_id)
        .where(run_table.c.run_id == run.run_id)
    )
    row = connection.execute(bound).one_or_none()
    if row is None or row.away_since is None or not shares_files(row.chain):
        return False
    return _began(connection, row)


def _began(connection: Connection, binding: AnyRow) -> bool:
    """Tell whether a node has accepted a run of the job that it is bound to."""
    here = (
        select(run_table.c.run_id)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(
            task_table.c.job_id == binding.job_id,
            run_table.c.organization_id == binding.organization_id,
            run_table.c.link_id == binding.link_id,
            run_table.c.assigned_at.is_not(None),
        )
    )
    return connection.execute(here.limit(1)).first() is not None


def bindings(connection: Connection, job_id: str) -> dict[str, int]:
    """Return where each organization's files of a job are."""
    bound = select(scratch_bindings.c.organization_id, scratch_bindings.c.link_id)
    return {
        row.organization_id: row.link_id for row in connection.execute(bound.where(scratch_bindings.c.job_id == job_id))
    }


def bind(connection: Connection, job_id: str, organization_id: str, link_id: int) -> None:
    """Have what the organization executes of a job stay at a node."""
    row = {"job_id": job_id, "organization_id": organization_id, "link_id": link_id}
    connection.execute(insert(scratch_bindings).values(row))
