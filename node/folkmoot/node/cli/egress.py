"""`folkmoot node egress`: what has left the station, from the journal itself, beside a running node or without one."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.output import counted, json_option, show_json, show_rows
from folkmoot.node.cli.view import name_of
from folkmoot.node.config import load_config
from folkmoot.node.journal.database import read_only
from folkmoot.trust import Reference, digest
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.station_service_pb2 import EgressRecord

COLUMNS = ("sequence", "time", "what", "bytes", "task", "run", "receivers")
TOTALS = ("day", "task")


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check that nothing was altered, dropped or moved.")
@click.option("--since", type=click.DateTime(), help="Only from this time on, by UTC.")
@click.option("--totals", type=click.Choice(TOTALS), help="Add up, by day (UTC) or by task.")
@json_option
def egress(config: Path, since: datetime | None, totals: str | None, *, verify: bool, as_json: bool) -> None:
    """Show every sealed envelope that has left the station that CONFIG describes: what, how large, for which run, to whom."""
    found: list[dict[str, Any]] = []
    for reference, journal in journals(config):
        with closing(read_only(journal)) as connection:
            if verify:
                _verified(connection, reference)
            records = list(_since(connection, since))
        rows = total_rows(records, totals) if totals is not None else list(map(row, records))
        if as_json:
            found += [{**each, "collaboration": reference} for each in rows]
        elif totals is not None:
            show_rows(rows, (totals, "envelopes", "bytes"), as_json=False, empty="nothing left")
        else:
            name = _names(journal.parent, reference)
            named = ({**each, "receivers": list(map(name, each["receivers"]))} for each in rows)
            show_rows(named, COLUMNS, as_json=False, empty="nothing left")
    if as_json:
        show_json(found)


def _names(directory: Path, reference: str) -> Callable[[str], str]:
    """What organizations are called, as far as the node's copy of the ledger says who alone had a name."""
    from folkmoot.transport import Replica

    state = Replica(directory, Reference.parse(reference)).state
    return lambda address: (state.own_name(address) if state and address in state.memberships else None) or address


def journals(config: Path) -> Iterator[tuple[str, Path]]:
    """Each collaboration of a node.toml with its journal, if it has one."""
    from folkmoot.node.app import station_directory

    settings = load_config(config)
    for block in settings.collaboration:
        path = station_directory(settings, block.collaboration) / "journal.db"
        if path.exists():
            yield str(block.collaboration), path


def _verified(connection: sqlite3.Connection, reference: str) -> None:
    from folkmoot.node.storage import egress as chain

    number = chain.verify(connection)
    _, newest = chain.head(connection)
    head = f"; the newest one's hash is {newest.hex()}" if number else ""
    click.echo(f"{reference}: {counted(number, 'record')}, whole and in order{head}", err=True)


def _since(connection: sqlite3.Connection, since: datetime | None) -> Iterator[EgressRecord]:
    from folkmoot.node.storage import egress as chain

    beginning = since.replace(tzinfo=UTC) if since else None
    for data in chain.all_records(connection):
        record = EgressRecord.FromString(data)
        if beginning is None or record.time.ToDatetime(UTC) >= beginning:
            yield record


def row(record: EgressRecord) -> dict[str, Any]:
    """A record as a row."""
    return {
        "sequence": record.sequence,
        "time": record.time.ToDatetime(UTC),
        "what": name_of(EnvelopeKind, record.kind),
        "bytes": record.size_bytes,
        "task": record.task_id,
        "run": record.run_id,
        "attempt": record.attempt,
        "receivers": list(record.receivers),
        "envelope": record.envelope_digest.hex(),
        "hash": digest(record.SerializeToString(deterministic=True)).hex(),
    }


def total_rows(records: Iterable[EgressRecord], by: str) -> list[dict[str, Any]]:
    """Records added up."""
    key: Callable[[EgressRecord], str] = _day if by == "day" else lambda record: record.task_id
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        total = found.setdefault(key(record), {by: key(record), "envelopes": 0, "bytes": 0})
        total["envelopes"] += 1
        total["bytes"] += record.size_bytes
    return list(found.values())


def _day(record: EgressRecord) -> str:
    return record.time.ToDatetime(UTC).date().isoformat()
