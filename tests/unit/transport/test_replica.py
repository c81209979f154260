"""The ledger replica: verified from entry 0, kept on disk, shared by processes, never fooled by what a server shows."""

import asyncio
import itertools
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.transport import RemoteError, Replica
from folkmoot.transport.records import dump_records
from folkmoot.trust import FolkmootError, Reference, State, TrustError, fingerprint, replay, serialize, sign, vote_entry
from folkmoot.trust.errors import (
    LedgerEntryInvalid,
    LedgerFork,
    LedgerHeadMoved,
    LedgerUpgradeNeeded,
    WrongCollaboration,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest, GetLedgerRequest, GetLedgerResponse
from folkmoot.v1.ledger_pb2 import Decision, LedgerEntry
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import Organization, World, organization, world

LAST_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


class Ledgers:
    """A key service that shows whatever entries a test gives it, in small batches."""

    def __init__(self, entries: Sequence[Signed]) -> None:
        self.entries = list(entries)
        self.asked_from: list[int] = []
        self.closed = self.hidden = False

    async def GetLedger(self, request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
        self.asked_from.append(request.from_sequence)
        if self.hidden:
            raise RemoteError(errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND, "not for you")
        for start in range(request.from_sequence, len(self.entries), 2):
            yield GetLedgerResponse(entries=self.entries[start : start + 2])

    async def AppendLedgerEntry(self, request: AppendLedgerEntryRequest, **_: Any) -> None:
        if self.closed:
            raise RemoteError(errors_pb2.ERROR_REASON_NOT_ALLOWED, "not by you")
        if request.entry not in self.entries:
            if LedgerEntry.FromString(request.entry.body).sequence != len(self.entries):
                raise RemoteError(errors_pb2.ERROR_REASON_LEDGER_ENTRY_INVALID, "does not follow")
            self.entries.append(request.entry)


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"), now=LAST_YEAR)


def reference(lung: World) -> Reference:
    return Reference("lung", lung.genesis)


async def test_fetches_verifies_and_remembers(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    assert replica.state is None
    state = await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert state == lung.state
    again = Replica(tmp_path, reference(lung))
    assert again.verified == lung.state
    assert again.entries == lung.entries


async def test_asks_only_for_what_is_new(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    lung.join(organization("Delta"))
    server.entries = list(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    assert replica.verified.member("Delta").name == "Delta"
    assert server.asked_from == [0, len(replica.entries) - 3]  # the newest known one, then Delta's two votes


def forked(lung: World, at: int) -> list[Signed]:
    """Another history: that of `lung` up to an entry, then other ones to the same length."""
    other = World(lung.organizations, lung.entries[:at], replay(lung.entries[:at]), lung.now)
    while len(other.entries) < len(lung.entries):
        other.vote("Alpha", other.join_request(organization(f"Other {len(other.entries)}")))
    return other.entries


@pytest.mark.parametrize("back", [1, 2])
async def test_fork_is_caught_wherever_it_began(lung: World, tmp_path: Path, back: int):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    began = len(lung.entries) - back
    theirs = forked(lung, began)
    with pytest.raises(LedgerFork, match="succeed") as caught:
        await replica.refresh(Ledgers(theirs))  # type: ignore[arg-type]
    assert caught.value.reason == errors_pb2.ERROR_REASON_LEDGER_FORK
    assert replica.verified == lung.state
    evidence = json.loads(Path(caught.value.metadata["evidence"]).read_text())
    kept = {side: Signed.FromString(b64decode(evidence[side]["signed"])) for side in ("ours", "theirs")}
    assert kept == {"ours": lung.entries[began], "theirs": theirs[began]}


@pytest.mark.parametrize("forgery", ["signed by nobody", "signed by a stranger", "signed by another member"])
async def test_another_entry_that_no_member_has_signed_is_no_fork(lung: World, tmp_path: Path, forgery: str):
    replica, honest = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(honest)  # type: ignore[arg-type]
    theirs = forked(lung, len(lung.entries) - 1)
    body, kind = theirs[-1].body, SignedKind.SIGNED_KIND_LEDGER_ENTRY
    if forgery == "signed by nobody":
        theirs[-1] = Signed(kind=kind, body=body, key_id=theirs[-1].key_id, signature=bytes(64))
    elif forgery == "signed by a stranger":
        theirs[-1] = sign(kind, body, key=organization("Delta").governance_key, genesis=lung.genesis)
    else:
        theirs[-1] = sign(kind, body, key=lung["Beta"].governance_key, genesis=lung.genesis)
    with pytest.raises(LedgerEntryInvalid):
        await replica.refresh(Ledgers(theirs))  # type: ignore[arg-type]
    assert replica.fork is None
    assert await replica.refresh(honest) == lung.state  # type: ignore[arg-type]


async def test_server_that_shows_now_one_entry_and_now_another_gives_no_evidence(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    theirs, get = forked(lung, len(lung.entries) - 1), server.GetLedger

    async def two_faced(request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
        server.entries = theirs if request.from_sequence else lung.entries
        async for batch in get(request):
            yield batch

    server.GetLedger = two_faced  # type: ignore[method-assign]
    with pytest.raises(LedgerEntryInvalid, match="now another"):
        await replica.refresh(server)  # type: ignore[arg-type]
    assert replica.fork is None


async def test_fork_is_remembered_over_restarts_until_a_person_removes_the_evidence(lung: World, tmp_path: Path):
    replica, honest = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(honest)  # type: ignore[arg-type]
    with pytest.raises(LedgerFork) as caught:
        await replica.refresh(Ledgers(forked(lung, 3)))  # type: ignore[arg-type]
    evidence = Path(caught.value.metadata["evidence"])
    first = evidence.read_bytes()
    again = Replica(tmp_path, reference(lung))
    for known in (replica, again):
        assert known.fork is not None
        assert str(evidence) in known.fork.message
        with pytest.raises(LedgerFork):
            await known.refresh(honest)  # type: ignore[arg-type]
        assert known.verified == lung.state  # reading goes on
    assert evidence.read_bytes() == first
    evidence.unlink()
    assert again.fork is None
    assert await again.refresh(honest) == lung.state  # type: ignore[arg-type]


async def test_first_evidence_is_kept_when_more_comes(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    replica.pin_fork(LedgerFork("seen", metadata={"sequence": "2"}), lung.entries[0])
    error = replica.pin_fork(LedgerFork("seen", metadata={"sequence": "3"}), lung.entries[0])
    evidence = json.loads(Path(error.metadata["evidence"]).read_text())
    assert evidence["metadata"]["sequence"] == "2"
    assert Signed.FromString(b64decode(evidence["ours"]["signed"])) == lung.entries[2]


async def test_evidence_that_was_damaged_still_stops_new_work(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    replica.path.with_suffix(".fork.json").write_text("[]")
    with pytest.raises(LedgerFork):
        await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]


async def test_fork_of_what_another_process_has_fetched_is_caught(lung: World, tmp_path: Path):
    one, other = (Replica(tmp_path, reference(lung)) for _ in range(2))
    known = len(lung.entries) - 1
    await one.refresh(Ledgers(lung.entries[:known]))  # type: ignore[arg-type]
    await other.refresh(Ledgers(lung.entries[:known]))  # type: ignore[arg-type]
    await one.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    with pytest.raises(LedgerFork):
        await other.refresh(Ledgers(forked(lung, known)))  # type: ignore[arg-type]


async def test_server_that_is_behind_takes_nothing_away(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert await replica.refresh(Ledgers(lung.entries[:2])) == lung.state  # type: ignore[arg-type]
    assert Replica(tmp_path, reference(lung)).verified == lung.state


@pytest.mark.parametrize("left", [0, 1, 2, 5])
async def test_server_that_is_behind_gets_back_what_it_lost(lung: World, tmp_path: Path, left: int):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    server.entries = lung.entries[:left]
    assert await replica.refresh(server) == lung.state  # type: ignore[arg-type]
    assert server.entries == lung.entries


async def test_server_that_shows_only_the_beginning_to_who_has_gone_has_lost_nothing(
    lung: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    class WithAHorizon(Ledgers):
        """It has the newest entry, and does not show it."""

        async def AppendLedgerEntry(self, request: AppendLedgerEntryRequest, **_: Any) -> None:
            assert request.entry == lung.entries[-1]

    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert await replica.refresh(WithAHorizon(lung.entries[:-1])) == lung.state  # type: ignore[arg-type]
    assert "lost" not in caplog.text
    await replica.refresh(Ledgers(lung.entries[:-1]))  # type: ignore[arg-type]
    assert "the server had lost 1 entries" in caplog.text


async def test_many_heal_at_once(lung: World, tmp_path: Path):
    replicas = [Replica(tmp_path / str(number), reference(lung)) for number in range(3)]
    server = Ledgers(lung.entries)
    for replica in replicas:
        await replica.refresh(server)  # type: ignore[arg-type]
    server.entries = lung.entries[:1]
    await asyncio.gather(*(replica.refresh(server) for replica in replicas))  # type: ignore[arg-type]
    assert server.entries == lung.entries


async def test_server_that_went_on_without_what_it_lost_shows_a_fork(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    with pytest.raises(LedgerFork):
        await replica.refresh(Ledgers(forked(lung, 3)[:4]))  # type: ignore[arg-type]


async def test_fork_that_begins_while_a_server_is_healed_is_caught(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    server.entries = lung.entries[:3]

    async def overtaken(request: AppendLedgerEntryRequest, **_: Any) -> None:
        server.entries = forked(lung, 3)[:4]
        raise RemoteError(errors_pb2.ERROR_REASON_LEDGER_HEAD_MOVED, f"not {len(request.entry.body)} bytes")

    server.AppendLedgerEntry = overtaken  # type: ignore[method-assign]
    with pytest.raises(LedgerFork):
        await replica.refresh(server)  # type: ignore[arg-type]


async def test_server_that_does_not_take_its_entries_back_stops_nobody(
    lung: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    server.entries, server.closed = lung.entries[:2], True
    assert await replica.refresh(server) == lung.state  # type: ignore[arg-type]
    assert "does not take them from here" in caplog.text


async def test_who_may_not_see_the_ledger_any_more_is_told_so(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    server.hidden = True
    for there in (lung.entries, []):  # Those who lost everything get it back even by somebody who may not see it.
        server.entries = list(there)
        with pytest.raises(RemoteError) as refused:
            await replica.refresh(server)  # type: ignore[arg-type]
        assert refused.value.reason == errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND
        assert server.entries == lung.entries
    assert replica.verified == lung.state


class Lies(Ledgers):
    """A key service that sends whatever batches a test gives it, again and again if they are endless."""

    def __init__(self, batches: Iterable[Any]) -> None:
        super().__init__([])
        self.batches = batches
        self.sent = 0

    async def GetLedger(self, request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
        for batch in self.batches:
            self.sent += 1
            assert self.sent < 100, "nobody stops it"
            yield batch


async def refused_at_once(lung: World, folder: Path, batches: Iterable[Any], known: int = 0) -> FolkmootError:
    replica = Replica(folder, reference(lung))
    if known:
        await replica.refresh(Ledgers(lung.entries[:known]))  # type: ignore[arg-type]
    with pytest.raises(FolkmootError) as caught:
        await replica.refresh(Lies(batches))  # type: ignore[arg-type]
    assert len(Replica(folder, reference(lung)).entries) == len(replica.entries)
    return caught.value


async def test_endless_repetition_of_one_entry(lung: World, tmp_path: Path):
    same = itertools.repeat(GetLedgerResponse(entries=lung.entries[:1]))
    assert isinstance(await refused_at_once(lung, tmp_path, same), LedgerEntryInvalid)


async def test_endless_repetition_of_what_is_known(lung: World, tmp_path: Path):
    same = itertools.repeat(GetLedgerResponse(entries=lung.entries[4:5]))
    assert isinstance(await refused_at_once(lung, tmp_path, same, known=5), LedgerEntryInvalid)


async def test_endless_empty_batches(lung: World, tmp_path: Path):
    assert isinstance(await refused_at_once(lung, tmp_path, itertools.repeat(GetLedgerResponse())), LedgerEntryInvalid)


async def test_batch_that_does_not_parse(lung: World, tmp_path: Path):
    assert isinstance(await refused_at_once(lung, tmp_path, [None]), LedgerEntryInvalid)


@pytest.mark.parametrize("junk", [b"", b"\xff" * 40, bytes(1024 * 1024)])
@pytest.mark.parametrize("known", [0, 3])
async def test_entries_of_junk(lung: World, tmp_path: Path, junk: bytes, known: int):
    batches = itertools.repeat(GetLedgerResponse(entries=[Signed(body=junk)]))
    assert isinstance(await refused_at_once(lung, tmp_path, batches, known), TrustError)
    assert Replica(tmp_path, reference(lung)).fork is None


async def test_gap(lung: World, tmp_path: Path):
    batches = [GetLedgerResponse(entries=[lung.entries[2], lung.entries[4]])]
    assert isinstance(await refused_at_once(lung, tmp_path, batches, known=3), LedgerEntryInvalid)


async def test_entry_of_a_later_release_stops_there_and_what_is_before_is_kept(lung: World, tmp_path: Path):
    later = LedgerEntry.FromString(lung.entries[-1].body)
    later.intent, later.sequence, later.previous_hash = (
        "organization.dance",
        len(lung.entries),
        lung.state.position.hash,
    )
    key = lung["Gamma"].governance_key
    signed = sign(SignedKind.SIGNED_KIND_LEDGER_ENTRY, serialize(later), key=key, genesis=lung.genesis)
    replica = Replica(tmp_path, reference(lung))
    for _ in range(2):
        with pytest.raises(LedgerUpgradeNeeded, match=r"organization\.dance"):
            await replica.refresh(Ledgers([*lung.entries, signed]))  # type: ignore[arg-type]
        assert replica.verified == lung.state
    assert Replica(tmp_path, reference(lung)).verified == lung.state


async def test_server_that_says_for_ever_that_another_was_faster(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)

    async def beaten(request: AppendLedgerEntryRequest, **_: Any) -> None:
        raise RemoteError(errors_pb2.ERROR_REASON_LEDGER_HEAD_MOVED, "another was faster")

    server.AppendLedgerEntry = beaten  # type: ignore[method-assign]
    request = lung.join_request(organization("Delta"))
    with pytest.raises(LedgerHeadMoved, match="shows none"):
        await replica.append(
            server,  # type: ignore[arg-type]
            lambda state: vote_entry(
                state,
                request,
                Decision.DECISION_APPROVE,
                governance_key=lung["Alpha"].governance_key,
                now=lung.now,
            ),
        )


async def test_nothing_new_costs_one_call(lung: World, tmp_path: Path):
    replica, server = Replica(tmp_path, reference(lung)), Ledgers(lung.entries)
    await replica.refresh(server)  # type: ignore[arg-type]
    server.asked_from.clear()
    await replica.refresh(server)  # type: ignore[arg-type]
    assert server.asked_from == [len(lung.entries) - 1]


async def test_another_collaboration_is_refused(lung: World, tmp_path: Path):
    other = world(("Mallory",), name="lung-of-mallory", now=LAST_YEAR)
    replica = Replica(tmp_path, reference(lung))
    with pytest.raises(WrongCollaboration):
        await replica.refresh(Ledgers(other.entries))  # type: ignore[arg-type]
    assert replica.state is None
    assert Replica(tmp_path, reference(lung)).state is None


async def test_no_entries_is_a_clear_error(lung: World, tmp_path: Path):
    with pytest.raises(FolkmootError) as caught:
        await Replica(tmp_path, reference(lung)).refresh(Ledgers([]))  # type: ignore[arg-type]
    assert caught.value.reason == errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND


@pytest.mark.parametrize("kept_bytes", [1, 3, 4, 5, 40])
async def test_entry_written_by_halves_is_cut_off_and_fetched_again(lung: World, tmp_path: Path, kept_bytes: int):
    await Replica(tmp_path, reference(lung)).refresh(Ledgers(lung.entries[:3]))  # type: ignore[arg-type]
    [path] = tmp_path.iterdir()
    whole = path.stat().st_size
    await Replica(tmp_path, reference(lung)).refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    with path.open("r+b") as file:
        file.truncate(whole + kept_bytes)
    replica = Replica(tmp_path, reference(lung))
    assert len(replica.entries) == 3
    assert path.stat().st_size == whole
    assert await replica.refresh(Ledgers(lung.entries)) == lung.state  # type: ignore[arg-type]


async def test_entry_altered_on_disk_is_refused(lung: World, tmp_path: Path):
    await Replica(tmp_path, reference(lung)).refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"Gamma", b"Delta"))
    with pytest.raises(LedgerEntryInvalid):
        Replica(tmp_path, reference(lung))


@cache
def known() -> World:
    return world(("Alpha", "Beta"), now=LAST_YEAR)


@given(st.data())
def test_file_of_anything_gives_a_true_beginning_of_the_ledger_or_a_typed_error(data: st.DataObject):
    lung = known()
    whole = dump_records(entry.SerializeToString() for entry in lung.entries)
    begin = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(begin, min(len(whole), begin + 200)))
    content = whole[:begin] + data.draw(st.binary(max_size=200)) + whole[end:]
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{fingerprint(lung.genesis)}.ledger"
        path.write_bytes(content)
        try:
            replica = Replica(Path(folder), reference(lung))
        except (LedgerEntryInvalid, LedgerUpgradeNeeded):
            return
        bodies = [entry.body for entry in replica.entries]
        assert bodies == [entry.body for entry in lung.entries[: len(bodies)]]


async def test_two_processes_share_one_file(lung: World, tmp_path: Path):
    one, other = (Replica(tmp_path, reference(lung)) for _ in range(2))
    await asyncio.gather(one.refresh(Ledgers(lung.entries)), other.refresh(Ledgers(lung.entries)))  # type: ignore[arg-type]
    assert one.verified == other.verified == lung.state
    assert Replica(tmp_path, reference(lung)).entries == lung.entries


async def test_append_makes_the_entry_anew_when_another_was_faster(lung: World, tmp_path: Path):
    delta, epsilon = organization("Delta"), organization("Epsilon")
    server, replica = Ledgers(lung.entries), Replica(tmp_path, reference(lung))
    made: list[int] = []

    def vote_for(applicant: Organization, voter: str) -> Callable[[State], Signed]:
        request = lung.join_request(applicant)
        return lambda state: vote_entry(
            state,
            request,
            Decision.DECISION_APPROVE,
            governance_key=lung[voter].governance_key,
            now=lung.now + timedelta(seconds=len(made)),
            created_by="admin",
        )

    honest = server.AppendLedgerEntry

    async def beaten(request: AppendLedgerEntryRequest, **_: Any) -> None:
        server.AppendLedgerEntry = honest  # type: ignore[method-assign]
        lung.append(vote_for(epsilon, "Beta")(lung.state))
        server.entries = list(lung.entries)
        raise RemoteError(errors_pb2.ERROR_REASON_LEDGER_HEAD_MOVED, "another was faster")

    server.AppendLedgerEntry = beaten  # type: ignore[method-assign]
    vote = vote_for(delta, "Alpha")

    def make(state: State) -> Signed:
        made.append(state.position.sequence)
        return vote(state)

    await replica.append(server, make)  # type: ignore[arg-type]
    assert made == [len(lung.entries) - 2, len(lung.entries) - 1]
    assert len(replica.entries) == len(server.entries) == len(lung.entries) + 1


async def test_disk_that_is_full_costs_this_refresh_and_not_the_replica(
    lung: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries[:3]))  # type: ignore[arg-type]

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("folkmoot.transport.replica.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert len(replica.entries) == replica.verified.position.sequence + 1 == 3
    assert await replica.refresh(Ledgers(lung.entries)) == lung.state  # type: ignore[arg-type]
