"""What can't be done yet waits, and is done by itself: work on a ledger of a later release, and what is sealed to a key that is coming."""

import asyncio
from collections.abc import Awaitable
from contextlib import ExitStack
from functools import partial
from typing import Any, TypeVar

import pytest

from folkmoot.node.journal import message_records, records
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.link.intake import Intake
from folkmoot.node.policy.judgement import judge_at_last, settle
from folkmoot.node.proxy.inputs import RunInput, open_input
from folkmoot.node.station import Station
from folkmoot.node.trust import awaiting
from folkmoot.node.trust.keys import KeyAwaited
from folkmoot.node.trust.ledger import find_keys
from folkmoot.transport import Keyring
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    FolkmootError,
    KeyMismatch,
    KeyUnpublished,
    OrganizationKey,
    VerifiedTask,
    dump_organization_key,
    publish_key_entry,
    revoke_key_entry,
    rotate_key_entry,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Cancel, NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import Grant, MessageGrant, RunState, WaitReason
from tests.builders import DAY, NOW, World, organization, world
from tests.polling import until
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation
from tests.unit.node.ledgers import Ledgers, attach, of_a_later_release
from tests.unit.node.test_intake import Taken, message, receipt_of

THIS_MORNING = NOW - DAY / 2
_Result = TypeVar("_Result")


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"), now=THIS_MORNING)


async def soon(something: Awaitable[_Result]) -> _Result:
    async with asyncio.timeout(10):
        return await something


# ---- a ledger of a later release -----------------------------------------------------------------------------------------


async def not_understood(station: Station, lung: World) -> Ledgers:
    """Let the station find that its ledger has an entry that it does not understand."""
    server = attach(station, [*lung.entries, of_a_later_release(lung)])
    with pytest.raises(FolkmootError):
        await station.refresh()
    return server


async def taken(station: Station, *frames: ServerFrame) -> Taken:
    result = Taken()
    await Intake(station, result).take(frames)
    return result


async def judged(station: Station, record: RunRecord, unwanted: asyncio.Event | None = None) -> RunRecord:
    told: list[NodeFrame] = []
    judgement = await soon(judge_at_last(station, record, unwanted or asyncio.Event(), tell=told.append))
    return await settle(station, judgement)


async def test_a_run_that_waits_is_journaled_acknowledged_and_decided_when_the_ledger_is_understood(
    lung: World, make_station: MakeStation
):
    station = make_station()
    server = await not_understood(station, lung)
    frame = assign(lung)
    [record] = (await taken(station, frame)).records
    assert (record.decided, record.ended) == (False, False)
    assert await station.journal.transact(records.acknowledged) == 1
    told: list[NodeFrame] = []
    judging = asyncio.create_task(judge_at_last(station, record, asyncio.Event(), tell=told.append))
    await until(lambda: bool(told))
    assert told[0].run_update.waiting.reason == WaitReason.WAIT_REASON_LEDGER
    lung.add_node("Gamma", "gamma-2")
    server.entries = list(lung.entries)
    await station.refresh()
    decided = await settle(station, await soon(judging))
    assert (decided.decided, decided.state, decided.memory_bytes) == (True, records.ASSIGNED, 1 << 30)
    task = verify_task(decided.task_chain(), station.state, now=None)
    with ExitStack() as closing:
        assert (await open_input(station, task, closing)).head.function == "mean"


async def test_a_waiting_run_survives_the_restart_with_the_release_that_understands(
    lung: World, make_station: MakeStation
):
    station = make_station()
    await not_understood(station, lung)
    await taken(station, assign(lung))
    [record] = await station.journal.transact(records.uncommitted_runs)
    again = make_station()
    attach(again, lung.entries)
    await again.refresh()
    assert (await judged(again, record)).decided


async def test_a_run_that_is_cancelled_while_it_waits_ends_with_proof(lung: World, make_station: MakeStation):
    station = make_station()
    await not_understood(station, lung)
    frame = assign(lung)
    [record] = (await taken(station, frame)).records
    await taken(station, ServerFrame(sequence=2, cancel=Cancel(run_id=record.run_id)))
    unwanted = asyncio.Event()
    unwanted.set()
    ended = await judged(station, record, unwanted)
    assert receipt_of(ended, station).outcome == RunState.RUN_STATE_CANCELLED


