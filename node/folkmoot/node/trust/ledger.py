"""The station's replica of the ledger, kept up to date, and what follows for the station when it moves.

A server that shows another entry where the replica has one, by the rules, is caught: from then on no new work is taken in, while running
work goes on. One that merely names another is asked for it, and not believed. One that is behind, since it was restored from a backup, gets
the entries that it lost: they prove themselves. When the ledger shows other keys for the organization, they are looked for; when it ends
this node's admission, the station ends.
"""

import asyncio

import structlog

from folkmoot.node.station import Station
from folkmoot.node.trust.admission import require_not_ended
from folkmoot.node.trust.awaiting import LOOK_FOR_KEYS_SECONDS
from folkmoot.node.trust.vault import fetch_key
from folkmoot.node.waiting import first_of
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import FolkmootError, KeyMismatch, KeyUnpublished, LedgerFork, LedgerUpgradeNeeded
from folkmoot.v1.ledger_pb2 import LedgerPosition

log = structlog.get_logger()


class LedgerWatch:
    """Compares what the server says of its ledger with the replica. `run` does the work; `shown` gives it some."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._shown = LedgerPosition()
        self._news = asyncio.Event()

    def shown(self, position: LedgerPosition) -> None:
        """The server says that its ledger ends there."""
        self._shown = position
        self._news.set()

    async def run(self) -> None:
        """Follow the server's ledger until cancelled. Raises NodeNotApproved when it ends the node's admission."""
        await first_of(self._follow(), self._draw_conclusions())

    async def _follow(self) -> None:
        attempt = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._compare(self._shown)
                attempt = 0
            except LedgerFork as fork:
                log.critical("node.ledger_fork", detail=str(fork))
            except LedgerUpgradeNeeded as error:
                log.warning("node.ledger_not_understood", detail=str(error))
            except FolkmootError as error:
                log.warning("node.ledger_not_followed", detail=str(error))
                attempt += 1
                await asyncio.sleep(pause_seconds(attempt))
                self._news.set()

    async def _compare(self, shown: LedgerPosition) -> None:
        station = self._station
        if shown != station.state.position.message() or station.doubts.waiting is not None:
            await station.refresh()
        known = station.state.hash_at(shown.sequence)
        if known not in (None, shown.hash):
            metadata = {"sequence": str(shown.sequence), "ours": known.hex(), "theirs": shown.hash.hex()}
            raise LedgerFork(f"the server names another entry {shown.sequence} than it shows", metadata=metadata)

    async def _draw_conclusions(self) -> None:
        """Act on each move of the ledger, and on what it says already."""
        told = ""
        while True:
            moved = self._station.moved.changed()
            require_not_ended(self._station.replica, self._station.node_id)
            missing = await find_keys(self._station)
            if missing is not None and str(missing) != told:
                told = str(missing)
                log.warning("node.key_missing", detail=told)
            await first_of(moved.wait(), timeout_seconds=LOOK_FOR_KEYS_SECONDS if missing else None)


async def find_keys(station: Station) -> FolkmootError | None:
    """Look for the keys that the ledger shows, in files and then in the vault; say what is in the way if they can't be found.

    Until they are here, what is sealed to them waits.
    """
    member = station.state.member(station.organization_id)
    try:
        station.keyring.for_member(member)
    except KeyUnpublished as unpublished:
        return unpublished
    except KeyMismatch:
        await station.look_for_keys()
    try:
        station.keyring.for_member(member)
    except KeyMismatch as mismatch:
        return mismatch if station.vault is None else await fetch_key(station, station.vault, member, mismatch)
    return None
