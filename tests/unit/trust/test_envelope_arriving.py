"""An envelope that is hashed while it arrives is believed exactly as one that is read from its beginning to its end."""

from io import BytesIO
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.trust import ArrivingBody, EnvelopeRejected, FileSource, Opened, open_envelope
from folkmoot.trust.envelope_format import CHUNK_BYTES
from tests.unit.trust.scene import GENESIS, Scene, expected_of, x_wing_key
from tests.unit.trust.test_envelope import SIZES, content_of


@pytest.fixture(params=["sealed", "plain"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(plain=request.param == "plain")


def arrive(envelope: bytes, cuts: list[int]) -> ArrivingBody:
    arriving = ArrivingBody()
    for begin, end in pairwise([0, *sorted(cuts), len(envelope)]):
        arriving.add(envelope[begin:end])
    return arriving


def opened(scene: Scene, envelope: bytes, arriving: ArrivingBody) -> Opened:
    key = x_wing_key("Beta")
    return open_envelope(
        FileSource(BytesIO(envelope)),
        genesis=GENESIS,
        expected=expected_of(scene.context),
        sender=lambda _: scene.sender.public,
        keys=None if scene.plain else {key.key_id: key},
        arrived=arriving,
    )


@pytest.mark.parametrize("size", SIZES)
def test_content_of_any_size_comes_out_as_it_went_in(scene: Scene, size: int) -> None:
    content = content_of(size)
    envelope = scene.seal(content).envelope
    assert opened(scene, envelope, arrive(envelope, [])).content() == content


SEALED = Scene()
ENVELOPE = SEALED.seal(content_of(2 * CHUNK_BYTES + 5)).envelope
DIGESTS = arrive(ENVELOPE, []).chunk_digests


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.one_of(st.integers(0, 2000), st.integers(0, len(ENVELOPE))), max_size=6))
def test_the_pieces_that_it_comes_in_do_not_matter(cuts: list[int]) -> None:
    assert arrive(ENVELOPE, cuts).chunk_digests == DIGESTS
    assert len(DIGESTS) == 2


@pytest.mark.parametrize("place", [-CHUNK_BYTES, CHUNK_BYTES // 2, 3 * CHUNK_BYTES // 2])
def test_what_was_altered_on_the_way_is_refused_at_any_place(scene: Scene, place: int) -> None:
    envelope = bytearray(scene.seal(content_of(2 * CHUNK_BYTES + 5)).envelope)
    envelope[place] ^= 1
    with pytest.raises(EnvelopeRejected):
        opened(scene, bytes(envelope), arrive(bytes(envelope), [CHUNK_BYTES]))


def test_what_is_altered_after_it_arrived_is_refused_when_it_is_read(scene: Scene) -> None:
    envelope = bytearray(scene.seal(content_of(2 * CHUNK_BYTES + 5)).envelope)
    arriving = arrive(bytes(envelope), [])
    envelope[CHUNK_BYTES // 2] ^= 1
    with pytest.raises(EnvelopeRejected):
        opened(scene, bytes(envelope), arriving).content()


@pytest.mark.parametrize("nonsense", [b"", b"FOLKENV1", bytes(5_000_000), b"FOLKENV1" + b"\xff" * 6_000_000])
def test_what_is_no_envelope_has_no_chunks(nonsense: bytes) -> None:
    arriving = arrive(nonsense, [len(nonsense) // 2])
    arriving.add(nonsense)
    assert arriving.chunk_digests == [] or nonsense.startswith(bytes(9))
