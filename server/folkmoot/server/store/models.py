"""All tables of the server, so that nobody who needs them all forgets half of them."""

from folkmoot.server.store import instance_tables, login_tables, session_tables, task_tables
from folkmoot.server.store.tables import metadata

__all__ = ["instance_tables", "login_tables", "metadata", "session_tables", "task_tables"]
