"""What may be wrong with the server's key: another one than that of the servers that work on the same database."""

import time
from datetime import datetime

from folkmoot.server import tokens
from folkmoot.server.config import Config
from folkmoot.server.instances import other_keys
from folkmoot.server.operation.check.finding import Finding, Found, State
from folkmoot.server.operation.migrating import SIGN_OF_LIFE_SECONDS
from folkmoot.server.store import databases, instance_rows, migrate
from folkmoot.server.store.databases import Database


def keys(config: Config, _now: datetime) -> Found:
    """Compare the key with that of servers which show life on the database. With SQLite there are none."""
    path = tokens.key_path(config.data)
    if not path.exists():
        yield Finding(
            "keys", State.DOUBTFUL, f"{path} is not there", "the first start makes it; several instances share one"
        )
        return
    mine = tokens.Tokens(tokens.load_or_make_key(path)).fingerprint
    if config.database:
        opened = databases.connect(config.database, config.data)
        try:
            if number := _alive_with_others(opened, mine):
                yield Finding(
                    "keys", State.WRONG, other_keys(mine, number).message, f"put their token.pem in the place of {path}"
                )
                return
        finally:
            opened.writing.dispose()
            opened.reading.dispose()
    yield Finding("keys", State.GOOD, mine)


def _alive_with_others(database: Database, mine: str) -> int:
    before = _strangers(database, mine)
    if not before:
        return 0
    time.sleep(SIGN_OF_LIFE_SECONDS)  # one that was killed has left its row, and its beat stands still
    return sum(beat != before.get(one) for one, beat in _strangers(database, mine).items())


def _strangers(database: Database, mine: str) -> dict[str, int]:
    with database.reading.begin() as connection:
        if (present := migrate.present(connection)) is None or present < migrate.newest():
            return {}
        return instance_rows.of_other_keys(connection, mine)
