"""Events: where they came from, and their chain. What organizations use, by day.

Events that are there already are chained by the server, in their order, when it starts.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_COUNTERS = ("runs_asked_for", "runs_executed", "run_milliseconds", "bytes_stored", "bytes_fetched")


def upgrade() -> None:
    op.add_column("events", sa.Column("origin", sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("events", sa.Column("position", sa.BigInteger(), nullable=True))
    op.add_column("events", sa.Column("hash", sa.LargeBinary(), nullable=True))
    op.create_index(op.f("ix_events_position"), "events", ["position"], unique=True)
    op.create_index(op.f("ix_events_request_id"), "events", ["request_id"])
    unchained = sa.text("position IS NULL")
    op.create_index("ix_events_unchained", "events", ["sequence"], sqlite_where=unchained, postgresql_where=unchained)
    op.create_table(
        "usage",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in _COUNTERS),
        sa.PrimaryKeyConstraint("day", "organization_id", "shard", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_organization_id_day"), "usage", ["organization_id", "day"])


def downgrade() -> None:
    op.drop_table("usage")
    for index in ("unchained", "request_id", "position"):
        op.drop_index(op.f(f"ix_events_{index}"), "events")
    for column in ("hash", "position", "origin"):
        op.drop_column("events", column)
