"""Frames of nodes: which of them are taken together, and what their messages and updates must be."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from folkmoot.server.nodes.link_errors import too_large, violation
from folkmoot.transport.limits import INLINE_BYTES
from folkmoot.v1.link_pb2 import NodeFrame, PeerMessage, RunUpdate


def taken_together(frames: Iterable[NodeFrame]) -> Iterator[Sequence[NodeFrame]]:
    """Cut frames that came together into what is handled at once: messages that follow each other, and any other frame alone."""
    for is_message, group in groupby(frames, key=lambda frame: frame.HasField("peer_message")):
        if is_message:
            yield list(group)
        else:
            yield from ([frame] for frame in group)


def check_update(told: RunUpdate) -> None:
    """Raise TOO_LARGE for an envelope that can't travel over a link."""
    if any(len(envelope) > INLINE_BYTES for envelope in (told.progress_envelope, *told.log_envelopes)):
        raise too_large("An envelope of progress or log")


def check_messages(sent: Iterable[PeerMessage]) -> None:
    """Raise TOO_LARGE, PROTOCOL_VIOLATION."""
    for each in sent:
        if len(each.envelope) > INLINE_BYTES:
            raise too_large("A message")
        if not each.sequence:
            raise violation("Messages are counted from 1")
