"""Tables of accounts, ledgers and the audit trail.

Ledger entries are the truth; `collaborations`, `members`, `former_members`, `nodes` and whether a join request is open are
projections of them, written in the same transaction, for lists and joins. Tables of tasks and payloads are in `task_tables`.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    and_,
    literal_column,
    text,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """A moment, kept as microseconds since 1970: the same in every database, with an order and a zone."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Refuse moments without a zone."""
        del dialect
        if value is None:
            return None
        return (value - EPOCH) // timedelta(microseconds=1)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Give the moment in UTC."""
        del dialect
        return None if value is None else EPOCH + timedelta(microseconds=value)


Count = BigInteger().with_variant(Integer, "sqlite")
"""A number that the database gives, one after the other; in SQLite every integer has 64 bits, and only INTEGER counts."""


# ---- accounts ------------------------------------------------------------------------------------------------------

setup = Table(
    "setup",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1: there is one set-up
    Column("token_hash", LargeBinary, nullable=False),  # random bytes: with the server's key they give the token
    Column("done_at", Instant),
)

organizations = Table(
    "organizations",
    metadata,
    Column("organization_account_id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    # The address, bound when the account proves for the first time that it holds the governance key.
    Column("organization_id", String, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("domain", String, nullable=False, server_default=text("''")),
    Column("postal_address", String, nullable=False, server_default=text("''")),
    Column("country", String, nullable=False, server_default=text("''")),
)

users = Table(
    "users",
    metadata,
    Column("user_id", String, primary_key=True),
    Column("username", String, nullable=False, unique=True),
    Column("password_hash", String, nullable=False),
    Column("organization_account_id", String, nullable=False),
    Column("roles", Text, nullable=False),  # names, a JSON list in order
    Column("created_at", Instant, nullable=False),
    Column("email", String),  # in lower case; none: null, so that many have none
    Column("first_name", String, nullable=False, server_default=text("''")),
    Column("last_name", String, nullable=False, server_default=text("''")),
    Column("extra_rules", Text, nullable=False, server_default="[]"),  # triples of numbers, a JSON list in order
    Column("last_login_at", Instant),
    # Whether the address was proved by its mailbox, or set by somebody who answers for it: not by its user alone.
    Column("email_is_vouched", Boolean, nullable=False, server_default=text("false")),
    Index(None, "organization_account_id", "username"),
    Index(None, "email", unique=True),
)

roles = Table(
    "roles",
    metadata,
    # Those that people made; the default ones are in folkmoot.server.people.roles.
    Column("role_id", String, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("description", String, nullable=False),
    Column("rules", Text, nullable=False),  # triples of numbers, a JSON list in order
    Column("organization_account_id", String, index=True),  # none: everybody's
    Column("created_at", Instant, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("session_id", String, primary_key=True),
    Column("user_id", String, nullable=False, index=True),
    Column("refresh_hash", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    # Derived from the session's id, which would end the session if anybody showed it: what people see instead.
    Column("login_id", String, nullable=False, server_default=text("''")),
    Column("renewed_at", Instant, nullable=False, server_default=text("0")),
    Column("peer", String, nullable=False, server_default=text("''")),
    Column("user_agent", String, nullable=False, server_default=text("''")),
    # By the provider: then a second factor is the provider's business.
    Column("by_provider", Boolean, nullable=False, server_default=text("false")),
    Index(None, "login_id", unique=True),
)

login_failures = Table(
    "login_failures",
    metadata,
    # Also names that nobody has: a lock-out must not tell which users exist.
    Column("username", String, primary_key=True),
    Column("place", String, primary_key=True),  # where they came from; empty: from anywhere, all together
    Column("failures", Integer, nullable=False),
    Column("locked_until", Instant),
    Column("last_at", Instant, nullable=False, index=True),
)

nonces = Table(
    "nonces",
    metadata,
    Column("nonce", LargeBinary, primary_key=True),  # used ones, until they would be too old anyway
    Column("expires_at", Instant, nullable=False, index=True),
)

# ---- ledgers -------------------------------------------------------------------------------------------------------

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("genesis", LargeBinary, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Column("received_at", Instant, nullable=False),
)

collaborations = Table(
    "collaborations",
    metadata,
    Column("genesis", LargeBinary, primary_key=True),
    Column("name", String, nullable=False),
    Column("reference", String, nullable=False),
    Column("encryption", Integer, nullable=False),
    Column("head_sequence", BigInteger, nullable=False),
    Column("head_hash", LargeBinary, nullable=False),
)

members = Table(
    "members",
    metadata,
    Column("genesis", LargeBinary, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Column("name", String, nullable=False),
    Index(None, "organization_id", "genesis"),
)

former_members = Table(
    "former_members",
    metadata,
    # Organizations that are no members any more: they see what was theirs.
    Column("genesis", LargeBinary, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Index(None, "organization_id", "genesis"),
)

nodes = Table(
    "nodes",
    metadata,
    Column("genesis", LargeBinary, primary_key=True),
    Column("node_id", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("name", String, nullable=False),
    Index(None, "node_id", "genesis"),
    Index(None, "organization_id", "genesis"),
)

node_attempts = Table(
    "node_attempts",
    metadata,
    # Nodes that wait for approval; a row goes when the ledger admits the node, when it expires or is refused.
    Column("genesis", LargeBinary, primary_key=True),
    Column("node_id", String, primary_key=True),
    Column("organization_id", String, nullable=False),
    Column("claim", LargeBinary, nullable=False),  # a Signed
    Column("submitted_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Index(None, "genesis", "organization_id", "submitted_at"),
)

node_heads = Table(
    "node_heads",
    metadata,
    # The newest head statement of each node that the ledger admits.
    Column("genesis", LargeBinary, primary_key=True),
    Column("node_id", String, primary_key=True),
    Column("signed", LargeBinary, nullable=False),
    Column("stated_at", Instant, nullable=False),  # by the node's clock
)

join_requests = Table(
    "join_requests",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("genesis", LargeBinary, nullable=False),
    Column("organization_id", String, nullable=False),
    Column("organization_account_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("signed", LargeBinary, nullable=False),
    Column("open", Boolean, nullable=False),  # the organization is not yet a member; expiry is in expires_at
    Column("submitted_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Index(None, "genesis", "submitted_at", "digest"),
    Index(None, "genesis", "organization_id"),
    Index(None, "organization_account_id", "open", "expires_at"),
)

# ---- studies -------------------------------------------------------------------------------------------------------

studies = Table(
    "studies",
    metadata,
    Column("study_id", String, primary_key=True),
    Column("genesis", LargeBinary, nullable=False),
    Column("name", String, nullable=False),
    Column("description", String, nullable=False),
    Column("organization_account_id", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index(None, "genesis", "name", unique=True),
    Index(None, "name", "study_id"),
    Index(None, "organization_account_id", "name"),
)

study_organizations = Table(
    "study_organizations",
    metadata,
    Column("study_id", String, primary_key=True),
    Column("organization_id", String, primary_key=True),
    Index(None, "organization_id", "study_id"),
)

# ---- vault ---------------------------------------------------------------------------------------------------------

vaulted_keys = Table(
    "vaulted_keys",
    metadata,
    Column("organization_id", String, primary_key=True),
    Column("encryption_key_id", LargeBinary, primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("vaulted_key", LargeBinary, nullable=False),
    Column("put_at", Instant, nullable=False),
    Index(None, "organization_id", "generation"),
)

# ---- audit trail ---------------------------------------------------------------------------------------------------

events = Table(
    "events",
    metadata,
    Column("sequence", Count, primary_key=True, autoincrement=True),
    Column("intent", String, nullable=False),
    Column("organization", String, nullable=False),
    Column("created_by", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("data_version", Integer, nullable=False),
    Column("data", Text, nullable=False),
    Column("request_id", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("genesis", LargeBinary),  # the collaboration that it is about, if it is about one
    Column("origin", String, nullable=False, server_default=text("''")),  # the address that the call came from
    # Where it stands in the chain, and the hash up to there: null until it is chained. `sequence` is the order in which
    # events began to be written, which with several writers is not the order in which they can be read.
    Column("position", BigInteger),
    Column("hash", LargeBinary),
    Index(None, "request_id"),
    Index(None, "position", unique=True),
    sqlite_autoincrement=True,  # a number is never given twice, even if old events are removed one day
)
IS_UNCHAINED = events.c.position.is_(None)
Index("ix_events_unchained", events.c.sequence, sqlite_where=IS_UNCHAINED, postgresql_where=IS_UNCHAINED)

# Lists go by the position, so that what is not chained yet need not be in their indices: whoever writes an event does not
# pay for them.
IS_CHAINED = events.c.position.is_not(None)
WENT_WRONG = events.c.outcome != literal_column("'ok'")
for _column in ("intent", "organization", "created_by", "genesis", "created_at"):
    Index(None, events.c[_column], events.c.position, sqlite_where=IS_CHAINED, postgresql_where=IS_CHAINED)
_REFUSALS = and_(WENT_WRONG, IS_CHAINED)
Index(None, events.c.outcome, events.c.position, sqlite_where=_REFUSALS, postgresql_where=_REFUSALS)

usage = Table(
    "usage",
    metadata,
    # Several rows of an organization and a day are added up: whoever counts at once counts in rows of their own.
    Column("day", Instant, primary_key=True),  # midnight, UTC
    Column("organization_id", String, primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("runs_asked_for", BigInteger, nullable=False),
    Column("runs_executed", BigInteger, nullable=False),
    Column("run_milliseconds", BigInteger, nullable=False),
    Column("bytes_stored", BigInteger, nullable=False),
    Column("bytes_fetched", BigInteger, nullable=False),
    Index(None, "organization_id", "day"),
)
