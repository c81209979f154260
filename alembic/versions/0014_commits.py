"""A transaction whose commit was not answered can be asked for by a name of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "commits",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_commits")),
    )
    op.create_index(op.f("ix_commits_at"), "commits", ["at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_commits_at"), table_name="commits")
    op.drop_table("commits")
