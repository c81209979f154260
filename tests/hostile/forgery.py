"""Ledgers that were tampered with: as whoever runs the server makes them, from what members signed and keys of his own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from google.protobuf.message import Message

from folkmoot.trust import SigningKey, digest, serialize, sign, timestamp
from folkmoot.v1.key_service_pb2 import GetLedgerRequest, GetLedgerResponse, ListHeadsResponse
from folkmoot.v1.ledger_pb2 import JoinRequest, LedgerEntry, OrganizationVote
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import World
from tests.hostile.liar import Liar


def branch(world: World) -> World:
    """A copy of a collaboration, to go on with in another way."""
    return replace(world, entries=list(world.entries))


def showing(entries: Iterable[Signed]) -> Callable[[GetLedgerRequest], GetLedgerResponse | None]:
    """Answer GetLedger with these entries."""
    shown = list(entries)

    def answer(request: GetLedgerRequest) -> GetLedgerResponse | None:
        rest = shown[request.from_sequence :]
        return GetLedgerResponse(entries=rest) if rest else None

    return answer


def rechained(entries: Iterable[Signed]) -> list[Signed]:
    """Let each entry name the one before it; signatures stay what they were."""
    chained: list[Signed] = []
    for sequence, signed in enumerate(entries):
        entry = LedgerEntry.FromString(signed.body)
        entry.sequence = sequence
        if chained:
            entry.previous_hash = digest(chained[-1].body)
        made = Signed.FromString(signed.SerializeToString())
        made.body = serialize(entry)
        chained.append(made)
    return chained


def with_requests(entries: Iterable[Signed], change: Callable[[JoinRequest], None]) -> list[Signed]:
    """Change the join requests in a ledger, and chain it anew."""
    changed = []
    for signed in entries:
        entry = LedgerEntry.FromString(signed.body)
        if entry.intent == "organization.vote":
            vote = OrganizationVote.FromString(entry.data)
            request = JoinRequest.FromString(vote.join_request.body)
            change(request)
            vote.join_request.body = serialize(request)
            entry.data = serialize(vote)
        made = Signed.FromString(signed.SerializeToString())
        made.body = serialize(entry)
        changed.append(made)
    return rechained(changed)


def forged(world: World, intent: str, data: Message, *, organization: str, key: SigningKey) -> Signed:
    """An entry in an organization's name that follows the newest one, signed with whatever key; no rule is asked."""
    state = world.state
    entry = LedgerEntry(
        sequence=state.position.sequence + 1,
        previous_hash=state.position.hash,
        genesis=state.genesis,
        intent=intent,
        organization_id=world[organization].address,
        created_at=timestamp(max(world.now, state.last_created_at)),
        data_version=1,
        data=serialize(data),
    )
    return sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(entry), key=key, genesis=state.genesis)


@contextmanager
def shown(liar: Liar, entries: list[Signed]) -> Iterator[None]:
    """Show a party another ledger, and nothing of what others' nodes say about theirs."""
    with ExitStack() as lies:
        lies.enter_context(liar.instead("GetLedger", showing(entries)))
        lies.enter_context(liar.instead("ListHeads", lambda _: ListHeadsResponse()))
        yield
