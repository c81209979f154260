"""Ledgers and envelopes that are long and right: what reading them takes grows with their length, and no faster."""

from collections.abc import Callable

import pytest

from folkmoot.trust import (
    BytesSource,
    OrganizationKey,
    SigningKey,
    XWingKey,
    algorithm_propose_entry,
    algorithm_vote_entry,
    digest,
    inspect,
    node_revoke_entry,
    replay,
    serialize,
)
from folkmoot.v1.envelope_pb2 import EnvelopeHeader, EnvelopeReceiver, EnvelopeWrap
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.ledger_pb2 import AlgorithmPropose
from tests.builders import NOW, World, randomness
from tests.fuzz.envelopes import PARTS, with_header
from tests.fuzz.test_measure import GROWTH, MOST, seconds
from tests.unit.trust.scene import address
from tests.vectors.forge import APPROVE, base, node_approve

FEW = 40


def admit(w: World, number: int) -> None:
    w.append(node_approve(w, w.claim("Alpha", f"node-{number}", SigningKey.generate(w.random))))


def come_and_go(w: World, _number: int) -> None:
    node_key, key = SigningKey.generate(w.random), w["Alpha"].governance_key
    w.append(node_approve(w, w.claim("Alpha", "again", node_key)))
    w.append(node_revoke_entry(w.state, node_key.fingerprint, governance_key=key, now=NOW))


def rotate(w: World, number: int) -> None:
    random = randomness(f"rotation {number}")
    w.rotate("Alpha", OrganizationKey(XWingKey.generate(random), SigningKey.generate(random)))


def propose(w: World, number: int) -> None:
    key = w["Alpha"].governance_key
    made = algorithm_propose_entry(w.state, AlgorithmPropose(image=f"image-{number}"), governance_key=key, now=NOW)
    w.append(made)
    w.append(algorithm_vote_entry(w.state, digest(made.body), APPROVE, governance_key=key, now=NOW))


def grows_with_its_length(take: Callable[[int], object], few: int) -> bool:
    """Tell whether four times as many take less than eight times as long, in one measurement of five."""
    return any(seconds(take, GROWTH * few) < MOST * seconds(take, few) for _ in range(5))


@pytest.mark.parametrize("step", [admit, come_and_go, rotate, propose])
def test_replay_of_a_long_ledger(step):
    w = base()
    before, first = w.state, len(w.entries)
    lengths = []
    for number in range(GROWTH * FEW):
        step(w, number)
        lengths.append(len(w.entries))
    assert grows_with_its_length(lambda many: replay(w.entries[first : lengths[many - 1]], state=before), FEW)


def test_header_of_many_receivers():
    def made(many: int) -> bytes:
        context, header = type(PARTS.context)(), EnvelopeHeader()
        context.CopyFrom(PARTS.context)
        header.CopyFrom(PARTS.header)
        ids = [digest(bytes([number & 0xFF, number >> 8])) for number in range(many)]
        del context.receivers[:], header.wraps[:]
        context.receivers.extend(EnvelopeReceiver(organization_id=address(each.hex()), key_id=each) for each in ids)
        kind = KeyKind.KEY_KIND_X_WING
        header.wraps.extend(EnvelopeWrap(key_id=each, kind=kind, wrapped_key=bytes(1168)) for each in ids)
        header.context = serialize(context)
        return with_header(serialize(header))

    envelopes = {many: made(many) for many in (500, 2000)}
    assert all(len(inspect(BytesSource(each)).header.wraps) == many for many, each in envelopes.items())
    assert grows_with_its_length(lambda many: inspect(BytesSource(envelopes[many])), 500)