async def test_a_run_waits_no_longer_than_its_task_is_valid(lung: World, make_station: MakeStation):
    station = make_station()
    await not_understood(station, lung)
    [record] = (await taken(station, assign(lung))).records
    station.now = lambda: NOW + 2 * DAY
    ended = await judged(station, record)
    assert receipt_of(ended, station).reason == ErrorReason.ERROR_REASON_TASK_EXPIRED


async def test_messages_to_a_run_that_waits_are_kept_and_checked_when_it_is_decided(
    lung: World, make_station: MakeStation
):
    station = make_station()
    server = await not_understood(station, lung)
    grant = Grant(messages=MessageGrant.MESSAGE_GRANT_SIBLINGS)
    frame = assign(lung, receivers=("Alpha", "Beta", "Gamma"), grant=grant)
    right, forged = message(lung, frame), message(lung, frame, "Gamma")
    forged.envelope = forged.envelope[:-40] + bytes(40)
    sent = (ServerFrame(sequence=2, peer_message=right), ServerFrame(sequence=3, peer_message=forged))
    [record] = (await taken(station, frame, *sent)).records
    server.entries = list(lung.entries)
    await station.refresh()
    await judged(station, record)
    kept = await station.journal.transact(lambda db: message_records.incoming_of(db, record.run_id))
    assert [each.envelope for each in kept] == [right.envelope]


# ---- a key that is coming ------------------------------------------------------------------------------------------------


def rotate(lung: World, name: str) -> tuple[OrganizationKey, OrganizationKey]:
    """Rotate an organization's keys; returns the former and the new ones."""
    owner = lung[name]
    former, owner.organization_key = owner.organization_key, organization(f"{name} anew").organization_key
    claim = owner.organization_key.claim(owner.address, 2, lung.now)
    lung.append(rotate_key_entry(lung.state, claim, governance_key=owner.governance_key, now=lung.now))
    return former, owner.organization_key


def place(station: Station, key: OrganizationKey, name: str = "organization.pem") -> None:
    """Put a key file beside node.toml."""
    (station.directory / name).write_bytes(dump_organization_key(key))


async def the_input(station: Station, frame: ServerFrame, lung: World) -> RunInput:
    [record] = (await taken(station, frame)).records
    task = verify_task(record.task_chain(), lung.state, now=None)
    with ExitStack() as closing:
        return await open_input(station, task, closing)


def ring(station: Station, *keys: OrganizationKey) -> None:
    station.keyring = Keyring(station.config.organization_key, keys)


async def test_an_input_sealed_to_a_key_that_is_not_here_yet_is_awaited_and_opened_when_its_file_comes(
    lung: World, make_station: MakeStation
):
    former, new = rotate(lung, "Beta")
    station = make_station()
    ring(station, former)
    place(station, former)
    frame = assign(lung)
    with pytest.raises(KeyAwaited):
        await the_input(station, frame, lung)
    place(station, new, "organization.new.pem")
    await station.look_for_keys()
    task = verify_task(frame.assign.chain, lung.state, now=None)
    with ExitStack() as closing:
        assert (await open_input(station, task, closing)).head.function == "mean"


async def test_an_input_sealed_to_a_former_key_is_opened_after_the_rotation(lung: World, make_station: MakeStation):
    frame = assign(lung)
    former, new = rotate(lung, "Beta")
    station = make_station()
    ring(station, new, former)
    assert (await the_input(station, frame, lung)).head.function == "mean"


async def test_a_task_signed_by_a_former_key_before_its_rotation_is_executed(lung: World, make_station: MakeStation):
    frame = assign(lung)
    rotate(lung, "Alpha")
    assert (await the_input(make_station(), frame, lung)).head.function == "mean"


async def test_an_input_that_is_sealed_to_strangers_waits_for_nothing(lung: World, make_station: MakeStation):
    frame = assign(lung, sealed_to=("Gamma",))
    with pytest.raises(EnvelopeRejected):
        await the_input(make_station(), frame, lung)


