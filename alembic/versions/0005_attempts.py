"""Several attempts of a run: how many are allowed, which one a delivery is about, what may have reached a node that is away.

Runs that are there already keep the one attempt that they have. Of nodes that are away nothing is known: everything that
they were to be told may have reached them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("runs", sa.Column("attempts_allowed", sa.Integer(), server_default="1", nullable=False))
    op.add_column("deliveries", sa.Column("attempt", sa.Integer(), server_default="0", nullable=False))
    op.add_column("node_links", sa.Column("sent", sa.BigInteger(), server_default="0", nullable=False))
    op.execute("UPDATE node_links SET sent = last_sequence")


def downgrade() -> None:
    for table, name in (("node_links", "sent"), ("deliveries", "attempt"), ("runs", "attempts_allowed")):
        op.drop_column(table, name)
