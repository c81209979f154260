"""What the command line decides for everything that is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Context:
    """Handed to every row and every limit, so that both work on the same image, size and disk.

    `image` is the id of a local image of `bench.algorithms.least`, None to have one built (limits alone do without);
    `folder` is where services and limits write, None for the temporary folder; `nodes` are
    those of a crowd.
    """

    image: str | None = None
    payload_bytes: int = 100_000_000
    folder: Path | None = None
    nodes: int = 1000
