"""Several instances of the server on one database know of each other."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instances")),
    )
    op.create_table(
        "check_questions",
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("instance_id", sa.String(), nullable=False),
        sa.Column("link_id", sa.Integer(), nullable=False),
        sa.Column("question", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.LargeBinary(), nullable=True),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("check_id", name=op.f("pk_check_questions")),
    )
    op.create_index(op.f("ix_check_questions_instance_id"), "check_questions", ["instance_id"])
    op.create_index(op.f("ix_check_questions_asked_at"), "check_questions", ["asked_at"])
    op.create_table(
        "write_turns",
        sa.Column("turn", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("turn", name=op.f("pk_write_turns")),
    )
    op.add_column("node_links", sa.Column("instance_id", sa.String(), server_default=sa.text("''"), nullable=False))
    op.create_index(op.f("ix_node_links_instance_id"), "node_links", ["instance_id"])


def downgrade() -> None:
    op.drop_index(op.f("ix_node_links_instance_id"), table_name="node_links")
    op.drop_column("node_links", "instance_id")
    for table in ("write_turns", "check_questions", "instances"):
        op.drop_table(table)
