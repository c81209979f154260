"""Mail addresses that somebody vouches for; wrong passwords are counted by where they come from.

Whoever set an address before is not known: it makes nobody somebody's at the OpenID Connect provider until an administrator sets it
anew, or a token that was mailed to it has come back. Wrong passwords from before came from anywhere.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    vouched = sa.Column("email_is_vouched", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("users", vouched)
    counted = [{**row, "place": ""} for row in _counted()]
    _make_login_failures(counted, sa.Column("place", sa.String(), nullable=False))


def downgrade() -> None:
    by_name = {row["username"]: row for row in sorted(_counted(), key=lambda row: row["failures"])}  # the most of each
    _make_login_failures([{name: row[name] for name in _COLUMNS} for row in by_name.values()])
    op.drop_column("users", "email_is_vouched")


_COLUMNS = ("username", "failures", "locked_until", "last_at")


def _counted() -> list[dict[str, Any]]:
    return [dict(row) for row in op.get_bind().execute(sa.text("SELECT * FROM login_failures")).mappings()]


def _make_login_failures(rows: list[dict[str, Any]], *further: sa.Column[str]) -> None:
    op.drop_index(op.f("ix_login_failures_last_at"), table_name="login_failures")
    op.drop_table("login_failures")
    made = op.create_table(
        "login_failures",
        sa.Column("username", sa.String(), nullable=False),
        *further,
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("username", *(column.name for column in further), name=op.f("pk_login_failures")),
    )
    op.create_index(op.f("ix_login_failures_last_at"), "login_failures", ["last_at"], unique=False)
    op.bulk_insert(made, rows)
