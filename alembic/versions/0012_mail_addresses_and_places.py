"""Mail addresses that somebody vouches for; wrong passwords are counted by where they come from.

Whoever set an address before is not known: it makes nobody somebody's at the OpenID Connect provider until an administrator sets it
anew, or a token that was mailed to it has come back. Lock-outs, of minutes, end.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    vouched = sa.Column("email_is_vouched", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("users", vouched)
    _make_login_failures(sa.Column("place", sa.String(), nullable=False))


def downgrade() -> None:
    _make_login_failures()
    op.drop_column("users", "email_is_vouched")


def _make_login_failures(*further: sa.Column[str]) -> None:
    op.drop_index(op.f("ix_login_failures_last_at"), table_name="login_failures")
    op.drop_table("login_failures")
    op.create_table(
        "login_failures",
        sa.Column("username", sa.String(), nullable=False),
        *further,
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.BigInteger(), nullable=True),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("username", *(column.name for column in further), name=op.f("pk_login_failures")),
    )
    op.create_index(op.f("ix_login_failures_last_at"), "login_failures", ["last_at"], unique=False)
