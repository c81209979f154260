"""Runs migrations on the connection that the caller hands over (see folkmoot.server.store.migrate)."""

from typing import Any, Literal

from alembic import context

from folkmoot.server.store.models import metadata
from folkmoot.server.store.tables import Instant


def render_item(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write our own column type as what the database sees, so that old migrations never import today's code."""
    return "sa.BigInteger()" if kind == "type" and isinstance(item, Instant) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_item=render_item,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
