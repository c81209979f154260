"""A server that has runs wait for the ledger, so that more of them are executed than their organization's day has room for."""

from datetime import datetime

from folkmoot.node.journal.records import RunRecord
from folkmoot.node.station import Station
from folkmoot.trust import timestamp
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.builders import DAY, World
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import POLICY, MakeStation, make_station
from tests.unit.node.ledgers import Ledgers
from tests.unit.node.test_intake import receipt_of
from tests.unit.node.test_waiting import judged, lung, not_understood, taken

__all__ = ["lung", "make_station"]

ONE_A_DAY = f"{POLICY}\n[quotas]\nruns_per_day = 1\n"


async def waiting_runs(station: Station, lung: World) -> tuple[Ledgers, list[RunRecord]]:
    server = await not_understood(station, lung)
    expires_at = timestamp(lung.now + 3 * DAY)
    frames = [assign(lung, sequence=number, expires_at=expires_at) for number in (1, 2)]
    return server, (await taken(station, *frames)).records


async def understood(station: Station, server: Ledgers, lung: World) -> None:
    lung.add_node("Gamma", "gamma-2")
    server.entries = list(lung.entries)
    await station.refresh()


async def test_a_run_that_waited_does_not_count_less_for_having_come_first(lung: World, make_station: MakeStation):
    station = make_station(policy=ONE_A_DAY)
    server, (first, second) = await waiting_runs(station, lung)
    await understood(station, server, lung)
    assert not (await judged(station, second)).ended
    late = await judged(station, first)
    assert receipt_of(late, station).reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED


async def test_runs_that_waited_over_midnight_count_on_the_day_on_which_they_are_accepted(
    lung: World, make_station: MakeStation
):
    station = make_station(policy=ONE_A_DAY)
    server, (first, second) = await waiting_runs(station, lung)
    tomorrow = station.now() + DAY

    def now() -> datetime:
        return tomorrow

    station.now = now
    await understood(station, server, lung)
    assert not (await judged(station, first)).ended
    late = await judged(station, second)
    assert receipt_of(late, station).reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED
