"""The ledger replica: verified from entry 0, kept on disk, shared by processes, never fooled by what a server shows."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.transport import RemoteError, Replica
from folkmoot.trust import FolkmootError, Reference, State, vote_entry
from folkmoot.trust.errors import LedgerEntryInvalid, LedgerFork, WrongCollaboration
from folkmoot.v1 import errors_pb2
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest, GetLedgerRequest, GetLedgerResponse
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import Organization, World, organization, world

LAST_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


class Ledgers:
    """A key service that shows whatever entries a test gives it, in small batches."""

    def __init__(self, entries: Sequence[Signed]) -> None:
        self.entries = list(entries)
        self.asked_from: list[int] = []

    async def GetLedger(self, request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
        self.asked_from.append(request.from_sequence)
        for start in range(request.from_sequence, len(self.entries), 2):
            yield GetLedgerResponse(entries=self.entries[start : start + 2])

    async def AppendLedgerEntry(self, request: AppendLedgerEntryRequest, **_: Any) -> None:
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


async def test_fork_at_the_newest_known_entry_is_caught(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    theirs = [*lung.entries[:-1], lung.entries[-2]]
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    before = replica.verified
    with pytest.raises(LedgerFork) as caught:
        await replica.refresh(Ledgers(theirs))  # type: ignore[arg-type]
    assert caught.value.reason == errors_pb2.ERROR_REASON_LEDGER_FORK
    assert replica.verified == before


async def test_server_that_is_behind_takes_nothing_away(lung: World, tmp_path: Path):
    replica = Replica(tmp_path, reference(lung))
    await replica.refresh(Ledgers(lung.entries))  # type: ignore[arg-type]
    assert await replica.refresh(Ledgers(lung.entries[:2])) == lung.state  # type: ignore[arg-type]
    assert Replica(tmp_path, reference(lung)).verified == lung.state


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
