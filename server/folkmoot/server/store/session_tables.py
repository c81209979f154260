"""Tables of sessions: who made them and for whom they are, what nodes tell of their dataframes, and where those are.

The dataframes themselves are at nodes and nowhere else. A session that was deleted keeps its row, so that its id is never
given again: nodes have been told to forget whatever comes under it.
"""

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table

from folkmoot.server.store.tables import Instant, metadata

data_sessions = Table(
    "data_sessions",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("genesis", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("scope", Integer, nullable=False),  # for whom it is
    Column("user_id", String, nullable=False),
    Column("organization_account_id", String, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_used_at", Instant, nullable=False),
    Column("deleted_at", Instant),
    Index(None, "last_used_at", "session_id"),
    Index(None, "genesis", "last_used_at"),
)
IS_THERE = data_sessions.c.deleted_at.is_(None)
Index(
    "ix_data_sessions_user_id_name",
    data_sessions.c.user_id,
    data_sessions.c.name,
    unique=True,
    sqlite_where=IS_THERE,
    postgresql_where=IS_THERE,
)

dataframe_parts = Table(
    "dataframe_parts",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("link_id", Integer, primary_key=True, autoincrement=False),  # the node that has it
    Column("organization_id", String, nullable=False),
    Column("node_id", String, nullable=False),
    Column("run_id", String, nullable=False),  # that left it
    Column("left_at", Instant, nullable=False),
    Column("told", LargeBinary, nullable=False),  # a DataframeLeft, as the node's receipt says
    Index(None, "link_id"),
)

session_bindings = Table(
    "session_bindings",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("link_id", Integer, nullable=False),
    Index(None, "link_id"),
)
