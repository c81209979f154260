"""Everything that comes in says which ledger its sender has seen: another one, or more of it than the server shows, is noticed."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from folkmoot.node.policy.judgement import Judgement, judge, record_of
from folkmoot.node.station import Station
from folkmoot.node.trust.senders import live_sender, node_sender
from folkmoot.node.trust.sightings import HeadWatch, look_at_heads, weigh_heads
from folkmoot.transport import Unreachable
from folkmoot.trust import (
    BytesSource,
    EncryptionDisagrees,
    EnvelopeRejected,
    Expected,
    FolkmootError,
    LedgerEntryInvalid,
    LedgerFork,
    LedgerStale,
    LedgerUpgradeNeeded,
    Opened,
    leave_entry,
    node_revoke_entry,
    read_head,
    revoke_key_entry,
    seal_bytes,
    timestamp,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import TaskSpec
from tests.builders import DAY, NOW, World, world
from tests.polling import until
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation
from tests.unit.node.ledgers import attach, head, of_a_later_release

THIS_MORNING = NOW - DAY / 2
"""The replica has a clock of its own, and takes no entries from the future."""

STALE, FORK = ErrorReason.ERROR_REASON_LEDGER_STALE, ErrorReason.ERROR_REASON_LEDGER_FORK


async def judged(station: Station, frame: ServerFrame) -> Judgement:
    return await judge(station, record_of(frame.assign, station.now()))


async def reason(station: Station, frame: ServerFrame) -> int:
    refusal = (await judged(station, frame)).refusal
    return refusal.reason if refusal else 0


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"), now=THIS_MORNING)


@pytest.fixture
def elsewhere() -> World:
    """The same collaboration, as somebody else was shown it: its newest entry is another one."""
    other = world(("Alpha", "Beta", "Gamma"), now=THIS_MORNING)
    other.add_node("Gamma", "gamma-of-another-history")
    return other


@pytest.fixture
def longer(lung: World) -> World:
    """The same collaboration with one more entry."""
    more = World(dict(lung.organizations), list(lung.entries), lung.state, lung.now)
    more.add_node("Gamma", "gamma-2")
    return more


def grown(lung: World) -> None:
    """One more entry, so that another history differs from this one."""
    lung.add_node("Beta", "beta-2")


# ---- tasks ---------------------------------------------------------------------------------------------------------------


async def test_a_task_of_a_newer_ledger_is_taken_after_one_look_at_the_server(
    lung: World, longer: World, make_station: MakeStation
):
    station = make_station()
    attach(station, longer.entries)
    assert (await judged(station, assign(longer))).task is not None
    assert station.state.position == longer.state.position


async def test_a_task_of_a_newer_ledger_that_the_server_withholds_is_refused_as_stale(
    lung: World, longer: World, make_station: MakeStation
):
    station = make_station()
    attach(station, lung.entries)
    assert await reason(station, assign(longer)) == STALE


async def test_a_position_that_nobody_of_ours_has_signed_says_nothing(
    lung: World, longer: World, elsewhere: World, make_station: MakeStation
):
    station = make_station()
    grown(lung)
    attach(station, lung.entries)
    await station.refresh()
    for other in (longer, elsewhere):
        frame = assign(lung)
        spec = TaskSpec.FromString(frame.assign.chain.specs[0].body)
        spec.ledger_position.CopyFrom(other.state.position.message())
        frame.assign.chain.specs[0].body = spec.SerializeToString(deterministic=True)
        assert await reason(station, frame) == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
    assert station.fork is None


async def test_another_history_that_a_revoked_key_has_signed_stops_nobodys_work(
    lung: World, elsewhere: World, make_station: MakeStation
):
    alpha = lung["Alpha"]
    key_ids = [alpha.organization_key.task_signing.key_id]
    lung.append(revoke_key_entry(lung.state, key_ids, governance_key=alpha.governance_key, now=lung.now))
    station = make_station()
    assert await reason(station, assign(elsewhere)) == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
    assert station.fork is None


async def test_a_task_that_waits_with_an_impossible_time_is_refused(lung: World, make_station: MakeStation):
    station = make_station()
    station.doubts.note(LedgerUpgradeNeeded("an entry of a later release"), NOW)
    frame = assign(lung)
    spec = TaskSpec.FromString(frame.assign.chain.specs[0].body)
    spec.expires_at.seconds = -(1 << 62)
    frame.assign.chain.specs[0].body = spec.SerializeToString(deterministic=True)
    assert await reason(station, frame) == ErrorReason.ERROR_REASON_TASK_EXPIRED


async def test_a_task_made_on_another_history_is_refused_and_stops_no_other_work(
    lung: World, elsewhere: World, make_station: MakeStation
):
    grown(lung)
    station = make_station()
    assert await reason(station, assign(elsewhere)) == FORK
    assert station.fork is None, "it is one signer's word"
    assert (await judged(station, assign(lung))).task is not None


async def test_another_history_that_the_server_shows_is_a_fork_that_a_restart_does_not_forget(
    lung: World, elsewhere: World, make_station: MakeStation
):
    grown(lung)
    station = make_station()
    server = attach(station, lung.entries)
    await station.look()
    server.entries = elsewhere.entries
    with pytest.raises(LedgerFork):
        await station.look()
    assert await reason(station, assign(lung)) == FORK, "from then on, no new work is taken in"
    again = make_station()
    assert await reason(again, assign(lung)) == FORK
    assert again.fork is not None
    Path(again.fork.metadata["evidence"]).unlink()
    assert (await judged(again, assign(lung))).task is not None, "a person has decided"


# ---- envelopes -----------------------------------------------------------------------------------------------------------


@dataclass
class Sent:
    """A message as a node of Alpha seals it to Beta, on the ledger that it sees."""

    lung: World
    frame: ServerFrame

    def open(self, station: Station, seen: World, *, live: bool = True, **changes: Any) -> Any:
        task = verify_task(self.frame.assign.chain, self.lung.state, now=None)
        runs = {each.organization_id: each.run_id for each in task.spec.receivers}
        alpha = self.lung["Alpha"]
        usual: dict[str, Any] = {
            "genesis": self.lung.genesis,
            "kind": EnvelopeKind.ENVELOPE_KIND_MESSAGE,
            "task_digest": task.digest,
            "task_id": task.spec.task_id,
            "run_id": runs[alpha.address],
            "attempt": 1,
            "sequence": 1,
            "sender_organization_id": alpha.address,
            "content_type": "text/plain",
            "created_at": timestamp(NOW),
            "ledger_sequence": seen.state.position.sequence,
            "ledger_hash": seen.state.position.hash,
        }
        receivers = changes.pop("receivers", self.lung.state.receivers([self.lung["Beta"].address]))
        key = changes.pop("key", alpha.nodes["alpha-1"])
        sealed = seal_bytes(
            b"hello", context=EnvelopeContext(**(usual | changes)), receivers=receivers, key=key, random=os.urandom
        )
        expected = Expected(
            kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE,
            task_id=task.spec.task_id,
            sender_organization_id=alpha.address,
            task_digest=task.digest,
            run_id=runs[alpha.address],
            attempt=1,
            sequence=1,
        )
        sender = live_sender if live else node_sender
        return station.open(BytesSource(sealed.envelope), expected, sender(station, alpha.address))


@pytest.fixture
def sent(lung: World) -> Sent:
    return Sent(lung, assign(lung, receivers=("Alpha", "Beta")))


async def opened(call: Any) -> bytes:
    result: Opened = await call
    return result.content()


async def test_an_envelope_of_a_newer_ledger_is_opened_after_one_look_at_the_server(
    longer: World, make_station: MakeStation, sent: Sent
):
    station = make_station()
    attach(station, longer.entries)
    assert await opened(sent.open(station, longer)) == b"hello"


async def test_an_envelope_of_a_newer_ledger_waits_for_a_server_that_is_away(
    longer: World, make_station: MakeStation, sent: Sent, monkeypatch: pytest.MonkeyPatch
):
    station = make_station()
    attach(station, longer.entries)
    refresh, asked = station.replica.refresh, []

    async def away_at_first(*given: Any, **named: Any) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise Unreachable(ErrorReason.ERROR_REASON_SHUTTING_DOWN, "the server stops")
        return await refresh(*given, **named)

    monkeypatch.setattr(station.replica, "refresh", away_at_first)
    assert await opened(sent.open(station, longer)) == b"hello"


async def test_an_envelope_of_a_newer_ledger_that_the_server_withholds_is_stale(
    lung: World, longer: World, make_station: MakeStation, sent: Sent
):
    station = make_station()
    attach(station, lung.entries)
    with pytest.raises(LedgerStale, match="Alpha has seen"):
        await sent.open(station, longer)


async def test_an_envelope_made_on_an_older_part_of_our_ledger_is_fine(
    lung: World, longer: World, make_station: MakeStation, sent: Sent
):
    station = make_station()
    attach(station, longer.entries)
    await station.refresh()
    assert await opened(sent.open(station, lung)) == b"hello"


async def test_an_envelope_made_on_another_history_is_a_fork(
    lung: World, elsewhere: World, make_station: MakeStation, sent: Sent
):
    grown(lung)
    station = make_station()
    with pytest.raises(LedgerFork):
        await sent.open(station, elsewhere)
    assert station.fork is None, "it is one signer's word"


async def test_who_has_gone_can_not_stop_work_by_claiming_another_history(
    lung: World, elsewhere: World, make_station: MakeStation, sent: Sent
):
    grown(lung)
    revoke(lung, "Alpha")
    station = make_station()
    with pytest.raises(LedgerFork):
        await sent.open(station, elsewhere, live=False)
    assert station.fork is None


async def test_a_stranger_who_claims_another_history_pins_nothing(
    lung: World, elsewhere: World, make_station: MakeStation, sent: Sent
):
    grown(lung)
    station = make_station()
    with pytest.raises(EnvelopeRejected):
        await sent.open(station, elsewhere, key=elsewhere["Gamma"].governance_key)
    assert station.fork is None


async def test_a_plain_envelope_in_a_sealed_collaboration_disagrees(lung: World, make_station: MakeStation, sent: Sent):
    with pytest.raises(EncryptionDisagrees):
        await sent.open(make_station(), lung, receivers=None)


# ---- senders -------------------------------------------------------------------------------------------------------------


async def test_live_words_of_a_revoked_node_are_refused_and_what_it_said_before_is_read(
    lung: World, make_station: MakeStation, sent: Sent
):
    before = World(lung.organizations, list(lung.entries), lung.state, lung.now)
    revoke(lung, "Alpha")
    station = make_station()
    with pytest.raises(EnvelopeRejected):
        await sent.open(station, before)
    assert await opened(sent.open(station, before, live=False)) == b"hello"
    with pytest.raises(EnvelopeRejected):
        await sent.open(station, lung, live=False)


async def test_live_words_of_a_removed_members_node_are_refused(lung: World, make_station: MakeStation, sent: Sent):
    before = World(lung.organizations, list(lung.entries), lung.state, lung.now)
    leave(lung, "Alpha")
    with pytest.raises(EnvelopeRejected):
        await sent.open(make_station(), before)


def revoke(lung: World, name: str) -> None:
    owner = lung[name]
    node_id = owner.nodes[f"{name.lower()}-1"].fingerprint
    lung.append(node_revoke_entry(lung.state, node_id, governance_key=owner.governance_key, now=lung.now))


def leave(lung: World, name: str) -> None:
    lung.append(leave_entry(lung.state, governance_key=lung[name].governance_key, now=lung.now))


# ---- head statements -----------------------------------------------------------------------------------------------------


async def test_head_statements_that_contradict_ours_are_a_fork(
    lung: World, elsewhere: World, make_station: MakeStation
):
    grown(lung)
    station = make_station()
    attach(station, lung.entries, [head(lung, name, state=elsewhere.state) for name in ("Alpha", "Gamma")])
    await look_at_heads(station)
    assert isinstance(weigh_heads(station), LedgerFork)
    again = make_station()
    attach(again, lung.entries)
    assert await reason(again, assign(lung)) == FORK, "a restart beside a silent server forgets nothing"
    assert "LEDGER_FORK" in [doubt.reason for doubt in again.doubts]


async def test_one_members_nodes_alone_stop_nobodys_work(
    lung: World, elsewhere: World, longer: World, make_station: MakeStation
):
    grown(lung)
    station = make_station()
    for seen in (elsewhere, longer):
        attach(station, lung.entries, [head(lung, "Alpha", state=seen.state)])
        await look_at_heads(station)
        assert weigh_heads(station) is None


async def test_a_node_that_was_away_and_finds_others_ahead_raises_no_alarm(
    lung: World, longer: World, make_station: MakeStation, caplog: pytest.LogCaptureFixture
):
    station = make_station()
    server = attach(station, lung.entries, [head(lung, "Alpha", state=longer.state)])
    await look_at_heads(station)
    assert "which the server does not show" in caplog.text
    caplog.clear()
    server.entries = longer.entries
    await look_at_heads(station)
    assert station.state.hashes == longer.state.hashes
    assert caplog.text == ""


async def test_head_statements_that_are_ahead_show_what_the_server_withholds_until_it_is_here(
    lung: World, longer: World, make_station: MakeStation
):
    station = make_station()
    server = attach(station, lung.entries, [head(lung, name, state=longer.state) for name in ("Alpha", "Gamma")])
    await look_at_heads(station)
    assert weigh_heads(station) is not None
    assert await reason(station, assign(lung)) == STALE
    assert [doubt.reason for doubt in station.doubts] == ["LEDGER_STALE"]
    silent = make_station()
    attach(silent, lung.entries)
    assert await reason(silent, assign(lung)) == STALE, "a restart beside a silent server forgets nothing"
    server.entries = longer.entries
    await look_at_heads(station)
    assert weigh_heads(station) is None
    assert list(station.doubts) == []
    assert (await judged(station, assign(lung))).task is not None


async def test_a_node_says_what_it_sees_when_the_ledger_has_grown_and_daily(
    lung: World, longer: World, make_station: MakeStation
):
    station = make_station()
    attach(station, longer.entries)
    sent: list[NodeFrame] = []
    watch = HeadWatch(station, sent.append)
    watch.statement()  # as Hello has it
    watching = asyncio.create_task(watch.run())

    def stated() -> list[int]:
        signed = [frame.head_statement for frame in sent]
        return [read_head(each, station.state, now=station.now()).position.sequence for each in signed]

    await station.refresh()
    await until(lambda: stated() == [longer.state.position.sequence])
    station.moved.notify()  # nothing new, and not a day later
    station.now = lambda: NOW + 2 * DAY
    watch.attached()
    await until(lambda: stated() == [longer.state.position.sequence] * 2)
    watching.cancel()


async def test_after_silence_of_all_others_new_work_is_refused_until_one_is_heard(
    lung: World, make_station: MakeStation
):
    later = NOW + 8 * DAY
    station = make_station(now=lambda: later)
    server = attach(station, lung.entries)
    frame = assign(lung, created_at=timestamp(later), expires_at=timestamp(later + DAY))
    assert await reason(station, frame) == STALE
    server.heads = [head(lung, "Beta", now=later)]
    assert await reason(station, frame) == STALE, "our own word does not count"
    server.heads.append(head(lung, "Alpha", now=later))
    assert await reason(station, frame) == 0
    silent = make_station(now=lambda: later)
    attach(silent, lung.entries)
    assert await reason(silent, frame) == 0, "what was heard counts, also when the server never shows it again"


async def test_the_longest_silence_is_a_setting(lung: World, make_station: MakeStation):
    later = NOW + 8 * DAY
    station = make_station(now=lambda: later, max_head_age_days=30)
    attach(station, lung.entries)
    assert await reason(station, assign(lung, created_at=timestamp(later), expires_at=timestamp(later + DAY))) == 0


async def test_a_server_that_does_not_answer_for_heads_does_not_stop_fresh_work(lung: World, make_station: MakeStation):
    station = make_station()
    server = attach(station, lung.entries)

    async def silent(*_: Any, **__: Any) -> None:
        raise FolkmootError(ErrorReason.ERROR_REASON_INTERNAL, "nothing")

    server.ListHeads = silent  # type: ignore[method-assign,assignment]
    assert await reason(station, assign(lung)) == 0


# ---- entries of a later release ------------------------------------------------------------------------------------------


async def test_entries_of_a_later_release_make_new_work_wait(lung: World, make_station: MakeStation):
    station = make_station()
    server = attach(station, [*lung.entries, of_a_later_release(lung)])
    with pytest.raises(FolkmootError) as upgrade:
        await station.refresh()
    assert upgrade.value.reason == ErrorReason.ERROR_REASON_LEDGER_UPGRADE_NEEDED
    waiting = await judged(station, assign(lung))
    assert (waiting.task, waiting.refusal, waiting.decided) == (None, None, False)
    assert not waiting.record.decided
    assert [doubt.reason for doubt in make_station().doubts] == ["LEDGER_UPGRADE_NEEDED"]
    server.entries = list(lung.entries)
    await station.refresh()
    assert (await judged(station, assign(lung))).task is not None


async def test_a_gap_in_the_ledger_makes_new_work_wait_until_the_server_sends_what_is_missing(
    lung: World, longer: World, make_station: MakeStation
):
    station = make_station()
    longer.add_node("Gamma", "gamma-3")
    server = attach(station, [*lung.entries, longer.entries[-1]])
    with pytest.raises(LedgerEntryInvalid):
        await station.refresh()
    assert not (await judged(station, assign(longer))).decided
    server.entries = longer.entries
    await station.refresh()
    assert (await judged(station, assign(longer))).task is not None
    assert list(station.doubts) == []


async def test_what_runs_already_goes_on_beside_entries_of_a_later_release(
    lung: World, longer: World, make_station: MakeStation, sent: Sent
):
    station = make_station()
    attach(station, [*lung.entries, of_a_later_release(lung)])
    assert await opened(sent.open(station, longer)) == b"hello"
