"""What tasks are found by: image, study, labels. Payloads, logs and tasks that are deleted; bytes stored of each organization.

Tasks that are there already say in their signed specs what they are found by.
"""

import sqlalchemy as sa
from alembic import op
from google.protobuf.message import DecodeError

from folkmoot.v1.task_pb2 import TaskChain, TaskSpec

revision = "0010"
down_revision = "0009"

_PARTIAL = {
    "ix_tasks_study_position": ("tasks", ["study", "position"], "study != ''"),
    "ix_runs_open_state_position": ("runs", ["state", "position"], "state < 8"),
    "ix_runs_unsuccessful_state_position": ("runs", ["state", "position"], "state > 8"),
    "ix_runs_logs_ended_at": ("runs", ["ended_at"], "logs_deleted_at IS NULL"),
    "ix_payloads_kept_kind_created_at": ("payloads", ["kind", "created_at"], "deleted_at IS NULL"),
    "ix_payloads_remove_at": ("payloads", ["remove_at"], "remove_at IS NOT NULL"),
    "ix_payloads_unnamed_created_at": ("payloads", ["created_at"], "readers = '' AND deleted_at IS NULL"),
}
_WHOLE = {
    "ix_tasks_image_position": ("tasks", ["image", "position"]),
    "ix_tasks_created_at": ("tasks", ["created_at"]),
    "ix_runs_link_id_position": ("runs", ["link_id", "position"]),
    "ix_payloads_task_id": ("payloads", ["task_id"]),
}
_COLUMNS = {"runs": ("logs_deleted_at",), "payloads": ("deleted_at", "remove_at")}


def upgrade() -> None:
    for name in ("image", "study"):
        op.add_column("tasks", sa.Column(name, sa.String(), server_default=sa.text("''"), nullable=False))
    for table, names in _COLUMNS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.BigInteger()))
    op.create_table(
        "task_labels",
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("label", "position", name=op.f("pk_task_labels")),
    )
    op.create_table(
        "deleted_tasks",
        sa.Column("task_id", sa.String(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_deleted_tasks")),
    )
    op.create_index(op.f("ix_deleted_tasks_deleted_at"), "deleted_tasks", ["deleted_at"])
    op.create_table(
        "stored_bytes",
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("organization_id", name=op.f("pk_stored_bytes")),
    )
    for name, (table, columns, condition) in _PARTIAL.items():
        where = sa.text(condition)
        op.create_index(op.f(name), table, columns, sqlite_where=where, postgresql_where=where)
    for name, (table, columns) in _WHOLE.items():
        op.create_index(op.f(name), table, columns)
    _read_specs()


def _read_specs() -> None:
    connection = op.get_bind()
    found_by = sa.text("UPDATE tasks SET image = :image, study = :study WHERE position = :position")
    reads = sa.text("INSERT INTO task_labels (label, position) VALUES (:label, :position)")
    page = sa.text("SELECT position, chain FROM tasks WHERE position > :last ORDER BY position LIMIT 500")
    last = 0
    while rows := connection.execute(page, {"last": last}).all():
        last = rows[-1].position
        for row in rows:
            spec = _spec(bytes(row.chain))
            source = getattr(spec.image, spec.image.WhichOneof("source") or "registry")
            named = [getattr(source, name, "") for name in ("repository", "id", "module")]
            values = {"image": "".join(named), "study": spec.study, "position": row.position}
            connection.execute(found_by, values)
            for label in dict.fromkeys(spec.labels):
                connection.execute(reads, {"label": label, "position": row.position})


def _spec(chain: bytes) -> TaskSpec:
    try:
        return TaskSpec.FromString(TaskChain.FromString(chain).specs[-1].body)
    except (DecodeError, IndexError):
        return TaskSpec()  # of no use to anybody, and no reason to have no server


def downgrade() -> None:
    # To a release without deletion these are uploads of which nothing has come: nobody can read them, nobody misses them.
    op.execute("UPDATE payloads SET completed_at = NULL WHERE deleted_at IS NOT NULL")
    for name, (table, *_) in (_PARTIAL | _WHOLE).items():
        op.drop_index(op.f(name), table)
    for table in ("stored_bytes", "deleted_tasks", "task_labels"):
        op.drop_table(table)
    for table, names in (*_COLUMNS.items(), ("tasks", ("image", "study"))):
        for name in names:
            op.drop_column(table, name)
