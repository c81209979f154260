"""Sessions and what nodes tell of their dataframes; the session of a task; deliveries that say what is not wanted any more."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "data_sessions",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("genesis", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scope", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("organization_account_id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_data_sessions")),
    )
    op.create_index(op.f("ix_data_sessions_last_used_at_session_id"), "data_sessions", ["last_used_at", "session_id"])
    op.create_index(op.f("ix_data_sessions_genesis_last_used_at"), "data_sessions", ["genesis", "last_used_at"])
    op.create_index(
        op.f("ix_data_sessions_user_id_name"),
        "data_sessions",
        ["user_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )

    op.create_table(
        "dataframe_parts",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("link_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("left_at", sa.BigInteger(), nullable=False),
        sa.Column("told", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "name", "link_id", name=op.f("pk_dataframe_parts")),
    )
    op.create_index(op.f("ix_dataframe_parts_link_id"), "dataframe_parts", ["link_id"])

    op.create_table(
        "session_bindings",
        sa.Column("session_id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("link_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", "organization_id", name=op.f("pk_session_bindings")),
    )
    op.create_index(op.f("ix_session_bindings_link_id"), "session_bindings", ["link_id"])

    op.add_column("tasks", sa.Column("session_id", sa.String()))
    op.create_index(
        op.f("ix_tasks_session_id_position"),
        "tasks",
        ["session_id", "position"],
        sqlite_where=sa.text("session_id IS NOT NULL"),
        postgresql_where=sa.text("session_id IS NOT NULL"),
    )
    op.add_column("deliveries", sa.Column("session_id", sa.String()))
    op.add_column("deliveries", sa.Column("dataframe", sa.String()))


def downgrade() -> None:
    # What a release without sessions could not tell its nodes: a gap in a node's order would stop it for ever.
    op.execute("UPDATE deliveries SET kind = 2 WHERE session_id IS NOT NULL")
    op.drop_column("deliveries", "dataframe")
    op.drop_column("deliveries", "session_id")
    op.drop_index(op.f("ix_tasks_session_id_position"), "tasks")
    op.drop_column("tasks", "session_id")
    for table in ("session_bindings", "dataframe_parts", "data_sessions"):
        op.drop_table(table)
