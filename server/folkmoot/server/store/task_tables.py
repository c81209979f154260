"""Tables of tasks, runs, what nodes are to be told, and payloads.

Every thing that is pushed to somebody has a row here first: a stream that breaks, a server that is killed or a wake-up
that gets lost costs time and nothing else. `position` is the order in which the server stored things, which lists follow.
"""

from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    text,
)

from folkmoot.server.store.tables import Count, Instant, metadata
from folkmoot.v1.task_pb2 import RunState

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row of whatever columns a query names."""

# ---- tasks ---------------------------------------------------------------------------------------------------------

tasks = Table(
    "tasks",
    metadata,
    Column("position", Count, primary_key=True),
    Column("task_id", String, nullable=False, unique=True),
    Column("genesis", LargeBinary, nullable=False),
    Column("job_id", String, nullable=False),
    Column("parent_task_id", String),
    Column("name", String, nullable=False),
    Column("initiator_organization_id", String, nullable=False),
    Column("created_by", String, nullable=False),  # the user's id at this server; empty for subtasks
    Column("chain", LargeBinary, nullable=False),  # a TaskChain, as it came
    Column("digest", LargeBinary, nullable=False),  # of the task's own spec
    Column("result_receivers", Text, nullable=False),  # addresses, separated by spaces
    Column("image", String, nullable=False, server_default=text("''")),  # its repository, local id or module
    Column("study", String, nullable=False, server_default=text("''")),  # its name, as the task says
    Column("session_id", String),  # whose dataframes its runs read or leave; null: none
    Column("blocked", Boolean, nullable=False),  # tasks that it depends on are not completed
    Column("created_at", Instant, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Index(None, "genesis", "position"),
    Index(None, "job_id", "position"),
    Index(None, "initiator_organization_id", "position"),
    Index(None, "created_by", "position"),
    Index(None, "image", "position"),
    Index(None, "created_at"),
)
Index(
    "ix_tasks_parent_task_id",
    tasks.c.parent_task_id,
    sqlite_where=tasks.c.parent_task_id.is_not(None),
    postgresql_where=tasks.c.parent_task_id.is_not(None),
)
Index(
    "ix_tasks_session_id_position",
    tasks.c.session_id,
    tasks.c.position,
    sqlite_where=tasks.c.session_id.is_not(None),
    postgresql_where=tasks.c.session_id.is_not(None),
)
HAS_STUDY = tasks.c.study != literal_column("''")
Index("ix_tasks_study_position", tasks.c.study, tasks.c.position, sqlite_where=HAS_STUDY, postgresql_where=HAS_STUDY)

task_labels = Table(
    "task_labels",
    metadata,
    # Which tasks read which data, newest last.
    Column("label", String, primary_key=True),
    Column("position", Count, primary_key=True, autoincrement=False),  # the task's
)

deleted_tasks = Table(
    "deleted_tasks",
    metadata,
    # As long as somebody could still send the same signed task: it does not come back.
    Column("task_id", String, primary_key=True),
    Column("deleted_at", Instant, nullable=False, index=True),
)

task_dependencies = Table(
    "task_dependencies",
    metadata,
    Column("task_id", String, primary_key=True),
    Column("depends_on_task_id", String, primary_key=True, index=True),
)

runs = Table(
    "runs",
    metadata,
    Column("position", Count, primary_key=True),
    Column("run_id", String, nullable=False, unique=True),
    Column("task_id", String, nullable=False),
    Column("genesis", LargeBinary, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("attempts_allowed", Integer, nullable=False, server_default="1"),  # as the signed task says
    Column("state", Integer, nullable=False),  # RunState
    Column("link_id", Integer),  # the node that it is placed at, and belongs to once assigned_at is set
    Column("input_digest", LargeBinary, nullable=False),
    Column("cancelling", Boolean, nullable=False),  # its node was asked to end it
    Column("exit_class", Integer, nullable=False),
    Column("reason", Integer, nullable=False),
    Column("rule", String, nullable=False),
    Column("fraction", Float, nullable=False),
    Column("waiting", LargeBinary),  # a Waiting, as the node says
    Column("receipt", LargeBinary),  # a Signed
    Column("approvals", LargeBinary),  # a Run that has nothing but its approvals
    Column("result_digest", LargeBinary, nullable=False),
    Column("result_size_bytes", BigInteger, nullable=False),
    Column("progress_envelope", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("assigned_at", Instant),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("logs_deleted_at", Instant),  # null: log and progress are kept
    Column("revision", BigInteger, nullable=False),
    Index(None, "task_id", "revision"),
    Index(None, "genesis", "position"),
    Index(None, "organization_id", "position"),
    Index(None, "link_id", "position"),
)
# Written out rather than bound, so that the database sees that the partial indexes below serve what asks for these.
IS_PENDING = runs.c.state == literal_column(str(int(RunState.RUN_STATE_PENDING)))
IS_OPEN = runs.c.state < literal_column(str(int(RunState.RUN_STATE_COMPLETED)))
IS_UNSUCCESSFUL = runs.c.state > literal_column(str(int(RunState.RUN_STATE_COMPLETED)))
IS_HOMELESS = and_(IS_PENDING, runs.c.link_id.is_(None))
Index("ix_runs_pending_expires_at", runs.c.expires_at, sqlite_where=IS_PENDING, postgresql_where=IS_PENDING)
Index("ix_runs_open_link_id", runs.c.link_id, sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
Index(
    "ix_runs_homeless_organization_id", runs.c.organization_id, sqlite_where=IS_HOMELESS, postgresql_where=IS_HOMELESS
)
for _name, _condition in (("open", IS_OPEN), ("unsuccessful", IS_UNSUCCESSFUL)):
    Index(
        f"ix_runs_{_name}_state_position",
        runs.c.state,
        runs.c.position,
        sqlite_where=_condition,
        postgresql_where=_condition,
    )
HAS_LOGS = runs.c.logs_deleted_at.is_(None)
Index("ix_runs_logs_ended_at", runs.c.ended_at, sqlite_where=HAS_LOGS, postgresql_where=HAS_LOGS)

scratch_bindings = Table(
    "scratch_bindings",
    metadata,
    Column("job_id", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("link_id", Integer, nullable=False),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),  # within the run, from 1
    Column("attempt", Integer, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
)

# ---- links to nodes ------------------------------------------------------------------------------------------------

node_links = Table(
    "node_links",
    metadata,
    Column("link_id", Integer, primary_key=True),
    Column("genesis", LargeBinary, nullable=False),
    Column("node_id", String, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # grows with every attach; the newest session is the only live one
    Column("last_sequence", BigInteger, nullable=False),  # of the newest delivery
    Column("acknowledged", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False, server_default="0"),  # away: deliveries up to there may have reached it
    Column("instance_id", String, nullable=False, server_default=text("''"), index=True),  # where its session is or was
    Column("attached_at", Instant),
    Column("away_since", Instant),  # null while attached, and before the first attach
    Column("version", String, nullable=False),  # the node's release
    Column("policy", LargeBinary, nullable=False),  # a PolicySummary, as the node says
    Column("free_slots", Integer, nullable=False),
    Column("availability", Integer, nullable=False, server_default="0"),  # Availability, as the node says
    Column("offered_at", Instant),  # when it said these three
    UniqueConstraint("genesis", "node_id"),
    Index(None, "organization_id"),
)

deliveries = Table(
    "deliveries",
    metadata,
    # Only what the node has not acknowledged. What a delivery says is read from the run and the message as they are now.
    Column("link_id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Integer, nullable=False),  # deliveries.Kind
    Column("run_id", String, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),  # 0: whichever it is
    Column("message_id", Count),
    Column("session_id", String),  # DROP, of which no run is the subject: its run_id is empty
    Column("dataframe", String),
)

peer_messages = Table(
    "peer_messages",
    metadata,
    Column("message_id", Count, primary_key=True),
    Column("from_run_id", String, nullable=False),
    Column("to_run_id", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
    UniqueConstraint("to_run_id", "from_run_id", "sequence"),
)

# ---- payloads ------------------------------------------------------------------------------------------------------

payloads = Table(
    "payloads",
    metadata,
    Column("envelope_digest", LargeBinary, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sender_organization_id", String, nullable=False),  # only its users and nodes may upload
    Column("readers", Text, nullable=False),  # addresses, separated by spaces
    Column("envelope", LargeBinary),  # null: in the payload store
    # From the envelope's own context, once it is complete. Not verified: whoever opens it does that.
    Column("kind", Integer, nullable=False),
    Column("task_id", String, nullable=False),
    Column("run_id", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("completed_at", Instant),
    Column("deleted_at", Instant),  # its bytes are gone, or are about to go
    Column("remove_at", Instant),  # the payload store may have bytes that are to go; whoever removes them puts it off
    Index(None, "task_id"),
)
IS_KEPT = payloads.c.deleted_at.is_(None)
IS_TO_REMOVE = payloads.c.remove_at.is_not(None)
IS_UNNAMED = and_(payloads.c.readers == literal_column("''"), IS_KEPT)  # begun, or complete and named by nothing
Index(
    "ix_payloads_kept_kind_created_at",
    payloads.c.kind,
    payloads.c.created_at,
    sqlite_where=IS_KEPT,
    postgresql_where=IS_KEPT,
)
Index("ix_payloads_remove_at", payloads.c.remove_at, sqlite_where=IS_TO_REMOVE, postgresql_where=IS_TO_REMOVE)
Index("ix_payloads_unnamed_created_at", payloads.c.created_at, sqlite_where=IS_UNNAMED, postgresql_where=IS_UNNAMED)

stored_bytes = Table(
    "stored_bytes",
    metadata,
    # Counted only where there is a quota, by the transactions that store and delete.
    Column("organization_id", String, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
)
