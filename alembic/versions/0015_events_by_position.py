"""Indices of events follow the chain's position, by which they are listed, and have what is chained alone."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_LISTED_BY = ("intent", "organization", "created_by", "genesis")
_CHAINED = sa.text("position IS NOT NULL")
_REFUSALS = sa.text("outcome != 'ok' AND position IS NOT NULL")


def upgrade() -> None:
    for column in _LISTED_BY:
        op.drop_index(op.f(f"ix_events_{column}_sequence"), table_name="events")
    op.drop_index(op.f("ix_events_created_at"), table_name="events")
    for column in (*_LISTED_BY, "created_at"):
        _create(column, _CHAINED)
    _create("outcome", _REFUSALS)


def downgrade() -> None:
    for column in (*_LISTED_BY, "created_at", "outcome"):
        op.drop_index(op.f(f"ix_events_{column}_position"), table_name="events")
    for column in _LISTED_BY:
        op.create_index(op.f(f"ix_events_{column}_sequence"), "events", [column, "sequence"])
    op.create_index(op.f("ix_events_created_at"), "events", ["created_at"])


def _create(column: str, where: sa.TextClause) -> None:
    name = op.f(f"ix_events_{column}_position")
    op.create_index(name, "events", [column, "position"], sqlite_where=where, postgresql_where=where)
