"""PostgreSQL of the tests' own: a private cluster, a fresh database for whoever asks, and restarts.

cluster.url("name")         # a database with the newest tables, made when it is asked for first
with cluster.lent() as url: # the same for a while: afterwards it is emptied, for the next who asks
cluster.restart()           # as an operator does: whoever is connected loses the connection
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

import psycopg
from sqlalchemy import create_engine

from folkmoot.server.store import databases, migrate
from tests.integration.node.data.servers import _folder, _run, _running, binary, free_port

SETTINGS = {"fsync": "off", "autovacuum": "off", "max_connections": 200, "max_prepared_transactions": 0}
_TEMPLATE = "migrated"
_EMPTIED = """
DO $$ DECLARE each text; BEGIN
    FOR each IN SELECT quote_ident(tablename) FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP EXECUTE 'DELETE FROM ' || each; END LOOP;
    FOR each IN SELECT quote_ident(sequencename) FROM pg_sequences LOOP PERFORM setval(each::regclass, 1, false); END LOOP;
END $$
"""
_ALONE = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Cluster:
    """A running PostgreSQL with a superuser `owner`, without passwords."""

    def __init__(self, stack: ExitStack, settings: Mapping[str, object]) -> None:
        self._settings = SETTINGS | dict(settings)
        self._folder, self._user = stack.enter_context(_folder())
        self.port = free_port()
        initdb = [str(binary("initdb")), "-D", self._folder / "data", "-U", "owner", "-N", "-E", "UTF8"]
        _run([*initdb, "--locale=C.UTF-8", "--auth=trust"], self._user)
        self._running = ExitStack()
        stack.callback(self._running.close)
        self.start()
        self._made: set[str] = set()
        self._free: list[str] = []

    def start(self) -> None:
        settings = {"port": self.port, "unix_socket_directories": self._folder, **self._settings}
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = [str(binary("postgres")), "-D", self._folder / "data", "--listen_addresses=127.0.0.1", *options]
        self._running.enter_context(_running(command, self._user, self.port))
        end = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(self._url("postgres")).close()
            except psycopg.OperationalError:  # it listens before it has got ready
                assert time.monotonic() < end
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop it; transactions that are open end without a commit."""
        self._running.pop_all().close()

    def restart(self) -> None:
        self.stop()
        self.start()

    def crash(self) -> None:
        """Have it end at once, as if it were killed, and start again: what it has not said is committed may be so or not."""
        postmaster = int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGQUIT)
        self.restart()

    def empty(self, name: str) -> str:
        """Make a database without tables; return its URL."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        return self._url(name)

    def url(self, name: str) -> str:
        """Return the URL of a database that has the newest tables when it is asked for first."""
        name = re.sub(r"[^a-z0-9]", "_", name.lower())[-60:]
        if name not in self._made:
            if not self._made:
                engine = create_engine(databases.postgresql_url(self.empty(_TEMPLATE)))
                with engine.begin() as connection:
                    migrate.upgrade(connection)
                engine.dispose()
            self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}"')
            self._made.add(name)
        return self._url(name)

    @contextmanager
    def lent(self) -> Iterator[Callable[[str], str]]:
        """Give databases as `url` does, for as long as this is open: emptying one costs little of what copying one costs."""
        taken: dict[str, str] = {}

        def url(name: str) -> str:
            if name not in taken:
                taken[name] = self._free.pop() if self._free else self.url(f"lent {len(self._made)}")
            return taken[name]

        try:
            yield url
        finally:
            for each in taken.values():
                for statement in (_ALONE, _EMPTIED):
                    self.execute(statement, self.name_of(each))
                self._free.append(each)

    def execute(self, sql: str, database: str = "postgres") -> list[tuple]:
        with psycopg.connect(self._url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def name_of(self, url: str) -> str:
        return url.rpartition("/")[2]

    def _url(self, name: str) -> str:
        return f"postgresql://owner@127.0.0.1:{self.port}/{name}"


@contextmanager
def cluster(settings: Mapping[str, object] = MappingProxyType({})) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack, settings)
