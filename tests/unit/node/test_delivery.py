"""Delivery: the same bytes are offered until the server has them, and not once it says that the run is settled otherwise."""

from typing import Any

import pytest

from folkmoot.node.journal import records
from folkmoot.node.link import delivery
from folkmoot.transport import INLINE_BYTES
from folkmoot.trust import BytesSource, FolkmootError, inspect
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_service_pb2 import CommitRunRequest
from tests.unit.node.conftest import MakeStation
from tests.unit.node.test_runs import MakeRun, frames, make_run, sent
from tests.unit.node.test_subtasks import FakeServer

__all__ = ["make_run", "sent"]


class Committing(FakeServer):
    """A server that refuses as often as it is told to."""

    def __init__(self, *refusals: int) -> None:
        super().__init__()
        self.refusals = list(refusals)
        self.offered: list[CommitRunRequest] = []

    @property
    def tasks(self) -> Any:
        return self

    async def CommitRun(self, request: CommitRunRequest, **_: Any) -> None:
        self.offered.append(request)
        if self.refusals:
            raise FolkmootError(self.refusals.pop(0), "refused")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "pause_seconds", lambda attempt: 0.0)


async def delivered(hub: Committing, make_run: MakeRun, make_station: MakeStation, size: int = 10) -> Any:
    run = await make_run(station=make_station(connection=hub))
    await run.write_result("application/octet-stream", frames(bytes(size)))
    await delivery.deliver(run.station, run.record)
    return await run.station.journal.transact(lambda db: records.get_run(db, *run.record.key))


async def test_a_small_result_rides_along_with_its_receipt(make_run: MakeRun, make_station: MakeStation):
    hub = Committing()
    record = await delivered(hub, make_run, make_station)
    [request] = hub.offered
    assert request.receipt.SerializeToString() == record.receipt
    assert inspect(BytesSource(request.envelope)).digest == record.result_digest
    assert record.committed_at_us


async def test_a_large_result_is_uploaded_before(make_run: MakeRun, make_station: MakeStation):
    hub = Committing()
    record = await delivered(hub, make_run, make_station, size=INLINE_BYTES)
    assert list(hub.uploaded) == [record.result_digest]
    assert hub.offered[0].envelope == b""


async def test_whatever_the_server_refuses_for_is_asked_again_with_the_same_bytes(
    make_run: MakeRun, make_station: MakeStation
):
    hub = Committing(ErrorReason.ERROR_REASON_INTERNAL, ErrorReason.ERROR_REASON_SIGNATURE_INVALID)
    record = await delivered(hub, make_run, make_station)
    assert len(hub.offered) == 3
    assert hub.offered[0] == hub.offered[2]
    assert record.committed_at_us


@pytest.mark.parametrize("reason", ["RUN_CONFLICT", "RUN_NOT_FOUND"])
async def test_what_is_settled_otherwise_is_dropped(make_run: MakeRun, make_station: MakeStation, reason: str):
    hub = Committing(ErrorReason.Value(f"ERROR_REASON_{reason}"))
    record = await delivered(hub, make_run, make_station)
    assert len(hub.offered) == 1
    assert record.committed_at_us
