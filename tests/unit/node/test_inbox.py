"""The inbox gives what is next and open, and says when the journal has to be asked."""

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.proxy import inbox
from folkmoot.node.proxy.inbox import Inbox
from folkmoot.v1.link_pb2 import PeerMessage
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest


def whole(*sequences: int) -> Inbox:
    """An inbox whose journal was looked at and was empty; then these have come."""
    kept = Inbox()
    kept.is_whole = True
    for sequence in sequences:
        put(kept, sequence)
    return kept


def put(kept: Inbox, sequence: int, *, from_run_id: str = "beta", size_bytes: int = 10) -> None:
    message = PeerMessage(from_run_id=from_run_id, sequence=sequence, envelope=bytes(size_bytes))
    kept.put(message, SendMessageRequest(sequence=sequence))


def at_hand(kept: Inbox, last: int) -> list[int]:
    return [sequence for _, sequence, _ in kept.at_hand({"beta": last})]


def test_what_comes_next_is_at_hand_and_nothing_behind_a_gap():
    kept = whole(1, 2, 4)
    assert at_hand(kept, 0) == [1, 2]
    kept.had("beta", 2)
    assert at_hand(kept, 2) == []
    assert kept.lacks({"beta": 2}), "the journal says what is missing"


def test_nothing_is_lacking_where_all_that_came_was_had():
    kept = whole(1, 2)
    kept.had("beta", 2)
    assert not kept.lacks({"beta": 2})


def test_after_a_restart_the_journal_is_asked():
    assert Inbox().lacks({"beta": 0})


def test_whoever_goes_back_is_given_what_the_journal_has():
    kept = whole(1, 2)
    kept.had("beta", 2)
    assert kept.lacks({"beta": 1})


def test_what_is_not_open_too_large_or_too_much_stays_in_the_journal():
    kept = whole()
    kept.put(PeerMessage(from_run_id="beta", sequence=1), None)
    assert (at_hand(kept, 0), kept.lacks({"beta": 0})) == ([], True)
    kept = whole()
    put(kept, 1, size_bytes=inbox.OPENED_BYTES + 1)
    assert (at_hand(kept, 0), kept.lacks({"beta": 0})) == ([], True)
    kept = whole(*range(1, inbox.MOST_OPENED + 2))
    assert at_hand(kept, 0) == list(range(1, inbox.MOST_OPENED + 1))
    kept.had("beta", inbox.MOST_OPENED)
    assert kept.lacks({"beta": inbox.MOST_OPENED})


def test_what_was_had_and_comes_again_is_not_kept():
    kept = whole(1)
    kept.had("beta", 1)
    put(kept, 1)
    assert not kept.lacks({"beta": 1})


@given(
    st.lists(st.tuples(st.sampled_from(["beta", "gamma"]), st.sampled_from(["comes open", "comes closed", "is read"])))
)
def test_every_message_is_given_once_and_in_order(steps: list[tuple[str, str]]):
    kept, came, had = Inbox(), {"beta": 0, "gamma": 0}, {"beta": 0, "gamma": 0}

    def read() -> None:
        while True:
            found = [(one, number) for one, number, _ in kept.at_hand(had)]
            if not found and kept.lacks(had):
                found = [(one, number) for one in came for number in range(had[one] + 1, came[one] + 1)]
                kept.is_whole = not found
            for one, number in found:
                assert number == had[one] + 1
                had[one] = number
                kept.had(one, number)
            if not found:
                return

    for sibling, step in steps:
        if step == "is read":
            read()
            assert had == came
            continue
        came[sibling] += 1
        message = PeerMessage(from_run_id=sibling, sequence=came[sibling])
        kept.put(message, SendMessageRequest() if step == "comes open" else None)
