"""Head statements beside a replica: forks, withheld entries and silence are noticed, over restarts too."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from folkmoot.transport import Replica
from folkmoot.transport.heads import MAX_HEAD_AGE, HeadStatements, SignsOfLife
from folkmoot.trust import LedgerFork, LedgerStale, SigningKey, State, make_head_statement, replay
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import DAY, NOW, World, organization, randomness, world
from tests.unit.transport.test_replica import Ledgers, forked

HOUR = timedelta(hours=1)


@pytest.fixture
def lung() -> World:
    return world(now=NOW - timedelta(days=30))


@pytest.fixture
async def replica(lung: World, tmp_path: Path) -> Replica:
    made = Replica(tmp_path, lung.state.reference)
    await made.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    return made


def head(lung: World, name: str, at: datetime, *, state: State | None = None, key: SigningKey | None = None) -> Signed:
    """What a node of an organization says of the ledger."""
    owner = lung[name]
    node_key = key or next(iter(owner.nodes.values()))
    return make_head_statement(state or lung.state, node_key=node_key, organization_id=owner.address, now=at)


def taken(replica: Replica, lung: World, received: Iterable[Signed] = ()) -> SignsOfLife:
    """What Alpha learns from statements, in a process that has just begun."""
    return HeadStatements(replica).take(received, own=lung["Alpha"].address, now=NOW)


def check(signs: SignsOfLife, replica: Replica, **changes: timedelta) -> None:
    signs.check(replica, now=NOW, max_head_age=changes.get("max_head_age", MAX_HEAD_AGE))


def test_fresh_statement_of_another_member_is_a_sign_of_life(
    replica: Replica, lung: World, caplog: pytest.LogCaptureFixture
):
    signs = taken(replica, lung, [head(lung, "Beta", NOW - HOUR), head(lung, "Gamma", NOW - 2 * DAY)])
    check(signs, replica)
    assert (signs.newest, signs.ahead, caplog.text) == (NOW - HOUR, {}, "")


def test_silence_warns_after_a_day_and_refuses_after_a_week(
    replica: Replica, lung: World, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(LedgerStale, match="for 30"):
        check(taken(replica, lung), replica)
    signs = taken(replica, lung, [head(lung, "Beta", NOW - 2 * DAY)])
    check(signs, replica)
    assert "2.0 days" in caplog.text
    with pytest.raises(LedgerStale):
        check(signs, replica, max_head_age=DAY)


def test_own_statements_are_no_sign_of_others(replica: Replica, lung: World):
    with pytest.raises(LedgerStale):
        check(taken(replica, lung, [head(lung, "Alpha", NOW)]), replica)


async def test_collaboration_in_which_nobody_else_has_a_node_never_goes_stale(tmp_path: Path):
    lung = world(nodes=False, now=NOW - timedelta(days=30))
    replica = Replica(tmp_path, lung.state.reference)
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    check(taken(replica, lung), replica)


def test_statement_that_was_shown_once_counts_when_the_server_shows_it_no_more(replica: Replica, lung: World):
    taken(replica, lung, [head(lung, "Beta", NOW - HOUR)])
    check(taken(replica, lung), replica)
    check(taken(replica, lung, [head(lung, "Beta", NOW - 20 * DAY)]), replica)  # nor does an old one replace it


def test_entries_that_most_others_have_seen_are_withheld(replica: Replica, lung: World):
    known = lung.state.position.sequence
    lung.add_node("Beta", "beta-2")
    ahead = [head(lung, name, NOW - HOUR) for name in ("Beta", "Gamma")]
    for received in (ahead, []):
        with pytest.raises(LedgerStale, match=f"Gamma has seen entry {known + 1}.*up to entry {known} only"):
            check(taken(replica, lung, received), replica)


async def test_withheld_entries_that_come_after_all_end_the_wait(replica: Replica, lung: World):
    lung.add_node("Beta", "beta-2")
    signs = taken(replica, lung, [head(lung, name, NOW - HOUR) for name in ("Beta", "Gamma")])
    with pytest.raises(LedgerStale):
        check(signs, replica)
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    signs = taken(replica, lung)
    check(signs, replica)
    assert signs.ahead == {}


def elsewhere(lung: World, how: str) -> State:
    """A ledger that goes on beyond ours, or has another newest entry."""
    if how == "contradicting":
        return replay(forked(lung, len(lung.entries) - 1))
    more = World(dict(lung.organizations), list(lung.entries), lung.state, lung.now)
    more.add_node("Beta", "beta-2")
    return more.state


@pytest.mark.parametrize("how", ["ahead", "contradicting"])
def test_one_member_that_makes_up_a_history_stops_nobody(
    replica: Replica, lung: World, how: str, caplog: pytest.LogCaptureFixture
):
    signs = taken(replica, lung, [head(lung, "Beta", NOW, state=elsewhere(lung, how)), head(lung, "Gamma", NOW)])
    check(signs, replica)
    # Who is ahead may have seen what came after our copy: it is told by who has fetched that.
    assert ("a node of Beta says" in caplog.text) == (how == "contradicting")
    signs.tell_ahead()
    assert ("Beta has seen entry" in caplog.text) == (how == "ahead")
    assert signs.newest == NOW
    assert replica.fork is None


@pytest.mark.parametrize("how", ["ahead", "contradicting"])
def test_member_that_makes_up_a_history_gives_no_sign_of_life_by_it(replica: Replica, lung: World, how: str):
    with pytest.raises(LedgerStale, match="for 30"):
        check(taken(replica, lung, [head(lung, "Beta", NOW, state=elsewhere(lung, how))]), replica)


@pytest.mark.parametrize("how", ["ahead", "contradicting"])
async def test_several_nodes_of_one_member_have_one_voice(replica: Replica, lung: World, how: str):
    lung.add_node("Gamma", "gamma-2")
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    other, keys = elsewhere(lung, how), list(lung["Gamma"].nodes.values())
    assert len(keys) == 2
    statements = [head(lung, "Gamma", NOW, state=other, key=key) for key in keys]
    check(taken(replica, lung, [*statements, head(lung, "Beta", NOW)]), replica)


def test_what_most_others_contradict_is_a_fork_until_they_say_otherwise(replica: Replica, lung: World):
    other = elsewhere(lung, "contradicting")
    for received in ([head(lung, name, NOW - HOUR, state=other) for name in ("Beta", "Gamma")], []):
        with pytest.raises(LedgerFork, match="Beta has seen another entry"):
            check(taken(replica, lung, received), replica)
    assert replica.fork is None, "hashes are no evidence"
    check(taken(replica, lung, [head(lung, "Gamma", NOW)]), replica)


async def test_members_without_nodes_have_no_say_and_keep_none_from_being_heard(tmp_path: Path):
    """Five members, of whom two others have nodes: both of them have seen another history."""
    names = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")
    lung = world(names, nodes=False, now=NOW - DAY)
    for name in names[:3]:
        lung.add_node(name, f"{name.lower()}-1")
    replica = Replica(tmp_path, lung.state.reference)
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    other = elsewhere(lung, "ahead")
    statements = [head(lung, name, NOW, state=other) for name in ("Beta", "Gamma")]
    check(taken(replica, lung, statements[:1]), replica)
    with pytest.raises(LedgerStale, match="Beta has seen entry"):
        check(taken(replica, lung, statements), replica)


def test_other_nodes_of_ours_stop_nothing_either(replica: Replica, lung: World):
    theirs = [head(lung, "Alpha", NOW, state=elsewhere(lung, "contradicting")), head(lung, "Beta", NOW)]
    check(taken(replica, lung, theirs), replica)


def test_processes_that_share_a_replica_forget_nothing_of_each_others(replica: Replica, lung: World):
    one, other = HeadStatements(replica), HeadStatements(replica)
    own = lung["Alpha"].address
    one.take([head(lung, "Beta", NOW - HOUR)], own=own, now=NOW)
    other.take([head(lung, "Gamma", NOW - 2 * DAY)], own=own, now=NOW)
    assert taken(replica, lung).newest == NOW - HOUR
    one.take([head(lung, "Gamma", NOW)], own=own, now=NOW)
    other.take([head(lung, "Gamma", NOW - DAY)], own=own, now=NOW)
    assert taken(replica, lung).newest == NOW


def test_statement_that_was_taken_while_the_clock_was_wrong_is_in_nobodys_way(replica: Replica, lung: World):
    own, next_year = lung["Alpha"].address, NOW + 366 * DAY
    HeadStatements(replica).take([head(lung, "Beta", next_year)], own=own, now=next_year)
    assert taken(replica, lung, [head(lung, "Beta", NOW - HOUR)]).newest == NOW - HOUR
    check(taken(replica, lung), replica)


@pytest.mark.parametrize("forgery", ["stranger", "of another member", "future", "junk"])
def test_statement_that_is_none_is_left_out(replica: Replica, lung: World, forgery: str):
    key = SigningKey.generate(randomness("stranger"))
    signed = {
        "stranger": head(lung, "Beta", NOW, key=key),
        "of another member": head(lung, "Beta", NOW, key=next(iter(lung["Gamma"].nodes.values()))),
        "future": head(lung, "Beta", NOW + DAY),
        "junk": Signed(body=b"\xff", key_id=b"x"),
    }[forgery]
    with pytest.raises(LedgerStale):
        check(taken(replica, lung, [signed]), replica)


@pytest.mark.parametrize("content", [b"\x00\x00\x00\x01\xff", b"\x00\x00\x00\x00", b"\xff" * 9, bytes(64)])
def test_file_that_cannot_be_read_is_made_anew(replica: Replica, lung: World, content: bytes):
    path = replica.path.with_suffix(".heads")
    path.write_bytes(content)
    check(taken(replica, lung, [head(lung, "Beta", NOW)]), replica)
    check(taken(replica, lung), replica)


def test_applicants_cannot_speak(replica: Replica, lung: World):
    stranger = organization("Delta")
    signed = make_head_statement(
        lung.state, node_key=stranger.governance_key, organization_id=stranger.address, now=NOW
    )
    with pytest.raises(LedgerStale):
        check(taken(replica, lung, [signed]), replica)
