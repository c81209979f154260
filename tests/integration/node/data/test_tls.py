"""Reads from database servers by TLS: what is asked for is what there is, or there is no read."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pymysql
import pytest
from adbc_driver_postgresql import dbapi

from folkmoot.node.data.mariadb import open_table as mariadb_table
from folkmoot.node.data.postgres import open_table as postgres_table
from folkmoot.node.data.table_source import Settings
from folkmoot.server.certificates import load_or_make
from tests.integration.node.data.servers import Server
from tests.integration.node.data.servers import mariadb as mariadb_server

Encrypted = Callable[..., bool]
"""Whether a read's connection is encrypted: as its server says, of a host, with an authority, and with more in the URL."""


@pytest.fixture
def postgres_encrypted(postgres: Server) -> Encrypted:
    def encrypted(host: str, authority: Path | None = None, query: str = "") -> bool:
        settings = Settings(
            "x",
            "postgres",
            url=f"postgresql://owner@{host}:{postgres.port}/postgres?{query}",
            secret="owner",
            sql="SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
            certificate_authority=str(authority or ""),
        )
        [answer] = postgres_table(settings).read(["ssl"], ()).read_all()["ssl"].to_pylist()
        return bool(answer)

    return encrypted


@pytest.fixture
def mariadb_encrypted(mariadb: Server) -> Encrypted:
    def encrypted(host: str, authority: Path | None = None, query: str = "", server: Server = mariadb) -> bool:
        server.execute("CREATE OR REPLACE USER looker@'127.0.0.1'; CREATE OR REPLACE USER looker@'localhost'")
        settings = Settings(
            "x",
            "mariadb",
            url=f"mariadb://looker@{host}:{server.port}/information_schema?{query}",
            sql="SELECT variable_value AS version FROM session_status WHERE variable_name = 'SSL_VERSION'",
            certificate_authority=str(authority or ""),
        )
        [version] = mariadb_table(settings).read(["version"], ()).read_all()["version"].to_pylist()
        return bool(version)

    return encrypted


@pytest.fixture
def other_authority(tmp_path: Path) -> Path:
    load_or_make(tmp_path, names=("127.0.0.1",), now=datetime.now(UTC))
    return tmp_path / "ca.pem"


class TestPostgres:
    pytestmark = pytest.mark.needs_postgres

    def test_server_of_the_named_authority_is_read_by_tls(self, postgres: Server, postgres_encrypted: Encrypted):
        assert postgres_encrypted("127.0.0.1", postgres.authority, "sslmode=verify-full")
        assert not postgres_encrypted("127.0.0.1", query="sslmode=disable"), (
            "the server can tell the one from the other"
        )

    def test_an_authority_is_enough_to_have_the_server_checked(self, postgres_encrypted, other_authority: Path):
        with pytest.raises(dbapi.OperationalError, match="certificate verify failed"):
            postgres_encrypted("127.0.0.1", other_authority)

    def test_another_name_is_another_server(self, postgres: Server, postgres_encrypted: Encrypted):
        with pytest.raises(dbapi.OperationalError, match="does not match host name"):
            postgres_encrypted("127.0.0.2", postgres.authority, "sslmode=verify-full")


class TestMariadb:
    pytestmark = pytest.mark.needs_mariadb

    def test_server_of_the_named_authority_is_read_by_tls(self, mariadb: Server, mariadb_encrypted: Encrypted):
        assert mariadb_encrypted("127.0.0.1", mariadb.authority)

    @pytest.mark.parametrize("query", ["", "tls=required"])
    def test_server_of_another_authority_is_not_read(self, mariadb_encrypted, other_authority: Path, query: str):
        with pytest.raises(pymysql.err.OperationalError, match="certificate verify failed"):
            mariadb_encrypted("127.0.0.1", None if query else other_authority, query)

    def test_another_name_is_another_server(self, mariadb: Server, mariadb_encrypted: Encrypted):
        with pytest.raises(pymysql.err.OperationalError, match="not valid for '127"):
            mariadb_encrypted("127.0.0.2", mariadb.authority)

    def test_server_that_can_not_is_not_read(self, mariadb: Server, mariadb_encrypted: Encrypted):
        """Whoever stands in between may say so in the server's name."""
        with mariadb_server(tls=False) as plain:
            assert not mariadb_encrypted("127.0.0.1", server=plain)
            with pytest.raises(pymysql.err.OperationalError, match="doesn't support it"):
                mariadb_encrypted("127.0.0.1", mariadb.authority, server=plain)
