"""What ties runs to a node: files of their job (scratch.py), and dataframes of their session (session_rows.py).

Both are at the node of an organization that got the first run which could have left some, and nowhere else. A run that
needs both can be executed only where both are.
"""

from collections import defaultdict

from sqlalchemy import Connection

from folkmoot.server.store import scratch, session_rows
from folkmoot.v1.task_pb2 import Scratch, TaskSpec


def is_tied(spec: TaskSpec) -> bool:
    """Tell whether a task's runs belong to one node of each organization, now or from their placement on."""
    return spec.scratch == Scratch.SCRATCH_JOB or spec.HasField("session")


def places(connection: Connection, spec: TaskSpec) -> dict[str, frozenset[int]]:
    """Return, by organization, the nodes that have what the task's runs share with others: of a right task, one each."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for organization_id, link_id in (*_of_files(connection, spec).items(), *_of_dataframes(connection, spec).items()):
        found[organization_id].add(link_id)
    return {organization_id: frozenset(link_ids) for organization_id, link_ids in found.items()}


def bind(connection: Connection, spec: TaskSpec, organization_id: str, link_id: int) -> None:
    """Have what the organization executes of the task's job, or session, stay at a node from now on, if it does not stay at one yet."""
    if spec.scratch == Scratch.SCRATCH_JOB and organization_id not in _of_files(connection, spec):
        scratch.bind(connection, spec.job_id, organization_id, link_id)
    if spec.HasField("session") and organization_id not in _of_dataframes(connection, spec):
        session_rows.bind(connection, spec.session.session_id, organization_id, link_id)


def _of_files(connection: Connection, spec: TaskSpec) -> dict[str, int]:
    return scratch.bindings(connection, spec.job_id) if spec.scratch == Scratch.SCRATCH_JOB else {}


def _of_dataframes(connection: Connection, spec: TaskSpec) -> dict[str, int]:
    return session_rows.bindings(connection, spec.session.session_id) if spec.HasField("session") else {}
