"""Mail addresses that somebody vouches for; wrong passwords are counted by where they come from.

Whoever set an address before is not known: it makes nobody somebody's at the OpenID Connect provider until an administrator sets it
anew, or a token that was mailed to it has come back. Wrong passwords from before came from anywhere.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    vouched: sa.Column[bool] = sa.Column("email_is_vouched", sa.Boolean(), server_default=sa.text("false"), nullable=False)
    op.add_column("users", vouched)
    _make_login_failures(sa.Column("place", sa.String(), nullable=False))


def downgrade() -> None:
    _make_login_failures()
    op.drop_column("users", "email_is_vouched")


def _make_login_failures(*further: sa.Column[str]) -> None:
    """Make the table anew, with a further column in its key; a name has one row of all that there were."""
    most = "MAX(failures) AS failures, MAX(locked_until) AS locked_until, MAX(last_at) AS last_at"
    rows = op.get_bind().execute(sa.text(f"SELECT username, {most} FROM login_failures GROUP BY username"))  # noqa: S608
    before = [{**row, **{column.name: "" for column in further}} for row in rows.mappings()]
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
    op.bulk_insert(made, before)
