"""Tables by which instances of the server that share a database know of each other.

With SQLite there is one instance, and the same tables.
"""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Table, text

from folkmoot.server.store.tables import Instant, metadata

instances = Table(
    "instances",
    metadata,
    # A row goes when its instance stops, or when others have not seen its beat grow for a while: then it is fenced.
    Column("instance_id", String, primary_key=True),
    Column("version", String, nullable=False),  # of the release
    Column("started_at", Instant, nullable=False),
    Column(
        "beat", BigInteger, nullable=False
    ),  # grows while the instance is alive; compared with itself, never with a clock
    # What may be known of the key in its data folder: all have the same. Empty: of a release that did not say.
    Column("key_fingerprint", String, nullable=False, server_default=text("''")),
)

check_questions = Table(
    "check_questions",
    metadata,
    # Questions whether tasks would be accepted, to nodes whose session is at another instance. Gone within seconds.
    Column("check_id", String, primary_key=True),
    Column("instance_id", String, nullable=False, index=True),  # whose session asks the node
    Column("link_id", Integer, nullable=False),
    Column("question", LargeBinary, nullable=False),  # a Check
    Column("verdict", LargeBinary),  # a Verdict
    Column("asked_at", Instant, nullable=False, index=True),
)

write_turns = Table(
    "write_turns",
    metadata,
    # Never has a row: its lock is the turn of those writers that have met conflicts.
    Column("turn", Integer, primary_key=True, autoincrement=False),
)

commits = Table(
    "commits",
    metadata,
    # A row is written in each transaction on PostgreSQL: if the answer to its commit is lost, it says what became of it.
    Column("name", String, primary_key=True),
    Column("at", Instant, nullable=False, index=True),
)