async def test_a_result_sealed_to_a_coming_key_is_opened_as_soon_as_that_comes(
    lung: World, make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(awaiting, "LOOK_FOR_KEYS_SECONDS", 0.01)
    former, new = rotate(lung, "Beta")
    station = make_station()
    ring(station, former)
    place(station, former)
    frame = assign(lung)
    task = verify_task(frame.assign.chain, lung.state, now=None)
    opening = asyncio.create_task(opened_at_last(station, frame, task, until=NOW + DAY))
    await asyncio.sleep(0)
    place(station, new, "organization.new.pem")
    assert await soon(opening)


async def test_waiting_for_a_key_ends_with_the_task(lung: World, make_station: MakeStation):
    former, _ = rotate(lung, "Beta")
    station = make_station()
    ring(station, former)
    frame = assign(lung)
    task = verify_task(frame.assign.chain, lung.state, now=None)
    with pytest.raises(KeyAwaited):
        await soon(opened_at_last(station, frame, task, until=NOW))


async def opened_at_last(station: Station, frame: ServerFrame, task: VerifiedTask, **limit: Any) -> int:
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task.spec.task_id,
        sender_organization_id=task.spec.initiator.organization_id,
    )
    source = BytesSource(frame.assign.input_envelope)
    opening = partial(station.open, source, expected, lambda _: task.signer)
    return (await awaiting.at_last(station, opening, **limit)).total_length


async def test_a_task_signed_by_a_revoked_key_is_refused_unless_it_was_accepted_before(
    lung: World, make_station: MakeStation
):
    station = make_station()
    accepted, refused = assign(lung), assign(lung, sequence=2)
    [first] = (await taken(station, accepted)).records
    alpha = lung["Alpha"]
    key_ids = [alpha.organization_key.task_signing.key_id]
    lung.append(revoke_key_entry(lung.state, key_ids, None, governance_key=alpha.governance_key, now=lung.now))
    station.replica.state = lung.state
    [second] = (await taken(station, refused)).records
    assert receipt_of(second, station).reason == ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
    again = ServerFrame.FromString(accepted.SerializeToString())
    again.sequence = 3
    [repeated] = (await taken(station, again)).records
    assert (repeated.run_id, repeated.ended) == (first.run_id, False)


# ---- the start check -----------------------------------------------------------------------------------------------------


async def test_equal_keys_pass_the_start_check(lung: World, make_station: MakeStation):
    assert await find_keys(make_station()) is None


async def test_unpublished_keys_say_how_to_publish(lung: World, make_station: MakeStation):
    beta = lung["Beta"]
    key_ids = [beta.organization_key.encryption.key_id]
    lung.append(revoke_key_entry(lung.state, key_ids, None, governance_key=beta.governance_key, now=lung.now))
    problem = await find_keys(make_station())
    assert isinstance(problem, KeyUnpublished)
    assert "folkmoot key publish" in problem.message
    claim = organization("Beta anew").organization_key.claim(beta.address, 2, lung.now)
    lung.append(publish_key_entry(lung.state, claim, governance_key=beta.governance_key, now=lung.now))
    assert isinstance(await find_keys(make_station()), KeyMismatch)


async def test_another_key_is_refused_with_both_fingerprints_and_nothing_is_written(
    lung: World, make_station: MakeStation
):
    station = make_station()
    stranger = organization("Stranger").organization_key
    ring(station, stranger)
    place(station, stranger)
    before = sorted(path.name for path in station.directory.iterdir())
    problem = await find_keys(station)
    assert isinstance(problem, KeyMismatch)
    for key in (stranger, lung["Beta"].organization_key):
        assert key.fingerprint in problem.message
    assert sorted(path.name for path in station.directory.iterdir()) == before


async def test_a_key_beside_is_found_at_the_start(lung: World, make_station: MakeStation):
    former, new = rotate(lung, "Beta")
    station = make_station()
    ring(station, former)
    place(station, former)
    place(station, new, "organization.new.pem")
    assert await find_keys(station) is None
