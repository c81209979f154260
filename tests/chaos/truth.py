"""What must be true when a storm is over, read from the files that server and nodes leave, and from the engine: not from what they say.

Each check returns what is wrong, in sentences; nothing wrong is an empty list.
"""

import json
import os
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from folkmoot.node.storage import egress
from folkmoot.trust import FolkmootError
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, RunState

COMPLETED = RunState.RUN_STATE_COMPLETED
UNPROVEN = (RunState.RUN_STATE_CANCELLED, RunState.RUN_STATE_EXPIRED)
"""Ends that the server may tell of runs which no node ever held."""


@dataclass(frozen=True)
class Station:
    """A node's files."""

    name: str
    directory: Path
    runtime_directory: Path

    @property
    def journal(self) -> Path:
        """Its journal."""
        return self.directory / "journal.db"


def rows(path: Path, query: str) -> list[sqlite3.Row]:
    """Ask a database that nobody writes to any more."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query).fetchall()


def wrong(server: Path, stations: Iterable[Station], executions: Mapping[tuple[str, int], int]) -> list[str]:
    """Everything that is wrong; `executions` counts how often a run's attempt was executed, by its own note."""
    stations = list(stations)
    database = server / "folkmoot.db"
    return [
        *_integrity(database, stations),
        *_egress_adds_up(stations),
        *_runs_end_once(database),
        *_receipts_agree(database, stations),
        *_subtasks_arrived(database, stations),
        *_messages_arrived(database, stations),
        *_executed_once(database, executions),
        *_nothing_left(server, stations),
    ]


def _integrity(database: Path, stations: Iterable[Station]) -> Iterator[str]:
    for path in (database, *(station.journal for station in stations)):
        [(answer,)] = rows(path, "PRAGMA integrity_check")
        if answer != "ok":
            yield f"{path} is damaged: {answer}"


def _egress_adds_up(stations: Iterable[Station]) -> Iterator[str]:
    """What a node says has left is chained, and adds up to what its receipts say."""
    for station in stations:
        with closing(sqlite3.connect(station.journal)) as connection:
            try:
                egress.verify(connection)
            except FolkmootError as error:
                yield f"{station.name}: {error}"


def _runs_end_once(database: Path) -> Iterator[str]:
    """Each run ends, exactly once, by its node's receipt or because no node ever held it."""
    commits = Counter(
        json.loads(row["data"])["run_id"]
        for row in rows(database, "SELECT data FROM events WHERE intent = 'run.commit'")
    )
    for run in rows(database, "SELECT * FROM runs"):
        state = RunState.Name(run["state"])
        if run["state"] < COMPLETED:
            yield f"run {run['run_id']} has not ended: {state}"
        elif run["receipt"] is None and run["state"] not in UNPROVEN:
            yield f"run {run['run_id']} has ended as {state} without a receipt"
        if commits[run["run_id"]] != (run["receipt"] is not None):
            yield f"run {run['run_id']} was committed {commits[run['run_id']]} times"


def _receipts_agree(database: Path, stations: list[Station]) -> Iterator[str]:
    """What the server has is what stands in the journal of the node that signed it, and nothing of an attempt that was fenced."""
    journaled = {
        (row["run_id"], row["attempt"]): row
        for station in stations
        for row in rows(station.journal, "SELECT * FROM runs")
    }
    for key, row in journaled.items():
        if row["state"] < COMPLETED or not row["committed_at_us"]:
            yield f"run {key} is not finished in its node's journal: {RunState.Name(row['state'])}"
    for run in rows(database, "SELECT * FROM runs WHERE receipt IS NOT NULL"):
        receipt = Receipt.FromString(Signed.FromString(run["receipt"]).body)
        own = journaled.get((run["run_id"], receipt.attempt))
        if receipt.attempt != run["attempt"]:
            yield f"run {run['run_id']} has a receipt of attempt {receipt.attempt}, and is in attempt {run['attempt']}"
        elif own is None or own["receipt"] != run["receipt"]:
            yield f"run {run['run_id']}: the server's receipt is not its node's"
        elif receipt.outcome != run["state"] or own["result_digest"] != run["result_digest"]:
            yield f"run {run['run_id']}: server and node do not agree on how it ended"


def _subtasks_arrived(database: Path, stations: Iterable[Station]) -> Iterator[str]:
    stored = {row["task_id"] for row in rows(database, "SELECT task_id FROM tasks")}
    for station in stations:
        for row in rows(station.journal, "SELECT task_id FROM subtasks WHERE created = 1"):
            if row["task_id"] not in stored:
                yield f"{station.name}: the server has lost the subtask {row['task_id']}"


