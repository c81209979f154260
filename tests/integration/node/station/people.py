"""People at a station: what they do at its local socket, and what they find in its journal."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from folkmoot.node.proxy.sockets import ADMIN_SOCKET_NAME, reachable_path
from folkmoot.node.storage import egress
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.station_service_pb2 import EgressRecord, StationRun, StationStatus
from folkmoot.v1.station_service_pb2_grpc import StationServiceStub
from folkmoot.v1.task_pb2 import RunState
from tests.polling import until


@dataclass
class Person:
    """Somebody at a node's local socket."""

    stub: Any

    async def runs(self, *states: RunState.ValueType) -> list[StationRun]:
        return list((await self.stub.ListStationRuns(pb.ListStationRunsRequest(states=states))).runs)

    async def waiting(self, state: RunState.ValueType) -> StationRun:
        """The one run in a state, once there is one."""

        async def there() -> bool:
            return bool(await self.runs(state))

        await until(there, f"a run that is {RunState.Name(state)}")
        [run] = await self.runs(state)
        return run

    async def show(self, run_id: str) -> StationRun:
        run: StationRun = (await self.stub.GetStationRun(pb.GetStationRunRequest(run_id=run_id))).run
        return run

    async def approve(self, run_id: str, *, by: str = "uid:1000") -> StationRun:
        return await self.decide(run_id, Decision.DECISION_APPROVE, by)

    async def decline(self, run_id: str, *, by: str = "uid:1000") -> StationRun:
        return await self.decide(run_id, Decision.DECISION_DECLINE, by)

    async def decide(self, run_id: str, decision: Decision.ValueType, by: str) -> StationRun:
        request = pb.DecideRunRequest(run_id=run_id, decision=decision, decided_by=by)
        run: StationRun = (await self.stub.DecideRun(request)).run
        return run

    async def release(self, run_id: str, *, decision: Decision.ValueType = Decision.DECISION_APPROVE) -> StationRun:
        request = pb.DecideReleaseRequest(run_id=run_id, decision=decision, decided_by="uid:1000")
        run: StationRun = (await self.stub.DecideRelease(request)).run
        return run

    async def look(self, run_id: str) -> tuple[str, bytes]:
        head, *parts = [each async for each in self.stub.ReadHeldResult(pb.ReadHeldResultRequest(run_id=run_id))]
        return head.head.content_type, b"".join(part.data for part in parts)

    async def be(self, availability: Availability.ValueType) -> None:
        await self.stub.SetAvailability(pb.SetAvailabilityRequest(availability=availability))

    async def status(self) -> StationStatus:
        [status] = (await self.stub.GetStationStatus(pb.GetStationStatusRequest())).stations
        return status


@asynccontextmanager
async def at_station(folder: Path) -> AsyncIterator[Person]:
    """A person at the node whose node.toml is in a folder."""
    with reachable_path(folder / "state" / ADMIN_SOCKET_NAME) as path:
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            yield Person(StationServiceStub(channel))


def verified_egress(folder: Path) -> int:
    """Verify what the journal of the node in a folder says has left; return how many records there are."""
    with _journal(folder) as connection:
        return egress.verify(connection)


def records_of_egress(folder: Path) -> list[EgressRecord]:
    """What has left the node in a folder."""
    with _journal(folder) as connection:
        return [EgressRecord.FromString(data) for data in egress.all_records(connection)]


@contextmanager
def _journal(folder: Path) -> Iterator[sqlite3.Connection]:
    [path] = (folder / "state").glob("*/journal.db")
    with closing(sqlite3.connect(path)) as connection:
        yield connection
