"""Rows of sessions: where their dataframes are, what receipts tell of them, and whom to tell that they are not wanted any more.

A session of an organization is at the node that got its first run of the session, as files of a job are. When the ledger
admits that node no more, its dataframes are gone: nothing says that they were there, and what reads one is refused.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, union, update

from folkmoot.server.store import upserts
from folkmoot.server.store.scratch import spec_of
from folkmoot.server.store.session_tables import IS_THERE, data_sessions, dataframe_parts, session_bindings
from folkmoot.server.store.task_tables import IS_OPEN, AnyRow, node_links
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.tasks import states
from folkmoot.v1.task_pb2 import DataframeLeft, Receipt, TaskSpec

# ---- where they are ------------------------------------------------------------------------------------------------


def bindings(connection: Connection, session_id: str) -> dict[str, int]:
    """Return which node of each organization has a session's dataframes."""
    bound = select(session_bindings.c.organization_id, session_bindings.c.link_id)
    found = connection.execute(bound.where(session_bindings.c.session_id == session_id))
    return {row.organization_id: row.link_id for row in found}


def bind(connection: Connection, session_id: str, organization_id: str, link_id: int) -> None:
    """Have what the organization executes of a session stay at a node."""
    row = {"session_id": session_id, "organization_id": organization_id, "link_id": link_id}
    connection.execute(insert(session_bindings).values(row))


def reads_from(connection: Connection, row: AnyRow, link_ids: Collection[int]) -> bool:
    """Tell whether a run (organization_id, chain) would read dataframes that are at one of these nodes."""
    session = spec_of(row.chain).session
    bound = bindings(connection, session.session_id) if session.dataframes else {}
    return bound.get(row.organization_id) in link_ids


def forget(connection: Connection, link_ids: Collection[int]) -> None:
    """Forget what was at nodes that are gone: sessions go on at others, without it."""
    for table in (session_bindings, dataframe_parts):
        connection.execute(delete(table).where(table.c.link_id.in_(link_ids)))


def out_of_reach(connection: Connection, run: states.Run) -> bool:
    """Tell whether a run has waited for dataframes that are at a node which is away, or nowhere any more."""
    waited = (
        select(task_table.c.chain, session_bindings.c.link_id, node_links.c.away_since)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .outerjoin(
            session_bindings,
            (session_bindings.c.session_id == task_table.c.session_id)
            & (session_bindings.c.organization_id == run_table.c.organization_id),
        )
        .outerjoin(node_links, node_links.c.link_id == session_bindings.c.link_id)
        .where(run_table.c.run_id == run.run_id, task_table.c.session_id.is_not(None))
    )
    row = connection.execute(waited).one_or_none()
    if row is None or not spec_of(row.chain).session.dataframes:
        return False
    return row.link_id is None or row.away_since is not None


def whereabouts(connection: Connection, session_id: str) -> list[int]:
    """Return every node, admitted or not, that may have something of a session."""
    ran = (
        select(run_table.c.link_id)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .where(task_table.c.session_id == session_id, run_table.c.link_id.is_not(None))
    )
    bound = select(session_bindings.c.link_id).where(session_bindings.c.session_id == session_id)
    told = select(dataframe_parts.c.link_id).where(dataframe_parts.c.session_id == session_id)
    return sorted(connection.scalars(union(ran, bound, told)))


# ---- what receipts tell --------------------------------------------------------------------------------------------


def keep(connection: Connection, receipt: Receipt, session_id: str, *, link_id: int, left_at: datetime) -> None:
    """Keep what a run's receipt tells of the dataframe that it left; of a session that is deleted nothing is kept."""
    if not is_there(connection, session_id, receipt.genesis):
        return
    values = {
        "organization_id": receipt.organization_id,
        "node_id": receipt.node_id,
        "run_id": receipt.run_id,
        "left_at": left_at,
        "told": receipt.dataframe.SerializeToString(),
    }
    key = {"session_id": session_id, "name": receipt.dataframe.name, "link_id": link_id}
    kept = upserts.insert(connection, dataframe_parts).values(key | values)
    connection.execute(kept.on_conflict_do_update(index_elements=list(key), set_=values))


def parts(connection: Connection, session_id: str) -> Sequence[AnyRow]:
    """Return what is told of a session's dataframes, by name."""
    there = select(dataframe_parts).where(dataframe_parts.c.session_id == session_id)
    return connection.execute(there.order_by(dataframe_parts.c.name, dataframe_parts.c.organization_id)).all()


def names(connection: Connection, session_ids: Collection[str]) -> dict[str, list[str]]:
    """Return the names of sessions' dataframes."""
    there = select(dataframe_parts.c.session_id, dataframe_parts.c.name).distinct()
    found: dict[str, list[str]] = {session_id: [] for session_id in session_ids}
    for row in connection.execute(there.where(dataframe_parts.c.session_id.in_(list(session_ids)))):
        found[row.session_id].append(row.name)
    return {session_id: sorted(each) for session_id, each in found.items()}


def told(row: AnyRow) -> DataframeLeft:
    """Return what a node told of its part."""
    return DataframeLeft.FromString(row.told)


# ---- use, and its end ----------------------------------------------------------------------------------------------


def is_there(connection: Connection, session_id: str, genesis: bytes) -> bool:
    """Tell whether a collaboration has a session that was not deleted."""
    named = (data_sessions.c.session_id == session_id, data_sessions.c.genesis == genesis, IS_THERE)
    return connection.execute(select(data_sessions.c.session_id).where(*named)).first() is not None


def used(connection: Connection, session_id: str, *, now: datetime) -> None:
    """Note that a task of the session was made."""
    connection.execute(update(data_sessions).where(data_sessions.c.session_id == session_id).values(last_used_at=now))


def open_tasks(connection: Connection, session_id: str) -> dict[str, TaskSpec]:
    """Return the session's tasks with runs that have not ended."""
    unfinished = (
        select(task_table.c.task_id, task_table.c.chain)
        .where(
            task_table.c.session_id == session_id,
            select(run_table.c.run_id).where(run_table.c.task_id == task_table.c.task_id, IS_OPEN).exists(),
        )
        .order_by(task_table.c.position)
    )
    return {row.task_id: spec_of(row.chain) for row in connection.execute(unfinished)}


def using(specs: Iterable[TaskSpec], dataframe: str) -> list[str]:
    """Return which of these tasks read or leave a dataframe."""
    return [spec.task_id for spec in specs if dataframe in (*spec.session.dataframes, spec.session.leaves)]


def drop(connection: Connection, session_id: str, dataframe: str = "") -> None:
    """Forget what is known of a session's dataframe; without a name, of all of them, and where they are."""
    of_session = dataframe_parts.c.session_id == session_id
    if dataframe:
        connection.execute(delete(dataframe_parts).where(of_session, dataframe_parts.c.name == dataframe))
        return
    connection.execute(delete(dataframe_parts).where(of_session))
    connection.execute(delete(session_bindings).where(session_bindings.c.session_id == session_id))
