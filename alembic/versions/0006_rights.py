"""What is known of organizations and users, roles that people make, extra rules of users, studies."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_TEXTS = {"organizations": ("domain", "postal_address", "country"), "users": ("first_name", "last_name")}


def upgrade() -> None:
    for table, names in _TEXTS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.String(), server_default=sa.text("''"), nullable=False))
    op.add_column("users", sa.Column("email", sa.String()))
    op.add_column("users", sa.Column("extra_rules", sa.Text(), server_default="[]", nullable=False))
    op.add_column("users", sa.Column("last_login_at", sa.BigInteger()))
    op.create_index(op.f("ix_users_email"), "users", ["email"], unique=True)

    op.create_table(
        "roles",
        sa.Column("role_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("rules", sa.Text(), nullable=False),
        sa.Column("organization_account_id", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("role_id", name=op.f("pk_roles")),
        sa.UniqueConstraint("name", name=op.f("uq_roles_name")),
    )
    op.create_index(op.f("ix_roles_organization_account_id"), "roles", ["organization_account_id"])

    op.create_table(
        "studies",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("genesis", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("organization_account_id", sa.String(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_studies")),
    )
    op.create_index(op.f("ix_studies_genesis_name"), "studies", ["genesis", "name"], unique=True)
    op.create_index(op.f("ix_studies_name_study_id"), "studies", ["name", "study_id"])
    op.create_index(op.f("ix_studies_organization_account_id_name"), "studies", ["organization_account_id", "name"])
    op.create_table(
        "study_organizations",
        sa.Column("study_id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "organization_id", name=op.f("pk_study_organizations")),
    )
    op.create_index(
        op.f("ix_study_organizations_organization_id_study_id"), "study_organizations", ["organization_id", "study_id"]
    )


def downgrade() -> None:
    for table in ("study_organizations", "studies", "roles"):
        op.drop_table(table)
    op.drop_index(op.f("ix_users_email"), "users")
    for name in ("last_login_at", "extra_rules", "email"):
        op.drop_column("users", name)
    for table, names in _TEXTS.items():
        for name in names:
            op.drop_column(table, name)
