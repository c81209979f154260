"""Placement as a pure decision: whatever nodes there are, none gets what it can't do while another one can."""

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server.store.links import Link
from folkmoot.server.store.placement import choose
from folkmoot.v1.link_pb2 import Availability

LABELS = st.frozensets(st.sampled_from(["patients", "imaging", "genomes"]))
OPEN, PAUSED, DRAINING = (Availability.Value(f"AVAILABILITY_{each}") for each in ("OPEN", "PAUSED", "DRAINING"))
NOW = datetime(2026, 7, 1, tzinfo=UTC)


@st.composite
def peers(draw: st.DrawFn, least: int = 2) -> list[Link]:
    number = draw(st.integers(least, 5))
    return [
        Link(
            node_id=f"node-{index}",
            organization_id="Beta",
            link_id=index,
            attached=draw(st.booleans()),
            away_since=NOW,
            labels=draw(LABELS),
            slots=draw(st.integers(0, 4)),
            free_slots=draw(st.integers(0, 4)),
            availability=draw(st.sampled_from([OPEN, PAUSED, DRAINING])),
        )
        for index in range(1, number + 1)
    ]


OPEN_RUNS = st.dictionaries(st.integers(1, 5), st.integers(0, 10))


@given(peers(), LABELS, OPEN_RUNS)
def test_no_node_without_the_labels_gets_a_run_that_another_one_offers_data_for(
    nodes: list[Link], wanted: frozenset[str], open_runs: dict[int, int]
) -> None:
    chosen = choose(nodes, open_runs=open_runs, labels=wanted)
    if chosen is not None and any(wanted <= node.labels for node in nodes):
        assert wanted <= chosen.labels


@given(peers(), LABELS, OPEN_RUNS)
def test_of_several_nodes_only_an_attached_one_that_is_not_about_to_go_is_chosen(
    nodes: list[Link], wanted: frozenset[str], open_runs: dict[int, int]
) -> None:
    chosen = choose(nodes, open_runs=open_runs, labels=wanted)
    if chosen is not None:
        assert chosen.attached
        assert not chosen.draining


@given(peers(), LABELS, OPEN_RUNS)
def test_a_paused_node_is_chosen_only_where_no_open_one_could_be(
    nodes: list[Link], wanted: frozenset[str], open_runs: dict[int, int]
) -> None:
    chosen = choose(nodes, open_runs=open_runs, labels=wanted)
    if chosen is not None and chosen.availability == PAUSED:
        can = [node for node in nodes if wanted <= node.labels] or nodes
        assert not any(node.attached and node.availability == OPEN for node in can)


@given(peers(), LABELS, OPEN_RUNS)
def test_the_order_in_which_nodes_are_listed_decides_nothing(
    nodes: list[Link], wanted: frozenset[str], open_runs: dict[int, int]
) -> None:
    chosen = choose(nodes, open_runs=open_runs, labels=wanted)
    assert choose(nodes[::-1], open_runs=open_runs, labels=wanted) == chosen


@given(peers(least=1), LABELS)
def test_a_single_node_gets_everything_and_says_itself_what_it_refuses(
    nodes: list[Link], wanted: frozenset[str]
) -> None:
    assert choose(nodes[:1], open_runs={}, labels=wanted) == nodes[0]


def test_room_is_what_runs_leave_of_slots() -> None:
    small = Link("small", "Beta", 1, attached=True, away_since=None, labels=frozenset(), slots=1, availability=OPEN)
    large = replace(small, node_id="large", link_id=2, slots=4)
    assert choose([small, large], open_runs={2: 2}, labels=()) == large
    assert choose([small, large], open_runs={2: 4}, labels=()) == small
    busy_elsewhere = replace(small, node_id="a", link_id=3, free_slots=0)
    free = replace(small, free_slots=1)
    assert choose([free, busy_elsewhere], open_runs={}, labels=()) == free
