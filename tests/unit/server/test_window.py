"""What a session has under way: nothing is acknowledged that was never sent, and no more is sent than the window takes."""

import pytest

from folkmoot.server.nodes.window import WINDOW, Window
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


def test_what_was_never_sent_is_not_acknowledged() -> None:
    window = Window(5)
    window.sent_up_to(7)
    assert window.is_news(7)
    assert not window.is_news(5)
    with pytest.raises(FolkmootError) as refused:
        window.is_news(8)
    assert refused.value.reason == ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION


def test_no_more_is_sent_than_the_window_takes() -> None:
    window = Window(5)
    assert window.room == WINDOW
    window.sent_up_to(5 + WINDOW)
    assert window.room == 0
    window.acknowledged = 6
    assert window.room == 1


def test_what_is_sent_again_may_have_reached_the_node_before() -> None:
    window = Window(5)
    window.sent_up_to(9)
    window.rewind()
    assert (window.sent, window.most_sent, window.room) == (5, 9, WINDOW)


def test_what_a_node_says_before_it_has_read_a_resync_counts_for_nothing() -> None:
    window = Window(5, resyncing=True)
    assert window.room == 0
    assert not window.resynced(900)
    assert not window.is_news(900)
    assert window.resynced(5)
    assert window.room == WINDOW
    assert not window.resynced(5)