def _messages_arrived(database: Path, stations: list[Station]) -> Iterator[str]:
    """What a completed run has sent to another one is there, in order, behind what that has had already; the sum of all it says itself."""
    completed = {row["run_id"] for row in rows(database, f"SELECT run_id FROM runs WHERE state = {int(COMPLETED)}")}
    waiting: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    for station in stations:
        for row in rows(station.journal, "SELECT * FROM incoming_messages"):
            waiting[row["from_run_id"], row["to_run_id"]].add(row["sequence"])
    for station in stations:
        for row in rows(station.journal, "SELECT * FROM outgoing_messages"):
            pair, sequence = (row["from_run_id"], row["to_run_id"]), row["sequence"]
            if (
                {*pair} <= completed
                and waiting[pair]
                and sequence not in waiting[pair]
                and min(waiting[pair]) < sequence
            ):
                yield f"{station.name}: message {sequence} of {pair} was lost"


def _executed_once(database: Path, executions: Mapping[tuple[str, int], int]) -> Iterator[str]:
    for (run_id, attempt), number in executions.items():
        if number > 1:
            yield f"attempt {attempt} of run {run_id} was executed {number} times"
    known = {row["run_id"]: row for row in rows(database, "SELECT * FROM runs")}
    for run_id, _ in executions:
        if run_id not in known:
            yield f"run {run_id} was executed, and the server does not know of it"
    for run_id, run in known.items():
        if run["state"] == COMPLETED and not executions.get((run_id, run["attempt"])):
            yield f"run {run_id} is completed, and nobody executed it"


def _nothing_left(server: Path, stations: Iterable[Station]) -> Iterator[str]:
    for path in server.glob("payloads/*/*/*"):
        if not path.name.isdecimal():
            yield f"the server has left an unfinished part: {path}"
    for station in stations:
        yield from left_at(station)


def left_at(station: Station) -> Iterator[str]:
    """What a node has left behind of runs that are over."""
    for path in station.runtime_directory.iterdir():
        if path.is_dir() and path.name != "workers":
            yield f"{station.name} has left a run's folder: {path}"
    workers = station.runtime_directory / "workers"
    for path in workers.iterdir() if workers.exists() else ():
        yield f"{station.name} has left a worker: {path}"
    for process in _processes_serving(station.runtime_directory):
        yield f"{station.name} has left a process: {process}"
    named = {bytes(row["result_digest"]).hex() for row in rows(station.journal, "SELECT result_digest FROM runs")}
    named |= {bytes(row["look_digest"]).hex() for row in rows(station.journal, "SELECT look_digest FROM runs")}
    for row in rows(station.journal, "SELECT inputs FROM subtasks"):
        named |= {bytes(row["inputs"][at : at + 32]).hex() for at in range(0, len(row["inputs"]), 32)}
    for path in (station.directory / "outbox").iterdir():
        if path.name not in named:
            yield f"{station.name} has left an envelope that nothing names: {path}"
    for path in (station.directory / "inbox").iterdir():
        yield f"{station.name} has left a download: {path}"


def _processes_serving(runtime_directory: Path) -> Iterator[str]:
    """Processes whose environment names a socket below a folder."""
    wanted = f"FOLKMOOT_PROXY=unix:{runtime_directory}/".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in path.read_bytes():
                yield (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue  # It has ended meanwhile, or is somebody else's.


def containers_of(node_ids: Iterable[str]) -> list[str]:
    """Containers of these nodes that the engine still has."""
    found = []
    for node_id in node_ids:
        command = ["docker", "ps", "--all", "--quiet", "--filter", f"label=folkmoot.node={node_id}"]
        found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return found


def executions_in(notes: Iterable[Path]) -> Counter[tuple[str, int]]:
    """Executions by run and attempt, as the algorithms have noted them."""
    lines = [line.split() for path in notes if path.exists() for line in path.read_text().splitlines()]
    return Counter((run_id, int(attempt)) for run_id, attempt in lines)


def stations_of(folders: Mapping[str, Path]) -> list[Station]:
    """The stations below the folders of nodes."""
    found = []
    for name, folder in folders.items():
        [directory] = [path for path in (folder / "state").iterdir() if path.is_dir()]
        found.append(Station(name, directory, Path(os.fspath(folder)) / "run"))
    return found
