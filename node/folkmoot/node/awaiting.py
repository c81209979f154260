"""What is sealed to a key that is not here yet is opened as soon as that comes: its file is put there, or the vault gives it."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from folkmoot.node.keys import KeyAwaited
from folkmoot.node.station import Station
from folkmoot.node.waiting import first_of
from folkmoot.trust import Expected, FolkmootError, Opened, Source
from folkmoot.v1.envelope_pb2 import EnvelopeContext
from folkmoot.v1.keys_pb2 import PublicKey

LOOK_FOR_KEYS_SECONDS = 10.0
"""How often a station looks for a key that it waits for."""

log = structlog.get_logger()


async def open_at_last(
    station: Station,
    source: Source,
    expected: Expected,
    sender: Callable[[EnvelopeContext], PublicKey],
    *,
    until: datetime,
) -> Opened:
    """`Station.open`, as soon as the key is here that it is sealed to. Raises KeyAwaited if none has come by then."""
    while True:
        moved = station.moved.changed()
        try:
            return await station.open(source, expected, sender)
        except KeyAwaited as awaited:
            if station.now() >= until:
                raise
            log.warning("node.key_awaited", detail=str(awaited))
            await look_for(station, awaited, moved)


async def look_for(station: Station, awaited: KeyAwaited, moved: asyncio.Event) -> None:
    """Look for a key among the files, then in the vault; if it is not there, wait a while, or until ledger or keys move."""
    await station.look_for_keys()
    if station.keyring.find(awaited.keys) is None and station.vault is not None:
        try:
            key = await station.vault.fetch(station.organization_id, awaited.keys)
            station.keyring = await asyncio.to_thread(station.keyring.add, key)
        except FolkmootError as error:
            log.warning("node.key_not_fetched", detail=str(error))
    if station.keyring.find(awaited.keys) is None:
        await first_of(moved.wait(), timeout_seconds=LOOK_FOR_KEYS_SECONDS)
