"""A server that a station asks for the ledger and for head statements: it shows what a test gives it."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from folkmoot.node.station import Station
from folkmoot.trust import State, make_head_statement, serialize, sign
from folkmoot.v1.key_service_pb2 import (
    AppendLedgerEntryRequest,
    GetLedgerRequest,
    GetLedgerResponse,
    ListHeadsRequest,
    ListHeadsResponse,
)
from folkmoot.v1.ledger_pb2 import LedgerEntry
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import World


class Ledgers:
    """The part of KeyService that a station uses."""

    def __init__(self, entries: Sequence[Signed], heads: Sequence[Signed] = ()) -> None:
        self.entries, self.heads = list(entries), list(heads)

    async def GetLedger(self, request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
        if entries := self.entries[request.from_sequence :]:
            yield GetLedgerResponse(entries=entries)

    async def AppendLedgerEntry(self, request: AppendLedgerEntryRequest, **_: Any) -> None:
        if request.entry not in self.entries:
            self.entries.append(request.entry)

    async def ListHeads(self, request: ListHeadsRequest, **_: Any) -> ListHeadsResponse:
        return ListHeadsResponse(heads=self.heads)


def attach(station: Station, entries: Sequence[Signed], heads: Sequence[Signed] = ()) -> Ledgers:
    """Give a station a server, which takes its token."""
    server = Ledgers(entries, heads)
    station.connection.keys = server  # type: ignore[assignment]
    station.connection._has_token.set()
    return server


def head(lung: World, name: str, *, state: State | None = None, **changes: Any) -> Signed:
    """What the first node of an organization says of the ledger, or of another `state` of it."""
    owner = lung[name]
    wish: dict[str, Any] = {
        "node_key": next(iter(owner.nodes.values())),
        "organization_id": owner.address,
        "now": lung.now,
    }
    return make_head_statement(state or lung.state, **(wish | changes))


def of_a_later_release(lung: World, by: str = "Alpha") -> Signed:
    """The next entry, with an intent that this release does not know."""
    position = lung.state.position
    entry = LedgerEntry(
        sequence=position.sequence + 1,
        previous_hash=position.hash,
        genesis=lung.genesis,
        intent="organization.sing",
        organization_id=lung[by].address,
        data_version=1,
    )
    entry.created_at.CopyFrom(LedgerEntry.FromString(lung.entries[-1].body).created_at)
    key = lung[by].governance_key
    return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=key, genesis=lung.genesis)
