"""Frames that are there at the same time travel together, as far as they fit: each message of a stream costs both sides as much as its work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

from folkmoot.transport.limits import FRAME_BYTES

MOST_TOGETHER = 1000

Frame = TypeVar("Frame", bound=Message)


def batches(
    frames: Iterable[Frame], *, most_bytes: int = FRAME_BYTES, most: int = MOST_TOGETHER
) -> Iterator[list[Frame]]:
    """Cut frames into batches, in order: each of so many bytes at most, or of one frame that is larger."""
    batch: list[Frame] = []
    size_bytes = 0
    for frame in frames:
        frame_bytes = frame.ByteSize()
        if batch and (size_bytes + frame_bytes > most_bytes or len(batch) == most):
            yield batch
            batch, size_bytes = [], 0
        batch.append(frame)
        size_bytes += frame_bytes
    if batch:
        yield batch
