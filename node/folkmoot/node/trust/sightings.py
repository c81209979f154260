"""What others have seen of the ledger: in what they sign, and in their nodes' head statements; and telling them what we see.

Whoever contradicts our replica, or is ahead of it, says that there is another history, or that the server withholds entries. That is one
signer's word, which anybody of us could make up: what it stands in is refused, and work with all others goes on. New work stops when most
other members' nodes say so (see folkmoot.transport.heads), or when the server shows another entry that follows from those before.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from google.protobuf.message import Message

from folkmoot.node.station import Station
from folkmoot.node.trust.admission import key_of_ours
from folkmoot.node.waiting import first_of
from folkmoot.transport import retrying, timeouts
from folkmoot.transport.storage import DiskFull
from folkmoot.trust import (
    FolkmootError,
    LedgerBehind,
    LedgerFork,
    LedgerStale,
    Position,
    State,
    TrustError,
    make_head_statement,
    parse,
    verify,
)
from folkmoot.v1.key_service_pb2 import ListHeadsRequest
from folkmoot.v1.ledger_pb2 import LedgerPosition
from folkmoot.v1.link_pb2 import NodeFrame
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Receipt, TaskChain, TaskSpec

LOOK_SECONDS = 3600.0
"""How often others' head statements are read."""

STATE_AFTER = timedelta(days=1)
"""How often a node says what it sees, if nothing changes."""

_Message = TypeVar("_Message", bound=Message)

log = structlog.get_logger()


# ---- in tasks and receipts -----------------------------------------------------------------------------------------------


def in_task(chain: TaskChain, state: State) -> list[LedgerPosition]:
    """What the makers of a task have seen, as far as they belong to us now, whatever else may be wrong with it."""
    found = []
    for signed in chain.specs:
        spec = _parsed(TaskSpec, signed)
        kind = SignedKind.SIGNED_KIND_SUBTASK_SPEC if spec.HasField("parent") else SignedKind.SIGNED_KIND_TASK_SPEC
        found += _proven(signed, kind, spec.initiator.organization_id, spec.ledger_position, state)
    return found


def in_receipt(signed: Signed, state: State) -> list[LedgerPosition]:
    """What the node has seen that signed a receipt, if it belongs to us now, whatever else may be wrong with it."""
    receipt = _parsed(Receipt, signed)
    return _proven(signed, SignedKind.SIGNED_KIND_RECEIPT, receipt.organization_id, receipt.ledger_position, state)


def _proven(
    signed: Signed, kind: SignedKind.ValueType, organization_id: str, position: LedgerPosition, state: State
) -> list[LedgerPosition]:
    signer = key_of_ours(state, organization_id, signed.key_id)
    try:
        if signer is None:
            return []
        verify(signed, kind=kind, public_key=signer, genesis=state.genesis)
    except TrustError:
        return []
    return [position]


def _parsed(kind: type[_Message], signed: Signed) -> _Message:
    """What something says; empty if it can't be read."""
    try:
        return parse(kind, signed.body)
    except TrustError:
        return kind()


def require_no_contradiction(station: Station, sightings: Iterable[LedgerPosition]) -> None:
    """Raise LedgerFork if somebody has seen another entry than we know."""
    for position in sightings:
        try:
            station.state.check_position(position.sequence, position.hash)
        except LedgerBehind:
            continue
        except LedgerFork as fork:
            log.critical("node.ledger_contradicted", detail=str(fork))
            raise


def withheld(chain: TaskChain, state: State) -> LedgerStale | None:
    """What a task that is ahead of a refreshed replica shows, if one of ours has signed it."""
    newest = max((position.sequence for position in in_task(chain, state)), default=0)
    if newest <= state.position.sequence:
        return None
    return LedgerStale(
        f"the task was made when the ledger had an entry {newest}, and the server gives us {state.position.sequence} as the newest one: "
        "it withholds entries. Ask its operator why",
        metadata={"sequence": str(newest)},
    )


# ---- in head statements --------------------------------------------------------------------------------------------------


async def look_at_heads(station: Station) -> None:
    """Read what the others' nodes say, and catch up if one is ahead. Raises RemoteError, and what `Station.catch_up` does."""
    connection = station.connection
    request = ListHeadsRequest(genesis=station.state.genesis)
    answer = await retrying(
        lambda: connection.keys.ListHeads(request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS),
        give_up_after_seconds=timeouts.CALL_SECONDS,
        server=connection.address.target,
    )
    if station.take_heads(answer.heads).ahead:
        await station.catch_up()
        station.take_heads(()).tell_ahead()


def weigh_heads(station: Station) -> LedgerStale | LedgerFork | None:
    """Let doubts stand or go, by the statements that are here and the clock."""
    found = station.doubted()
    for kind in (LedgerStale, LedgerFork):
        if not isinstance(found, kind):
            station.doubts.settle(kind.REASON)
    if found is not None:
        station.doubts.note(found, station.now())
    return found


class HeadWatch:
    """Says what this node sees, when the ledger has grown and daily, and looks at what others say, hourly, until cancelled."""

    def __init__(self, station: Station, send: Callable[[NodeFrame], None]) -> None:
        self._station = station
        self._send = send
        self._attached = asyncio.Event()
        self._said: tuple[Position, datetime] | None = None

    def statement(self) -> Signed:
        """What this node sees now, signed."""
        station = self._station
        now = station.now()
        self._said = (station.state.position, now)
        return make_head_statement(
            station.state, node_key=station.node_key, organization_id=station.organization_id, now=now
        )

    def attached(self) -> None:
        """A session has begun: others' statements can be read."""
        self._attached.set()

    async def run(self) -> None:
        """Look and say, for ever."""
        while True:
            moved = self._station.moved.changed()
            self._attached.clear()
            self._say()
            if self._said is not None:
                await self._look()
            await first_of(moved.wait(), self._attached.wait(), timeout_seconds=LOOK_SECONDS)

    def _say(self) -> None:
        station = self._station
        if self._said is None:
            return  # Hello says it first.
        position, at = self._said
        if position != station.state.position or station.now() - at >= STATE_AFTER:
            self._send(NodeFrame(head_statement=self.statement()))

    async def _look(self) -> None:
        try:
            await look_at_heads(self._station)
        except FolkmootError as error:  # what the ledger itself is doubted for, it has noted
            log.warning("node.heads_not_read", detail=str(error))
        try:
            weigh_heads(self._station)
        except DiskFull as full:
            log.critical("node.disk_full", detail=str(full), help=full.help)
