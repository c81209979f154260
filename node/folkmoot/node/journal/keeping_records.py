"""What the journal knows of what is kept, and for how long: payloads, messages, scratch volumes, folders of runs.

As in `records`, every function is a change, or a query, for `Journal.transact`.
"""

import sqlite3
from collections.abc import Iterable
from datetime import datetime

from folkmoot.node.journal.records import FIRST_TERMINAL, KEY, drop_envelopes, microseconds


def forget_payloads(connection: sqlite3.Connection, before: datetime) -> tuple[list[bytes], list[str]]:
    """Drop small envelopes and messages of runs committed before a time.

    Gives the digests whose files may go as well, and the jobs whose scratch volumes may.
    """
    limit = (microseconds(before),)
    old = connection.execute(
        "SELECT * FROM runs WHERE committed_at_us BETWEEN 1 AND ? AND forgotten = 0", limit
    ).fetchall()
    young = connection.execute("SELECT * FROM runs WHERE committed_at_us = 0 OR committed_at_us > ?", limit).fetchall()
    digests = sorted(_payloads(connection, old) - _payloads(connection, young))
    jobs = sorted({row["job_id"] for row in old if row["scratch"]} - {row["job_id"] for row in young})
    runs = [(run_id,) for run_id in {row["run_id"] for row in old} - {row["run_id"] for row in young}]
    drop_envelopes(connection, digests)
    connection.executemany("DELETE FROM incoming_messages WHERE to_run_id = ?", runs)
    connection.executemany("DELETE FROM outgoing_messages WHERE from_run_id = ? AND accepted = 1", runs)
    forgotten = [(row["run_id"], row["attempt"]) for row in old]
    connection.executemany(f"UPDATE runs SET forgotten = 1 WHERE {KEY}", forgotten)  # noqa: S608 - our own name
    return digests, jobs


def forgotten_jobs(connection: sqlite3.Connection, job_ids: Iterable[str]) -> list[str]:
    """Those of these jobs whose payloads are dropped, so that their scratch volumes may go. Jobs that are not known here are none of them."""
    dropped = "SELECT min(forgotten) FROM runs WHERE job_id = ?"
    return [each for each in job_ids if connection.execute(dropped, (each,)).fetchone()[0]]


def kept_payloads(connection: sqlite3.Connection) -> set[bytes]:
    """The envelopes that belong to runs whose payloads are kept."""
    return _payloads(connection, connection.execute("SELECT * FROM runs WHERE forgotten = 0").fetchall())


def names_of_ended_runs(connection: sqlite3.Connection, names: Iterable[str]) -> set[str]:
    """Those of these run names whose runs have ended."""
    known = f"SELECT run_name FROM runs WHERE run_name = ? AND state >= {FIRST_TERMINAL}"  # noqa: S608 - our own number
    return {name for name in names if connection.execute(known, (name,)).fetchone() is not None}


def open_payloads(connection: sqlite3.Connection) -> set[bytes]:
    """The envelopes that belong to runs which have not ended."""
    return _payloads(connection, connection.execute(f"SELECT * FROM runs WHERE state < {FIRST_TERMINAL}").fetchall())  # noqa: S608


def _payloads(connection: sqlite3.Connection, rows: Iterable[sqlite3.Row]) -> set[bytes]:
    """The envelopes of runs: inputs, results, and inputs of subtasks."""
    digests = set()
    for row in rows:
        digests |= {bytes(row["input_digest"]), bytes(row["result_digest"]), bytes(row["look_digest"])}
        key = (row["run_id"], row["attempt"])
        for (inputs,) in connection.execute(f"SELECT inputs FROM subtasks WHERE {KEY}", key):  # noqa: S608 - our own name
            digests |= {bytes(inputs[at : at + 32]) for at in range(0, len(inputs), 32)}
    return digests - {b""}
