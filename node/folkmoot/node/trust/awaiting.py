"""What is sealed to a key that is not here yet is opened as soon as that comes: its file is put there, or the vault gives it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import structlog

from folkmoot.node.station import Station
from folkmoot.node.trust.keys import KeyAwaited
from folkmoot.node.waiting import first_of
from folkmoot.trust import FolkmootError

_Result = TypeVar("_Result")

LOOK_FOR_KEYS_SECONDS = 10.0
"""How often a station looks for a key that it waits for."""

log = structlog.get_logger()


async def at_last(station: Station, attempt: Callable[[], Awaitable[_Result]], *, until: datetime) -> _Result:
    """Do something as soon as the key is here that it needs. Raises KeyAwaited if none has come by then."""
    told = ""
    while True:
        moved = station.moved.changed()
        try:
            return await attempt()
        except KeyAwaited as awaited:
            if station.now() >= until:
                raise
            if str(awaited) != told:
                told = str(awaited)
                log.warning("node.key_awaited", detail=told)
            await _look_for(station, awaited, moved)


async def _look_for(station: Station, awaited: KeyAwaited, moved: asyncio.Event) -> None:
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
