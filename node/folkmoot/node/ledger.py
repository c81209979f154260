"""The station's replica of the ledger, kept up to date, and the server's healed from it.

A server that shows another entry where the replica has one is caught: from then on no new work is taken in, while running work goes on.
One that is merely behind, since it was restored from a backup, gets the entries that it lost: they prove themselves.
"""

import asyncio

import structlog

from folkmoot.node.station import Station
from folkmoot.transport import timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import FolkmootError, LedgerFork
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest
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
        """Follow the server's ledger until cancelled."""
        attempt = 0
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._compare(self._shown)
                attempt = 0
            except LedgerFork as fork:
                log.critical("node.ledger_fork", detail=str(fork))
            except FolkmootError as error:
                log.warning("node.ledger_not_followed", detail=str(error))
                attempt += 1
                await asyncio.sleep(pause_seconds(attempt))
                self._news.set()

    async def _compare(self, shown: LedgerPosition) -> None:
        known = self._station.state.hash_at(shown.sequence)
        if known is None:
            await self._station.refresh()
        elif known != shown.hash:
            self._station.fork = LedgerFork(f"the server shows another entry {shown.sequence} than it showed before")
            raise self._station.fork
        else:
            await self._heal(shown.sequence)

    async def _heal(self, last_sequence: int) -> None:
        """Give the server the entries that it does not have."""
        connection = self._station.connection
        for entry in self._station.replica.entries[last_sequence + 1 :]:
            request = AppendLedgerEntryRequest(entry=entry)
            await connection.call(
                lambda request=request: connection.keys.AppendLedgerEntry(  # type: ignore[misc]
                    request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
                )
            )
            log.warning("node.ledger_entry_given_back", collaboration=str(self._station.replica.reference))
