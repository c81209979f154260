"""Head statements: what each node has seen of the ledger, signed, so that a server can't show two, or keep one back, unnoticed."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import fingerprint, parse, serialize, timestamp
from folkmoot.trust.errors import Malformed, NodeNotApproved
from folkmoot.trust.keys import SigningKey
from folkmoot.trust.membership import Position
from folkmoot.trust.rules import CLOCK_SKEW
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.state import State
from folkmoot.trust.times import in_nanoseconds, moment_at, nanoseconds, nanoseconds_at
from folkmoot.v1.ledger_pb2 import HeadStatement
from folkmoot.v1.signed_pb2 import Signed, SignedKind


@dataclass(frozen=True)
class Head:
    """What a node said of the ledger, proven to be its word."""

    node_id: str
    organization_id: str
    position: Position
    time: datetime


def make_head_statement(state: State, *, node_key: SigningKey, organization_id: str, now: datetime) -> Signed:
    """Say what the newest entry is that this node has verified."""
    statement = HeadStatement(
        version=1,
        genesis=state.genesis,
        organization_id=organization_id,
        head=state.position.message(),
        time=timestamp(now),
    )
    return sign(SignedKind.SIGNED_KIND_HEAD, serialize(statement), key=node_key, genesis=state.genesis)


def read_head(signed: Signed, state: State, *, now: datetime) -> Head:
    """Return what an admitted node said of the ledger.

    Raises Malformed, SignatureInvalid, NodeNotApproved (the node is not admitted now), LedgerFork when the node was shown
    another entry than this replica, and LedgerBehind when it has seen entries that this replica does not have.
    """
    statement = parse(HeadStatement, signed.body)
    node = state.node(fingerprint(signed.key_id)) if len(signed.key_id) == len(state.genesis) else None
    if node is None or node.organization_id != statement.organization_id or statement.genesis != state.genesis:
        raise NodeNotApproved("The head statement is not by a node of the organization that it names")
    verify(signed, kind=SignedKind.SIGNED_KIND_HEAD, public_key=node.public_key, genesis=state.genesis)
    time = nanoseconds(statement.time)
    if time > nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW):
        raise Malformed("The head statement is from the future")
    state.check_position(statement.head.sequence, statement.head.hash)
    position = Position(statement.head.sequence, statement.head.hash)
    return Head(node.node_id, node.organization_id, position, moment_at(time))


def sign_of_life(state: State, heads: Iterable[Head], *, own_organization_id: str) -> datetime | None:
    """Return when another member last showed that it knew this ledger: by a node's head, or by an entry of its own.

    None where no other member has a node: nobody is there to show it.
    """
    others = state.members.keys() - {own_organization_id}
    if not any(node.organization_id in others for node in state.nodes.values()):
        return None
    entries = [moment_at(at) for each, at in state.last_entries.items() if each in others]
    return max([*entries, *(head.time for head in heads if head.organization_id in others)])
