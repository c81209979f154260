"""What a station keeps, and for how long: sealed payloads and scratch volumes go some days after the server has the results.

The journal's runs stay: what was executed once is never executed again.
"""

import asyncio
import shutil
from collections.abc import Collection
from datetime import timedelta

import structlog

from folkmoot.node.journal import keeping_records
from folkmoot.node.station import Station
from folkmoot.node.storage.scratch import Scratch
from folkmoot.transport.storage import DiskFull

EVERY_SECONDS = 3600.0

log = structlog.get_logger()


async def keep_tidy(station: Station, scratch: Scratch, *, keep_days: int) -> None:
    """Clear away what is older than that, now and every hour, until cancelled."""
    while True:
        try:
            await clear_away(station, scratch, keep_days=keep_days)
        except DiskFull as full:  # The journal can't even note what goes.
            log.critical("node.disk_full", detail=str(full), help=full.help)
        await asyncio.sleep(EVERY_SECONDS)


async def clear_leftovers(station: Station, scratch: Scratch) -> None:
    """Clear away what a process that was killed has left half done; for a station's start, before anything goes on."""
    outgoing, incoming = await station.journal.transact(
        lambda connection: (keeping_records.kept_payloads(connection), keeping_records.open_payloads(connection))
    )
    if removed := station.envelopes.keep_only(outgoing=outgoing, incoming=incoming):
        log.info("node.leftovers_removed", envelopes=removed)
    there = await asyncio.to_thread(scratch.jobs)
    for job_id in await station.journal.transact(lambda connection: keeping_records.forgotten_jobs(connection, there)):
        await asyncio.to_thread(scratch.remove, job_id)


async def clear_folders(station: Station, *, besides: Collection[str]) -> None:
    """Clear away the folders of runs that have ended, besides those whose processes are there still and are cleared away with them."""
    folders = {path.name: path for path in station.runtime_directory.glob("*") if path.name not in besides}
    for run_name in await station.journal.transact(
        lambda connection: keeping_records.names_of_ended_runs(connection, folders)
    ):
        await asyncio.to_thread(shutil.rmtree, folders[run_name], ignore_errors=True)


async def clear_away(station: Station, scratch: Scratch, *, keep_days: int) -> None:
    """Clear away what belongs to runs that were committed longer ago."""
    before = station.now() - timedelta(days=keep_days)
    digests, jobs = await station.journal.transact(
        lambda connection: keeping_records.forget_payloads(connection, before)
    )
    for digest in digests:
        station.envelopes.forget(digest)
    for job_id in jobs:
        await asyncio.to_thread(scratch.remove, job_id)
    if digests or jobs:
        log.info("node.tidied", envelopes=len(digests), scratch_volumes=len(jobs))
