"""What nodes offer after their Hello, and the approvals of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("node_links", sa.Column("availability", sa.Integer(), server_default="0", nullable=False))
    op.add_column("node_links", sa.Column("offered_at", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("approvals", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    for table, name in (("runs", "approvals"), ("node_links", "offered_at"), ("node_links", "availability")):
        op.drop_column(table, name)
