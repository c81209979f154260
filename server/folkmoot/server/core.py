"""What every part of the server is made from."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from folkmoot.server.config import Config
from folkmoot.server.payloads.quotas import GIB, Quota
from folkmoot.server.store.engine import Store
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import admin_service_pb2, errors_pb2
from folkmoot.v1.link_pb2 import Availability, PolicySummary

if TYPE_CHECKING:
    from folkmoot.server.collaborations.ledgers import Ledgers
    from folkmoot.server.wakers import Waker

Clock = Callable[[], datetime]
Random = Callable[[int], bytes]

RETRY_AFTER = "retry_after_seconds"
"""Metadata of an error that goes away by waiting."""


class NodeKey(NamedTuple):
    """A node in a collaboration."""

    genesis: bytes
    node_id: str


class ConnectionState(NamedTuple):
    """Whether a node is connected, since when, and what it said last of itself."""

    connection: admin_service_pb2.Connection.ValueType
    since: datetime
    version: str
    policy: PolicySummary
    availability: Availability.ValueType
    offered_at: datetime
    """When it said what its policy and its availability are."""


class Connections(Protocol):
    """Knows which nodes are connected."""

    async def connections(self, nodes: Sequence[NodeKey]) -> Mapping[NodeKey, ConnectionState]:
        """Tell the connection of each of the nodes; one that never attached may be left out."""
        ...


def try_later(reason: errors_pb2.ErrorReason.ValueType, text: str, wait: timedelta) -> FolkmootError:
    """Return a refusal that says how long to wait; it goes out with RetryInfo."""
    seconds = max(1, -(-wait // timedelta(seconds=1)))
    return FolkmootError(reason, text, metadata={RETRY_AFTER: str(seconds)})


async def wait_for(event: asyncio.Event, *, draining: asyncio.Event, at_most_seconds: float | None = None) -> None:
    """Wait until the event is set, or so long; raise SHUTTING_DOWN if the server begins to stop before that."""
    waits = [asyncio.ensure_future(each.wait()) for each in (event, draining)]
    try:
        await asyncio.wait(waits, timeout=at_most_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    if draining.is_set():
        raise FolkmootError(errors_pb2.ERROR_REASON_SHUTTING_DOWN, "The server stops")


@dataclass(frozen=True)
class Core:
    """What services share: settings, store, ledgers, and the outside world as functions."""

    config: Config
    store: Store
    ledgers: "Ledgers"
    clock: Clock
    random: Random
    log: structlog.typing.FilteringBoundLogger
    draining: asyncio.Event
    """Set when the server is about to stop: streams that wait for something end then, with SHUTTING_DOWN."""
    waker: "Waker"
    """Tells whoever waits for rows, in whichever instance of the server."""
    keys: str = ""
    """What may be known of the key in the data folder: instances that share a database have the same one."""

    @property
    def quota(self) -> Quota:
        """How many bytes of payloads an organization may have."""
        return Quota(int(self.config.quota_gib * GIB))

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the server is about to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.draining.wait(), seconds)
