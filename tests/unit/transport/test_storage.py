"""A full disk is told as such, whoever noticed it; no other error is."""

import errno
import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy

from folkmoot.node.journal.database import Journal
from folkmoot.transport.storage import DiskFull, disk_full, told_if_full


def fill(connection: sqlite3.Connection) -> None:
    """Have a database be as full as if its disk were."""
    connection.execute("CREATE TABLE small (number INTEGER)")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    connection.execute("CREATE TABLE too_much (bytes BLOB)")
    connection.execute("INSERT INTO too_much VALUES (zeroblob(100000))")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_the_systems_word(number: int):
    with pytest.raises(DiskFull), told_if_full():
        raise OSError(number, os.strerror(number))


def test_sqlites_word():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(DiskFull), told_if_full():
        fill(connection)
    connection.close()


def test_sqlalchemys_word():
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE small (bytes BLOB)")
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        with pytest.raises(DiskFull), told_if_full():
            connection.exec_driver_sql("INSERT INTO small VALUES (zeroblob(100000))")
    engine.dispose()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "broken"), sqlite3.OperationalError("locked"), ValueError()])
def test_other_errors_stay_what_they_are(error: Exception):
    assert disk_full(error) is None
    with pytest.raises(type(error)), told_if_full():
        raise error


async def test_a_journal_without_room_undoes_the_change_and_goes_on_when_there_is_some(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    with pytest.raises(DiskFull):
        await journal.transact(fill)
    await journal.transact(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    tables = await journal.transact(
        lambda db: db.execute("SELECT name FROM sqlite_master WHERE name = 'too_much'").fetchall()
    )
    assert tables == []
    await journal.transact(lambda db: db.execute("CREATE TABLE enough (number INTEGER)"))
    await journal.close()
