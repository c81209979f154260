"""Instances say which key they have, so that those of different keys do not serve one database."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.add_column("instances", sa.Column("key_fingerprint", sa.String(), nullable=False, server_default=sa.text("''")))


def downgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.drop_column("key_fingerprint")
