"""Altered bytes: nobody without the key gets any in, and nobody with the key gets anything but a clear refusal."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    LedgerEntryInvalid,
    LedgerUpgradeNeeded,
    Malformed,
    NodeNotApproved,
    SigningKey,
    TaskAheadOfLedger,
    TaskNotProven,
    TrustError,
    replay,
    sign,
    sign_receipt,
    verify_join_request,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import TaskChain
from tests.builders import NOW
from tests.vectors.forge import base, changed, redeem, request, vote
from tests.vectors.task_breaches import root, sub

WORLD = base()
FILE = WORLD.invite("Alpha", "invited")
ONE_TIME = SigningKey.from_seed(FILE.seed)
ADMISSION = redeem(WORLD, FILE.invitation, ONE_TIME)
WISH = request(WORLD)
VOTE = vote(WORLD, WISH)
ROOT = root(WORLD)
SUBTASK = sub(WORLD, ROOT)
TASK = verify_task(TaskChain(specs=[ROOT, SUBTASK]), WORLD.state, now=NOW)
BETA = WORLD["Beta"].nodes["beta-1"]
RECEIPT = sign_receipt(WORLD.receipt(TASK, "Beta"), BETA)
RUN = next(each.run_id for each in TASK.spec.receivers if each.organization_id == WORLD["Beta"].address)


def read_entry(signed: Signed) -> object:
    return replay([signed], state=WORLD.state, now=NOW)


def read_root(signed: Signed) -> object:
    return verify_task(TaskChain(specs=[signed]), WORLD.state, now=NOW)


def read_subtask(signed: Signed) -> object:
    return verify_task(TaskChain(specs=[ROOT, signed]), WORLD.state, now=NOW)


def read_receipt(signed: Signed) -> object:
    return verify_receipt(signed, task=TASK, run_id=RUN, state=WORLD.state)


def read_wish(signed: Signed) -> object:
    return verify_join_request(signed, NOW)


ALPHA = WORLD["Alpha"]
READERS = {
    "admission": (ADMISSION, read_entry, ONE_TIME),
    "vote": (VOTE, read_entry, ALPHA.governance_key),
    "root": (ROOT, read_root, ALPHA.organization_key.task_signing),
    "subtask": (SUBTASK, read_subtask, BETA),
    "receipt": (RECEIPT, read_receipt, BETA),
    "join request": (WISH, read_wish, None),
}
REFUSALS = (LedgerEntryInvalid, LedgerUpgradeNeeded, TaskNotProven, TaskAheadOfLedger, NodeNotApproved, Malformed)
every_reader = pytest.mark.parametrize(("right", "read"), [each[:2] for each in READERS.values()], ids=READERS)


@every_reader
def test_what_is_altered_below_is_right_before(right, read):
    read(right)


@every_reader
@pytest.mark.parametrize("field", ["body", "key_id", "signature"])
def test_each_byte_flipped(right: Signed, read: Callable[[Signed], object], field: str) -> None:
    original: bytes = getattr(right, field)
    for index in range(len(original)):
        altered = original[:index] + bytes([original[index] ^ 1 << index % 8]) + original[index + 1 :]
        with pytest.raises(REFUSALS):
            read(changed(right, **{field: altered}))


@every_reader
@pytest.mark.parametrize("field", ["body", "key_id", "signature"])
def test_cut_off_or_extended(right, read, field):
    original = getattr(right, field)
    for altered in (b"", original[:-1], original[1:], original + b"\0"):
        with pytest.raises(REFUSALS):
            read(changed(right, **{field: altered}))


@every_reader
def test_said_to_be_of_each_other_kind(right, read):
    for kind in [*SignedKind.values(), 99]:
        if kind != right.kind:
            with pytest.raises(REFUSALS):
                read(changed(right, kind=kind))


@pytest.mark.parametrize("name", [name for name, (_, _, key) in READERS.items() if key])
@given(data=st.data())
def test_altered_and_signed_again_is_taken_or_clearly_refused(name, data):
    """Who has the key may write what he likes: the reader must answer in the product's own words."""
    right, read, key = READERS[name]
    body = bytearray(right.body)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(body) - 1))
        match data.draw(st.sampled_from(["flip", "drop", "insert", "cut"])):
            case "flip":
                body[index] ^= data.draw(st.integers(1, 255))
            case "drop" if len(body) > 1:
                del body[index]
            case "insert":
                body.insert(index, data.draw(st.integers(0, 255)))
            case _:
                del body[index + 1 :]
    assert key is not None
    with suppress(TrustError):
        read(sign(right.kind, bytes(body), key=key, genesis=WORLD.genesis))
