"""What people see of their logins, second factors, mailed tokens, API keys, logins by an OpenID Connect provider.

Sessions that are there already go on: the name that people see of one follows from its id.
"""

import hashlib

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_NEW_OF_SESSIONS = ("login_id", "renewed_at", "peer", "user_agent", "by_provider")


def upgrade() -> None:
    for name in ("login_id", "peer", "user_agent"):
        op.add_column("sessions", sa.Column(name, sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("sessions", sa.Column("renewed_at", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("sessions", sa.Column("by_provider", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    _name_logins(op.get_bind())
    op.create_index(op.f("ix_sessions_login_id"), "sessions", ["login_id"], unique=True)

    op.create_table(
        "totp",
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("password_is_mailed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_totp")),
    )
    op.create_table(
        "reset_tokens",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_reset_tokens")),
    )
    op.create_index(op.f("ix_reset_tokens_expires_at"), "reset_tokens", ["expires_at"])
    op.create_index(op.f("ix_reset_tokens_user_id_purpose"), "reset_tokens", ["user_id", "purpose"])
    op.create_table(
        "api_keys",
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("api_key_id", name=op.f("pk_api_keys")),
    )
    op.create_index(op.f("ix_api_keys_user_id_name"), "api_keys", ["user_id", "name"], unique=True)
    op.create_table(
        "provider_logins",
        sa.Column("login_hash", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=True),
        sa.Column("interval_seconds", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("login_hash", name=op.f("pk_provider_logins")),
    )
    op.create_index(op.f("ix_provider_logins_expires_at"), "provider_logins", ["expires_at"])
    op.create_table(
        "provider_identities",
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_provider_identities")),
    )
    op.create_index(op.f("ix_provider_identities_user_id"), "provider_identities", ["user_id"])


def downgrade() -> None:
    for table in ("provider_identities", "provider_logins", "api_keys", "reset_tokens", "totp"):
        op.drop_table(table)
    # An earlier release would take them for logins with a password and a code.
    op.execute("DELETE FROM sessions WHERE by_provider")
    op.drop_index(op.f("ix_sessions_login_id"), "sessions")
    for name in _NEW_OF_SESSIONS:
        op.drop_column("sessions", name)


def _name_logins(connection: sa.Connection) -> None:
    sessions = sa.table(
        "sessions", *(sa.column(name) for name in ("session_id", "created_at", "login_id", "renewed_at"))
    )
    for row in connection.execute(sa.select(sessions.c.session_id, sessions.c.created_at)).all():
        login_id = hashlib.sha256(row.session_id.encode()).hexdigest()
        named = sa.update(sessions).where(sessions.c.session_id == row.session_id)
        connection.execute(named.values(login_id=login_id, renewed_at=row.created_at))
