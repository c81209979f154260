"""Batches: all frames, in order, as many together as fit."""

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.transport.batches import batches
from folkmoot.v1.link_pb2 import PeerMessage


@given(st.lists(st.integers(0, 300)), st.integers(1, 400), st.integers(1, 5))
def test_batches_are_all_there_is_in_order_and_no_larger_than_they_may_be(sizes: list[int], most_bytes: int, most: int):
    frames = [PeerMessage(sequence=number, envelope=bytes(size)) for number, size in enumerate(sizes)]
    cut = list(batches(frames, most_bytes=most_bytes, most=most))
    assert [frame for batch in cut for frame in batch] == frames
    assert all(1 <= len(batch) <= most for batch in cut)
    assert all(len(batch) == 1 or sum(frame.ByteSize() for frame in batch) <= most_bytes for batch in cut)


def test_what_fits_travels_together():
    frames = [PeerMessage(envelope=bytes(1000)) for _ in range(100)]
    assert [len(batch) for batch in batches(frames)] == [100]
