"""Numbers that grow with every task, run, message and event have 64 bits on PostgreSQL, as they always had on SQLite.

At a thousand messages a second 32 bits last for 25 days.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

COUNTED = (("tasks", "position"), ("runs", "position"), ("peer_messages", "message_id"), ("events", "sequence"))
NAMED = (("task_labels", "position"), ("deliveries", "message_id"))


def upgrade() -> None:
    _retype(sa.Integer(), sa.BigInteger())


def downgrade() -> None:
    _retype(sa.BigInteger(), sa.Integer())


def _retype(former: sa.types.TypeEngine[int], new: sa.types.TypeEngine[int]) -> None:
    if op.get_bind().dialect.name != "postgresql":
        return
    for table, column in (*COUNTED, *NAMED):
        op.alter_column(table, column, existing_type=former, type_=new)
    for table, column in COUNTED:
        op.execute(f"ALTER SEQUENCE {table}_{column}_seq AS {new.compile(op.get_bind().dialect)}")
