"""Tables of how people log in: second factors, mailed tokens, API keys, logins by an OpenID Connect provider.

No secret stands in the open: those that somebody else keeps are stored as hashes, those that the server itself needs again are
sealed by its key (`folkmoot.server.people.sealing`).
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, String, Table, Text, text

from folkmoot.server.store.tables import Instant, metadata

totp = Table(
    "totp",
    metadata,
    Column("user_id", String, primary_key=True),
    Column("sealed_secret", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("confirmed_at", Instant),  # none: a code of it was not seen yet, so it does not count
    Column("last_step", BigInteger, nullable=False, server_default=text("0")),  # of the last code that was good
    # The password was set by mail and not used with a code since: whoever has the mailbox may know no more than that.
    Column("password_is_mailed", Boolean, nullable=False, server_default=text("false")),
)

reset_tokens = Table(
    "reset_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("purpose", String, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("used_at", Instant),  # used ones stay until their time is over: they count
    Index(None, "user_id", "purpose"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("api_key_id", String, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("rules", Text, nullable=False),  # triples of numbers, a JSON list in order; empty: all that the user may
    Column("secret_hash", LargeBinary, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("last_used_at", Instant),
    Index(None, "user_id", "name", unique=True),
)

provider_logins = Table(
    "provider_logins",
    metadata,
    # Logins that were begun at the provider: what finishes them is known by its hash.
    Column("login_hash", LargeBinary, primary_key=True),
    Column("kind", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("asked_at", Instant),  # when the provider was last asked whether the person has agreed
    Column("interval_seconds", BigInteger, nullable=False, server_default=text("0")),
    Column("expires_at", Instant, nullable=False, index=True),
)

provider_identities = Table(
    "provider_identities",
    metadata,
    Column("issuer", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("user_id", String, nullable=False, index=True),
    Column("created_at", Instant, nullable=False),
)
