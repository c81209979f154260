"""Sealing and opening take the same few MiB of memory, however large the content is."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from folkmoot.trust import FileSource, open_envelope, seal
from tests.unit.trust.scene import GENESIS, Scene, expected_of, seeded, x_wing_key

MIB = 1024 * 1024
CONTENT_BYTES = 64 * MIB
LIMIT_BYTES = 16 * MIB


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LIMIT_BYTES


def generated(piece_bytes: int) -> Iterator[bytes]:
    for number in range(CONTENT_BYTES // piece_bytes):
        yield bytes([number % 251]) * piece_bytes


def seal_into(path: Path, scene: Scene, piece_bytes: int) -> None:
    sealing = seal(
        generated(piece_bytes),
        context=scene.context,
        receivers=scene.receivers,
        key=scene.sender,
        random=seeded("envelope"),
    )
    with path.open("wb") as file:
        for piece in sealing:
            file.write(piece)


@pytest.mark.parametrize("plain", [False, True], ids=["sealed", "plain"])
@pytest.mark.parametrize("piece_bytes", [64 * 1024, MIB, 4 * MIB])
def test_sealing_and_opening_a_large_file_is_bounded(tmp_path, plain, piece_bytes):
    scene, path = Scene(plain=plain), tmp_path / "envelope"
    with bounded_memory():
        seal_into(path, scene, piece_bytes)
    with bounded_memory(), path.open("rb") as file:
        opened = open_envelope(
            FileSource(file),
            genesis=GENESIS,
            expected=expected_of(scene.context),
            sender=lambda _: scene.sender.public,
            keys=None if plain else {x_wing_key("Beta").key_id: x_wing_key("Beta")},
        )
        assert sum(len(piece) for piece in opened.read()) == CONTENT_BYTES


def test_the_bound_would_notice_content_that_is_kept():
    with pytest.raises(AssertionError), bounded_memory():
        assert list(generated(MIB))
