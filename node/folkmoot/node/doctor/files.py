"""What the doctor looks at on this machine: folders, keys, policy, journal, data."""

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from folkmoot.node.config import RUN_NAME_LENGTH, CollaborationConfig, NodeConfig
from folkmoot.node.doctor.findings import Finding, wrong
from folkmoot.node.journal.database import read_only
from folkmoot.node.policy.policy_file import load_policy
from folkmoot.node.proxy.sockets import socket_path
from folkmoot.node.storage import egress
from folkmoot.node.trust.keys import without_right_to_work
from folkmoot.transport import Replica
from folkmoot.trust import FolkmootError

LEAST_FREE_BYTES = 1 << 30
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def state_directory(path: Path) -> Iterator[Finding]:
    """It is there, nobody else reads it, and what is written there is on disk when it says so."""
    name = "state directory"
    if not path.is_dir():
        yield wrong(name, f"{path} does not exist", f"run `mkdir -m 700 {path}` as the node's user, or start the node")
        return
    yield from _private(name, path)
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".doctor-") as file:
            file.write(b"written")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield wrong(
            name, f"{path} can't be written and synced: {error.strerror}", "give it to the node's user, on a local disk"
        )
    else:
        yield Finding(name, f"{path} is written and synced")


def free_space(path: Path, least_bytes: int = LEAST_FREE_BYTES) -> Iterator[Finding]:
    """There is room for results and journals."""
    there = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < least_bytes:
        mend = "make room: a node without any can neither take inputs nor keep results"
        yield wrong("disk space", f"{free >> 20:,} MiB are free at {there}", mend)
    else:
        yield Finding("disk space", f"{free >> 30:,} GiB are free at {there}")


def runtime_directory(path: Path) -> Iterator[Finding]:
    """Sockets of runs can be there, and nobody else comes past it."""
    name = "runtime directory"
    try:
        socket_path(path / ("x" * RUN_NAME_LENGTH))
    except FolkmootError as error:
        yield wrong(name, str(error), "name a short path, such as /run/folkmoot")
        return
    if path.exists():
        yield from _private(name, path)
    there = next(each for each in (path, *path.parents) if each.exists())
    if os.access(there, os.W_OK | os.X_OK):
        yield Finding(name, f"{path} has room for sockets")
    else:
        yield wrong(name, f"{there} can't be written by this user", f"give {path} to the node's user")


def _private(name: str, path: Path) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & OTHERS:
        yield wrong(name, f"{path} is open to other users ({mode:03o})", f"run `chmod 700 {path}`")


def policy(path: Path) -> Iterator[Finding]:
    """It can be read, and says what can be said."""
    try:
        loaded = load_policy(path)
    except FolkmootError as error:
        yield wrong("policy", str(error), "correct what is named; `folkmoot node reload` then puts it in force")
    else:
        yield Finding("policy", f"{path} has {len(loaded.policy.allow)} rules, its digest is {loaded.digest.hex()}")


def keys(config: NodeConfig, block: CollaborationConfig) -> Iterator[Finding]:
    """They are there, nobody else reads them, and they are those of the ledger."""
    from folkmoot.node.app import station_directory

    for path in (block.node_key, block.organization_key):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & OTHERS:
            yield wrong("keys", f"{path} is open to other users", f"run `chmod 600 {path}`")
    directory = station_directory(config, block.collaboration)
    replica = Replica(directory, block.collaboration) if directory.is_dir() else None
    if replica is None or replica.state is None:
        mend = "start the node, which fetches it, or `folkmoot node join` first"
        yield wrong("keys", f"there is no ledger of {block.collaboration} here to compare them with", mend)
    elif (missing := without_right_to_work(block, replica)) is not None:
        yield wrong("keys", str(missing), missing.help)
    else:
        yield Finding("keys", f"{block.node_key} and {block.organization_key} are those of the ledger")


def journal(config: NodeConfig, block: CollaborationConfig) -> Iterator[Finding]:
    """It is whole, and what it says has left is."""
    from folkmoot.node.app import station_directory

    path = station_directory(config, block.collaboration) / "journal.db"
    if not path.exists():
        yield Finding("journal", "there is none yet: the node was never started")
        return
    try:
        with closing(read_only(path)) as connection:
            problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check")]
            if problems != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(problems))
            yield Finding("journal", f"{path} is whole")
            number = egress.verify(connection)
    except sqlite3.Error as error:
        mend = "stop the node, keep the file, and bring back the newest backup; runs that it does not know are asked for again"
        yield wrong("journal", f"{path}: {error}", mend)
    except FolkmootError as error:
        mend = "somebody changed the journal past the node: keep it, and find out who could"
        yield wrong("egress", error.message, mend)
    else:
        yield Finding("egress", f"{number} records of what has left, whole and in order")


def data(block: CollaborationConfig) -> Iterator[Finding]:
    """Each label can be read, as runs would read it."""
    return iter(asyncio.run(_data(block)))


async def _data(block: CollaborationConfig) -> list[Finding]:
    from folkmoot.node.data.tables import SourceTables

    causes: list[str] = []
    tables = SourceTables(block.data, lambda _, place, cause: causes.append(cause or place))
    findings = []
    try:
        for label in block.data:
            name = f"data {label}"
            try:
                if folders := await tables.folders((label,)):
                    findings.append(Finding(name, f"the folder {folders[label]}"))
                    continue
                table, warnings = await tables.inspect(label)
            except FolkmootError as error:
                text = ": ".join([error.message, *causes])
                causes.clear()
                findings.append(wrong(name, text, "mend the source, or its block in node.toml"))
                continue
            columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
            findings.append(Finding(name, columns))
            findings += [wrong(name, warning, "mend the data, or name the columns' types") for warning in warnings]
    finally:
        await tables.close()
    return findings
