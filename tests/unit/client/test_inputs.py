"""Inputs: encoded, sealed once for all who get the same, and split between message and upload."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.algorithm.values import decode_input
from folkmoot.client import FolkmootError
from folkmoot.client.inputs import INLINE_TOTAL_BYTES, Group, SealedInput, encode_group, groups, inline, seal_input
from folkmoot.transport import INLINE_BYTES
from folkmoot.trust import BytesSource, EnvelopeRejected, Expected, open_envelope
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.task_pb2 import TaskInputRef
from tests.builders import DAY, NOW, World, world
from tests.unit.client.scene import own_of

TASK_ID = "01929b1e-0000-7000-8000-000000000001"

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
arguments = st.dictionaries(st.text(min_size=1), json_values | st.binary(), max_size=5)


@given(arguments)
def test_arguments_arrive_as_they_were_given(given_arguments: dict[str, Any]):
    content = b"".join(encode_group("average", Group((), ("a",), given_arguments)))
    assert decode_input(content) == ("average", given_arguments)


@pytest.mark.parametrize("value", [math.nan, object(), {1: 2}, {"a": [{1, 2}]}])
def test_argument_that_cannot_travel_is_named(value: object):
    with pytest.raises(FolkmootError, match="column") as refused:
        list(encode_group("average", Group((), ("a",), {"column": value})))
    assert refused.value.reason == reasons.ERROR_REASON_NOT_SERIALIZABLE


def test_one_group_for_all_who_get_the_same():
    assert groups(["a", "b"], {"x": 1}, None) == [Group((), ("a", "b"), {"x": 1})]


def test_own_arguments_come_on_top_of_the_common_ones():
    assert groups(["a", "b"], {"x": 1, "y": 2}, {"b": {"x": 3}}) == [
        Group(("a",), ("a",), {"x": 1, "y": 2}),
        Group(("b",), ("b",), {"x": 3, "y": 2}),
    ]


def test_arguments_for_a_stranger_are_refused():
    with pytest.raises(FolkmootError) as refused:
        groups(["a"], {}, {"c": {}})
    assert refused.value.reason == reasons.ERROR_REASON_ARGUMENTS_INVALID


def sealed_for(lung: World, *receivers: str, data: bytes = b"patient") -> SealedInput:
    own = own_of(lung, "Alpha")
    ids = tuple(lung[name].address for name in receivers)
    group = Group((), ids, {"data": data})
    return seal_input(
        group, function="average", task_id=TASK_ID, own=own, state=lung.state, now=NOW, expires_at=NOW + DAY
    )


def opened_by(lung: World, name: str, sealed: SealedInput) -> Any:
    key = lung[name].organization_key.encryption
    opened = open_envelope(
        BytesSource(sealed.envelope()),
        genesis=lung.genesis,
        expected=Expected(
            kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
            task_id=TASK_ID,
            digest=sealed.reference.envelope_digest,
            sender_organization_id=lung["Alpha"].address,
        ),
        sender=lambda context: lung.state.keys(context.sender_organization_id).task_signing,
        keys={key.key_id: key} if lung.state.encryption == Encryption.ENCRYPTION_SEALED else None,
        now=NOW,
    )
    function, given_arguments = decode_input(opened.content())
    assert function == "average"
    return given_arguments["data"]


def test_receivers_can_open_an_input_and_others_cannot():
    lung = world(nodes=False)
    sealed = sealed_for(lung, "Beta")
    assert opened_by(lung, "Beta", sealed) == b"patient"
    assert sealed.reference.size_bytes == len(sealed.envelope())
    with pytest.raises(EnvelopeRejected):
        opened_by(lung, "Gamma", sealed)


def test_input_of_a_plain_collaboration_is_signed_and_readable():
    lung = world(nodes=False, encryption=Encryption.ENCRYPTION_PLAIN)
    sealed = sealed_for(lung, "Beta")
    assert b"patient" in sealed.envelope()
    assert opened_by(lung, "Gamma", sealed) == b"patient"


def test_large_input_rests_sealed():
    lung = world(nodes=False)
    data = b"patient" * INLINE_BYTES
    sealed = sealed_for(lung, "Beta", data=data)
    assert b"patient" not in sealed.envelope()
    assert sealed.source.size_bytes == sealed.reference.size_bytes
    assert opened_by(lung, "Beta", sealed) == data


@given(st.lists(st.integers(1, 3 * INLINE_BYTES), max_size=40))
def test_what_rides_along_fits_into_one_message(sizes: list[int]):
    inputs: list[Any] = [SealedInput(TaskInputRef(size_bytes=size), None) for size in sizes]  # type: ignore[arg-type]
    along, before = inline(inputs)
    assert len(along) + len(before) == len(inputs)
    assert sum(one.reference.size_bytes for one in along) <= INLINE_TOTAL_BYTES
    assert all(one.reference.size_bytes <= INLINE_BYTES for one in along)
    if sum(sizes) <= INLINE_BYTES:
        assert before == []
