"""What organizations use: counted with the things themselves, seen as far as the caller's rules reach."""

from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.server.store import usage_rows
from folkmoot.server.store.usage_rows import Counted
from folkmoot.trust import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import payload_service_pb2 as payloads
from folkmoot.v1 import task_service_pb2 as pb
from tests.integration.harness import User, reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import task


async def used(hub: Hub, by: User, **filters) -> dict[str, admin.Usage]:
    """Return today's usage by organization's name."""
    await hub.server.running.dispatch.fetched.write()
    answer = await hub.server.admin.GetUsage(admin.GetUsageRequest(**filters), metadata=by.metadata)
    names = {each.address: name for name, each in hub.lung.organizations.items()}
    return {names[each.organization_id]: each for each in answer.usage}


async def test_runs_count_for_who_asked_and_who_executed(hub: Hub):
    root = await hub.server.root()
    sealed = task(hub.lung, ["Beta", "Gamma"])
    await hub.create(sealed)
    await hub.commit(sealed, "Beta")
    first = await used(hub, root)
    assert (first["Alpha"].runs_asked_for, first["Alpha"].runs_executed) == (1, 0)
    assert (first["Beta"].runs_asked_for, first["Beta"].runs_executed) == (0, 1)
    assert first["Beta"].run_seconds > 0
    assert "Gamma" not in first
    await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    second = await used(hub, root)
    assert second["Alpha"].runs_asked_for == 2, "one that no node had is asked for, and executed by nobody"
    assert "Gamma" not in second


async def test_what_is_repeated_is_counted_once(hub: Hub):
    root = await hub.server.root()
    sealed = task(hub.lung, ["Beta"])
    receipt, node = sealed.commit("Beta"), await hub.node("Beta")
    for _ in range(3):
        await hub.create(sealed)
        await hub.tasks.CommitRun(receipt, metadata=node)
    now = await used(hub, root)
    assert (now["Alpha"].runs_asked_for, now["Beta"].runs_executed) == (1, 1)
    assert now["Alpha"].bytes_stored == sum(map(len, sealed.request().envelopes))


async def test_fetched_bytes_count_for_who_fetches(hub: Hub):
    root = await hub.server.root()
    sealed = task(hub.lung, ["Beta"])
    await hub.create(sealed)
    run = await hub.commit(sealed, "Beta")
    stored = (await used(hub, root))["Beta"].bytes_stored
    assert stored == run.result_size_bytes > 0
    request = payloads.DownloadPayloadRequest(envelope_digest=run.result_digest, offset=1)
    async for _ in hub.server.payloads.DownloadPayload(request, metadata=hub.ada):
        pass
    assert (await used(hub, root))["Alpha"].bytes_fetched == stored - 1


async def test_usage_is_seen_as_far_as_the_scope_reaches(hub: Hub):
    sealed = task(hub.lung, ["Beta", "Gamma"])
    await hub.create(sealed)
    await hub.commit(sealed, "Beta")
    alpha = hub.admins["Alpha"]
    coordinator = await hub.server.user("coordinator", alpha.organization_account_id, ["Collaboration Admin"])
    assert set(await used(hub, alpha)) == {"Alpha"}
    assert set(await used(hub, coordinator)) == {"Alpha", "Beta"}
    assert set(await used(hub, coordinator, organization_id=hub.lung["Beta"].address)) == {"Beta"}
    assert await used(hub, alpha, organization_id=hub.lung["Beta"].address) == {}


@pytest.mark.both_databases
async def test_usage_comes_in_pages_by_day_and_organization(hub: Hub):
    root, today = await hub.server.root(), hub.clock()
    counted = [Counted(organization_id=hub.lung[name].address, bytes_stored=1) for name in ("Gamma", "Alpha", "Beta")]
    for days in range(40):
        for _ in range(2):
            await hub.server.running.core.store.write(
                lambda connection: usage_rows.add(connection, today - timedelta(days=days), *counted)  # noqa: B023
            )
    seen, token = [], ""
    while True:
        request = admin.GetUsageRequest(page_size=7, page_token=token)
        answer = await hub.server.admin.GetUsage(request, metadata=root.metadata)
        assert {each.bytes_stored for each in answer.usage} == {2}
        seen += [(each.day.seconds, each.organization_id) for each in answer.usage]
        if not (token := answer.next_page_token):
            break
    assert (len(seen), seen) == (90, sorted(seen)), "the thirty days until today"
    assert {seconds % 86400 for seconds, _ in seen} == {0}
    yesterday = timestamp(today - timedelta(days=1))
    assert len(await used(hub, root, from_day=yesterday, until_day=yesterday)) == 3


async def test_bounds_of_a_period_belong_to_it_and_no_date_is_too_much(hub: Hub):
    today = hub.clock().replace(hour=0, minute=0, second=0, microsecond=0)
    address = hub.lung["Alpha"].address
    for days in (0, 1, 2, 3):
        counted = Counted(organization_id=address, bytes_stored=10**days)
        await hub.server.running.core.store.write(
            lambda connection: usage_rows.add(connection, today - timedelta(days=days), counted)  # noqa: B023
        )

    async def stored(first: Timestamp, last: Timestamp) -> int:
        request = admin.GetUsageRequest(from_day=first, until_day=last, organization_id=address)
        answer = await hub.server.admin.GetUsage(request, metadata=hub.ada)
        return sum(each.bytes_stored for each in answer.usage)

    noon, almost = timedelta(hours=12), timedelta(days=1, microseconds=-1)
    two, one = (timestamp(today - timedelta(days=days)) for days in (2, 1))
    assert await stored(two, one) == 110
    assert (
        await stored(timestamp(today - timedelta(days=2) + noon), timestamp(today - timedelta(days=1) + almost)) == 110
    )
    assert await stored(two, two) == 100

    beginning, end = Timestamp(seconds=1), Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    assert await stored(beginning, beginning) == 0
    assert await stored(end, end) == 0
    await hub.server.admin.GetUsage(admin.GetUsageRequest(until_day=beginning), metadata=hub.ada)
    for far in (admin.GetUsageRequest(from_day=beginning), admin.GetUsageRequest(from_day=beginning, until_day=end)):
        error = await refused(hub.server.admin.GetUsage(far, metadata=hub.ada))
        assert (reason(error), [field for field, _ in error.violations]) == ("INVALID_FIELD", ["from_day"])


async def test_period_that_ends_before_it_begins_is_refused(hub: Hub):
    now = hub.clock()
    request = admin.GetUsageRequest(from_day=timestamp(now), until_day=timestamp(now - timedelta(days=2)))
    error = await refused(hub.server.admin.GetUsage(request, metadata=hub.ada))
    assert (reason(error), [field for field, _ in error.violations]) == ("INVALID_FIELD", ["from_day"])
