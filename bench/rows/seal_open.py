"""Seal and open: one receiver, in bounded memory; opening verifies every byte first and decrypts then.

Content comes from memory and the sealed bytes are dropped, so that the disk is no part of it; what is opened lies in a
file that the machine has cached, since a reader gets it from one.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.context import Context
from bench.limits import seal_open
from bench.limits.common import MEBIBYTE, Figure, repeat, scratch_folder, seconds
from bench.report import Row, ratio_at_least
from bench.rows._envelopes import EXPECTED, GENESIS, PLACE, organization
from folkmoot.trust import FileSource, Receiver, Sealing, SigningKey, XWingKey, open_envelope, seal

REPETITIONS = 5
WINDOW = 64
"""Pieces of 1 MiB that the content repeats: wider than any cache."""


def measure(context: Context) -> list[Row]:
    return [
        row for size_bytes in (context.payload_bytes, 10 * context.payload_bytes) for row in _rows(size_bytes, context)
    ]


def _rows(size_bytes: int, context: Context) -> list[Row]:
    limit = seal_open.measure(size_bytes=size_bytes, repetitions=REPETITIONS)
    with scratch_folder(context.folder) as folder:
        sealed, opened = _measure(size_bytes, folder / "envelope")
    size = f"{size_bytes / 1e6:,.0f} MB"
    return [
        Row(f"seal {size}", "MB/s", sealed.value, limit.value, (ratio_at_least(0.7),), peers="vantage6 327"),
        Row(f"open {size}", "MB/s", opened.value, limit.value, (ratio_at_least(0.6),), peers="vantage6 136"),
    ]


def _measure(size_bytes: int, path: Path) -> tuple[Figure, Figure]:
    signer, receiver = SigningKey.generate(os.urandom), XWingKey.generate(os.urandom)
    pieces = [os.urandom(MEBIBYTE) for _ in range(WINDOW)]
    receivers = [Receiver(organization(1), receiver.public)]

    def sealing() -> Sealing:
        content = _content(pieces, size_bytes)
        return seal(content, context=PLACE, receivers=receivers, key=signer, random=os.urandom)

    def drop_sealed() -> None:
        for _ in sealing():
            pass

    with path.open("w+b") as file:
        for piece in sealing():
            file.write(piece)
        file.flush()

        def drop_opened() -> None:
            opened = open_envelope(
                FileSource(file),
                genesis=GENESIS,
                expected=EXPECTED,
                sender=lambda _: signer.public,
                keys={receiver.key_id: receiver},
            )
            if sum(len(piece) for piece in opened.read()) != size_bytes:
                raise RuntimeError("not everything came out that went in")

        seals = repeat(REPETITIONS, lambda: size_bytes / 1e6 / seconds(drop_sealed))
        opens = repeat(REPETITIONS, lambda: size_bytes / 1e6 / seconds(drop_opened))
    return Figure("seal", "MB/s", seals), Figure("open", "MB/s", opens)


def _content(pieces: Sequence[bytes], size_bytes: int) -> Iterator[bytes]:
    for piece in itertools.cycle(pieces):
        if size_bytes <= len(piece):
            yield piece[:size_bytes]
            return
        size_bytes -= len(piece)
        yield piece
